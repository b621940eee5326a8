/** The HTTP interface: who may ask, in which shape, and how it fails. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { hashToken, TokenAuthenticator } from '../../query/auth.ts'
import { type AgentCoverage, coverageOf } from '../../query/coverage.ts'
import { isRecord } from '../../query/frames.ts'
import type { QueryRunner } from '../../query/local.ts'
import { type Access, createServer, type ServerOptions } from '../../query/server.ts'
import { LocalSource, type Prepared } from '../../query/source.ts'
import { alive, createDataFolder, type DataFolder, origin, startRunner } from './fixture.ts'

const tokens = { reader: 'reader-token-0123456789', metrics: 'metrics-token-0123456789' }
const agent: AgentCoverage = {
  origin,
  status: 'answered',
  size: 1009,
  root: 'cm9vdA==',
  from: '2026-11-20T09:00:00.000001Z',
  to: '2026-11-20T10:00:03.000000Z',
  gaps: 1,
  error: null,
}

let data: DataFolder
let runner: QueryRunner
let accesses: Access[]
let bugs: unknown[]
let prepared: Partial<Prepared>

beforeAll(async () => {
  data = await createDataFolder()
  runner = startRunner()
})
afterAll(async () => {
  await runner[Symbol.asyncDispose]()
  data.remove()
})
beforeEach(() => {
  accesses = []
  bugs = []
  prepared = {}
})
afterEach(() => {
  expect(bugs).toEqual([])
})

function app(more: Partial<ServerOptions> = {}): ReturnType<typeof createServer> {
  const authenticator = new TokenAuthenticator([
    { subject: 'alice', role: 'reader', sha256: hashToken(tokens.reader) },
    { subject: 'prometheus', role: 'metrics', sha256: hashToken(tokens.metrics) },
  ])
  const source = new LocalSource(runner, origin, async () =>
    Promise.resolve({
      files: data.files,
      lagging: false,
      coverage: coverageOf([agent]),
      ...prepared,
    }),
  )
  return createServer({
    query: source,
    auth: authenticator,
    onAccess: (access) => accesses.push(access),
    status: async () => Promise.resolve({ lag_ms: 3 }),
    checkpoint: async () => Promise.resolve(new TextEncoder().encode('origin\n1009\ncm9vdA==\n')),
    tile: async (path) => Promise.resolve(path === '0/001' ? new Uint8Array([1, 2]) : undefined),
    metrics: () => 'meshtrail_events_total 5\n',
    notReady: () => undefined,
    version: '0.1.0',
    onBug: (thrown) => bugs.push(thrown),
    ...more,
  })
}

/** 60 MB of rows: more than pipes and sockets hold. */
const longAnswer = `SELECT repeat('x', 1000) FROM range(60000)`

const auth = { authorization: `Bearer ${tokens.reader}` }

async function post(
  body: string,
  headers: Record<string, string> = {},
  more: Partial<ServerOptions> = {},
): Promise<Response> {
  return app(more).request('/v1/query', { method: 'POST', body, headers: { ...auth, ...headers } })
}

async function postJson(body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return post(JSON.stringify(body), { 'content-type': 'application/json', ...headers })
}

async function expectProblem(response: Response, status: number, code: string): Promise<string> {
  expect(response.status).toBe(status)
  expect(response.headers.get('content-type')).toBe('application/problem+json')
  const problem: unknown = await response.json()
  if (!isRecord(problem)) throw new Error('a problem is an object')
  const { title, detail, hint, ...rest } = problem
  expect(rest).toEqual({ type: `urn:meshtrail:problem:${code}`, status, code })
  for (const text of [title, detail, hint]) expect(text).toBeString()
  expect(String(hint).length).toBeGreaterThan(5)
  return JSON.stringify(problem)
}

test('SQL as text gets the JSON document with its coverage, and is recorded', async () => {
  const response = await post('SELECT count(*) AS n FROM events', { 'content-type': 'text/plain' })
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('application/json')
  expect(response.headers.get('cache-control')).toBe('no-store')
  const body: unknown = await response.json()
  if (!isRecord(body)) throw new Error('an answer is an object')
  const { elapsed_ms: elapsedMs, ...rest } = body
  expect(elapsedMs).toBeNumber()
  expect(rest).toEqual({
    columns: [{ name: 'n', type: 'BIGINT' }],
    rows: [[1009]],
    row_count: 1,
    coverage: { complete: true, agents: [agent] },
  })
  const sql = 'SELECT count(*) AS n FROM events'
  expect(accesses).toMatchObject([{ subject: 'alice', sql, rows: 1, status: 'ok' }])
  expect(accesses[0]?.elapsedMs).toBeGreaterThan(0)
})

