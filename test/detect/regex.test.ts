import { DuckDBInstance } from '@duckdb/node-api'
import { expect, test } from 'bun:test'
import { array, constantFrom, sample } from 'fast-check'
import { queryOf } from '../../agent/detect/match.ts'
import { tryRegexes } from '../../agent/detect/scan.ts'
import type { CompiledRule } from '../../rules/engine/compile.ts'
import { checkRegex } from '../../rules/engine/regex.ts'
import { quoteText } from '../../rules/engine/sql.ts'

/** DuckDB's complaints about the patterns. */
async function complaints(patterns: readonly string[]): Promise<readonly (string | undefined)[]> {
  const instance = await DuckDBInstance.create(':memory:', { threads: '1' })
  const connection = await instance.connect()
  const rules = patterns.map(
    (pattern): CompiledRule => ({
      sql: undefined,
      logsourceSql: undefined,
      detectionSql: undefined,
      regexes: [quoteText(pattern)],
      problems: [],
    }),
  )
  const found = await tryRegexes(queryOf(connection), rules)
  connection.closeSync()
  return found
}

const refused = [
  '(?=a)',
  '(?!a)b',
  '(?<=a)b',
  '(?<!a)b',
  String.raw`(a)\1`,
  String.raw`(?P<n>a)(?P=n)`,
  String.raw`(?<n>a)\k<n>`,
  '(?>a)',
  'a++',
  'a*+',
  'a?+',
  'a{2}+',
  'a{1001}',
  'a{5,2}',
  '*a',
  '(*a)',
  '(a',
  'a)',
  '[a',
  String.raw`\Z`,
  String.raw`\y`,
  'a\\',
  String.raw`\u0041`,
  '(?#x)',
  '(?(1)a)',
  'a**',
  'a|*',
  String.raw`\x4`,
  String.raw`[\1]`,
]
const taken = [
  'a',
  'a.*b',
  '^a$',
  'a{2,5}?',
  'a??',
  '(?i)a',
  '(?i:a)',
  '(?:a|b)+',
  '(?P<n>a)',
  '[]a]',
  '[^]a]',
  '[[:alpha:]]',
  String.raw`\d\s\w\b`,
  String.raw`\.\-\_\/`,
  String.raw`\x41\x{1F600}`,
  String.raw`\pL\p{Greek}`,
  String.raw`\Q(?=\E`,
  'a{',
  'a{x}',
  'a{,5}',
  '(|a)',
  String.raw`\012`,
  'a{1000}',
  '(a*)*',
  '',
  '^*',
  String.raw`\A\z`,
]

test('what RE2 cannot run is refused at load, with DuckDB of one mind', async () => {
  for (const pattern of refused)
    expect([pattern, checkRegex(pattern)?.code]).toEqual([pattern, 'value'])
  const found = await complaints(refused)
  expect(refused.filter((_, index) => found[index] === undefined)).toEqual([])
})

test('what RE2 runs is taken, with DuckDB of one mind', async () => {
  for (const pattern of taken) expect([pattern, checkRegex(pattern)]).toEqual([pattern, undefined])
  const found = await complaints(taken)
  expect(taken.filter((_, index) => found[index] !== undefined)).toEqual([])
})

test('patterns of random pieces: nothing refused at load that DuckDB would run', async () => {
  const piece = constantFrom(
    'a',
    'b',
    '.',
    '*',
    '+',
    '?',
    '{2}',
    '{2,',
    '(',
    ')',
    '(?:',
    '(?i)',
    '(?=',
    '[',
    ']',
    '^',
    '$',
    '|',
    '-',
    '\\d',
    '\\1',
    '\\',
    '\\.',
    '\\Z',
    '[a-z]',
    '{0,3}',
    '\\x41',
    '\\p{L}',
    '[^',
    '[:alpha:]',
  )
  const pieces = array(piece, { maxLength: 7 })
  const seed = 20261120
  const patterns = sample(pieces, { numRuns: 600, seed }).map((list) => list.join(''))
  const found = await complaints(patterns)
  const tooStrict = patterns.filter((p, i) => checkRegex(p) !== undefined && found[i] === undefined)
  const tooLax = patterns.filter((p, i) => checkRegex(p) === undefined && found[i] !== undefined)
  console.log(
    `regex: of ${patterns.length} random patterns (seed ${seed}) ${tooLax.length} only DuckDB refuses`,
  )
  expect(tooStrict).toEqual([])
  // Those are caught when a rule set is tried; a tenth would mean that the check is no good.
  expect(tooLax.length).toBeLessThan(patterns.length / 10)
})
