import { describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { parseCondition } from '../../rules/engine/condition.ts'
import type { Condition } from '../../rules/engine/rule.ts'
import { hasVectors, readVectors } from './vectors.ts'

const names = ['a', 'b', 'c', 'sel_1', 'sel_2', 'filter_x', '_hidden', '_hid2', 'not_x', 'nota']

function show(condition: Condition): string {
  switch (condition.kind) {
    case 'identifier':
      return condition.name
    case 'not':
      return `not(${show(condition.of)})`
    case 'and':
    case 'or':
      return `${condition.kind}(${condition.of.map(show).join(',')})`
  }
}

function read(text: string): string {
  const parsed = parseCondition(text, names)
  return 'refusal' in parsed
    ? `${parsed.refusal.message} | ${parsed.refusal.hint}`
    : show(parsed.condition)
}

describe('what a condition means', () => {
  const table: readonly (readonly [string, string])[] = [
    ['a', 'a'],
    ['a or b and c', 'or(a,and(b,c))'],
    ['a and b or c', 'or(and(a,b),c)'],
    ['not a and b', 'and(not(a),b)'],
    ['not (a and b)', 'not(and(a,b))'],
    ['not not a', 'not(not(a))'],
    ['a and (b or not c)', 'and(a,or(b,not(c)))'],
    ['((a))', 'a'],
    ['1 of sel_*', 'or(sel_1,sel_2)'],
    ['any of sel_*', 'or(sel_1,sel_2)'],
    ['all of sel_*', 'and(sel_1,sel_2)'],
    ['not 1 of sel_*', 'not(or(sel_1,sel_2))'],
    ['1 of *_x', 'or(filter_x,not_x)'],
    ['1 of s*1', 'sel_1'],
    ['1 of a', 'a'],
    ['1 of _h*', 'or(_hidden,_hid2)'],
    ['all of them', 'and(a,b,c,sel_1,sel_2,filter_x,not_x,nota)'],
    ['not_x', 'not_x'],
    ['nota and a', 'and(nota,a)'],
    ['a\n  and\tb', 'and(a,b)'],
    ['(a)and(b)', 'and(a,b)'],
  ]
  for (const [text, meaning] of table) {
    test(JSON.stringify(text), () => expect(read(text)).toBe(meaning))
  }
})

describe('what is refused, and what the hint says', () => {
  const table: readonly (readonly [string, RegExp])[] = [
    ['a | count() by b > 5', /"\|" at character 3.*correlation/],
    ['a AND b', /"AND".*write "and"/],
    ['NOT a', /"NOT".*write "not"/],
    ['a OR b', /"OR".*write "or"/],
    ['2 of sel_*', /"2 of" is not Sigma/],
    ['1 of nothing_*', /names no selection.*sel_1/],
    ['1 of *hid*', /names no selection/],
    ['all of x', /names no selection/],
    ['missing', /names "missing".*the rule has a, b/],
    ['a and', /ends too early/],
    ['a b', /put "and" or "or" between/],
    ['(a', /close the parenthesis/],
    ['a)', /remove the parenthesis/],
    ['', /empty/],
    ['1 of', /names nothing/],
    ['1 of (a)', /names nothing/],
    ['sel_*', /write "1 of sel_\*"/],
    ['a & b', /write "and"/],
    ['a and or b', /a selection is expected/],
    ['a near b', /correlation/],
    [`${'('.repeat(200)}a${')'.repeat(200)}`, /more than 100 parentheses/],
    ['a or '.repeat(3000), /more than 2000 words/],
  ]
  for (const [text, message] of table) {
    test(JSON.stringify(text.slice(0, 40)), () => expect(read(text)).toMatch(message))
  }
})

describe.skipIf(!hasVectors)('published vectors', () => {
  test('conditions are taken and refused as by pySigma, but for two of its faults', async () => {
    const schema = z.object({
      conditions: z.array(
        z.object({
          condition: z.unknown(),
          detections: z.array(z.string()),
          ast: z.unknown().optional(),
          error: z.string().optional(),
        }),
      ),
    })
    const { conditions } = schema.parse(await readVectors('pysigma-units.json'))
    expect(conditions.length).toBe(43)
    const differing: string[] = []
    for (const { condition, detections, error } of conditions) {
      const refused = 'refusal' in parseCondition(String(condition), detections)
      if (refused !== (error !== undefined)) differing.push(String(condition))
    }
    // It drops a pattern that names nothing, and reads the name not_a as "not _a".
    expect(differing.toSorted()).toEqual(['1 of s', 'not_a'])
  })
})
