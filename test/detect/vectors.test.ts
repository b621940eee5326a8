import { describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { loadRules } from '../../rules/engine/load.ts'
import type { Rule } from '../../rules/engine/rule.ts'
import { hasVectors, readVectors, tallied, tally } from '../rules/vectors.ts'
import { matchesOf } from './rule-under-test.ts'

const evalSchema = z.object({
  vectors: z.array(
    z.object({
      test: z.string(),
      tags: z.array(z.string()),
      rules: z.string(),
      steps: z.array(z.object({ event: z.unknown(), matches: z.number().optional() })),
    }),
  ),
})
const rustSchema = z.object({
  vectors: z.array(
    z.object({ test: z.string(), rule: z.string(), event: z.unknown(), match: z.boolean() }),
  ),
})
const regressionSchema = z.object({
  vectors: z.array(
    z.object({ rule_path: z.string(), rule: z.string(), events_flat: z.array(z.unknown()) }),
  ),
})

/** Some vectors leave out what they do not test. */
function completed(text: string): string {
  const titled = /^title:/m.test(text) ? text : `title: untitled\n${text}`
  if (!/^logsource:/m.test(titled)) return `${titled}\nlogsource: {category: test}\n`
  return titled.replace(/^(\s*)logsource:\s*$(?!\n\1\s+\S)/m, '$1logsource: {category: test}')
}

function load(text: string, skipped: Map<string, number>): readonly Rule[] | undefined {
  const { rules, problems } = loadRules([{ path: 'vector.yml', text: completed(text) }])
  const error = problems.find((problem) => problem.severity === 'error')
  if (error === undefined) return rules
  tally(skipped, error.feature ?? `(${error.message})`)
  return undefined
}

describe.skipIf(!hasVectors)('published vectors', () => {
  test('rsigma', async () => {
    const { vectors } = evalSchema.parse(await readVectors('rsigma-eval.json'))
    const skipped = new Map<string, number>()
    const differing: string[] = []
    let asserted = 0
    for (const vector of vectors) {
      const rules = load(vector.rules, skipped)
      if (rules === undefined) continue
      const found = await matchesOf(
        rules,
        vector.steps.map((step) => step.event),
      )
      for (const [index, step] of vector.steps.entries()) {
        if (step.matches === undefined) continue
        asserted++
        const count = [...found.values()].filter((events) => events.includes(index)).length
        if (count !== step.matches) differing.push(`${vector.test} step ${index}: ${count}`)
      }
    }
    console.log(`rsigma: ${asserted} steps asserted; vectors skipped: ${tallied(skipped)}`)
    expect(differing).toEqual([])
    expect(asserted).toBeGreaterThanOrEqual(31)
    // "all of" a pattern without names is true there; here it is an error.
    const refused = [...skipped.keys()].filter((reason) => reason.startsWith('('))
    expect(refused).toEqual(['("all of selection_*" names no selection)'])
  })

  test('sigma-rust', async () => {
    const { vectors } = rustSchema.parse(await readVectors('sigma-rust.json'))
    const skipped = new Map<string, number>()
    const differing: string[] = []
    let asserted = 0
    for (const [number, vector] of vectors.entries()) {
      const rules = load(vector.rule, skipped)
      if (rules === undefined) continue
      asserted++
      const found = await matchesOf(rules, [vector.event])
      const isMatch = [...found.values()].some((events) => events.length > 0)
      if (isMatch !== vector.match) differing.push(`${number} ${vector.test}: ${isMatch}`)
    }
    console.log(
      `sigma-rust: ${asserted} of ${vectors.length} asserted; skipped: ${tallied(skipped)}`,
    )
    // There an absent field is not null; here it is.
    expect(differing).toEqual(['13 test_match_null_fields: false'])
    expect(asserted).toBeGreaterThanOrEqual(30)
    expect([...skipped.keys()].filter((reason) => reason.startsWith('('))).toEqual([])
  })

  test('SigmaHQ regression data: each rule finds at least one of its events, all in one scan', async () => {
    const { vectors } = regressionSchema.parse(await readVectors('sigmahq-regression.json'))
    const skipped = new Map<string, number>()
    const events: unknown[] = []
    const expected: { rule: Rule; path: string; first: number; last: number }[] = []
    for (const vector of vectors) {
      const [rule] = load(vector.rule, skipped) ?? []
      if (rule === undefined) continue
      const first = events.push(...vector.events_flat) - vector.events_flat.length
      expected.push({ rule, path: vector.rule_path, first, last: events.length })
    }
    const rules = expected.map(({ rule }, index) => ({
      ...rule,
      id: `r${index}`,
      title: `r${index}`,
    }))
    const found = await matchesOf(rules, events)
    const differing: string[] = []
    for (const [index, { path, first, last }] of expected.entries()) {
      const own = (found.get(`r${index}`) ?? []).filter((event) => event >= first && event < last)
      if (own.length === 0) differing.push(path)
    }
    console.log(
      `SigmaHQ regression: ${expected.length} of ${vectors.length} rules over ${events.length} events; ` +
        `skipped: ${tallied(skipped)}`,
    )
    expect(differing.map((line) => line.split('/').at(-1))).toEqual([
      // Its field names are written with spaces in the event.
      'win_defender_exploit_redsun_tiering_engine_detected_as_eicar.yml',
    ])
    expect(expected.length).toBeGreaterThanOrEqual(182)
  }, 30_000)
})