test('a JSON body carries parameters, limit and timeout', async () => {
  const response = await postJson({
    sql: 'SELECT leaf_index FROM events WHERE verdict = $v ORDER BY 1',
    params: { v: 'denied' },
    limit: 2,
    timeout_ms: 20_000,
    scope: 'node',
  })
  expect(await response.json()).toMatchObject({ rows: [[0], [10]], row_count: 2, cut: 'rows' })
  const slow = await postJson({
    sql: 'SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3',
    timeout_ms: 400,
  })
  await expectProblem(slow, 422, 'query_limit')
  expect(accesses.map((access) => access.status)).toEqual(['ok', 'query_limit'])
})

test('an agent that lags makes the answer incomplete', async () => {
  prepared = { lagging: true }
  const response = await post('SELECT 1')
  expect(await response.json()).toMatchObject({
    coverage: { complete: false, agents: [{ origin, status: 'lagging' }] },
  })
})

describe('without a token there is no answer:', () => {
  const headers: Readonly<Record<string, string | undefined>> = {
    'no header': undefined,
    'another token': 'Bearer another-token-0123456789',
    'an empty token': 'Bearer ',
    'the token without its last letter': `Bearer ${tokens.reader.slice(0, -1)}`,
    'another scheme': `Basic ${tokens.reader}`,
    'the hash of the token': `Bearer ${Buffer.from(hashToken(tokens.reader)).toString('hex')}`,
  }
  for (const [name, authorization] of Object.entries(headers)) {
    test(name, async () => {
      for (const [method, path] of [
        ['POST', '/v1/query'],
        ['GET', '/v1/status'],
        ['GET', '/metrics'],
      ] as const) {
        const response = await app().request(path, {
          method,
          ...(method === 'POST' ? { body: 'SELECT 1' } : {}),
          headers: authorization === undefined ? {} : { authorization },
        })
        expect(response.headers.get('www-authenticate')).toStartWith('Bearer')
        await expectProblem(response, 401, 'unauthenticated')
      }
      expect(accesses).toEqual([])
    })
  }
})

test('a metrics token sees metrics and asks nothing', async () => {
  const headers = { authorization: `bearer ${tokens.metrics}` }
  const metrics = await app().request('/metrics', { headers })
  expect(await metrics.text()).toBe('meshtrail_events_total 5\n')
  expect(metrics.headers.get('content-type')).toStartWith('text/plain; version=0.0.4')
  await expectProblem(await post('SELECT 1', headers), 403, 'permission')
  await expectProblem(await app().request('/v1/status', { headers }), 403, 'permission')
})

test('a revoked token is refused from the next request on', async () => {
  const authenticator = new TokenAuthenticator([
    { subject: 'alice', role: 'reader', sha256: hashToken(tokens.reader) },
  ])
  const server = app({ auth: authenticator })
  expect((await server.request('/v1/status', { headers: auth })).status).toBe(200)
  authenticator.replace([])
  expect((await server.request('/v1/status', { headers: auth })).status).toBe(401)
})

test('open routes answer without a token, and can be closed', async () => {
  const open = app()
  expect(await (await open.request('/healthz')).text()).toBe('ok\n')
  expect((await open.request('/readyz')).status).toBe(200)
  expect(await (await open.request('/version')).json()).toEqual({ version: '0.1.0' })
  const checkpoint = await open.request('/v1/checkpoint')
  expect(await checkpoint.text()).toBe('origin\n1009\ncm9vdA==\n')
  expect(checkpoint.headers.get('content-type')).toBe('text/plain; charset=utf-8')
  const tile = await open.request('/v1/tile/0/001')
  expect(new Uint8Array(await tile.arrayBuffer())).toEqual(new Uint8Array([1, 2]))

  const closed = app({ open: false })
  for (const path of ['/healthz', '/readyz', '/version', '/v1/checkpoint', '/v1/tile/0/001']) {
    await expectProblem(await closed.request(path), 401, 'unauthenticated')
    expect((await closed.request(path, { headers: auth })).status).toBe(200)
  }
})

