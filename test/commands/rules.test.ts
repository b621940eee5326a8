import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { meshtrail, meshtrailOk } from './command.ts'

let folder: string
let rule: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'meshtrail-rules-'))
  rule = ruleFile('denied.yml', `    verdict: denied\n    path|startswith: /admin`)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const id = '11111111-2222-4333-8444-555555555555'

function ruleFile(name: string, selection: string): string {
  const path = join(folder, name)
  writeFileSync(
    path,
    `title: Denied administration
id: ${id}
logsource:
  product: istio
  service: access
detection:
  selection:
${selection}
  condition: selection
level: high
`,
  )
  return path
}

function ndjson(...events: readonly object[]): string {
  return `${events.map((event) => JSON.stringify(event)).join('\n')}\n`
}

describe('rules match', () => {
  test('prints one JSON line a match, with the number of the line from 0', async () => {
    const events = ndjson(
      { verdict: 'allowed', path: '/admin/x' },
      { verdict: 'denied', path: '/admin/x' },
      { verdict: 'denied', path: '/other' },
      { verdict: 'denied', path: '/ADMIN', source: 'istio.access' },
    )
    const text = await meshtrailOk(['rules', 'match', rule], { stdin: events })
    expect(text).toBe(`{"rule":"${id}","event":1}\n{"rule":"${id}","event":3}\n`)
  })

  test('counts empty lines, and needs no newline at the end', async () => {
    const stdin = `\n{"verdict":"allowed"}\n\n{"verdict":"denied","path":"/admin"}`
    expect(await meshtrailOk(['rules', 'match', rule], { stdin })).toBe(
      `{"rule":"${id}","event":3}\n`,
    )
  })

  test('with --raw takes the JSON as it is', async () => {
    const raw = ruleFile('raw.yml', `    SomeField: 7\n    deep.er|contains: needle`)
    const stdin = ndjson({ SomeField: 7, deep: { er: 'a needle here' } }, { SomeField: 8 })
    expect(await meshtrailOk(['rules', 'match', '--raw', raw], { stdin })).toBe(
      `{"rule":"${id}","event":0}\n`,
    )
  })

  test('of a line that is no JSON object ends with exit status 65 and says which line', async () => {
    for (const line of ['not json', '[1]', '7', '{"a":']) {
      const { status, stderr } = await meshtrail(['rules', 'match', rule], {
        stdin: `{"verdict":"allowed"}\n${line}\n`,
      })
      expect([line, status, stderr]).toEqual([line, 65, expect.stringContaining('event 1')])
    }
  })
})

describe('rules check', () => {
  test('says of the shipped rules that all of them run', async () => {
    expect(await meshtrailOk(['rules', 'check'])).toMatch(/^\d+ shipped rules, 0 problems\n$/)
    expect(await meshtrailOk(['rules', 'check', rule])).toContain('1 rules run here')
  })

  test('names file and line of what is wrong, and ends with exit status 65', async () => {
    const broken = join(folder, 'broken.yml')
    writeFileSync(broken, 'title: Broken\ndetection:\n  condition: nosuch\n')
    const { status, stdout } = await meshtrail(['rules', 'check', broken])
    expect([status, stdout]).toEqual([65, expect.stringContaining('broken.yml')])
    const json = await meshtrail(['rules', 'check', broken, '--json'])
    expect(json.status).toBe(65)
    const report = z
      .object({ active: z.number(), problems: z.array(z.object({ severity: z.string() })) })
      .parse(JSON.parse(json.stdout))
    expect(report.active).toBe(0)
    expect(report.problems.length).toBeGreaterThan(0)
  })

  test('of a file that is not there ends with exit status 2 and names it', async () => {
    const missing = join(folder, 'missing.yml')
    for (const words of [
      ['rules', 'check', missing],
      ['rules', 'explain', missing],
      ['rules', 'match', missing],
    ]) {
      const { status, stderr } = await meshtrail(words, { stdin: '' })
      expect([words[1], status, stderr]).toEqual([words[1], 2, expect.stringContaining(missing)])
    }
  })
})

test('rules explain prints SQL that says what the rule says', async () => {
  const text = await meshtrailOk(['rules', 'explain', rule])
  expect(text).toStartWith(`-- ${id}: Denied administration\n`)
  expect(text).toContain('verdict')
  expect(text).toContain('/admin')
  const [explanation] = z
    .array(z.object({ rule: z.string(), sql: z.string().nullable() }))
    .parse(JSON.parse(await meshtrailOk(['rules', 'explain', rule, '--json'])))
  expect(explanation?.rule).toBe(id)
  expect(text).toContain(explanation?.sql ?? 'nothing')
})
