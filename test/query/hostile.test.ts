/**
 * What a query may not do. Every statement here is refused with a reason or bounded in time and memory, the
 * secret stays unread, and a sane query is answered afterwards by the same runner.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api'
import { OpsError } from '../../agent/errors.ts'
import { allow } from '../../query/allow.ts'
import { allowedFunctions, allowedTableFunctions } from '../../query/functions.ts'
import type { QueryRunner } from '../../query/local.ts'
import { relationNames } from '../../query/views.ts'
import { serialize } from '../../query/worker.ts'
import {
  alive,
  collect,
  createDataFolder,
  type DataFolder,
  keySecret,
  origin,
  startRunner,
} from './fixture.ts'

let data: DataFolder
let runner: QueryRunner
const memoryMb = 320

beforeAll(async () => {
  data = await createDataFolder()
  runner = startRunner({ memoryMb, waitingMax: 100 })
})
afterAll(async () => {
  await runner[Symbol.asyncDispose]()
  data.remove()
})

/** What became of a statement: `answered`, or the error. */
async function attempt(sql: string, timeoutMs = 5000): Promise<OpsError | string> {
  try {
    const answer = await collect(runner, {
      sql: withPaths(sql),
      files: data.files,
      origin,
      timeoutMs,
    })
    return `answered: ${JSON.stringify(answer.rows).slice(0, 200)}`
  } catch (thrown) {
    if (thrown instanceof OpsError) return thrown
    throw thrown
  }
}

function withPaths(sql: string): string {
  return sql.replaceAll('<data>', data.path.replaceAll("'", "''")).replaceAll('<part>', partPath())
}

function partPath(): string {
  return (data.files.parts[0] ?? '').replaceAll("'", "''")
}

async function expectSane(): Promise<void> {
  const sane = await collect(runner, {
    sql: 'SELECT count(*) FROM events',
    files: data.files,
    origin,
  })
  expect(sane.rows).toEqual([[1009]])
}

