/**
 * The SQL of what a query reads: `events` over the files of one log, and the views derived from it.
 *
 * Pure text: what columns the files have is found by the caller. Types come from `agent/event.ts`;
 * a column no file has (it was null in every row) is there as a typed null. The hidden columns are not
 * in any view. The derived views only read `attributes`, and read it tolerantly: a key that is missing or
 * of another type is null.
 */
import { type Column, type ColumnType, columns } from '../agent/event.ts'

/** What a query may read, by bare name: a schema or catalog before it is refused. */
export const relationNames = [
  'events',
  'findings',
  'gaps',
  'access',
  'sources',
  'lifecycle',
] as const
export type RelationName = (typeof relationNames)[number]

const sqlTypes: Readonly<Record<ColumnType, string>> = {
  utf8: 'VARCHAR',
  json: 'JSON',
  time: 'TIMESTAMP WITH TIME ZONE',
  u64: 'UBIGINT',
  i64: 'BIGINT',
  u32: 'UINTEGER',
  bytes: 'BLOB',
}

export type EventsColumn = {
  readonly name: string
  readonly type: string
  readonly meaning: string
}

/** The columns of `events`, in order, with their SQL types: for documentation, and for `/v1/fields`. */
export const eventsColumns: readonly EventsColumn[] = [
  { name: 'log_origin', type: 'VARCHAR', meaning: 'the log this event is in: its origin' },
  ...columns
    .filter((column) => !column.hidden)
    .map(({ name, type, meaning }) => ({ name, type: sqlTypes[type], meaning })),
]

/** Files whose columns can be read together, and the type DuckDB gives each column of them. */
export type FileSet = {
  readonly paths: readonly string[]
  readonly types: ReadonlyMap<string, string>
}

/** The relation `read_parquet` makes of the paths; absent columns of single files are null. */
export function scanSql(paths: readonly string[]): string {
  const list = paths.map(quote).join(', ')
  return `read_parquet([${list}], union_by_name = true, hive_partitioning = false)`
}

/**
 * `CREATE VIEW events`. Segments and parts are scanned apart, because their writers differ: a type is
 * made right within each set, where it does not stand in the way of the statistics of the other.
 */
export function eventsViewSql(origin: string, sets: readonly FileSet[]): string {
  const selects = sets
    .filter((set) => set.paths.length > 0)
    .map((set) => `SELECT ${selectList(origin, set.types)} FROM ${scanSql(set.paths)}`)
  const body =
    selects.length === 0
      ? `SELECT ${selectList(origin, new Map())} WHERE false`
      : selects.join(' UNION ALL ')
  return `CREATE VIEW events AS ${body}`
}

function selectList(origin: string, types: ReadonlyMap<string, string>): string {
  const stored = columns.filter((column) => !column.hidden)
  return [
    `${quote(origin)}::VARCHAR AS log_origin`,
    ...stored.map((column) => `${expression(column, types.get(column.name))} AS "${column.name}"`),
  ].join(', ')
}

function expression(column: Column, stored: string | undefined): string {
  const name = `"${column.name}"`
  const wanted = sqlTypes[column.type]
  if (stored === undefined) return `NULL::${wanted}`
  if (stored === wanted) return name
  // A document that is no JSON reads as null: the bytes are in `raw`, and one bad row stops no query.
  if (column.type === 'json') return `TRY_CAST(${name} AS JSON)`
  // Written without the UTC flag: it still counts from the epoch in UTC, as TimeZone is UTC here.
  return `CAST(${name} AS ${wanted})`
}

/** A string literal of SQL. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}

function unsigned(key: string): string {
  return `TRY_CAST(attributes->>'${key}' AS UBIGINT)`
}

/** The derived views, each over `events`. */
export const derivedViewsSql: Readonly<Record<Exclude<RelationName, 'events'>, string>> = {
  // `event` is the id origin@index; a bare index means this log.
  findings: `CREATE VIEW findings AS
   SELECT log_origin, leaf_index, time,
          attributes->>'rule_id' AS rule_id,
          attributes->>'rule_title' AS rule_title,
          attributes->>'level' AS level,
          CASE WHEN regexp_full_match(attributes->>'event', '[0-9]+')
               THEN log_origin || '@' || (attributes->>'event')
               ELSE attributes->>'event' END AS event_id,
          namespace, workload,
          attributes->'matched' AS matched,
          attributes
   FROM events WHERE source = 'meshtrail' AND kind = 'finding'`,
  gaps: `CREATE VIEW gaps AS
   SELECT log_origin, leaf_index, time,
          attributes->>'gen' AS gen,
          attributes->>'path' AS path,
          attributes->>'cause' AS cause,
          ${unsigned('from')} AS from_offset,
          ${unsigned('to')} AS to_offset,
          attributes->>'detail' AS detail
   FROM events WHERE source = 'meshtrail' AND kind = 'gap'`,
  access: `CREATE VIEW access AS
   SELECT log_origin, leaf_index, time,
          attributes->>'subject' AS who,
          attributes->>'sql' AS "sql",
          ${unsigned('rows')} AS "rows",
          TRY_CAST(attributes->>'elapsed_ms' AS DOUBLE) AS elapsed_ms,
          attributes->>'status' AS status
   FROM events WHERE source = 'meshtrail' AND kind = 'access'`,
  lifecycle: `CREATE VIEW lifecycle AS
   SELECT log_origin, leaf_index, time, node, attributes
   FROM events WHERE source = 'meshtrail' AND kind = 'lifecycle'`,
  sources: `CREATE VIEW sources AS
   SELECT log_origin, source, mesh, plane,
          count(*) AS events,
          count(*) FILTER (reason = 'unparsed') AS unparsed,
          min(time) AS first_time,
          max(time) AS last_time
   FROM events GROUP BY ALL`,
}
