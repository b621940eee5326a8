/** Opens DuckDB and asks it something: proof that this very program can answer SQL here. */

import { buildInfo } from './build-info.ts'
import { nativeLocation } from './native-library.ts'

/**
 * @returns `duckdb` (its version), `answer` (`42`), `version`, `commit`, and `library`: the directory
 *   DuckDB was loaded from, `memory`, or `node_modules`
 * @throws {OpsError} `disk` when the library cannot be loaded from anywhere
 */
export async function selfCheck(): Promise<Record<string, string>> {
  const { DuckDBInstance, version: duckdbVersion } = await import('@duckdb/node-api')
  const instance = await DuckDBInstance.create(':memory:')
  try {
    const connection = await instance.connect()
    try {
      const reader = await connection.runAndReadAll('select 42')
      const answer = reader.getRows()[0]?.[0]
      const { version, commit } = buildInfo()
      return {
        duckdb: duckdbVersion(),
        answer: String(answer),
        version,
        commit,
        library: libraryPlace(),
      }
    } finally {
      connection.closeSync()
    }
  } finally {
    instance.closeSync()
  }
}

function libraryPlace(): string {
  const location = nativeLocation()
  if (location === undefined) return 'node_modules'
  return location.kind === 'directory' ? location.path : 'memory'
}
