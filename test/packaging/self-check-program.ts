/**
 * The smallest program with the two commands the packaging tests need. Built in place of
 * `agent/main.ts` where the test is about the packaging alone, and imports DuckDB at the top on purpose:
 * even then, nothing may be unpacked before it is used.
 */

import { DuckDBInstance } from '@duckdb/node-api'
import { buildInfo } from '../../agent/runtime/build-info.ts'
import { setNativeCacheDirectory } from '../../agent/runtime/native-library.ts'
import { selfCheck } from '../../agent/runtime/self-check.ts'

const [command, dataDirectory] = process.argv.slice(2)
if (dataDirectory !== undefined) setNativeCacheDirectory(`${dataDirectory}/cache`)
if (command === '__selfcheck') {
  console.log(JSON.stringify(await selfCheck()))
} else {
  console.log(buildInfo().version, typeof DuckDBInstance, process.env['FROM_DOTENV'] ?? '')
}
