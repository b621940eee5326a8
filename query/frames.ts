/**
 * What travels between the agent and a query's child process: one JSON line in (the job), JSON lines
 * out (frames). Order of frames: `ready`, then `columns`, `rows`…, `end`; or `error` at any point, last.
 *
 * The child has parsed a stranger's SQL, so the parent believes nothing it says about shape:
 * `parseFrame` checks every frame before anything else sees it.
 */
import type { OpsErrorCode } from '../agent/errors.ts'

export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue }

export type ResultColumn = {
  readonly name: string
  /** DuckDB's name of the type: `TIMESTAMP WITH TIME ZONE`, `UBIGINT`, `VARCHAR[]`, `JSON`, … */
  readonly type: string
}

export type Row = readonly JsonValue[]

/** Why the answer stops before the result does. */
export type Cut = 'rows' | 'bytes'

export type AnswerEnd = {
  readonly rowCount: number
  /** Null when the answer is the whole result. */
  readonly cut: Cut | null
}

export type ParamValue = null | boolean | number | string | readonly string[] | readonly number[]
/** By position (`$1`, `?`) or by name (`$principal`). */
export type Params = readonly ParamValue[] | { readonly [name: string]: ParamValue }

export type LogFiles = {
  /** Absolute paths; together with `parts` a consistent list that covers no leaf twice. */
  readonly segments: readonly string[]
  readonly parts: readonly string[]
}

export type Job = {
  readonly sql: string
  readonly params: Params
  /** Rows of the answer, at most. */
  readonly limit: number
  readonly files: LogFiles
  /** The log's origin: the `log_origin` of every row. */
  readonly origin: string
  /** DuckDB's own limit; the parent's watchdog stands behind it at a higher one. */
  readonly memoryMb: number
  readonly threads: number
  readonly timeoutMs: number
  readonly resultBytesMax: number
}

export type Frame =
  | { readonly kind: 'ready' }
  | { readonly kind: 'columns'; readonly columns: readonly ResultColumn[] }
  | { readonly kind: 'rows'; readonly rows: readonly Row[] }
  | { readonly kind: 'end'; readonly end: AnswerEnd }
  | {
      readonly kind: 'error'
      readonly code: QueryErrorCode
      readonly message: string
      readonly hint: string
    }

const queryErrorCodes = ['bad_query', 'query_refused', 'query_limit', 'query_failed'] as const
/** The codes a child may report; any other word from it is not believed. */
export type QueryErrorCode = (typeof queryErrorCodes)[number] & OpsErrorCode

export function isQueryErrorCode(code: unknown): code is QueryErrorCode {
  return queryErrorCodes.some((known) => known === code)
}

/** One frame as a line of bytes, newline included. */
export function encodeFrame(frame: Exclude<Frame, { kind: 'rows' }>): Uint8Array {
  return encoder.encode(`${JSON.stringify(frame)}\n`)
}

/** A `rows` frame from rows that are JSON text already, so that no row is encoded twice. */
export function encodeRowsFrame(rowTexts: readonly string[]): Uint8Array {
  return encoder.encode(`{"kind":"rows","rows":[${rowTexts.join(',')}]}\n`)
}

const encoder = new TextEncoder()

/**
 * Parses one line from the child.
 *
 * @param width columns announced before, which every row must have; undefined before `columns`
 * @returns undefined when the line is not a well-formed frame
 */
export function parseFrame(line: string, width: number | undefined): Frame | undefined {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return undefined
  }
  if (!isRecord(value)) return undefined
  switch (value['kind']) {
    case 'ready':
      return { kind: 'ready' }
    case 'columns': {
      const columns = value['columns']
      if (!Array.isArray(columns) || !columns.every(isResultColumn)) return undefined
      return { kind: 'columns', columns }
    }
    case 'rows': {
      const rows = value['rows']
      if (width === undefined || !Array.isArray(rows)) return undefined
      if (!rows.every((row) => isRow(row, width))) return undefined
      return { kind: 'rows', rows }
    }
    case 'end': {
      const end = value['end']
      if (!isRecord(end)) return undefined
      const { rowCount, cut } = end
      if (typeof rowCount !== 'number' || !Number.isSafeInteger(rowCount)) return undefined
      if (cut !== null && cut !== 'rows' && cut !== 'bytes') return undefined
      return { kind: 'end', end: { rowCount, cut } }
    }
    case 'error': {
      const { code, message, hint } = value
      if (!isQueryErrorCode(code)) return undefined
      if (typeof message !== 'string' || typeof hint !== 'string') return undefined
      return { kind: 'error', code, message, hint }
    }
    default:
      return undefined
  }
}

/** True for a JSON object; arrays are not records. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isResultColumn(value: unknown): value is ResultColumn {
  return isRecord(value) && typeof value['name'] === 'string' && typeof value['type'] === 'string'
}

/** What `JSON.parse` returns inside a row is a `JsonValue` by construction. */
function isRow(value: unknown, width: number): value is Row {
  return Array.isArray(value) && value.length === width
}

/** Checks `params` from a request: scalars, and flat lists of strings or numbers. */
export function isParams(value: unknown): value is Params {
  if (Array.isArray(value)) return value.every(isParamValue)
  return isRecord(value) && Object.values(value).every(isParamValue)
}

function isParamValue(value: unknown): value is ParamValue {
  if (value === null) return true
  if (typeof value === 'number') return Number.isFinite(value)
  if (typeof value === 'boolean' || typeof value === 'string') return true
  if (!Array.isArray(value)) return false
  return (
    value.every((item) => typeof item === 'string') ||
    value.every((item) => typeof item === 'number' && Number.isFinite(item))
  )
}

/** Parses the job; it comes from the parent, so a wrong one is a bug. */
export function parseJob(line: string): Job {
  const value: unknown = JSON.parse(line)
  if (!isJob(value)) throw new Error('BUG: a query job without its fields')
  return value
}

function isJob(value: unknown): value is Job {
  if (!isRecord(value) || !isRecord(value['files'])) return false
  const numbers = ['limit', 'memoryMb', 'threads', 'timeoutMs', 'resultBytesMax'] as const
  return (
    typeof value['sql'] === 'string' &&
    typeof value['origin'] === 'string' &&
    isParams(value['params']) &&
    isPaths(value['files']['segments']) &&
    isPaths(value['files']['parts']) &&
    numbers.every((name) => typeof value[name] === 'number')
  )
}

function isPaths(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((path) => typeof path === 'string')
}
