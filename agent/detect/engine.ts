/**
 * DuckDB inside the agent: runs rules over parts. Our SQL only; users' SQL runs in a child process.
 */
import { DuckDBInstance } from '@duckdb/node-api'
import { columns } from '../event.ts'
import { queryOf } from './match.ts'
import type { Query } from './scan.ts'

export type RuleEngine = {
  readonly query: Query
  /** Makes the rows of parts readable as `part_events`, columns they left out as nulls. */
  readonly open: (paths: readonly string[]) => Promise<string>
  readonly close: () => void
}

/** Memory for one part's scan: the columns that rules read, 16 k rows. */
const memoryLimit = '128MB'

export async function openRuleEngine(): Promise<RuleEngine> {
  const instance = await DuckDBInstance.create(':memory:', {
    threads: '1',
    memory_limit: memoryLimit,
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
    temp_directory: '',
  })
  const connection = await instance.connect()
  const query = queryOf(connection)
  await query("SET TimeZone = 'UTC'")
  await query(`CREATE TABLE no_events (${columns.map(declaration).join(', ')})`)
  return {
    query,
    open: async (paths) => {
      const files = paths.map((path) => `'${path.replaceAll("'", "''")}'`).join(', ')
      await query(
        `CREATE OR REPLACE TEMP VIEW part_events AS SELECT * FROM no_events
         UNION ALL BY NAME SELECT * FROM
         read_parquet([${files}], hive_partitioning = false, union_by_name = true)`,
      )
      return 'part_events'
    },
    close: () => {
      connection.closeSync()
      instance.closeSync()
    },
  }
}

function declaration(column: (typeof columns)[number]): string {
  const types = {
    utf8: 'VARCHAR',
    // As text: DuckDB refuses a whole scan for one JSON value that it does not like.
    json: 'VARCHAR',
    time: 'TIMESTAMPTZ',
    u64: 'UBIGINT',
    i64: 'BIGINT',
    u32: 'UINTEGER',
    bytes: 'BLOB',
  } as const
  return `"${column.name}" ${types[column.type]}`
}
