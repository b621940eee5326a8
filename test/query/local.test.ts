/** The runner: children end, slots come back, and nothing a child does harms the parent. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { OpsError } from '../../agent/errors.ts'
import type { LocalQuery, QueryRunner } from '../../query/local.ts'
import {
  alive,
  collect,
  createDataFolder,
  type DataFolder,
  origin,
  startRunner,
} from './fixture.ts'

let data: DataFolder
let scripts: string
let runner: QueryRunner

beforeAll(async () => {
  data = await createDataFolder()
  scripts = mkdtempSync(join(tmpdir(), 'meshtrail-child-'))
})
afterAll(() => {
  data.remove()
  rmSync(scripts, { recursive: true, force: true })
})
beforeEach(() => {
  runner = startRunner({ waitingMax: 2, spareIdleMs: 0 })
})
afterEach(async () => {
  await runner[Symbol.asyncDispose]()
})

const endless =
  'SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3'

function query(sql: string, more: Partial<LocalQuery> = {}): LocalQuery {
  return { sql, files: data.files, origin, ...more }
}

async function until(what: () => boolean, timeoutMs = 3000): Promise<void> {
  const endMs = performance.now() + timeoutMs
  while (!what()) {
    if (performance.now() > endMs) throw new Error(`not within ${timeoutMs} ms: ${what.toString()}`)
    await Bun.sleep(5)
  }
}

async function failureOf(promise: Promise<unknown>): Promise<OpsError> {
  const outcome = await promise.then(
    (value) => new Error(`answered ${JSON.stringify(value)}`),
    (thrown: unknown) => thrown,
  )
  if (outcome instanceof OpsError) return outcome
  throw outcome
}

test('an aborted query kills its child at once and frees its slot', async () => {
  const abort = new AbortController()
  const failure = failureOf(collect(runner, query(endless), abort.signal))
  await until(() => runner.pids.length === 1)
  await Bun.sleep(400)
  const { pids } = runner
  expect(alive(pids)).toHaveLength(1)
  const abortedMs = performance.now()
  abort.abort()
  expect(await failure).toMatchObject({ code: 'query_failed', message: 'the query was cancelled' })
  expect(performance.now() - abortedMs).toBeLessThan(500)
  expect(alive(pids)).toEqual([])
  expect(runner.load).toEqual({ running: 0, waiting: 0 })
})

test('a signal aborted before the query starts no child', async () => {
  const failure = await failureOf(collect(runner, query('SELECT 1'), AbortSignal.abort()))
  expect(failure.message).toBe('the query was cancelled')
  expect(runner.pids).toEqual([])
})

test('leaving the loop over the rows kills the child', async () => {
  const answer = await runner.run(query('SELECT * FROM range(100000000)', { limit: 1_000_000 }))
  const { pids } = runner
  for await (const batch of answer.batches) {
    expect(batch.length).toBeGreaterThan(0)
    break
  }
  await until(() => alive(pids).length === 0)
  await until(() => runner.load.running === 0)
  expect(() => answer.end()).toThrow('BUG')
})

test('a reader that stops reading holds the child back, and the deadline ends it', async () => {
  const sql = `SELECT repeat('x', 1000) FROM range(60000)`
  const answer = await runner.run(query(sql, { limit: 1_000_000, timeoutMs: 1500 }))
  const batches = answer.batches[Symbol.asyncIterator]()
  await batches.next()
  const beforeBytes = process.memoryUsage.rss()
  await Bun.sleep(600)
  // Unread, the whole answer would be here by now: the pipe is full instead.
  expect(process.memoryUsage.rss() - beforeBytes).toBeLessThan(32 << 20)
  expect(alive(runner.pids)).toHaveLength(1)
  await until(() => runner.load.running === 0)
  const rest = async (): Promise<void> => {
    for (;;) if ((await batches.next()).done === true) return
  }
  expect(await failureOf(rest())).toMatchObject({
    code: 'query_limit',
    message: 'the query took longer than 1500 ms',
  })
})

test('two run, two wait, the fifth is told busy; the waiting get their turn', async () => {
  const abort = new AbortController()
  const running = [1, 2].map(async () => failureOf(collect(runner, query(endless), abort.signal)))
  await until(() => runner.load.running === 2)
  const waiting = [3, 4].map(async (n) => collect(runner, query(`SELECT ${n}`)))
  await until(() => runner.load.waiting === 2)
  expect(await failureOf(collect(runner, query('SELECT 5')))).toMatchObject({ code: 'busy' })
  abort.abort()
  await Promise.all(running)
  const answers = await Promise.all(waiting)
  expect(answers.map((answer) => answer.rows)).toEqual([[[3]], [[4]]])
  await until(() => runner.load.running === 0)
})

test('a query that waits can be cancelled, and waits no longer than its timeout', async () => {
  const abort = new AbortController()
  const running = [1, 2].map(async () => failureOf(collect(runner, query(endless), abort.signal)))
  await until(() => runner.load.running === 2)
  const impatient = new AbortController()
  const waiting = failureOf(collect(runner, query('SELECT 1'), impatient.signal))
  await until(() => runner.load.waiting === 1)
  impatient.abort()
  expect((await waiting).message).toBe('the query was cancelled')
  const late = await failureOf(collect(runner, query('SELECT 1', { timeoutMs: 50 })))
  expect(late).toMatchObject({ code: 'busy' })
  expect(runner.load).toEqual({ running: 2, waiting: 0 })
  abort.abort()
  await Promise.all(running)
  expect((await collect(runner, query('SELECT 1'))).rows).toEqual([[1]])
})

test('a warm spare waits after a query, is used by the next, and is given up when idle', async () => {
  await using warm = startRunner({ spareIdleMs: 300 })
  await warm.prewarm()
  const [spare] = warm.pids
  const answer = await warm.run(query('SELECT 1'))
  expect(warm.pids).toContain(spare ?? 0)
  for await (const batch of answer.batches) expect(batch).toEqual([[1]])
  await until(() => warm.pids.length === 1 && warm.pids[0] !== spare)
  await until(() => warm.pids.length === 0)
})

test('a spare that was killed is replaced without the query noticing', async () => {
  await using warm = startRunner()
  await warm.prewarm()
  const [spare] = warm.pids
  process.kill(spare ?? 0, 'SIGKILL')
  await until(() => alive(warm.pids).length === 0)
  expect((await collect(warm, query('SELECT 1'))).rows).toEqual([[1]])
})

test('a child killed from outside is an error that says so', async () => {
  const failure = failureOf(collect(runner, query(endless)))
  await until(() => runner.pids.length === 1)
  await Bun.sleep(500)
  process.kill(runner.pids[0] ?? 0, 'SIGKILL')
  expect(await failure).toMatchObject({ code: 'query_limit' })
  expect((await failure).message).toContain('out of memory')
})

test('disposing the runner kills what runs and refuses what comes', async () => {
  const failure = failureOf(collect(runner, query(endless)))
  await until(() => runner.pids.length === 1)
  const { pids } = runner
  await runner[Symbol.asyncDispose]()
  expect(alive(pids)).toEqual([])
  expect((await failure).code).toBe('query_failed')
  expect(await failureOf(collect(runner, query('SELECT 1')))).toMatchObject({ code: 'busy' })
})

test('the environment of the child is empty', async () => {
  process.env['MESHTRAIL_SECRET'] = 'in the environment'
  await using warm = startRunner()
  await warm.prewarm()
  const environ = await Bun.file(`/proc/${warm.pids[0]}/environ`).text()
  delete process.env['MESHTRAIL_SECRET']
  expect(environ).not.toContain('MESHTRAIL_SECRET')
  expect(environ).not.toContain('PATH=')
})

/** A program in place of the child that writes these lines and stays. */
function liar(lines: readonly string[]): QueryRunner {
  const path = join(scripts, `${Bun.hash(lines.join('\n'))}.ts`)
  const text = JSON.stringify(`${lines.join('\n')}\n`)
  writeFileSync(path, `process.stdout.write(${text}); setInterval(() => {}, 1000)`)
  return startRunner({ command: [process.execPath, path], spareIdleMs: 0 })
}