/** Refused before anything runs. `<data>` is the data folder, `<part>` a part the query may scan. */
const refused: readonly string[] = [
  // Files, by every door there is.
  `FROM read_parquet('<part>')`,
  `FROM parquet_scan('<part>')`,
  `FROM '<part>'`,
  `SELECT * FROM "<part>"`,
  `SELECT * FROM main."<part>"`,
  `FROM read_text('/etc/passwd')`,
  `FROM read_text('<data>/keys/log.key')`,
  `FROM read_blob('<data>/keys/log.key')`,
  `FROM read_csv('/etc/passwd')`,
  `FROM read_csv_auto('<data>/keys/log.key')`,
  `FROM read_json('<data>/keys/log.key')`,
  `FROM read_json_auto('/etc/passwd')`,
  `FROM read_ndjson('/etc/passwd')`,
  `FROM read_json_objects('/etc/passwd')`,
  `FROM sniff_csv('/etc/passwd')`,
  `FROM read_duckdb('/tmp/x.db')`,
  `FROM '/etc/passwd'`,
  `FROM '<data>/keys/*'`,
  `FROM 's3://bucket/x.parquet'`,
  `FROM 'https://example.com/x.parquet'`,
  `FROM glob('<data>/**')`,
  `FROM parquet_metadata('<part>')`,
  `FROM parquet_schema('<part>')`,
  `FROM parquet_kv_metadata('<part>')`,
  `FROM parquet_file_metadata('<part>')`,
  `FROM parquet_full_metadata('<part>')`,
  `FROM parquet_bloom_probe('<part>', 'principal', 'x')`,
  `SELECT * FROM events, read_text('<data>/keys/log.key')`,
  `SELECT (SELECT content FROM read_text('<data>/keys/log.key'))`,
  `SELECT CASE WHEN true THEN (SELECT content FROM read_text('<data>/keys/log.key')) END`,
  `WITH k AS (FROM read_text('<data>/keys/log.key')) SELECT * FROM k`,
  `SELECT * FROM events WHERE path IN (SELECT content FROM read_text('/etc/passwd'))`,
  `SELECT * FROM events ORDER BY (SELECT content FROM read_text('/etc/passwd'))`,
  `SELECT * FROM events LIMIT (SELECT count(*) FROM read_text('/etc/passwd'))`,
  `SELECT * FROM events QUALIFY row_number() OVER (ORDER BY (SELECT content FROM read_text('/etc/passwd'))) = 1`,
  `SELECT list_transform([1], lambda x: (SELECT content FROM read_text('/etc/passwd')))`,
  `SELECT count(*) FILTER ((SELECT content FROM read_text('/etc/passwd')) = '') FROM events`,
  `SELECT sum(1) OVER (ROWS (SELECT count(*) FROM glob('*')) PRECEDING)`,
  `SELECT * REPLACE ((SELECT content FROM read_text('/etc/passwd')) AS path) FROM events`,
  `SELECT * FROM (VALUES ((SELECT content FROM read_text('/etc/passwd'))))`,
  `SELECT * FROM range((SELECT count(*) FROM glob('*')))`,
  `SELECT 1 UNION ALL SELECT count(*) FROM glob('*')`,
  `FROM (SELECT 1 AS a, 'x' AS b) PIVOT (max((SELECT content FROM read_text('/etc/passwd'))) FOR b IN ('x'))`,
  `DESCRIBE FROM read_text('/etc/passwd')`,
  `SUMMARIZE FROM read_csv('/etc/passwd')`,
  `DESCRIBE '<part>'`,
  `SELECT * FROM (DESCRIBE FROM '<part>')`,
  // SQL inside strings.
  `FROM query('FROM read_text(''/etc/passwd'')')`,
  `FROM query_table('<part>')`,
  `FROM query_table(['events'])`,
  `FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))`,
  `SELECT json_serialize_plan('SELECT 1')`,
  `SELECT json_deserialize_sql(json_serialize_sql('SELECT 1'))`,
  // Names that stand for something else.
  `WITH events AS (SELECT 1 AS x) SELECT * FROM events`,
  `WITH Findings AS (SELECT 1) SELECT 1`,
  `WITH RECURSIVE gaps AS (SELECT 1) SELECT 1`,
  `SELECT (WITH "<part>" AS (SELECT 1) SELECT 1), (SELECT count(*) FROM "<part>")`,
  `SELECT (WITH z AS (SELECT 1) SELECT 1 FROM z), (SELECT count(*) FROM z)`,
  `WITH duckdb_settings AS (SELECT 1) SELECT 1`,
  `WITH "a.parquet" AS (SELECT 1) FROM "a.parquet"`,
  `SELECT * FROM memory.main.events`,
  `SELECT * FROM main.events`,
  `SELECT * FROM events AT (VERSION => 1)`,
  // The catalog, settings, secrets, memory, logs.
  `FROM duckdb_settings()`,
  `FROM duckdb_views()`,
  `FROM duckdb_secrets()`,
  `FROM duckdb_variables()`,
  `FROM duckdb_databases()`,
  `FROM duckdb_logs()`,
  `FROM duckdb_logs_parsed('QueryLog')`,
  `FROM duckdb_external_file_cache()`,
  `FROM which_secret('s3://x', 's3')`,
  `FROM duckdb_settings`,
  `FROM sqlite_master`,
  `SELECT * FROM information_schema.tables`,
  `SELECT * FROM pg_catalog.pg_class`,
  `SHOW TABLES`,
  `SHOW ALL TABLES`,
  `SHOW DATABASES`,
  `SELECT current_setting('allowed_paths')`,
  `SELECT getvariable('x')`,
  `SELECT getenv('HOME')`,
  `SELECT current_query()`,
  `SELECT pg_get_viewdef(1)`,
  `SELECT nextval('s')`,
  `SELECT stats(leaf_index) FROM events`,
  `SELECT write_log('x')`,
  `SELECT setseed(0.5)`,
  `SELECT sleep_ms(10000)`,
  `SELECT pg_sleep(10)`,
  `FROM pragma_version()`,
  `FROM pragma_database_size()`,
  `FROM pragma_table_info('events')`,
  `FROM enable_logging()`,
  `FROM checkpoint()`,
  `FROM seq_scan('events')`,
  `FROM arrow_scan(1, 2, 3)`,
  `FROM sql_auto_complete('SEL')`,
  `FROM histogram('events', 'path')`,
  `FROM test_all_types()`,
  `SELECT sum(bytes_in) EXPORT_STATE FROM events`,
  `SELECT finalize(x) FROM events`,
  `SELECT "system".main.upper('x')`,
  `SELECT pg_catalog.pg_typeof(1)`,
  `SELECT 1::main.mytype`,
  `SELECT no_such_function(1)`,
  `SELECT * FROM no_such_table`,
  // What is no SELECT.
  `SELECT 1; SELECT 2`,
  `SELECT 1; DROP VIEW events`,
  `CREATE OR REPLACE VIEW events AS SELECT 1`,
  `CREATE TABLE t AS SELECT 1`,
  `CREATE MACRO upper(x) AS x`,
  `CREATE TEMP VIEW x AS SELECT 1`,
  `DROP VIEW events`,
  `ALTER VIEW events RENAME TO e2`,
  `COPY events TO '<data>/parts/out.csv'`,
  `COPY (SELECT 1) TO '<part>'`,
  `EXPORT DATABASE '<data>/out'`,
  `IMPORT DATABASE '<data>/out'`,
  `ATTACH '<data>/x.db'`,
  `DETACH memory`,
  `USE memory`,
  `INSTALL httpfs`,
  `LOAD httpfs`,
  `LOAD '<data>/evil.so'`,
  `SET memory_limit = '100GB'`,
  `SET lock_configuration = false`,
  `RESET memory_limit`,
  `SET VARIABLE x = 1`,
  `PRAGMA version`,
  `PRAGMA enable_profiling`,
  `PRAGMA table_info('events')`,
  `CALL pragma_version()`,
  `EXPLAIN SELECT 1`,
  `EXPLAIN ANALYZE SELECT 1`,
  `PREPARE q AS SELECT 1`,
  `EXECUTE q`,
  `BEGIN`,
  `VACUUM`,
  `CHECKPOINT`,
  `INSERT INTO events VALUES (1)`,
  `DELETE FROM events`,
  `UPDATE events SET path = ''`,
  `TRUNCATE events`,
  `CREATE SECRET s (TYPE s3)`,
  `COMMENT ON VIEW events IS 'x'`,
  `PIVOT events ON verdict USING count(*)`,
  `WITH t AS (DELETE FROM events RETURNING *) SELECT * FROM t`,
]

