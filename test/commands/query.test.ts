import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { NodeFolder, type RunningNode, startNode } from '../end-to-end/node.ts'
import { criLine } from '../faults/lines.ts'
import { meshtrailBinary } from '../packaging/built-binary.ts'
import { meshtrail, meshtrailOk, testEnvironment } from './command.ts'

let folder: NodeFolder
let node: RunningNode
let local: string

beforeAll(async () => {
  folder = new NodeFolder('query')
  const file = folder.podLog('payments-1')
  writeFileSync(file, Array.from({ length: 100 }, (_, number) => criLine(number)).join(''))
  local = join(folder.path, 'imported')
  await meshtrailOk(['import', file, '--data', local])
  node = await startNode(folder)
}, 60_000)
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

const sql = `SELECT verdict, reason, policy, policy_rule, count(*) AS n FROM events
             WHERE kind = 'request' GROUP BY ALL ORDER BY n DESC`
const names = ['verdict', 'reason', 'policy', 'policy_rule', 'n']
const expected = [
  ['allowed', null, null, null, 98],
  ['denied', 'rbac_denied', 'prod/deny-admin', '0', 2],
]

/** The two places a statement can be put to. */
function places(): readonly (readonly [name: string, options: readonly string[]])[] {
  return [
    ['local data', ['--data', local]],
    ['an agent', ['--url', node.url, '--token-file', join(folder.data, 'keys/token')]],
  ]
}

const answer = z.object({
  columns: z.array(z.object({ name: z.string(), type: z.string() })),
  rows: z.array(z.array(z.unknown())),
  row_count: z.number(),
  coverage: z.object({ complete: z.boolean() }),
})

