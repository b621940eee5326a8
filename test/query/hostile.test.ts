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
import { broken, deep, endless, refused } from './hostile-statements.ts'
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
