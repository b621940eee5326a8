/**
 * A small data folder as the agent leaves it: one segment (1000 requests), one part by the part writer's
 * library (five events, few columns), one part of the agent's own events; and a key that no query may see.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { parquetWriteBuffer } from 'hyparquet-writer'
import type { LogFiles, ResultColumn, Row } from '../../query/frames.ts'
import { type LocalQuery, QueryRunner, type RunnerOptions } from '../../query/local.ts'

export const origin = 'node-1.test/log'
export const keySecret = 'SEED-THAT-NO-QUERY-MAY-READ'

export type DataFolder = {
  readonly path: string
  readonly files: LogFiles
  remove(): void
}

export function startRunner(options: Partial<RunnerOptions> = {}): QueryRunner {
  const entry = join(import.meta.dir, 'worker-entry.ts')
  return new QueryRunner({ command: [process.execPath, entry], ...options })
}

export async function createDataFolder(): Promise<DataFolder> {
  const path = mkdtempSync(join(tmpdir(), "meshtrail-query-it's "))
  for (const folder of ['keys', 'parts', 'segments/observed_date=2026-11-20']) {
    mkdirSync(join(path, folder), { recursive: true })
  }
  writeFileSync(join(path, 'keys/log.key'), keySecret, { mode: 0o600 })
  const segment = join(path, 'segments/observed_date=2026-11-20/0-1000-abcdef.parquet')
  const requests = join(path, 'parts/1000-5.parquet')
  const own = join(path, 'parts/1005-4.parquet')

  const instance = await DuckDBInstance.create(':memory:')
  const connection = await instance.connect()
  await connection.run(`SET TimeZone = 'UTC'`)
  await connection.run(`COPY (${segmentSql}) TO '${quoted(segment)}' (FORMAT parquet)`)
  await connection.run(`COPY (${ownSql}) TO '${quoted(own)}' (FORMAT parquet)`)
  connection.closeSync()
  instance.closeSync()
  writeFileSync(requests, new Uint8Array(partBytes()))

  return {
    path,
    files: { segments: [segment], parts: [requests, own] },
    remove: () => rmSync(path, { recursive: true, force: true }),
  }
}

function quoted(path: string): string {
  return path.replaceAll("'", "''")
}

/** Leaf 0 to 999, one a second from 09:00:00; every tenth denied; four principals. */
const segmentSql = `
  SELECT i::UBIGINT AS leaf_index,
         TIMESTAMPTZ '2026-11-20 09:00:00.000001Z' + to_seconds(i) AS ts,
         TIMESTAMPTZ '2026-11-20 09:00:00.5Z' + to_seconds(i) AS observed_ts,
         TIMESTAMPTZ '2026-11-20 09:00:00.000001Z' + to_seconds(i) AS time,
         'node-1' AS node, 'shop' AS namespace,
         'istio.access' AS source, 'request' AS kind,
         CASE WHEN i % 10 = 0 THEN 'denied' ELSE 'allowed' END AS verdict,
         'spiffe://cluster.local/ns/shop/sa/client-' || (i % 4) AS principal,
         CASE WHEN i % 2 = 0 THEN 'GET' ELSE 'POST' END AS method,
         '/items/' || (i % 100) AS path,
         (CASE WHEN i % 10 = 0 THEN 403 ELSE 200 END)::UINTEGER AS status,
         (i * 10)::BIGINT AS bytes_in, (1000 + i)::BIGINT AS duration_us,
         '{"route":"r' || (i % 3) || '","retries":' || (i % 5) || ',"tags":["a","b"]}' AS attributes,
         encode('line ' || i || chr(10)) AS raw,
         'gen0' AS _gen, '0,10' AS _ranges, 'stdout' AS _stream
  FROM range(1000) t(i)`

const ownSql = `
  SELECT (1005 + i)::UBIGINT AS leaf_index,
         TIMESTAMPTZ '2026-11-20 10:00:00Z' + to_seconds(i) AS observed_ts,
         TIMESTAMPTZ '2026-11-20 10:00:00Z' + to_seconds(i) AS time,
         'meshtrail' AS source, kind, attributes, encode(attributes) AS raw,
         '' AS _gen, '' AS _ranges, '' AS _stream
  FROM (VALUES
    (0, 'finding', '{"rule_id":"r-1","rule_title":"Denied often","level":"high","event":"10"}'),
    (1, 'gap', '{"gen":"ab","path":"/var/log/x.log","cause":"rotated","from":100,"to":250,"detail":"d"}'),
    (2, 'access', '{"subject":"alice","sql":"SELECT 1","rows":1,"elapsed_ms":2.5,"status":"ok"}'),
    (3, 'lifecycle', '{"event":"started"}')
  ) v(i, kind, attributes) ORDER BY i`

/** Leaf 1000 to 1004 with the physical types of the part writer. */
function partBytes(): ArrayBuffer {
  const count = 5
  const firstUs = Date.UTC(2026, 10, 20, 9, 30) * 1000
  const each = <T>(value: (index: number) => T): T[] =>
    Array.from({ length: count }, (_, i) => value(i))
  const utf8 = (name: string, value: (index: number) => string | undefined) => ({
    element: {
      name,
      type: 'BYTE_ARRAY',
      converted_type: 'UTF8',
      repetition_type: 'OPTIONAL',
    } as const,
    data: each(value),
  })
  const time = (name: string) => ({
    element: {
      name,
      type: 'INT64',
      converted_type: 'TIMESTAMP_MICROS',
      repetition_type: 'REQUIRED',
      logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' },
    } as const,
    data: each((i) => BigInt(firstUs + i)),
  })
  const columns = [
    {
      element: {
        name: 'leaf_index',
        type: 'INT64',
        converted_type: 'UINT_64',
        repetition_type: 'REQUIRED',
      } as const,
      data: each((i) => BigInt(1000 + i)),
    },
    time('observed_ts'),
    time('time'),
    utf8('source', () => 'istio.ztunnel'),
    utf8('kind', () => 'connection'),
    utf8('verdict', () => 'errored'),
    utf8('reason', () => 'tls_handshake_failed'),
    {
      element: {
        name: 'status',
        type: 'INT32',
        converted_type: 'UINT_32',
        repetition_type: 'OPTIONAL',
      } as const,
      data: each(() => 0),
    },
    utf8('attributes', (i) => (i === 0 ? 'this is no JSON' : '{"zt":true}')),
    {
      element: { name: 'raw', type: 'BYTE_ARRAY', repetition_type: 'REQUIRED' } as const,
      data: each((i) => new Uint8Array([0xff, 0x00, i])),
    },
  ]
  return parquetWriteBuffer({
    schema: [
      { name: 'root', num_children: columns.length },
      ...columns.map((column) => column.element),
    ],
    columnData: columns.map((column) => ({ name: column.element.name, data: column.data })),
  })
}

export type Collected = {
  readonly columns: readonly ResultColumn[]
  readonly rows: readonly Row[]
  readonly rowCount: number
  readonly cut: string | null
}

/** Runs a query to its end. */
export async function collect(
  runner: QueryRunner,
  query: LocalQuery,
  signal?: AbortSignal,
): Promise<Collected> {
  const answer = await runner.run(query, signal)
  const rows: Row[] = []
  for await (const batch of answer.batches) rows.push(...batch)
  return { columns: answer.columns, rows, ...answer.end() }
}

/** The processes among `pids` that still exist. */
export function alive(pids: readonly number[]): number[] {
  return pids.filter((pid) => {
    try {
      process.kill(pid, 0)
      return true
    } catch {
      return false
    }
  })
}