const ready = '{"kind":"ready"}'
const oneColumn = '{"kind":"columns","columns":[{"name":"a","type":"INTEGER"}]}'
const lies: Readonly<Record<string, readonly string[]>> = {
  'no JSON': [ready, 'hello'],
  'another first frame': [oneColumn],
  'rows before columns': [ready, '{"kind":"rows","rows":[[1]]}'],
  'rows of another width': [ready, oneColumn, '{"kind":"rows","rows":[[1,2]]}'],
  'rows that are no lists': [ready, oneColumn, '{"kind":"rows","rows":[{"a":1}]}'],
  'more rows than asked for': [ready, oneColumn, '{"kind":"rows","rows":[[1],[2],[3]]}'],
  'a wrong count at the end': [ready, oneColumn, '{"kind":"end","end":{"rowCount":7,"cut":null}}'],
  'an error code of its own': [ready, '{"kind":"error","code":"forged","message":"","hint":""}'],
  'an unknown frame': [ready, oneColumn, '{"kind":"exec"}'],
  'columns twice': [ready, oneColumn, oneColumn],
}
for (const [name, lines] of Object.entries(lies)) {
  test(`a child that sends ${name} is killed and not believed`, async () => {
    await using lying = liar(lines)
    const failure = await failureOf(collect(lying, query('SELECT 1', { limit: 2 })))
    expect(failure).toMatchObject({ code: 'query_failed' })
    expect(failure.message).toStartWith('the query process sent')
    await until(() => lying.pids.length === 0)
  })
}

