/**
 * Rows as a table for a terminal: fits the width, right-aligns numbers, and shows log data harmlessly.
 *
 * Text from a log may hold anything: control characters, ANSI sequences, bidirectional overrides. They are
 * written as escapes (`\n`, `\x1b`, `\u{202e}`), so that no line can move the cursor, colour the screen or
 * reorder what stands beside it. Backslashes stay as they are: this is for reading, not for parsing.
 */
import type { AnswerEnd, JsonValue, ResultColumn, Row } from './frames.ts'

export type TableInput = {
  readonly columns: readonly ResultColumn[]
  readonly rows: readonly Row[]
  readonly end: AnswerEnd
  /** Cells of the terminal. */
  readonly width: number
}

/** A column is not made narrower than this while others are wider. */
const columnWidthMin = 8
/** Beyond it a value is cut even when there is room: one long value would push all others apart. */
const columnWidthMax = 120

/** The table with its footer, newline at the end. */
export function renderTable(input: TableInput): string {
  const { columns, rows, end } = input
  const cells = rows.map((row) => row.map(cellText))
  const headers = columns.map((column) => escapeText(column.name))
  const natural = headers.map((header, index) => {
    const widest = cells.reduce((max, row) => Math.max(max, widthOf(row[index] ?? '')), 0)
    return Math.min(columnWidthMax, Math.max(widthOf(header), widest, 1))
  })
  const widths = fit(natural, input.width)
  const hidden = columns.length - widths.length
  const right = columns.map((column) => /INT|DECIMAL|DOUBLE|FLOAT|BIGNUM/.test(column.type))

  const rule = (left: string, middle: string, last: string): string =>
    `${left}${widths.map((width) => '─'.repeat(width + 2)).join(middle)}${last}`
  const line = (texts: readonly string[], align: readonly boolean[]): string =>
    `│${widths
      .map((width, index) => ` ${pad(texts[index] ?? '', width, align[index] === true)} `)
      .join('│')}│`

  const lines = [rule('┌', '┬', '┐'), line(headers, []), rule('├', '┼', '┤')]
  for (const row of cells) lines.push(line(row, right))
  lines.push(rule('└', '┴', '┘'))
  const footer = [`(${countOf(end.rowCount, 'row')}${cutText(end)})`]
  if (hidden > 0) {
    footer.push(
      `${countOf(hidden, 'column')} not shown: name the columns you want, or use --format json`,
    )
  }
  return `${[...lines, ...footer].join('\n')}\n`
}

function cutText(end: AnswerEnd): string {
  switch (end.cut) {
    case null:
      return ''
    case 'rows':
      return '; there are more: cut at the limit, raise it with --limit'
    case 'bytes':
      return '; there are more: cut at the largest answer, select fewer columns'
  }
}

function countOf(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

/** Widths that fit: the widest columns give way first; then columns at the right are left out. */
function fit(natural: readonly number[], total: number): number[] {
  let widths = [...natural]
  let excess = cellsOf(widths) - total
  while (excess > 0) {
    const widest = Math.max(...widths)
    if (widest <= columnWidthMin) break
    const next = Math.max(columnWidthMin, ...widths.filter((width) => width < widest))
    const count = widths.filter((width) => width === widest).length
    // All of the widest come down together: to the next width, or as far as needed.
    const step = Math.min(widest - next, Math.ceil(excess / count))
    widths = widths.map((width) => (width === widest ? width - step : width))
    excess = cellsOf(widths) - total
  }
  while (widths.length > 1 && cellsOf(widths) > total) widths.pop()
  return widths
}

/** Cells of a line: borders and one space on either side of a value. */
function cellsOf(widths: readonly number[]): number {
  return widths.reduce((sum, width) => sum + width + 3, 1)
}

function cellText(value: JsonValue): string {
  if (value === null) return 'NULL'
  return escapeText(typeof value === 'string' ? value : JSON.stringify(value))
}

/** Text without anything a terminal would act on. */
export function escapeText(text: string): string {
  return unsafe.test(text) ? text.replaceAll(unsafeAll, escapeOf) : text
}

// Control and format characters (bidi overrides, zero widths), separators other than space, lone surrogates.
const unsafe = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u
const unsafeAll = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

function escapeOf(character: string): string {
  const short = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }[character]
  if (short !== undefined) return short
  const code = character.codePointAt(0) ?? 0
  const hex = code.toString(16)
  return code < 256 ? `\\x${hex.padStart(2, '0')}` : `\\u{${hex}}`
}

function widthOf(text: string): number {
  return isAscii(text) ? text.length : Bun.stringWidth(text)
}

function isAscii(text: string): boolean {
  return /^[\x20-\x7e]*$/.test(text)
}

function pad(text: string, width: number, right: boolean): string {
  const shown = truncate(text, width)
  const space = ' '.repeat(Math.max(0, width - widthOf(shown)))
  return right ? space + shown : shown + space
}

function truncate(text: string, width: number): string {
  if (widthOf(text) <= width) return text
  if (isAscii(text)) return `${text.slice(0, width - 1)}…`
  let shown = ''
  let used = 0
  for (const { segment } of graphemes.segment(text)) {
    const cells = Bun.stringWidth(segment)
    if (used + cells > width - 1) break
    shown += segment
    used += cells
  }
  return `${shown}…`
}
const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })
