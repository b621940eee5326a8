import { describe, expect, test } from 'bun:test'
import { loadRules } from '../../rules/engine/load.ts'
import { formatProblem } from '../../rules/engine/problem.ts'

const good = `title: T
logsource:
  product: istio
detection:
  sel:
    path: /x
  condition: sel
`

function problemsOf(text: string): readonly string[] {
  return loadRules([{ path: 'r.yml', text }]).problems.map(formatProblem)
}

test('a good rule has no problem, and keeps fields it does not know', () => {
  const { rules, problems } = loadRules([{ path: 'r.yml', text: `${good}tests:\n  - {a: 1}\n` }])
  expect(problems).toEqual([])
  expect(rules[0]?.custom).toEqual({ tests: [{ a: 1 }] })
})

test('several documents in a file are several rules, and one bad one costs only itself', () => {
  const loaded = loadRules([{ path: 'r.yml', text: `${good}---\ntitle: x\n---\n${good}` }])
  expect(loaded.documentCount).toBe(3)
  expect(loaded.rules.length).toBe(2)
  expect(loaded.problems.every((problem) => problem.at.line >= 8)).toBe(true)
})

describe('a problem says where and what to do', () => {
  const replace = (from: string, to: string): string => good.replace(from, to)
  const table: readonly (readonly [string, string, RegExp])[] = [
    [
      'the same key twice',
      replace('path: /x', 'path: /x\n    path: /y'),
      /^r\.yml:7:5: error: the same key twice/,
    ],
    [
      'a key as number and as text',
      replace('path: /x', '1: /x\n    "1": /y'),
      /^r\.yml:7:5: error: the key 1 twice/,
    ],
    ['no title', replace('title: T\n', ''), /^r\.yml:1:1: error: the rule has no title/],
    ['no log source', replace('logsource:\n  product: istio\n', ''), /no log source/],
    ['an empty log source', replace('product: istio', 'definition: x'), /sets none of/],
    ['no condition', replace('  condition: sel\n', ''), /no condition/],
    [
      'an unknown level',
      `${good}level: High\n`,
      /^r\.yml:8:8: error: level "High" is unknown \(use informational/,
    ],
    ['an unknown status', `${good}status: draft\n`, /status "draft" is unknown/],
    [
      'a title that is a number',
      replace('title: T', 'title: 5'),
      /^r\.yml:1:8: error: title must be text/,
    ],
    ['tags that are no list', `${good}tags: attack.t1190\n`, /tags must be a list/],
    [
      'timeframe',
      replace('  condition', '  timeframe: 5m\n  condition'),
      /^r\.yml:7:3: error: timeframe is Sigma version 1/,
    ],
    ['an empty selection', replace('\n    path: /x', ' {}'), /the selection is empty/],
    ['an empty list', replace('path: /x', 'path: []'), /empty list of values/],
    [
      'a nested map',
      replace('path: /x', 'path: {a: 1}'),
      /a map where a value is expected.*outer\.inner/,
    ],
    [
      'an unknown modifier',
      replace('path:', 'path|contain:'),
      /^r\.yml:6:5: error: unknown modifier "contain" \(did you mean contains/,
    ],
    [
      'a modifier for later',
      replace('path:', 'path|base64offset:'),
      /modifier base64offset is not supported yet/,
    ],
    [
      'contains on a number',
      replace('path: /x', 'path|contains: 5'),
      /takes a string, not number \(quote the value: '5'/,
    ],
    ['gt on text', replace('path: /x', "path|gt: '5'"), /takes a number, not string/],
    ['look-ahead', replace('path: /x', "path|re: '(?!a)b'"), /look-around/],
    ['a network with host bits', replace('path: /x', 'path|cidr: 10.0.0.1/8'), /has host bits set/],
    ['an anchor', replace('path: /x', 'path: &a /x'), /anchors and aliases/],
    [
      'a correlation',
      'title: c\ncorrelation:\n  type: event_count\n',
      /^r\.yml:2:1: error: correlation rules are not supported yet/,
    ],
    ['a filter', 'title: f\nfilter:\n  rules: any\n', /filter rules are not supported yet/],
    ['array matching', `sigma-version: 3\n${replace('path:', 'p[any]:')}`, /array matching/],
    ['broken YAML', 'title: "x\n', /error/],
    ['brackets without end', '['.repeat(100_000), /error/],
    ['half a character', replace('/x', '"\\ud800"'), /half of a surrogate pair/],
    ['an empty file', '', /no document/],
  ]
  for (const [name, text, message] of table) {
    test(name, () => {
      const { rules } = loadRules([{ path: 'r.yml', text }])
      expect(rules).toEqual([])
      expect(problemsOf(text).join('\n')).toMatch(new RegExp(message.source, 'm'))
    })
  }
})

test('warnings do not cost the rule', () => {
  const text = `${good.replace('path: /x', 'path|contains|all: yes')}id: not-a-uuid\ntags: [Bad]\n`
  const { rules, problems } = loadRules([{ path: 'r.yml', text }])
  expect(rules.length).toBe(1)
  expect(problems.map((problem) => problem.severity)).toEqual(Array(4).fill('warning'))
})

test('a bare yes is text, and a code keeps its zeros', () => {
  const { rules } = loadRules([
    { path: 'r.yml', text: good.replace('path: /x', 'a: [yes, 00000419, 1.0]') },
  ])
  const detection = rules[0]?.detections.get('sel')
  const kinds = detection?.kind === 'item' ? detection.item.matches : []
  expect(
    kinds.map((m) => (m.kind === 'string' ? m.source : m.kind === 'number' ? m.text : '')),
  ).toEqual(['yes', '00000419', '1'])
})

test('two rules with one id are told apart by refusing the second', () => {
  const text = `${good}id: 5d0f4a0e-7f0b-4b5e-9f0c-0a3f6f1c2d11\n`
  const loaded = loadRules([
    { path: 'a.yml', text },
    { path: 'b.yml', text },
  ])
  expect(loaded.rules.length).toBe(1)
  expect(loaded.problems.map(formatProblem).join()).toContain('b.yml:1:1: error: "5d0f4a0e')
})