function expectRefused(outcome: unknown): void {
  expect(outcome).toBeInstanceOf(OpsError)
  if (!(outcome instanceof OpsError)) return
  expect(outcome).toHaveProperty('code', 'query_refused')
  expect(outcome.message).toStartWith('not allowed: ')
  expect(outcome.hint.length).toBeGreaterThan(10)
  expect(outcome.message + outcome.hint).not.toContain(keySecret)
}

describe('is refused, with what is allowed instead:', () => {
  let connection: DuckDBConnection
  beforeAll(async () => {
    connection = await (await DuckDBInstance.create(':memory:')).connect()
  })
  afterAll(() => connection.closeSync())

  for (const sql of refused) {
    test(sql, async () => {
      const outcome = await serialize(connection, withPaths(sql)).then(allow).catch(String)
      expect(outcome).toStartWith('OpsError: not allowed: ')
    })
  }
  // The same through the child: a process for each takes its time, so every fourth.
  for (const sql of refused.filter((_, index) => index % 4 === 0)) {
    test.concurrent(`by the child: ${sql}`, async () => {
      expectRefused(await attempt(sql))
    })
  }

  test('nothing was written and nothing was lost', async () => {
    expect(existsSync(join(data.path, 'parts/out.csv'))).toBeFalse()
    expect(existsSync(join(data.path, 'out'))).toBeFalse()
    expect(readFileSync(join(data.path, 'keys/log.key'), 'utf8')).toBe(keySecret)
    await expectSane()
  })
})

describe('does not parse, and says so:', () => {
  const broken = [
    '',
    '   ',
    '-- nothing',
    ';',
    'SELEC 1',
    'SELECT * FROM events WHERE',
    `SELECT 'open`,
    'SELECT (1',
  ]
  for (const sql of broken) {
    test(JSON.stringify(sql), async () => {
      expect(await attempt(sql)).toMatchObject({ code: 'bad_query' })
    })
  }
  test('a NUL character', async () => {
    expect(await attempt('SELECT 1\0; SELECT 2')).toMatchObject({ code: 'bad_query' })
  })
})

test('a statement of more than 100 kB is refused without starting a child', async () => {
  await using fresh = startRunner({ command: ['/nonexistent'] })
  const sql = `SELECT '${'x'.repeat(100_000)}'`
  expect(collect(fresh, { sql, files: data.files, origin })).rejects.toMatchObject({
    code: 'query_refused',
  })
})

