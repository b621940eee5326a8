/**
 * JSON as it comes from outside: typed as unknown, written back without surprises.
 *
 * `JSON.parse` keeps the last of repeated keys, and rounds whole numbers above 2^53: both are seen in
 * the raw line only. Own properties named `__proto__` stay plain properties.
 */

export type JsonObject = { readonly [key: string]: unknown }

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The parsed object, or null for anything that is not one. Never throws, also not on a depth bomb. */
export function parseObject(text: string): JsonObject | null {
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) ? value : null
  } catch {
    return null
  }
}

/** Printable ASCII that JSON does not escape: nearly every value of a log line. */
const plain = /^[ !#-[\]-~]*$/

/**
 * Deeper values are cut when they are written: Kubernetes objects reach about 40, and JSON.stringify
 * takes seconds to find that a hostile one overflows its stack.
 */
const depthMax = 128
const cutMark = '(cut by meshtrail: nested too deep)'

/**
 * A value as JSON text: lone surrogates become U+FFFD, because SQL engines refuse their escapes;
 * numbers out of range become null, and what lies deeper than `depthMax` is replaced by a remark (the
 * raw line has it all).
 */
export function encode(value: unknown): string {
  if (typeof value === 'string' && value.length < 256 && plain.test(value)) return `"${value}"`
  if (typeof value === 'object' && value !== null && isDeeper(value, depthMax)) {
    return wellFormed(JSON.stringify(cut(value, depthMax)))
  }
  return wellFormed(JSON.stringify(value) ?? 'null')
}

/** JSON.stringify escapes a surrogate only when it stands alone; `\\\\ud800` in the text is no escape. */
function wellFormed(json: string): string {
  if (!json.includes('\\ud')) return json
  return json.replaceAll(/(?<=(?:^|[^\\])(?:\\\\)*)\\ud[89a-f][0-9a-f]{2}/g, '\\ufffd')
}

function isDeeper(value: object, limit: number): boolean {
  if (limit === 0) return true
  if (Array.isArray(value)) {
    for (const inner of value as readonly unknown[]) {
      if (typeof inner === 'object' && inner !== null && isDeeper(inner, limit - 1)) return true
    }
    return false
  }
  for (const inner of Object.values(value) as unknown[]) {
    if (typeof inner === 'object' && inner !== null && isDeeper(inner, limit - 1)) return true
  }
  return false
}

function cut(value: unknown, limit: number): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (limit === 0) return cutMark
  if (Array.isArray(value)) return value.map((inner) => cut(inner, limit - 1))
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, cut(inner, limit - 1)]),
  )
}

/** An own property of a value that may be anything. */
export function property(value: unknown, key: string): unknown {
  return isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined
}

export function stringOf(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null
}

/** A JSON object written member by member. */
export class ObjectWriter {
  private text = ''

  add(key: string, value: unknown): void {
    this.text += `${this.text === '' ? '{' : ','}${encode(key)}:${encode(value)}`
  }

  /** Null when nothing was added. */
  finish(): string | null {
    return this.text === '' ? null : `${this.text}}`
  }
}
