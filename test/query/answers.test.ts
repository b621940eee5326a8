/** What a query may do, and that it gets the right answer: over a segment and two parts of different writers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { columns } from '../../agent/event.ts'
import type { JsonValue, Params } from '../../query/frames.ts'
import type { QueryRunner } from '../../query/local.ts'
import {
  type Collected,
  collect,
  createDataFolder,
  type DataFolder,
  origin,
  startRunner,
} from './fixture.ts'

let data: DataFolder
let runner: QueryRunner

beforeAll(async () => {
  data = await createDataFolder()
  runner = startRunner({ waitingMax: 100 })
})
afterAll(async () => {
  await runner[Symbol.asyncDispose]()
  data.remove()
})

async function ask(sql: string, params: Params = []): Promise<Collected> {
  return collect(runner, { sql, params, files: data.files, origin, timeoutMs: 20_000 })
}

type Case = readonly [sql: string, rows: readonly (readonly JsonValue[])[], params?: Params]

const p = (n: number): string => `spiffe://cluster.local/ns/shop/sa/client-${n}`

const cases: readonly Case[] = [
  ['SELECT count(*) FROM events', [[1009]]],
  ['SELECT count(*) FROM EVENTS', [[1009]]],
  ['select 1;', [[1]]],
  ['SELECT 1 -- and a comment', [[1]]],
  ['/* first */ SELECT 1; -- last', [[1]]],
  [
    'FROM events SELECT count(DISTINCT leaf_index), min(leaf_index), max(leaf_index)',
    [[1009, 0, 1008]],
  ],
  [
    'TABLE gaps',
    [
      [
        origin,
        1006,
        '2026-11-20T10:00:01.000000Z',
        'ab',
        '/var/log/x.log',
        'rotated',
        100,
        250,
        'd',
      ],
    ],
  ],
  [
    "VALUES (1, 'a'), (2, NULL)",
    [
      [1, 'a'],
      [2, null],
    ],
  ],
  [
    'SELECT source, count(*) c FROM events GROUP BY source ORDER BY c DESC, source',
    [
      ['istio.access', 1000],
      ['istio.ztunnel', 5],
      ['meshtrail', 4],
    ],
  ],
  [
    'SELECT source, count(*) FROM events GROUP BY ALL ORDER BY ALL',
    [
      ['istio.access', 1000],
      ['istio.ztunnel', 5],
      ['meshtrail', 4],
    ],
  ],
  [
    'SELECT verdict, count(*) FILTER (WHERE status = 403) FROM events GROUP BY 1 ORDER BY 1 NULLS LAST',
    [
      ['allowed', 0],
      ['denied', 100],
      ['errored', 0],
      [null, 0],
    ],
  ],
  [
    "SELECT principal FROM events WHERE verdict = 'denied' GROUP BY principal HAVING count(*) >= 50 ORDER BY 1",
    [[p(0)], [p(2)]],
  ],
  ['SELECT DISTINCT method FROM events WHERE method IS NOT NULL ORDER BY 1', [['GET'], ['POST']]],
  [
    'SELECT DISTINCT ON (method) method, leaf_index FROM events WHERE method IS NOT NULL ORDER BY method, leaf_index',
    [
      ['GET', 0],
      ['POST', 1],
    ],
  ],
  ['SELECT leaf_index FROM events ORDER BY time DESC LIMIT 2', [[1008], [1007]]],
  ['SELECT leaf_index FROM events ORDER BY leaf_index LIMIT 2 OFFSET 3', [[3], [4]]],
  [
    'SELECT leaf_index FROM events WHERE leaf_index BETWEEN 998 AND 1001 ORDER BY 1',
    [[998], [999], [1000], [1001]],
  ],
  [
    "SELECT leaf_index FROM events WHERE path LIKE '/items/9_' AND leaf_index < 100 ORDER BY 1 LIMIT 1",
    [[90]],
  ],
  ["SELECT count(*) FROM events WHERE principal ILIKE 'SPIFFE://%-3'", [[250]]],
  ["SELECT count(*) FROM events WHERE path SIMILAR TO '/items/[0-4]'", [[50]]],
  ["SELECT count(*) FROM events WHERE regexp_matches(path, '/items/7[0-9]$')", [[100]]],
  [
    "SELECT regexp_extract(principal, 'sa/(.*)$', 1) FROM events WHERE leaf_index = 3",
    [['client-3']],
  ],
  ['SELECT count(*) FROM events WHERE status NOT IN (200, 403)', [[5]]],
  ["SELECT count(*) FROM events WHERE reason = 'tls_handshake_failed'", [[5]]],
  [
    'SELECT a.leaf_index FROM events a JOIN events b ON a.leaf_index = b.leaf_index + 1 WHERE b.leaf_index = 7',
    [[8]],
  ],
  [
    "SELECT e.leaf_index, f.rule_id FROM findings f JOIN events e ON f.event_id = e.log_origin || '@' || e.leaf_index",
    [[10, 'r-1']],
  ],
  [
    'SELECT count(*) FROM events e LEFT JOIN findings f USING (leaf_index) WHERE f.rule_id IS NULL',
    [[1008]],
  ],
  ['SELECT count(*) FROM events SEMI JOIN gaps USING (leaf_index)', [[1]]],
  ['SELECT count(*) FROM events ANTI JOIN gaps USING (leaf_index)', [[1008]]],
  [
    'SELECT count(*) FROM events WHERE EXISTS (FROM gaps g WHERE g.leaf_index = events.leaf_index)',
    [[1]],
  ],
  ['SELECT count(*) FROM events WHERE leaf_index IN (SELECT leaf_index FROM findings)', [[1]]],
  ['SELECT (SELECT max(bytes_in) FROM events)', [[9990]]],
  ["WITH d AS (SELECT * FROM events WHERE verdict = 'denied') SELECT count(*) FROM d", [[100]]],
  [
    'WITH a AS (SELECT 1 x), b AS MATERIALIZED (SELECT x + 1 y FROM a) SELECT x, y FROM a, b',
    [[1, 2]],
  ],
  ['WITH a AS (SELECT 5 x) SELECT (WITH b AS (FROM a) SELECT x FROM b)', [[5]]],
  [
    'WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t',
    [[15]],
  ],
  ['SELECT 1 UNION ALL SELECT 2 UNION SELECT 2 ORDER BY 1', [[1], [2]]],
  [
    'SELECT 1 a, 2 b UNION ALL BY NAME SELECT 4 b, 3 a ORDER BY a',
    [
      [1, 2],
      [3, 4],
    ],
  ],
  ['SELECT leaf_index FROM gaps INTERSECT SELECT leaf_index FROM events', [[1006]]],
  ['SELECT leaf_index FROM events WHERE leaf_index < 3 EXCEPT SELECT 1 ORDER BY 1', [[0], [2]]],
  [
    'SELECT leaf_index, lag(leaf_index) OVER (ORDER BY leaf_index) FROM events ORDER BY 1 LIMIT 2',
    [
      [0, null],
      [1, 0],
    ],
  ],
  [
    'SELECT count(*) OVER w FROM events WHERE leaf_index < 3 WINDOW w AS (ORDER BY leaf_index ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) ORDER BY 1',
    [[1], [2], [2]],
  ],
  [
    'SELECT principal, leaf_index FROM events WHERE leaf_index < 8 QUALIFY row_number() OVER (PARTITION BY principal ORDER BY leaf_index DESC) = 1 ORDER BY 2',
    [
      [p(0), 4],
      [p(1), 5],
      [p(2), 6],
      [p(3), 7],
    ],
  ],
  ['SELECT ntile(2) OVER (ORDER BY leaf_index) FROM events WHERE leaf_index < 2', [[1], [2]]],
  [
    "SELECT attributes->>'route', count(*) FROM events WHERE source = 'istio.access' GROUP BY 1 ORDER BY 1",
    [
      ['r0', 334],
      ['r1', 333],
      ['r2', 333],
    ],
  ],
  [
    "SELECT (attributes->'retries')::INT, attributes.tags[1] FROM events WHERE leaf_index = 4",
    [[4, '"b"']],
  ],
  ["SELECT json_extract_string(attributes, '$.tags[0]') FROM events WHERE leaf_index = 4", [['a']]],
  ['SELECT attributes FROM events WHERE leaf_index = 1000', [[null]]],
  [
    'SELECT key, value FROM events, json_each(attributes) WHERE leaf_index = 1007 ORDER BY key LIMIT 1',
    [['elapsed_ms', '2.5']],
  ],
  [
    "SELECT date_trunc('hour', time), count(*) FROM events GROUP BY 1 ORDER BY 1",
    [
      ['2026-11-20T09:00:00.000000Z', 1005],
      ['2026-11-20T10:00:00.000000Z', 4],
    ],
  ],
  [
    "SELECT time_bucket(INTERVAL 10 MINUTE, time) b, count(*) FROM events WHERE source = 'istio.access' GROUP BY b ORDER BY b",
    [
      ['2026-11-20T09:00:00.000000Z', 600],
      ['2026-11-20T09:10:00.000000Z', 400],
    ],
  ],
  [
    'SELECT ts, observed_ts - ts, time FROM events WHERE leaf_index = 1',
    [['2026-11-20T09:00:01.000001Z', '00:00:00.499999', '2026-11-20T09:00:01.000001Z']],
  ],
  ['SELECT time FROM events WHERE leaf_index = 1001', [['2026-11-20T09:30:00.000001Z']]],
  [
    "SELECT count(*) FROM events WHERE time >= TIMESTAMPTZ '2026-11-20 09:16:00Z' AND time < '2026-11-20 09:20:00+00'",
    [[40]],
  ],
  [
    "SELECT extract(hour FROM time), strftime(time, '%H:%M'), epoch(time)::BIGINT FROM events WHERE leaf_index = 1005",
    [[10, '10:00', 1795168800]],
  ],
  ['SELECT raw FROM events WHERE leaf_index = 1001', [['/wAB']]],
  ['SELECT decode(raw), octet_length(raw) FROM events WHERE leaf_index = 12', [['line 12\n', 8]]],
  ["SELECT sha256(raw) = sha256('line 1' || chr(10)) FROM events WHERE leaf_index = 1", [[true]]],
  [
    'SELECT [1, 2, 3][2], list_transform([1, 2], lambda x: x + 1), [x * 2 FOR x IN [1, 2, 3] IF x > 1]',
    [[2, [2, 3], [4, 6]]],
  ],
  [
    "SELECT {'a': 1, 'b': ['x', NULL]}, MAP {'k': 1}, MAP {1: 'v'}",
    [[{ a: 1, b: ['x', null] }, { k: 1 }, [{ key: 1, value: 'v' }]]],
  ],
  [
    "SELECT list(leaf_index ORDER BY leaf_index), string_agg(method, ',' ORDER BY leaf_index) FROM events WHERE leaf_index < 3",
    [[[0, 1, 2], 'GET,POST,GET']],
  ],
  ['SELECT unnest([3, 1, 2]) AS x ORDER BY x', [[1], [2], [3]]],
  ["SELECT * FROM unnest(['a', 'b']) AS t(x)", [['a'], ['b']]],
  ['SELECT * FROM range(3)', [[0], [1], [2]]],
  [
    'SELECT i, j FROM range(2) a(i), LATERAL (SELECT i * 10 AS j) ORDER BY i',
    [
      [0, 0],
      [1, 10],
    ],
  ],
  [
    "SELECT d FROM generate_series(DATE '2026-11-20', DATE '2026-11-21', INTERVAL 1 DAY) t(d)",
    [['2026-11-20T00:00:00.000000'], ['2026-11-21T00:00:00.000000']],
  ],
  [
    'SELECT a.x, b.y FROM (VALUES (5), (9)) a(x) ASOF JOIN (VALUES (4), (8)) b(y) ON a.x >= b.y ORDER BY 1',
    [
      [5, 4],
      [9, 8],
    ],
  ],
  ['SELECT * FROM (VALUES (1, 2)) a(x, y) POSITIONAL JOIN (VALUES (3)) b(z)', [[1, 2, 3]]],
  [
    "FROM (SELECT verdict, method FROM events) PIVOT (count(*) FOR verdict IN ('allowed', 'denied') GROUP BY method) WHERE method = 'GET'",
    [['GET', 400, 100]],
  ],
  [
    'SELECT n, v FROM (UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b INTO NAME n VALUE v) ORDER BY n',
    [
      ['a', 1],
      ['b', 2],
    ],
  ],
  [
    'SELECT method, verdict, count(*) c FROM events WHERE method IS NOT NULL GROUP BY GROUPING SETS ((method), (verdict), ()) ORDER BY c DESC, 1, 2 LIMIT 2',
    [
      [null, null, 1000],
      [null, 'allowed', 900],
    ],
  ],
  ["SELECT COLUMNS('^(method|path)$') FROM events WHERE leaf_index = 5", [['POST', '/items/5']]],
  ['SELECT count(COLUMNS(*)) FROM (SELECT method, path FROM events)', [[1000, 1000]]],
  [
    'SELECT * EXCLUDE (log_origin, attributes) REPLACE (upper(level) AS level) FROM findings',
    [
      [
        1005,
        '2026-11-20T10:00:00.000000Z',
        'r-1',
        'Denied often',
        'HIGH',
        `${origin}@10`,
        null,
        null,
        null,
      ],
    ],
  ],
  ['SELECT who, sql, rows, elapsed_ms, status FROM access', [['alice', 'SELECT 1', 1, 2.5, 'ok']]],
  ["SELECT attributes->>'event' FROM lifecycle", [['started']]],
  [
    'SELECT source, events, unparsed FROM sources ORDER BY source',
    [
      ['istio.access', 1000, 0],
      ['istio.ztunnel', 5, 0],
      ['meshtrail', 4, 0],
    ],
  ],
  [
    "SELECT CASE WHEN status >= 400 THEN 'bad' ELSE 'good' END, if(status > 1, 1, 0), coalesce(tls_version, 'none') FROM events WHERE leaf_index = 10",
    [['bad', 1, 'none']],
  ],
  [
    "SELECT try_cast('x' AS INT), TRY('x'::INT), nullif(1, 1), greatest(1, 2), 7 // 2, 7 % 4, 2 ** 3, 'a' || 'b'",
    [[null, null, null, 2, 3, 3, 8, 'ab']],
  ],
  [
    'SELECT 9007199254740992::BIGINT, 9007199254740993::BIGINT, -9007199254740993::BIGINT, 18446744073709551615::UBIGINT, 1::HUGEINT',
    [[9007199254740992, '9007199254740993', '-9007199254740993', '18446744073709551615', 1]],
  ],
  [
    "SELECT 'NaN'::DOUBLE, '-Infinity'::DOUBLE, 1.25, 12345678901234567.25::DECIMAL(20, 2), 0.1::FLOAT > 0",
    [['NaN', '-Infinity', 1.25, '12345678901234567.25', true]],
  ],
  [
    "SELECT 'infinity'::TIMESTAMPTZ, TIMESTAMP '1969-12-31 23:59:59.999999'",
    [['infinity', '1969-12-31T23:59:59.999999']],
  ],
  [
    "SELECT DATE '2026-11-20', TIME '01:02:03', INTERVAL 1 DAY, '101'::BIT, '{\"a\": 1}'::JSON",
    [['2026-11-20', '01:02:03', '1 day', '101', '{"a": 1}']],
  ],
  ['SELECT $1, $2, $3, $4', [["a'; DROP", 3, null, true]], ["a'; DROP", 3, null, true]],
  ['SELECT count(*) FROM events WHERE leaf_index = ? OR leaf_index = ?', [[2]], [5, 6]],
  [
    'SELECT count(*) FROM events WHERE principal = $who AND bytes_in > $least',
    [[125]],
    { who: p(1), least: 5000 },
  ],
  ['SELECT count(*) FROM events WHERE principal IN (SELECT unnest($1))', [[500]], [[p(1), p(2)]]],
  [
    'SELECT count(*) FROM events WHERE leaf_index IN (SELECT unnest($1))',
    [[2]],
    [[1, 2, 9_007_199_254_740_991]],
  ],
  [
    "SELECT column_name, column_type FROM (DESCRIBE events) WHERE column_name IN ('leaf_index', 'time', 'raw', 'status', 'change') ORDER BY 1",
    [
      ['change', 'JSON'],
      ['leaf_index', 'UBIGINT'],
      ['raw', 'BLOB'],
      ['status', 'UINTEGER'],
      ['time', 'TIMESTAMP WITH TIME ZONE'],
    ],
  ],
  [
    'SELECT approx_count_distinct(principal) > 2, quantile_cont(duration_us, 0.5), arg_max(leaf_index, bytes_in) FROM events',
    [[true, 1499.5, 999]],
  ],
  [
    "SELECT current_date IS NOT NULL, now() > TIMESTAMPTZ '2020-01-01', user",
    [[true, true, 'duckdb']],
  ],
  [
    "SELECT events.leaf_index FROM events WHERE events.log_origin = 'node-1.test/log' AND leaf_index = 9",
    [[9]],
  ],
  ['SELECT count(*) FROM events USING SAMPLE 100%', [[1009]]],
  ['SELECT #1, a FROM (SELECT 7 AS a)', [[7, 7]]],
]