test('not ready, no checkpoint, no tile, no route', async () => {
  const server = app({
    notReady: () => 'replaying',
    checkpoint: async () => Promise.resolve(undefined),
  })
  const ready = await server.request('/readyz')
  expect(ready.status).toBe(503)
  expect(await ready.text()).toBe('not ready: replaying\n')
  await expectProblem(await server.request('/v1/checkpoint'), 404, 'not_found')
  for (const path of [
    '0/002',
    '../../keys/log.key',
    '%2e%2e/keys',
    '0/1',
    'x/001',
    '0/001.p/9999',
  ]) {
    await expectProblem(await server.request(`/v1/tile/${path}`), 404, 'not_found')
  }
  await expectProblem(await server.request('/v2/query'), 404, 'not_found')
  await expectProblem(await server.request('/v1/query', { headers: auth }), 404, 'not_found')
})

test('a wrong or forbidden query is a problem that names what is meant, and is recorded', async () => {
  const wrong = await expectProblem(await post('SELECT principle FROM events'), 400, 'bad_query')
  expect(wrong).toContain('principal')
  const text = await expectProblem(
    await post(`FROM read_text('/etc/passwd')`),
    403,
    'query_refused',
  )
  expect(text).toContain('read_text')
  expect(accesses.map(({ status, rows }) => [status, rows])).toEqual([
    ['bad_query', 0],
    ['query_refused', 0],
  ])
})

describe('a body that is not understood:', () => {
  const bodies: Readonly<Record<string, readonly [body: string, type: string]>> = {
    'no JSON': ['{"sql": ', 'application/json'],
    'no object': ['[1]', 'application/json'],
    'no sql': ['{"params": []}', 'application/json'],
    'an unknown member': ['{"sql": "SELECT 1", "database": "x"}', 'application/json'],
    'a limit of zero': ['{"sql": "SELECT 1", "limit": 0}', 'application/json'],
    'a limit beyond all': ['{"sql": "SELECT 1", "limit": 1e12}', 'application/json'],
    'an endless timeout': ['{"sql": "SELECT 1", "timeout_ms": 1e9}', 'application/json'],
    'another scope': ['{"sql": "SELECT 1", "scope": "world"}', 'application/json'],
    'nested parameters': ['{"sql": "SELECT 1", "params": [{"a": 1}]}', 'application/json'],
    'a form': ['sql=SELECT+1', 'application/x-www-form-urlencoded'],
  }
  for (const [name, [body, type]] of Object.entries(bodies)) {
    test(name, async () => {
      await expectProblem(await post(body, { 'content-type': type }), 400, 'usage')
    })
  }
  test('more than 200 kB', async () => {
    await expectProblem(await post('x'.repeat(200_001)), 413, 'too_large')
    await expectProblem(await post(`SELECT '${'x'.repeat(150_000)}'`), 403, 'query_refused')
  })
})

describe('Accept chooses the format:', () => {
  const accepts: readonly (readonly [accept: string, type: string])[] = [
    ['*/*', 'application/json'],
    ['application/json', 'application/json'],
    ['text/csv', 'text/csv; charset=utf-8; header=present'],
    ['text/csv;q=0.1, application/x-ndjson;q=0.9', 'application/x-ndjson'],
    ['application/vnd.apache.parquet, application/json;q=0.5', 'application/json'],
    ['text/html, */*;q=0.1', 'application/json'],
  ]
  for (const [accept, type] of accepts) {
    test(accept, async () => {
      const response = await post('SELECT 1 AS a', { accept })
      expect(response.headers.get('content-type')).toBe(type)
      expect((await response.text()).length).toBeGreaterThan(3)
    })
  }
  for (const accept of [
    'application/vnd.apache.arrow.stream',
    'application/vnd.apache.parquet',
    'text/html',
    'application/json;q=0',
  ]) {
    test(`${accept} is not acceptable`, async () => {
      await expectProblem(await post('SELECT 1', { accept }), 406, 'not_acceptable')
    })
  }
})

test('CSV carries coverage and cut in its headers', async () => {
  const response = await postJson({ sql: 'FROM range(9)', limit: 2 }, { accept: 'text/csv' })
  expect(await response.text()).toBe('range\r\n0\r\n1\r\n')
  expect(JSON.parse(response.headers.get('meshtrail-coverage') ?? '')).toEqual({
    complete: true,
    agents: [agent],
  })
  expect(response.headers.get('meshtrail-cut')).toBe('rows')
})

