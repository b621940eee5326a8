/** Answers as text, from rows made by hand. */
import { expect, test } from 'bun:test'
import { OpsError } from '../../agent/errors.ts'
import { coverageOf } from '../../query/coverage.ts'
import {
  csvText,
  jsonText,
  ndjsonError,
  ndjsonText,
  parseFormat,
  uniqueNames,
} from '../../query/formats.ts'
import type { Cut, JsonValue } from '../../query/frames.ts'
import type { Answer } from '../../query/local.ts'
import { escapeText, renderTable } from '../../query/table.ts'

const coverage = coverageOf([
  {
    origin: 'n1',
    status: 'answered',
    size: 7,
    root: 'AAA=',
    from: null,
    to: null,
    gaps: 0,
    error: null,
  },
])
const report = { coverage, elapsedMs: () => 12.3456 }

function answerOf(
  names: readonly string[],
  rows: readonly (readonly JsonValue[])[],
  cut: Cut | null = null,
): Answer {
  async function* batches(): AsyncGenerator<readonly (readonly JsonValue[])[]> {
    for (let index = 0; index < rows.length; index += 2) {
      await Promise.resolve()
      yield rows.slice(index, index + 2)
    }
  }
  return {
    columns: names.map((name) => ({ name, type: 'VARCHAR' })),
    batches: batches(),
    end: () => ({ rowCount: rows.length, cut }),
    [Symbol.asyncDispose]: async () => Promise.resolve(),
  }
}

test('JSON has the shape of POST /v1/query', async () => {
  const { text } = await jsonText(
    answerOf(
      ['a', 'b'],
      [
        [1, 'x'],
        [null, [2]],
        [true, { k: 1 }],
      ],
    ),
    report,
  )
  expect(JSON.parse(text)).toEqual({
    columns: [
      { name: 'a', type: 'VARCHAR' },
      { name: 'b', type: 'VARCHAR' },
    ],
    rows: [
      [1, 'x'],
      [null, [2]],
      [true, { k: 1 }],
    ],
    row_count: 3,
    elapsed_ms: 12.3,
    coverage,
  })
  const { text: cut } = await jsonText(answerOf(['a'], [[1]], 'rows'), report)
  expect(JSON.parse(cut)).toMatchObject({ cut: 'rows' })
})

test('NDJSON is an object a row and ends with the coverage', async () => {
  let text = ''
  const answer = answerOf(
    ['a', 'a', '__proto__'],
    [
      [1, 2, 3],
      ['\n', null, ''],
      [[1], {}, 0],
    ],
    'bytes',
  )
  for await (const piece of ndjsonText(answer, report)) text += piece
  const lines = text.split('\n')
  expect(lines.pop()).toBe('')
  expect(lines.slice(0, 3)).toEqual([
    '{"a":1,"a_1":2,"__proto__":3}',
    '{"a":"\\n","a_1":null,"__proto__":""}',
    '{"a":[1],"a_1":{},"__proto__":0}',
  ])
  expect(JSON.parse(lines[3] ?? '')).toEqual({
    coverage,
    row_count: 3,
    cut: 'bytes',
    elapsed_ms: 12.3,
  })
  const failed = ndjsonError(new OpsError('query_limit', 'too slow', { hint: 'h' }))
  expect(JSON.parse(failed)).toEqual({
    error: { code: 'query_limit', message: 'too slow', hint: 'h' },
  })
})

test('repeated column names become different keys, none of them twice', () => {
  const names = ['a', 'a', 'a_1', 'a', 'b'].map((name) => ({ name, type: '' }))
  const unique = uniqueNames(names)
  expect(new Set(unique).size).toBe(5)
  expect(unique[0]).toBe('a')
  expect(unique[2]).toBe('a_1')
  expect(unique[4]).toBe('b')
})