test('a program that cannot be started is an error with a hint', async () => {
  await using broken = startRunner({ command: ['/nonexistent/meshtrail'] })
  const failure = await failureOf(collect(broken, query('SELECT 1')))
  expect(failure).toMatchObject({ code: 'query_failed' })
  expect(failure.message).toContain('cannot start')
  expect(broken.load).toEqual({ running: 0, waiting: 0 })
})

test('a child that crashes at its start is an error, not a hang', async () => {
  const path = join(scripts, 'crash.ts')
  writeFileSync(path, `console.error('no library'); process.exit(9)`)
  await using broken = startRunner({ command: [process.execPath, path], spareIdleMs: 0 })
  const failure = await failureOf(collect(broken, query('SELECT 1')))
  expect(failure).toMatchObject({ code: 'query_failed' })
  expect(failure.message).toContain('status 9')
  await until(() => broken.load.running === 0)
})

test('a file that is gone or damaged is a failure of the query, with its path', async () => {
  const missing = { segments: [], parts: [join(data.path, 'parts/404.parquet')] }
  const gone = await failureOf(collect(runner, query('FROM events', { files: missing })))
  expect(gone.code).toBe('query_failed')
  expect(gone.message).toContain('404.parquet')
  const path = join(scripts, 'damaged.parquet')
  writeFileSync(path, 'PAR1 this is no Parquet file PAR1')
  const damaged = { segments: [path], parts: [] }
  const failure = await failureOf(collect(runner, query('FROM events', { files: damaged })))
  expect(failure.code).toBe('query_failed')
})

test('a path with a pattern character opens no other files', async () => {
  const files = { segments: [], parts: [join(data.path, 'parts/*.parquet')] }
  const failure = await failureOf(collect(runner, query('FROM events', { files })))
  expect(failure).toMatchObject({ code: 'query_failed' })
  expect(failure.message).toContain('pattern character')
})
