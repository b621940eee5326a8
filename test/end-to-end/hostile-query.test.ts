/**
 * Everything hostile that can be posted to a running agent, while pods go on writing: each statement is
 * refused or bounded and answered as problem+json, and capture never notices.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { accountOf } from '../faults/account.ts'
import { RotatingPods } from '../faults/rotating-pods.ts'
import { randomFrom } from '../faults/random.ts'
import { broken, deep, endless, refused } from '../query/hostile-statements.ts'
import { NodeFolder, type RunningNode, startNode, until } from './node.ts'

const problemSchema = z.object({
  type: z.string(),
  status: z.number(),
  detail: z.string().min(1),
  hint: z.string().min(1),
  code: z.string(),
})

/** A child process for each takes its time: every second one, and all of them in `test/query/`. */
const tried = refused.filter((_, index) => index % 2 === 0)

let folder: NodeFolder
let node: RunningNode
let pods: RotatingPods
let pid = 0
const posted: string[] = []

beforeAll(async () => {
  folder = new NodeFolder('hostile')
  node = await startNode(folder, { query: { memory: '320MiB', running: 2 } })
  pid = node.pid
  pods = new RotatingPods({
    paths: ['payments-1', 'ledger-1'].map((pod) => folder.podLog(pod)),
    linesPerSecond: 200,
    rotateMs: 5000,
    generations: 10,
    random: randomFrom(1),
  })
}, 60_000)
afterAll(async () => {
  pods[Symbol.dispose]()
  if (!node.isRunning && node.end !== '0')
    console.error(`the agent ended with ${node.end}:\n${node.stderr}`)
  await node[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

/** Paths a statement names by placeholder: a part that is there, and the data directory. */
function withPaths(sql: string): string {
  const [part = ''] = readdirSync(join(folder.data, 'parts'))
  return sql
    .replaceAll('<data>', folder.data)
    .replaceAll('<part>', join(folder.data, 'parts', part))
}

type Outcome = { readonly status: number; readonly code: string; readonly tookMs: number }

async function post(sql: string, timeoutMs: number): Promise<Outcome> {
  const text = withPaths(sql)
  posted.push(text)
  const startedMs = performance.now()
  const response = await node.ask(text, { timeoutMs })
  const body = await response.text()
  const tookMs = performance.now() - startedMs
  for (const secret of secrets()) expect(body).not.toContain(secret)
  if (response.ok) return { status: response.status, code: 'answered', tookMs }
  expect(response.headers.get('content-type')).toBe('application/problem+json')
  const { status, code } = problemSchema.parse(JSON.parse(body))
  expect(status).toBe(response.status)
  return { status, code, tookMs }
}

function secrets(): string[] {
  const seed = readFileSync(join(folder.data, 'keys/log.key'))
  return [node.token, seed.toString('hex'), seed.toString('base64'), 'root:x:0:0']
}

/** Some at a time, as hostile clients would. */
async function postAll(
  statements: readonly string[],
  timeoutMs: number,
): Promise<Map<string, Outcome>> {
  const outcomes = new Map<string, Outcome>()
  const queue = [...statements]
  const work = async (): Promise<void> => {
    for (let sql = queue.shift(); sql !== undefined; sql = queue.shift()) {
      outcomes.set(sql, await post(sql, timeoutMs))
    }
  }
  // As many as run at once: a third would wait for its slot, and might be told that the agent is busy.
  await Promise.all([work(), work()])
  return outcomes
}

describe('a running agent', () => {
  test(`refuses ${tried.length} statements that reach for more than the log`, async () => {
    const outcomes = await postAll(tried, 10_000)
    const others = [...outcomes].filter(([, { code }]) => code !== 'query_refused')
    expect(others).toEqual([])
    expect(existsSync(join(folder.data, 'parts/out.csv'))).toBe(false)
    expect(existsSync(join(folder.data, 'out'))).toBe(false)
  }, 180_000)

  test('says of what does not parse that it does not', async () => {
    for (const [, { code, status }] of await postAll(broken, 10_000)) {
      expect([status, code]).toEqual([400, 'bad_query'])
    }
  }, 30_000)

  test('ends what is nested beyond measure', async () => {
    for (const [, { code }] of await postAll(Object.values(deep), 4000)) {
      expect(code).toMatch(/^(bad_query|query_refused|query_limit|query_failed)$/)
    }
  }, 60_000)

  test('bounds what has no end in time and memory', async () => {
    // These two end by themselves.
    const finite = new Set(['a regex over long text', 'a huge repeat'])
    const outcomes = await postAll(Object.values(endless), 700)
    for (const [name, sql] of Object.entries(endless)) {
      if (finite.has(name)) continue
      expect([name, outcomes.get(sql)?.code]).toEqual([name, 'query_limit'])
    }
  }, 60_000)

  test('is told nothing by statements that are too long, are no JSON, or lack a token', async () => {
    const long = await node.ask(`SELECT '${'x'.repeat(150_000)}'`)
    expect([long.status, await long.json()]).toMatchObject([403, { code: 'query_refused' }])
    const url = new URL('/v1/query', node.url)
    const huge = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Bearer ${node.token}` },
      body: 'x'.repeat(1 << 20),
    })
    expect(huge.status).toBe(413)
    const noJson = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Bearer ${node.token}`, 'content-type': 'application/json' },
      body: '{"sql":',
    })
    expect(noJson.status).toBe(400)
    for (const authorization of [undefined, 'Bearer ', 'Bearer wrong', `Basic ${node.token}`]) {
      const response = await fetch(url, {
        method: 'POST',
        ...(authorization === undefined ? {} : { headers: { authorization } }),
        body: 'SELECT 1',
      })
      expect(response.status).toBe(401)
      expect(problemSchema.parse(await response.json()).code).toBe('unauthenticated')
    }
  })

  test('kills the query of a client that goes away', async () => {
    const away = new AbortController()
    const asked = node.ask(endless['an endless cross join'] ?? '', {
      timeoutMs: 20_000,
      signal: away.signal,
    })
    await Bun.sleep(500)
    away.abort()
    expect(asked).rejects.toThrow()
    // Both places are free again long before that query's deadline.
    const startedMs = performance.now()
    await Promise.all([node.query('SELECT 1'), node.query('SELECT 2'), node.query('SELECT 3')])
    expect(performance.now() - startedMs).toBeLessThan(10_000)
  }, 30_000)

  test('has captured every line meanwhile, in the same process, and lists who asked what', async () => {
    pods.stop()
    await until('everything is read', async () => (await node.status()).lag_bytes === 0, 10_000)
    const { rows, coverage } = await node.query(
      `SELECT count(*), count(DISTINCT request_id) FROM events WHERE request_id LIKE 'line-%'`,
    )
    expect(rows).toEqual([[pods.written, pods.written]])
    expect(pods.written).toBeGreaterThan(1000)
    expect(coverage).toMatchObject({ complete: true, agents: [{ status: 'answered', gaps: 0 }] })
    expect([node.pid, node.isRunning]).toEqual([pid, true])
    expect(node.stderr).not.toContain('bug:')

    expect(posted.length).toBeGreaterThan(100)
    const listed = await node.rows(`SELECT DISTINCT "sql" FROM access WHERE who = 'admin'`)
    const known = new Set(listed.map(([sql]) => sql))
    expect(posted.filter((sql) => !known.has(sql))).toEqual([])
    const refusals = await node.rows(
      `SELECT count(*) FROM access WHERE status = 'query_refused' AND "rows" = 0`,
    )
    expect(Number(refusals[0]?.[0])).toBeGreaterThanOrEqual(tried.length)

    await node.stop()
    expect(await accountOf(folder.data, pods.written)).toMatchObject({ lost: [], duplicated: [] })
  }, 60_000)
})