describe('nesting is bounded:', () => {
  const deep: Readonly<Record<string, string>> = {
    'ten thousand brackets': `SELECT ${'('.repeat(10_000)}1${')'.repeat(10_000)}`,
    'ten thousand lists': `SELECT ${'['.repeat(10_000)}1${']'.repeat(10_000)}`,
    'ten thousand subqueries': `${'SELECT * FROM ('.repeat(5000)}SELECT 1${')'.repeat(5000)}`,
    'ten thousand NOTs': `SELECT ${'NOT '.repeat(10_000)}true`,
    'twenty thousand minus signs': `SELECT ${'- '.repeat(20_000)}1`,
    'ten thousand additions': `SELECT ${'1+'.repeat(10_000)}1`,
    'ten thousand casts': `SELECT 1${'::INT'.repeat(10_000)}`,
    'five thousand CASEs': `SELECT ${'CASE WHEN true THEN '.repeat(2500)}1${' END'.repeat(2500)}`,
    'three thousand set operations': `SELECT 1${' EXCEPT SELECT 1'.repeat(3000)}`,
    'nested CTEs': `${'WITH a AS ('.repeat(2000)}SELECT 1${') SELECT 1'.repeat(2000)}`,
    'a deep list type': `SELECT NULL::INT${'[]'.repeat(5000)}`,
  }
  for (const [name, sql] of Object.entries(deep)) {
    test(name, async () => {
      const outcome = await attempt(sql, 4000)
      // Whether the parser, the walk or the stack of the child ends it: it is an error, and in time.
      expect(outcome).toBeInstanceOf(OpsError)
      expect(outcome).toHaveProperty(
        'code',
        expect.stringMatching(/^(bad_query|query_refused|query_limit|query_failed)$/),
      )
      await expectSane()
    })
  }
})

describe('is bounded in time and memory:', () => {
  const timeoutMs = 900
  const endless: Readonly<Record<string, string>> = {
    'an endless cross join': `SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3`,
    'a recursive CTE without end': `WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t`,
    'a recursive CTE that doubles': `WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t, range(2)) SELECT count(*) FROM t`,
    'a huge repeat': `SELECT length(repeat(repeat('x', 1000000), 100000))`,
    'many large repeats': `SELECT sum(length(repeat('x', 100000000 + range::INT))) FROM range(100000)`,
    'a huge list': `SELECT len(list(range)) FROM range(1000000000)`,
    'a list of lists': `SELECT len(range(100000000)), len(range(100000001)), len(range(100000002))`,
    'a cartesian list': `SELECT len(list_transform(range(100000), lambda x: range(100000)))`,
    'a padded string': `SELECT length(lpad('x', 2000000000, 'y'))`,
    'a hash of everything': `SELECT count(DISTINCT range) FROM range(10000000000)`,
    'a sort of everything': `SELECT * FROM range(10000000000) ORDER BY hash(range) LIMIT 1 OFFSET 1000000000`,
    'a regex over long text': `SELECT regexp_matches(repeat('a', 5000000), '(a*)*(a*)*(a*)*b|(x+x+)+y') FROM range(1000)`,
    'an edit distance of long texts': `SELECT levenshtein(repeat('ab', 100000), repeat('ba', 100000))`,
    'a huge factorial series': `SELECT sum(length((range::VARCHAR || repeat('9', 100000)))) FROM range(100000000)`,
    'string_agg of everything': `SELECT length(string_agg(repeat('x', 1000), ',')) FROM range(100000000)`,
    'a wide unnest': `SELECT count(*) FROM (SELECT unnest(range(100000000)) FROM range(1000))`,
    'a giant JSON': `SELECT length(to_json(range(50000000))::VARCHAR)`,
    'format with a giant width': `SELECT length(printf('%2000000000d', 1))`,
    'events crossed with itself many times': `SELECT count(*) FROM events a, events b, events c, events d WHERE a.bytes_in + b.bytes_in + c.bytes_in = d.bytes_in`,
    'nested macros of lists': `SELECT list_sort(list_transform(range(20000000), lambda x: hash(x)))[1]`,
  }
  for (const [name, sql] of Object.entries(endless)) {
    test(name, async () => {
      let peakMb = 0
      const watch = setInterval(() => {
        for (const pid of runner.pids) peakMb = Math.max(peakMb, privateMb(pid))
      }, 5)
      const startedMs = performance.now()
      const outcome = await attempt(sql, timeoutMs)
      const tookMs = performance.now() - startedMs
      clearInterval(watch)

      expect(tookMs).toBeLessThan(timeoutMs + 1500)
      // The watchdog looks every 20 ms: what is allocated in between is what it may be late by.
      expect(peakMb).toBeLessThan(memoryMb + 250)
      // RE2 has no bad patterns, and DuckDB knows its longest string: these two end by themselves.
      if (name === 'a regex over long text') expect(outcome).toStartWith('answered: [[false]')
      else if (name === 'a huge repeat') expect(outcome).toBeInstanceOf(OpsError)
      else expect(outcome).toMatchObject({ code: 'query_limit' })
      await expectSane()
    })
  }

  test('both limits are hit, and the reason is told', async () => {
    const slow = await attempt(endless['an endless cross join'] ?? '', 700)
    expect(slow).toMatchObject({
      code: 'query_limit',
      message: 'the query took longer than 700 ms',
    })
    const large = await attempt(endless['a list of lists'] ?? '', 5000)
    expect(large).toMatchObject({ code: 'query_limit' })
    expect(String(large)).toMatch(/memory|MB/)
  })

  test('a giant result is cut at the row limit', async () => {
    const answer = await collect(runner, {
      sql: 'SELECT a.range, b.range FROM range(10000000) a, range(10000000) b',
      files: data.files,
      origin,
      limit: 5000,
    })
    expect(answer).toMatchObject({ rowCount: 5000, cut: 'rows' })
  })
})