describe('a query is answered rightly', () => {
  for (const [sql, rows, params] of cases) {
    test.concurrent(sql, async () => {
      const answer = await ask(sql, params)
      expect(answer.rows).toEqual(rows)
      expect(answer.rowCount).toBe(rows.length)
      expect(answer.cut).toBeNull()
    })
  }
})

test('SUMMARIZE describes a relation', async () => {
  const answer = await ask('SELECT column_name, max FROM (SUMMARIZE SELECT status FROM events)')
  expect(answer.rows).toEqual([['status', '403']])
})

test('SELECT * gives log_origin, then the public columns of agent/event.ts in order, typed', async () => {
  const answer = await ask('SELECT * FROM events WHERE leaf_index = 1000')
  const stored = columns.filter((column) => !column.hidden).map((column) => column.name)
  expect(answer.columns.map((column) => column.name)).toEqual(['log_origin', ...stored])
  const types = new Map(answer.columns.map((column) => [column.name, column.type]))
  expect(types.get('leaf_index')).toBe('UBIGINT')
  expect(types.get('attributes')).toBe('JSON')
  expect(types.get('ts')).toBe('TIMESTAMP WITH TIME ZONE')
  expect(types.get('bytes_in')).toBe('BIGINT')
  expect(types.get('client_port')).toBe('UINTEGER')
  expect(types.get('raw')).toBe('BLOB')
})

