/**
 * An answer as text: JSON (one document), NDJSON (streamed), CSV (RFC 4180).
 *
 * JSON and CSV are spooled, so that a query that fails half-way is an error and never half an answer.
 * NDJSON streams; its last record is `{"coverage":…}` after the last row, or `{"error":…}`, and a stream that
 * ends with neither was cut off.
 *
 * CSV holds values as they were logged: a cell may start with `=`, `+`, `-` or `@`, and a spreadsheet may take
 * it for a formula. Import such files as text.
 */
import { OpsError } from '../agent/errors.ts'
import type { Coverage } from './coverage.ts'
import type { AnswerEnd, JsonValue, ResultColumn, Row } from './frames.ts'
import type { Answer } from './local.ts'

export const formats = ['table', 'json', 'ndjson', 'csv'] as const
export type Format = (typeof formats)[number]

export type Report = {
  readonly coverage: Coverage
  /** Asked for when the answer is complete. */
  readonly elapsedMs: () => number
}

/** The format a person named. @throws {OpsError} `usage` */
export function parseFormat(name: string): Format {
  const format = formats.find((known) => known === name)
  if (format !== undefined) return format
  const later = name === 'parquet' || name === 'arrow'
  throw new OpsError(
    'usage',
    later
      ? `the format ${name} is not available yet`
      : `there is no format ${JSON.stringify(name)}`,
    { hint: `choose one of ${formats.join(', ')}` },
  )
}

/** All rows, in memory: bounded by the runner's `resultBytesMax`. */
export async function spool(answer: Answer): Promise<{ rows: Row[]; end: AnswerEnd }> {
  const rows: Row[] = []
  for await (const batch of answer.batches) for (const row of batch) rows.push(row)
  return { rows, end: answer.end() }
}

/** The JSON document of `POST /v1/query`. `cut` is there only when rows are missing. */
export async function jsonText(answer: Answer, report: Report): Promise<JsonAnswer> {
  const { rows, end } = await spool(answer)
  const text = JSON.stringify({
    columns: answer.columns,
    rows,
    row_count: end.rowCount,
    ...(end.cut === null ? {} : { cut: end.cut }),
    elapsed_ms: roundMs(report.elapsedMs()),
    coverage: report.coverage,
  })
  return { text, end }
}

export type JsonAnswer = { readonly text: string; readonly end: AnswerEnd }
export type CsvAnswer = { readonly text: string; readonly end: AnswerEnd }

/**
 * One object per row, keys in column order (a repeated name gets `_1`, `_2`, …), then the coverage record.
 * Yields pieces of many lines. Throws what the answer throws; `ndjsonError` is the record for it.
 */
export async function* ndjsonText(answer: Answer, report: Report): AsyncGenerator<string, void> {
  const keys = uniqueNames(answer.columns).map((name) => JSON.stringify(name))
  for await (const batch of answer.batches) {
    let text = ''
    for (const row of batch) {
      const members = row.map((value, index) => `${keys[index]}:${JSON.stringify(value)}`)
      text += `{${members.join(',')}}\n`
    }
    yield text
  }
  const end = answer.end()
  const last = {
    coverage: report.coverage,
    row_count: end.rowCount,
    ...(end.cut === null ? {} : { cut: end.cut }),
    elapsed_ms: roundMs(report.elapsedMs()),
  }
  yield `${JSON.stringify(last)}\n`
}

/** The last record of a stream that failed: rows before it are no complete answer. */
export function ndjsonError(error: OpsError): string {
  const { code, message, hint } = error
  return `${JSON.stringify({ error: { code, message, hint } })}\n`
}

/** CRLF lines with a header; null is an empty field, the empty string is `""`. */
export async function csvText(answer: Answer): Promise<CsvAnswer> {
  const lines = [answer.columns.map(({ name }) => csvField(name)).join(',')]
  for await (const batch of answer.batches) {
    for (const row of batch) lines.push(row.map(csvField).join(','))
  }
  return { text: `${lines.join('\r\n')}\r\n`, end: answer.end() }
}

function csvField(value: JsonValue): string {
  if (value === null) return ''
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text === '' || /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/** Column names made different, as object keys must be. */
export function uniqueNames(columns: readonly ResultColumn[]): readonly string[] {
  const taken = new Set(columns.map((column) => column.name))
  const seen = new Set<string>()
  return columns.map(({ name }) => {
    let unique = name
    for (let count = 1; seen.has(unique); count++) {
      const candidate = `${name}_${count}`
      if (!taken.has(candidate)) unique = candidate
    }
    seen.add(unique)
    taken.add(unique)
    return unique
  })
}

function roundMs(ms: number): number {
  return Math.round(ms * 10) / 10
}
