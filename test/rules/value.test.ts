import { describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { applyModifiers } from '../../rules/engine/modifiers.ts'
import type { Match } from '../../rules/engine/rule.ts'
import { literalOf, parseParts, widen } from '../../rules/engine/value.ts'
import { pysigmaValue } from './pysigma-tree.ts'
import { hasVectors, readVectors, tallied, tally } from './vectors.ts'

const unitsSchema = z.object({
  strings: z.array(z.object({ input: z.string(), parts: z.array(z.unknown()) })),
  modifiers: z.array(
    z.object({
      key: z.string(),
      value: z.unknown(),
      linking: z.string().optional(),
      negated: z.boolean().optional(),
      values: z.array(z.unknown()).optional(),
      error: z.string().optional(),
    }),
  ),
})

const text = (source: string): Match => ({
  kind: 'string',
  source,
  parts: parseParts(source),
  cased: false,
})

describe('escapes', () => {
  const table: readonly (readonly [string, string | undefined])[] = [
    [String.raw`a\b`, String.raw`a\b`],
    [String.raw`a\\b`, String.raw`a\b`],
    [String.raw`\*`, '*'],
    [String.raw`\?`, '?'],
    [String.raw`\\*`, undefined],
    [String.raw`\\\*`, String.raw`\*`],
    [String.raw`\\\b`, String.raw`\\b`],
    [String.raw`\\\\b`, String.raw`\\b`],
    ['C:\\Windows\\', 'C:\\Windows\\'],
    [String.raw`C:\Windows\*`, 'C:\\Windows*'],
    ['', ''],
  ]
  for (const [written, literal] of table) {
    test(`${written || 'nothing'} means ${literal ?? 'a wildcard'}`, () => {
      expect(literalOf(parseParts(written))).toBe(literal)
    })
  }

  test('a wildcard added after a backslash at the end stays a wildcard', () => {
    const widened = widen(parseParts('C:\\'), { before: false, after: true })
    expect(widened).toEqual([{ kind: 'literal', text: 'C:\\' }, { kind: 'any' }])
  })

  test('a wildcard is added once', () => {
    expect(widen(parseParts('*'), { before: true, after: true })).toEqual([{ kind: 'any' }])
  })
})

describe.skipIf(!hasVectors)('published vectors', () => {
  test('strings are read as pySigma reads them', async () => {
    const units = unitsSchema.parse(await readVectors('pysigma-units.json'))
    expect(units.strings.length).toBe(38)
    for (const { input, parts } of units.strings) {
      expect({ input, parts: pysigmaValue(text(input)) }).toEqual({
        input,
        parts: { t: 'str', parts },
      })
    }
  })

  test('modifiers do what pySigma does, or are refused as not supported yet', async () => {
    const units = unitsSchema.parse(await readVectors('pysigma-units.json'))
    const skipped = new Map<string, number>()
    const differing: string[] = []
    let same = 0
    for (const vector of units.modifiers) {
      const [field = '', ...names] = vector.key.split('|')
      const given: readonly unknown[] = Array.isArray(vector.value) ? vector.value : [vector.value]
      const matches = given.map(matchOf)
      if (matches.includes(undefined) || matches.length === 0) {
        tally(skipped, 'refused by the loader')
        continue
      }
      const draft = { field: field || null, matches: matches.filter((m) => m !== undefined) }
      const applied = applyModifiers({ ...draft, linking: 'or', negated: false }, names)
      if ('refusal' in applied) {
        if (applied.refusal.feature !== undefined) tally(skipped, applied.refusal.feature)
        else if (vector.error === undefined)
          differing.push(`${vector.key}: ${applied.refusal.message}`)
        else same++
        continue
      }
      const ours = {
        linking: applied.draft.linking,
        negated: applied.draft.negated,
        values: applied.draft.matches.map(pysigmaValue),
      }
      const theirs = { linking: vector.linking, negated: vector.negated, values: vector.values }
      if (Bun.deepEquals(ours, theirs)) same++
      else differing.push(`${vector.key}: ${JSON.stringify(vector.value)}`)
    }
    console.log(`modifier vectors: ${same} as pySigma; skipped: ${tallied(skipped)}`)
    // RE2 has no look-ahead, so what pySigma passes on to a backend is refused here.
    expect(differing).toEqual(['F|re: regular expression: look-around'])
    expect(same).toBeGreaterThanOrEqual(60)
  })
})

function matchOf(value: unknown): Match | undefined {
  if (value === null) return { kind: 'null' }
  if (typeof value === 'boolean') return { kind: 'boolean', value }
  if (typeof value === 'number') return { kind: 'number', value, text: String(value) }
  return typeof value === 'string' ? text(value) : undefined
}