test('a hidden column is not there', async () => {
  expect(ask('SELECT _gen FROM events')).rejects.toMatchObject({ code: 'bad_query' })
})

test('no files at all are an empty events table with all its types', async () => {
  const query = { sql: 'SELECT * FROM events', files: { segments: [], parts: [] }, origin }
  const answer = await collect(runner, query)
  expect(answer.rows).toEqual([])
  expect(answer.columns).toHaveLength(1 + columns.filter((column) => !column.hidden).length)
  expect(answer.columns[1]).toEqual({ name: 'leaf_index', type: 'UBIGINT' })
  const derived = ['findings', 'gaps', 'access', 'sources', 'lifecycle']
  for (const view of derived) {
    const empty = await collect(runner, { ...query, sql: `SELECT count(*) FROM ${view}` })
    expect(empty.rows).toEqual([[0]])
  }
})

test('rows come in log order when no order is asked for', async () => {
  const answer = await ask('SELECT leaf_index FROM events')
  expect(answer.rows.map((row) => row[0])).toEqual(
    Array.from({ length: 1009 }, (_, index) => index),
  )
})

test('a misspelt column is named together with the one meant', async () => {
  const failure = await ask('SELECT principle FROM events').catch((thrown: unknown) => thrown)
  expect(failure).toMatchObject({ code: 'bad_query' })
  expect(failure).toHaveProperty('message', expect.stringContaining('"principle"'))
  expect(failure).toHaveProperty('hint', expect.stringContaining('principal'))
})