test('CSV follows RFC 4180 and tells null from the empty string', async () => {
  const rows = [
    ['plain', 'with "quotes"', 'comma, and'],
    ['line\nbreak', null, ''],
    [1.5, true, ['a', 'b']],
  ]
  const { text } = await csvText(answerOf(['x', 'y,z', 'w'], rows))
  expect(text).toBe(
    'x,"y,z",w\r\nplain,"with ""quotes""","comma, and"\r\n"line\nbreak",,""\r\n1.5,true,"[""a"",""b""]"\r\n',
  )
})

test('formats that do not exist yet are refused by name', () => {
  expect(parseFormat('ndjson')).toBe('ndjson')
  expect(() => parseFormat('parquet')).toThrow('the format parquet is not available yet')
  expect(() => parseFormat('arrow')).toThrow(OpsError)
  expect(() => parseFormat('xml')).toThrow('there is no format "xml"')
})

function table(
  columns: readonly (readonly [string, string])[],
  rows: readonly (readonly JsonValue[])[],
  width: number,
  cut: Cut | null = null,
): string {
  return renderTable({
    columns: columns.map(([name, type]) => ({ name, type })),
    rows,
    end: { rowCount: rows.length, cut },
    width,
  })
}

test('a table aligns numbers right, names nulls and counts rows', () => {
  const columns = [
    ['principal', 'VARCHAR'],
    ['count', 'BIGINT'],
  ] as const
  expect(
    table(
      columns,
      [
        ['alice', 5],
        ['bob', 1234],
        [null, null],
      ],
      80,
    ),
  ).toBe(
    [
      '┌───────────┬───────┐',
      '│ principal │ count │',
      '├───────────┼───────┤',
      '│ alice     │     5 │',
      '│ bob       │  1234 │',
      '│ NULL      │  NULL │',
      '└───────────┴───────┘',
      '(3 rows)',
      '',
    ].join('\n'),
  )
})

test('no table is wider than the terminal, whatever is in it', () => {
  const wide = ['日本語'.repeat(30), 'x'.repeat(500), '👩‍👩‍👧‍👦'.repeat(40), 'e\u0301'.repeat(200)]
  for (const width of [20, 40, 79, 80, 120, 200]) {
    for (const count of [1, 2, 3, 8, 40]) {
      const columns = Array.from({ length: count }, (_, i) => [`column_${i}`, 'VARCHAR'] as const)
      const rows = wide.map((value) => columns.map(() => value))
      const lines = table(columns, rows, width).split('\n')
      for (const line of lines.filter((text) => /^[│┌├└]/.test(text))) {
        expect(Bun.stringWidth(line)).toBeLessThanOrEqual(width)
      }
      const widths = new Set(
        lines.filter((text) => text.startsWith('│')).map((x) => Bun.stringWidth(x)),
      )
      expect(widths.size).toBe(1)
    }
  }
})

test('columns that do not fit are counted, a cut is announced', () => {
  const columns = Array.from({ length: 30 }, (_, i) => [`column_${i}`, 'VARCHAR'] as const)
  const text = table(columns, [columns.map(() => 'some longer value')], 60, 'rows')
  expect(text).toContain('(1 row; there are more: cut at the limit, raise it with --limit)')
  expect(text).toMatch(/\d+ columns not shown/)
  expect(text).toContain('…')
})

test('nothing from a log reaches the terminal as a command', () => {
  expect(escapeText('\x1b[31mred\x07')).toBe('\\x1b[31mred\\x07')
  expect(escapeText('a\nb\tc\rd')).toBe('a\\nb\\tc\\rd')
  expect(escapeText('\u202egnp.exe\u2066\u200b')).toBe('\\u{202e}gnp.exe\\u{2066}\\u{200b}')
  expect(escapeText('\x9b2J\x7f\u2028\ud800')).toBe('\\x9b2J\\x7f\\u{2028}\\u{d800}')
  expect(escapeText('grüße 日本')).toBe('grüße 日本')
  const text = table([['\x1b]0;title\x07', 'VARCHAR']], [['\x1b[2J\u202e']], 80)
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/)
})