/** A child's private memory; 0 once it has ended. */
function privateMb(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    return Number(/^RssAnon:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024
  } catch {
    return 0
  }
}

test('past the allow-list, DuckDB itself still opens nothing but the files of the query', async () => {
  // The second wall, tried from inside: the settings the child uses, without the walk over the tree.
  const instance = await DuckDBInstance.create(':memory:')
  const connection = await instance.connect()
  await connection.run(`SET allowed_paths = ['${partPath()}']`)
  await connection.run('SET enable_external_access = false')
  await connection.run('SET lock_configuration = true')
  const key = join(data.path, 'keys/log.key').replaceAll("'", "''")
  for (const sql of [
    `FROM read_text('${key}')`,
    `FROM glob('${data.path.replaceAll("'", "''")}/*')`,
    `COPY (SELECT 1) TO '${key}'`,
    `SET enable_external_access = true`,
    `SET allowed_paths = ['${key}']`,
    `INSTALL httpfs`,
    `ATTACH '${key}.db'`,
  ]) {
    expect(connection.runAndReadAll(sql)).rejects.toThrow()
    await connection.runAndReadAll(sql).catch(() => undefined)
  }
  connection.closeSync()
})

test('every name on the lists is a function of this DuckDB', async () => {
  const instance = await DuckDBInstance.create(':memory:')
  const connection = await instance.connect()
  const reader = await connection.runAndReadAll(
    'SELECT lower(function_name) FROM duckdb_functions()',
  )
  const known = new Set(reader.getRows().map((row) => String(row[0])))
  // Made by the parser or the binder, in no catalog.
  for (const name of ['unnest', '->', 'count_star', 'first_value', 'last_value']) known.add(name)
  const unknown = [...allowedFunctions, ...allowedTableFunctions].filter((name) => !known.has(name))
  expect(unknown).toEqual([])
  connection.closeSync()
})

/** The serialised form of a SELECT with other parts. */
function select(parts: Record<string, unknown>): unknown {
  const node = { type: 'SELECT_NODE', select_list: [], from_table: { type: 'EMPTY' }, ...parts }
  return { error: false, statements: [{ node }] }
}

describe('a tree DuckDB has not made yet is refused:', () => {
  const trees: Readonly<Record<string, unknown>> = {
    'an unknown relation kind': select({ from_table: { type: 'REMOTE_TABLE', name: 'x' } }),
    'an unknown expression class': select({ select_list: [{ class: 'EXEC', type: 'EXEC' }] }),
    'a relation under another kind': select({ from_table: { type: 'EMPTY', table_name: 'x' } }),
    'a call without a class': select({ select_list: [{ function_name: 'getenv' }] }),
    'an unknown query node': { error: false, statements: [{ node: { type: 'INSERT_NODE' } }] },
    'an unknown node deep inside': select({
      where_clause: {
        class: 'OPERATOR',
        type: 'OPERATOR_NOT',
        children: [{ x: { y: { type: 'MAGIC' } } }],
      },
    }),
    'a relation whose name is no text': select({
      from_table: { type: 'BASE_TABLE', table_name: {} },
    }),
    'a WITH of another shape': select({ cte_map: { map: { t: 1 } } }),
  }
  for (const [name, tree] of Object.entries(trees)) {
    test(name, () => {
      expect(() => allow(tree)).toThrow(expect.objectContaining({ code: 'query_refused' }))
    })
  }
  test('while the same shape without it passes', () => {
    expect(
      allow(select({ from_table: { type: 'BASE_TABLE', table_name: 'Events' } })),
    ).toBeDefined()
    expect(relationNames).toContain('events')
  })
})

test('after all this no child is left but the spare', async () => {
  await expectSane()
  await Bun.sleep(50)
  expect(alive(runner.pids).length).toBeLessThanOrEqual(1)
  expect(runner.load).toEqual({ running: 0, waiting: 0 })
})