async function limited(sql: string, limit: number): Promise<Collected> {
  return collect(runner, { sql, files: data.files, origin, limit })
}

test('the limit cuts and says so, also below ORDER BY, and not when the rows just fit', async () => {
  const cut = await limited('SELECT leaf_index FROM events ORDER BY leaf_index DESC', 3)
  expect(cut.rows).toEqual([[1008], [1007], [1006]])
  expect(cut.cut).toBe('rows')
  const fits = await limited('SELECT leaf_index FROM gaps', 1)
  expect(fits).toMatchObject({ rowCount: 1, cut: null })
  const ownLimit = await limited('SELECT leaf_index FROM events ORDER BY 1 LIMIT 5; -- mine', 2)
  expect(ownLimit).toMatchObject({ rows: [[0], [1]], cut: 'rows' })
  const twice = await limited(
    'SELECT 1 AS a, 2 AS a, range FROM range(100) ORDER BY range LIMIT 50',
    3,
  )
  expect(twice.columns.map((column) => column.name)).toEqual(['a', 'a', 'range'])
  expect(twice).toMatchObject({
    rows: [
      [1, 2, 0],
      [1, 2, 1],
      [1, 2, 2],
    ],
    cut: 'rows',
  })
  const huge = await limited(
    `SELECT repeat('x', 100) FROM range(1000000000) LIMIT 99999999 -- ; 'x`,
    2,
  )
  expect(huge).toMatchObject({ rowCount: 2, cut: 'rows' })
  const comment = await limited('SELECT * FROM range(100) -- no limit', 10)
  expect(comment).toMatchObject({ rowCount: 10, cut: 'rows' })
})

test('the bytes of an answer are limited, and the cut is named', async () => {
  await using small = startRunner({ resultBytesMax: 10_000, spareIdleMs: 0 })
  const sql = "SELECT repeat('x', 1000) FROM range(100)"
  const answer = await collect(small, { sql, files: data.files, origin })
  expect(answer.cut).toBe('bytes')
  expect(answer.rowCount).toBe(9)
  const one = collect(small, { sql: "SELECT repeat('x', 20000)", files: data.files, origin })
  expect(one).rejects.toMatchObject({ code: 'query_limit' })
  await one.catch(() => undefined)
})

test('fields without names are refused rather than lost', async () => {
  expect(ask('SELECT (1, 2)')).rejects.toMatchObject({ code: 'bad_query' })
})

test('parameters that do not fit the statement are a wrong query', async () => {
  expect(ask('SELECT $1, $2', [1])).rejects.toMatchObject({ code: 'bad_query' })
})
