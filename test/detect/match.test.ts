import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'bun:test'
import { checkRules, explainRules } from '../../agent/detect/check.ts'
import { matchRules, type MatchOptions, type RuleMatch } from '../../agent/detect/match.ts'
import { readRules } from '../../agent/detect/read-rules.ts'
import { compileRule } from '../../rules/engine/compile.ts'
import { rawTarget } from '../../agent/detect/match.ts'
import { eventTarget } from '../../agent/detect/fields.ts'
import { hasVectors, sigmaData, tallied, tally } from '../rules/vectors.ts'

const folder = mkdtempSync(join(tmpdir(), 'meshtrail-rules-'))
afterAll(() => rmSync(folder, { recursive: true }))

const admin = join(folder, 'admin.yml')
writeFileSync(
  admin,
  `{title: Admin, id: 5d0f4a0e-7f0b-4b5e-9f0c-0a3f6f1c2d11, logsource: {product: istio}, detection: {s: {path|startswith: /admin}, condition: s}}`,
)
const code = join(folder, 'code.yml')
writeFileSync(
  code,
  `{title: Code, name: code, logsource: {product: istio}, detection: {s: {response_code: 403}, condition: s}}`,
)

async function run(
  paths: readonly string[],
  chunks: readonly string[],
  options?: MatchOptions,
): Promise<readonly RuleMatch[]> {
  async function* input(): AsyncGenerator<Uint8Array> {
    for (const chunk of chunks) yield new TextEncoder().encode(chunk)
  }
  const found: RuleMatch[] = []
  const { matches } = await matchRules(paths, input(), options)
  for await (const match of matches) found.push(match)
  return found
}

const adminId = '5d0f4a0e-7f0b-4b5e-9f0c-0a3f6f1c2d11'

test('a match names the rule and the line, from 0, also where a chunk cuts a line and lines are empty', async () => {
  const found = await run([admin], ['{"path":"/x"}\n\n{"pa', 'th":"/ADMIN/ü"}\n{"path":"/admin"}'])
  expect(found).toEqual([
    { rule: adminId, event: 2 },
    { rule: adminId, event: 3 },
  ])
})

test('a log source counts where the event names its source', async () => {
  const lines = ['istio.access', 'nginx.access', 'meshtrail'].map((source) =>
    JSON.stringify({ source, path: '/admin' }),
  )
  expect(await run([admin], [lines.join('\n')])).toEqual([{ rule: adminId, event: 0 }])
})

test('mesh names stand for our columns, but not with raw', async () => {
  const lines = '{"status":403}\n{"response_code":403}\n{"response_code":"403"}\n'
  expect(await run([code], [lines])).toEqual([{ rule: 'code', event: 0 }])
  expect(await run([code], [lines], { raw: true })).toEqual([
    { rule: 'code', event: 1 },
    { rule: 'code', event: 2 },
  ])
})

function toColumns(line: string): Record<string, unknown> {
  return { path: line }
}

test('lines can be turned into columns first', async () => {
  expect(await run([admin], ['/admin\n/x\n'], { toColumns })).toEqual([{ rule: adminId, event: 0 }])
})

test('more lines than a batch are numbered through', async () => {
  const lines = Array.from(
    { length: 9000 },
    (_, index) => `{"path":"${index % 3000 === 2999 ? '/admin' : '/x'}"}`,
  )
  expect((await run([admin], [lines.join('\n')])).map((match) => match.event)).toEqual([
    2999, 5999, 8999,
  ])
})

test('a line that is no JSON object is an error with its number', async () => {
  expect(run([admin], ['{}\n[1]\n'])).rejects.toThrow('event 1 is no JSON object')
  expect(run([admin], ['{}\n{"a":\n'])).rejects.toThrow('event 1 is no JSON object')
})

test('half a character in an event costs neither the event nor the scan', async () => {
  const lines = String.raw`{"path":"/admin","x":"\ud800"}`
  expect(await run([admin], [lines], { raw: true })).toEqual([{ rule: adminId, event: 0 }])
})

test('a path that does not exist is an error with a hint', async () => {
  expect(readRules([join(folder, 'missing')])).rejects.toThrow('cannot read rules at')
})

test('explain shows the whole statement', async () => {
  const { explanations } = await explainRules([admin])
  expect(explanations.map(({ sql }) => sql)).toEqual([
    `SELECT * FROM events\nWHERE source IN ('istio.access', 'istio.ztunnel', 'istio.istiod')\n` +
      `  AND coalesce(starts_with(lower("path"), '/admin'), false)`,
  ])
})

test('check counts what runs, what runs elsewhere and what was refused, and hints at fields', async () => {
  const mixed = join(folder, 'mixed')
  await Bun.write(
    join(mixed, 'a.yml'),
    '{title: A, logsource: {product: istio}, detection: {s: {pathh: x}, condition: s}}',
  )
  await Bun.write(
    join(mixed, 'b.yml'),
    '{title: B, logsource: {product: windows}, detection: {s: {a: x}, condition: s}}',
  )
  await Bun.write(join(mixed, 'sub/c.yaml'), 'title: C\ncorrelation: {type: event_count}\n')
  await Bun.write(join(mixed, 'notes.txt'), 'no rule')
  const report = await checkRules([mixed])
  expect(report).toMatchObject({
    documents: 3,
    active: 1,
    elsewhere: 1,
    refused: 1,
    unsupported: { correlation: 1 },
  })
  const messages = report.problems.map(
    (problem) =>
      `${problem.severity} ${problem.at.file.slice(mixed.length)}:${problem.at.line} ${problem.message} (${problem.hint})`,
  )
  expect(messages[0]).toBe(
    'warning /a.yml:1 field pathh is no known name: looked for by that name in the rest (did you mean path?)',
  )
  expect(messages.length).toBe(3)
})

test.skipIf(!hasVectors)(
  'every document of SigmaHQ compiles, or is refused with a reason and a place',
  async () => {
    const loaded = await readRules([join(sigmaData, 'sigmahq')])
    const refused = new Map<string, number>()
    const documentsWithErrors = new Set<string>()
    for (const problem of loaded.problems.filter((each) => each.severity === 'error')) {
      expect(problem.hint.length).toBeGreaterThan(5)
      expect(problem.at.line).toBeGreaterThan(0)
      documentsWithErrors.add(problem.at.file)
      tally(refused, problem.feature ?? problem.code)
    }
    let compiled = 0
    let here = 0
    for (const rule of loaded.rules) {
      const anywhere = compileRule(rule, rawTarget)
      if (anywhere.sql !== undefined) compiled++
      const result = compileRule(rule, eventTarget)
      if (result.sql !== undefined) here++
      else expect(result.problems.length).toBeGreaterThan(0)
    }
    console.log(
      `SigmaHQ: ${loaded.documentCount} documents, ${compiled} compile, ${here} have a log source captured here; ` +
        `problems: ${tallied(refused)}`,
    )
    expect(compiled).toBe(loaded.rules.length)
    expect(compiled).toBeGreaterThanOrEqual(3848)
    expect(here).toBeGreaterThanOrEqual(80)
    const refusedDocuments = loaded.documentCount - loaded.rules.length
    expect(documentsWithErrors.size).toBeLessThanOrEqual(refusedDocuments)
    expect(documentsWithErrors.size).toBeGreaterThanOrEqual(refusedDocuments - 10)
  },
  30_000,
)