describe('query', () => {
  test('answers as table, JSON, NDJSON and CSV, the same from local data and from an agent', async () => {
    for (const [, place] of places()) {
      const as = (...format: string[]): Promise<string> =>
        meshtrailOk(['query', sql, ...place, ...format])
      for (const format of [['--json'], ['--format', 'json']]) {
        const json = answer.parse(JSON.parse(await as(...format)))
        expect(json.columns.map((column) => column.name)).toEqual(names)
        expect(json).toMatchObject({ rows: expected, row_count: 2, coverage: { complete: true } })
      }

      const records = (await as('-f', 'ndjson')).trimEnd().split('\n')
      const objects = records.map((line) =>
        z.record(z.string(), z.unknown()).parse(JSON.parse(line)),
      )
      expect(objects.slice(0, 2)).toEqual(
        expected.map((row) => Object.fromEntries(names.map((name, at) => [name, row[at]]))),
      )
      expect(Object.keys(objects.at(-1) ?? {})).toContain('coverage')

      expect((await as('-f', 'csv')).split(/\r?\n/)).toEqual([
        names.join(','),
        'allowed,,,,98',
        'denied,rbac_denied,prod/deny-admin,0,2',
        '',
      ])

      const table = await as()
      for (const cell of ['verdict', 'prod/deny-admin', 'rbac_denied', '98', '(2 rows)']) {
        expect(table).toContain(cell)
      }
    }
  }, 60_000)

  test('reads the statement from standard input for -', async () => {
    const text = await meshtrailOk(['query', '-', '--data', local, '-f', 'csv'], {
      stdin: 'SELECT 40 + 2 AS n',
    })
    expect(text.trim().split(/\r?\n/)).toEqual(['n', '42'])
  })

  test('describes its columns and lists findings, gaps, access, lifecycle and sources', async () => {
    const described = await meshtrailOk(['query', 'describe events', '--data', local])
    for (const column of ['verdict', 'policy_rule', 'principal', 'raw']) {
      expect(described).toContain(column)
    }
    expect(described).not.toContain('_gen')
    for (const view of ['findings', 'gaps', 'access', 'lifecycle', 'sources']) {
      await meshtrailOk(['query', `FROM ${view}`, '--data', local, '-f', 'csv'])
    }
    const found = await meshtrailOk([
      'query',
      'SELECT count(*) AS n FROM findings',
      '--data',
      local,
      '-f',
      'csv',
    ])
    expect(found.trim().split(/\r?\n/)).toEqual(['n', '2'])
  }, 30_000)

  test('hands a slow reader the whole answer, and is content with one that leaves', async () => {
    const args = ['query', `SELECT repeat('x', 10000) FROM range(300)`, '--data', local, '--json']
    const binary = await meshtrailBinary()
    const child = Bun.spawn([binary, ...args], { env: testEnvironment(), stdout: 'pipe' })
    // The pipe is full long before anybody reads it.
    await Bun.sleep(1500)
    const whole = answer.parse(JSON.parse(await new Response(child.stdout).text()))
    expect([whole.row_count, whole.rows.length, await child.exited]).toEqual([300, 300, 0])

    const pipe = [`"$0" "$@" | head -c 10; echo " \${PIPESTATUS[0]}"`, binary, ...args]
    const left = Bun.spawnSync(['bash', '-c', ...pipe], { env: testEnvironment() })
    expect([left.stdout.toString(), left.stderr.toString()]).toEqual(['{"columns" 0\n', ''])
    const full = Bun.spawnSync(['bash', '-c', `"$0" "$@" > /dev/full`, binary, ...args], {
      env: testEnvironment(),
    })
    expect([full.exitCode, full.stderr.toString()]).toEqual([
      74,
      expect.stringContaining('no space'),
    ])
  }, 30_000)

  test('says so when a limit cut the answer', async () => {
    for (const [, place] of places()) {
      const table = await meshtrailOk([
        'query',
        'SELECT path FROM events',
        ...place,
        '--limit',
        '7',
      ])
      expect(table).toMatch(/7 rows.*(?:more|limit)/)
    }
  }, 30_000)

  test('of wrong SQL ends with exit status 2 and names the column', async () => {
    for (const [, place] of places()) {
      const { status, stdout, stderr } = await meshtrail([
        'query',
        'SELECT verdikt FROM events',
        ...place,
      ])
      expect([status, stdout]).toEqual([2, ''])
      expect(stderr).toContain('verdikt')
      // What was probably meant.
      expect(stderr).toContain('verdict')
      expect(stderr).toMatch(/hint: +\S/)
    }
    const empty = await meshtrail(['query', '', '--data', local])
    expect([empty.status, empty.stderr]).toEqual([2, expect.stringContaining('hint:')])
  }, 30_000)

  test('that is not allowed ends with exit status 77 and says what is', async () => {
    for (const [, place] of places()) {
      for (const statement of [
        `FROM read_text('${folder.data}/keys/log.key')`,
        'DROP VIEW events',
        'SELECT 1; SELECT 2',
        `ATTACH '${folder.path}/x.db'`,
      ]) {
        const { status, stdout, stderr } = await meshtrail(['query', statement, ...place])
        expect([statement, status, stdout]).toEqual([statement, 77, ''])
        expect(stderr).toContain('not allowed')
        expect(stderr).toMatch(/hint: +\S/)
      }
    }
  }, 60_000)

  test('that takes too long ends with exit status 4, in time', async () => {
    for (const [, place] of places()) {
      const { status, stderr } = await meshtrail([
        'query',
        'SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3',
        ...place,
        '--timeout',
        '500ms',
      ])
      expect([status, stderr]).toEqual([4, expect.stringContaining('500 ms')])
    }
  }, 30_000)

  test('of an agent that is not there, or with another token, ends with 69 and 77', async () => {
    const token = join(folder.data, 'keys/token')
    const away = ['query', 'SELECT 1', '--url', 'http://127.0.0.1:1', '--token-file', token]
    const unreachable = await meshtrail(away)
    expect([unreachable.status, unreachable.stderr]).toEqual([
      69,
      expect.stringContaining('http://127.0.0.1:1'),
    ])
    const withToken = (value: string) =>
      meshtrail(['query', 'SELECT 1', '--url', node.url], { env: { MESHTRAIL_TOKEN: value } })
    expect((await withToken('wrong')).status).toBe(77)
    expect((await withToken('')).stderr).toContain('--token-file')
    expect((await withToken(node.token)).status).toBe(0)
    const missing = await meshtrail([...away.slice(0, 4), '--token-file', '/nowhere/token'])
    expect([missing.status, missing.stderr]).toEqual([
      77,
      expect.stringContaining('/nowhere/token'),
    ])
  }, 30_000)
})
