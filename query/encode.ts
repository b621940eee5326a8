/**
 * DuckDB values as JSON, and JSON parameters as DuckDB values.
 *
 * Integers are JSON numbers while a double holds them exactly (|n| ≤ 2^53), else strings. Times are
 * RFC 3339 with microseconds, those with a zone in UTC with `Z`. Bytes are base64. NaN and the infinities
 * are strings. Lists and structs are JSON; a map with text keys is an object, any other a list of
 * `{key, value}`. Values of type JSON stay text, exactly as stored.
 */
import {
  DuckDBArrayType,
  DuckDBListType,
  DuckDBMapType,
  DuckDBStructType,
  DuckDBUnionType,
  DuckDBArrayValue,
  DuckDBBlobValue,
  DuckDBDecimalValue,
  DuckDBListValue,
  DuckDBMapValue,
  DuckDBStructValue,
  DuckDBTimestampTZValue,
  DuckDBTimestampValue,
  type DuckDBType,
  DuckDBUnionValue,
  type DuckDBValue,
  DuckDBVariantValue,
  BIGINT,
  BOOLEAN,
  DOUBLE,
  INTEGER,
  LIST,
  listValue,
  SQLNULL,
  VARCHAR,
} from '@duckdb/node-api'
import type { JsonValue, ParamValue, Params } from './frames.ts'

/** DuckDB's name of a type, with JSON told apart from the text it is stored as. */
export function typeName(type: DuckDBType): string {
  return type.alias ?? type.toString()
}

/**
 * True for a type with a struct whose fields share a name, as in `row(1, 2)`: the client library keeps one
 * value per name, and an answer may not lose any.
 */
export function losesFields(type: DuckDBType): boolean {
  if (type instanceof DuckDBListType || type instanceof DuckDBArrayType) {
    return losesFields(type.valueType)
  }
  if (type instanceof DuckDBMapType) return losesFields(type.keyType) || losesFields(type.valueType)
  if (type instanceof DuckDBUnionType) return type.memberTypes.some(losesFields)
  if (!(type instanceof DuckDBStructType)) return false
  return new Set(type.entryNames).size < type.entryNames.length || type.entryTypes.some(losesFields)
}

/** One value of any type. Dispatches on the value, so that variants and unions need no type of their own. */
export function jsonOf(value: DuckDBValue): JsonValue {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value)
  return typeof value === 'bigint' ? jsonOfBigint(value) : jsonOfObject(value)
}

type ObjectValue = Exclude<DuckDBValue, null | boolean | number | bigint | string>

function jsonOfObject(value: ObjectValue): JsonValue {
  if (value instanceof DuckDBTimestampTZValue) return timeText(value.micros, 'Z')
  if (value instanceof DuckDBTimestampValue) return timeText(value.micros, '')
  if (value instanceof DuckDBBlobValue) return Buffer.from(value.bytes).toString('base64')
  if (value instanceof DuckDBDecimalValue) return jsonOfDecimal(value)
  if (value instanceof DuckDBListValue || value instanceof DuckDBArrayValue) {
    return value.items.map(jsonOf)
  }
  if (value instanceof DuckDBStructValue) return jsonOfStruct(value)
  if (value instanceof DuckDBMapValue) return jsonOfMap(value)
  if (value instanceof DuckDBUnionValue) return jsonOf(value.value)
  if (value instanceof DuckDBVariantValue) return jsonOf(value.value)
  // Dates, times of day, intervals, UUIDs, bits, nanosecond times: DuckDB's own text.
  return value.toString()
}

function jsonOfBigint(value: bigint): number | string {
  return value >= -maxExact && value <= maxExact ? Number(value) : value.toString()
}
const maxExact = 1n << 53n

/** A number where fifteen digits hold it, which a double always returns unchanged. */
function jsonOfDecimal(value: DuckDBDecimalValue): number | string {
  return value.width <= 15 ? Number(value.toString()) : value.toString()
}

function jsonOfStruct(value: DuckDBStructValue): JsonValue {
  return Object.fromEntries(
    Object.entries(value.entries).map(([name, item]) => [name, jsonOf(item)]),
  )
}

function jsonOfMap(value: DuckDBMapValue): JsonValue {
  if (value.entries.every((entry) => typeof entry.key === 'string')) {
    return Object.fromEntries(
      value.entries.map((entry) => [String(entry.key), jsonOf(entry.value)]),
    )
  }
  return value.entries.map((entry) => ({ key: jsonOf(entry.key), value: jsonOf(entry.value) }))
}

/** `2026-11-20T09:12:31.004512Z`; outside the years 0 to 9999 with a sign and six digits, as ECMAScript. */
function timeText(micros: bigint, zone: 'Z' | ''): string {
  if (micros >= infinity) return 'infinity'
  if (micros <= -infinity) return '-infinity'
  const fraction = ((micros % 1_000_000n) + 1_000_000n) % 1_000_000n
  const seconds = Number((micros - fraction) / 1_000_000n)
  const date = new Date(seconds * 1000)
  // DuckDB's calendar reaches further than ECMAScript's: beyond it the seconds must do.
  if (Number.isNaN(date.getTime())) return `epoch ${seconds}`
  const whole = date.toISOString().replace(/\.000Z$/, '')
  return `${whole}.${fraction.toString().padStart(6, '0')}${zone}`
}
const infinity = 9_223_372_036_854_775_807n

export type Bindings = {
  readonly values: DuckDBValue[] | Record<string, DuckDBValue>
  readonly types: DuckDBType[] | Record<string, DuckDBType>
}

/** Parameters with their types stated, so that an integer is compared as an integer. */
export function bindingsOf(params: Params): Bindings {
  if (isPositional(params)) {
    return { values: params.map(valueOf), types: params.map(typeOf) }
  }
  const entries = Object.entries(params)
  return {
    values: Object.fromEntries(entries.map(([name, value]) => [name, valueOf(value)])),
    types: Object.fromEntries(entries.map(([name, value]) => [name, typeOf(value)])),
  }
}

function isPositional(params: Params): params is readonly ParamValue[] {
  return Array.isArray(params)
}

function valueOf(param: ParamValue): DuckDBValue {
  if (param === null || typeof param === 'boolean' || typeof param === 'string') return param
  if (typeof param === 'number') return isBig(param) ? BigInt(param) : param
  const list: DuckDBValue[] = []
  const asBig = param.some((item) => typeof item === 'number' && isBig(item)) && allIntegers(param)
  for (const item of param) list.push(typeof item === 'number' && asBig ? BigInt(item) : item)
  return listValue(list)
}

function typeOf(param: ParamValue): DuckDBType {
  if (param === null) return SQLNULL
  if (typeof param === 'boolean') return BOOLEAN
  if (typeof param === 'string') return VARCHAR
  if (typeof param === 'number') return numberType(param)
  if (param.every((item) => typeof item === 'string')) return LIST(VARCHAR)
  if (!allIntegers(param)) return LIST(DOUBLE)
  return LIST(param.some((item) => typeof item === 'number' && isBig(item)) ? BIGINT : INTEGER)
}

function allIntegers(items: readonly (string | number)[]): boolean {
  return items.every((item) => Number.isSafeInteger(item))
}

function numberType(value: number): DuckDBType {
  if (!Number.isSafeInteger(value)) return DOUBLE
  return isBig(value) ? BIGINT : INTEGER
}

/** An integer that needs more than 32 bits. */
function isBig(value: number): boolean {
  return Number.isSafeInteger(value) && (value > 2_147_483_647 || value < -2_147_483_648)
}