test('a coverage too long for a header is summed up, and non-ASCII text stays legal', async () => {
  prepared = {
    coverage: coverageOf(Array.from({ length: 100 }, (_, i) => ({ ...agent, origin: `n${i}` }))),
  }
  const long = await post('SELECT 1', { accept: 'text/csv' })
  expect(JSON.parse(long.headers.get('meshtrail-coverage') ?? '')).toEqual({
    complete: true,
    expected: 100,
    answered: 100,
  })
  prepared = { coverage: coverageOf([{ ...agent, error: 'grün\n\u{1f600}' }]) }
  const odd = await post('SELECT 1', { accept: 'text/csv' })
  expect(JSON.parse(odd.headers.get('meshtrail-coverage') ?? '')).toMatchObject({
    agents: [{ error: 'grün\n\u{1f600}' }],
  })
})

test('NDJSON streams rows and ends with the coverage', async () => {
  const response = await post('SELECT leaf_index FROM events', { accept: 'application/x-ndjson' })
  const lines = (await response.text()).trimEnd().split('\n')
  expect(lines).toHaveLength(1010)
  expect(lines[1008]).toBe('{"leaf_index":1008}')
  expect(JSON.parse(lines[1009] ?? '')).toMatchObject({
    coverage: { complete: true },
    row_count: 1009,
  })
  expect(accesses).toMatchObject([{ rows: 1009, status: 'ok' }])
})

test('a query that fails at a late row is an error, never an answer with fewer rows', async () => {
  const sql = `SELECT repeat('y', 500) || CASE WHEN range < 100000 THEN 1 ELSE ('x' || range)::INT END
    FROM range(200000)`
  for (const accept of ['application/json', 'application/x-ndjson', 'text/csv']) {
    await expectProblem(await postJson({ sql, limit: 1_000_000 }, { accept }), 400, 'bad_query')
  }
  expect(accesses.map((access) => access.status)).toEqual(['bad_query', 'bad_query', 'bad_query'])
})

test('an NDJSON stream that is cut by its deadline ends with an error and without coverage', async () => {
  const response = await postJson(
    { sql: longAnswer, limit: 1_000_000, timeout_ms: 2000 },
    { accept: 'application/x-ndjson' },
  )
  expect(response.status).toBe(200)
  await Bun.sleep(2200)
  const lines = (await response.text()).trimEnd().split('\n')
  expect(lines.length).toBeGreaterThan(10)
  expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ error: { code: 'query_limit' } })
  expect(lines.some((line) => line.includes('coverage'))).toBeFalse()
  expect(accesses.map((access) => access.status)).toEqual(['query_limit'])
})

test('a bug inside is a 500 that says nothing of it', async () => {
  const response = await app({
    status: () => {
      throw new Error('BUG: secret detail')
    },
  }).request('/v1/status', { headers: auth })
  const text = await expectProblem(response, 500, 'internal')
  expect(text).not.toContain('secret detail')
  expect(bugs).toHaveLength(1)
  bugs = []
})

describe('over a real socket:', () => {
  const endless =
    'SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3'

  test('a client that goes away kills the child, before rows and among them', async () => {
    using server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: app().fetch })
    for (const [sql, accept] of [
      [endless, 'application/json'],
      [longAnswer, 'application/x-ndjson'],
    ] as const) {
      const abort = new AbortController()
      const request = fetch(`http://127.0.0.1:${server.port}/v1/query`, {
        method: 'POST',
        headers: { ...auth, accept, 'content-type': 'application/json' },
        body: JSON.stringify({ sql, limit: 1_000_000, timeout_ms: 60_000 }),
        signal: abort.signal,
      })
      if (sql === longAnswer) {
        const reader = (await request).body?.getReader()
        await reader?.read()
      } else {
        request.catch(() => undefined)
        await Bun.sleep(700)
      }
      expect(runner.load.running).toBe(1)
      const { pids } = runner
      abort.abort()
      const endMs = performance.now() + 3000
      while (runner.load.running > 0 && performance.now() < endMs) await Bun.sleep(10)
      expect(runner.load.running).toBe(0)
      // Among them may be the spare, which lives on.
      expect(alive(pids).length).toBe(pids.length - 1)
      await request.catch(() => undefined)
    }
    expect(accesses.map((access) => access.status)).toEqual(['query_failed', 'cancelled'])
  }, 15_000)

  test('a query may be silent for longer than the idle timeout of the server', async () => {
    using server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      idleTimeout: 1,
      fetch: app().fetch,
    })
    const response = await fetch(`http://127.0.0.1:${server.port}/v1/query`, {
      method: 'POST',
      headers: { ...auth, 'content-type': 'application/json' },
      body: JSON.stringify({ sql: endless, timeout_ms: 4000 }),
    })
    await expectProblem(response, 422, 'query_limit')
  }, 15_000)
})
