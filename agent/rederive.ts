/**
 * From an event's stored bytes to its columns again: how unsigned columns are checked before they are
 * signed, and how `verify` finds the row that was changed.
 */
import canonicalize from 'canonicalize'
import { Decoder } from './decode/decoder.ts'
import type { AuditEvent } from './event.ts'
import { columns } from './event.ts'
import { LineParser } from './sources/sources.ts'
import type { Gap, Line, Provenance } from './tail/chunk.ts'

/** Columns that say where a row lies rather than what it says; the leaf covers those that matter. */
const notDerived = new Set(['leaf_index', 'observed_ts', 'time', 'raw'])
const derivedColumns = columns
  .filter((column) => !column.hidden && !notDerived.has(column.name))
  .map((column) => column.name)

/** Parses stored lines again. Keeps its parsers, which learn the shapes of lines, from event to event. */
export class ColumnComparer {
  readonly #parsers = new Map<string, LineParser>()

  /**
   * @param provenance of the event's generation; undefined where it is not known, and for the agent's
   *   own events
   * @returns what differs, with both values, or null when nothing does or nothing can be said: lines
   *   that were cut, or that ended with their file, are not parsed again
   */
  compare(event: AuditEvent, provenance: Provenance | undefined): string | null {
    const raw = event.rawBuffer.subarray(event.rawStart, event.rawEnd)
    if (event.gen === '') return ownDifference(event, Buffer.from(raw).toString('utf8'))
    if (provenance === undefined) return null
    const line = decodeAgain(event, Buffer.from(raw))
    if (line === null) return null
    const { gen, observed_ts: observedUs } = event
    const derived = this.#parserOf(event).parse(line, provenance, gen, observedUs)
    return firstDifference(event, derived)
  }

  #parserOf({ cluster, node }: AuditEvent): LineParser {
    const key = JSON.stringify([cluster, node])
    let parser = this.#parsers.get(key)
    if (parser === undefined) {
      parser = new LineParser({ cluster, node })
      this.#parsers.set(key, parser)
    }
    return parser
  }
}

function firstDifference(stored: AuditEvent, derived: AuditEvent): string | null {
  for (const name of derivedColumns) {
    const was: unknown = Reflect.get(stored, name) ?? null
    const is: unknown = Reflect.get(derived, name) ?? null
    if (was !== is) return `${name} is ${show(was)}, its line says ${show(is)}`
  }
  return null
}

function show(value: unknown): string {
  const text = value === null ? 'absent' : JSON.stringify(value)
  return text.length > 120 ? `${text.slice(0, 117)}…` : text
}

function decodeAgain(event: AuditEvent, raw: Buffer): Line | null {
  if (raw.at(-1) !== 0x0a) return null
  const out: { lines: Line[]; gaps: Gap[] } = { lines: [], gaps: [] }
  const decoder = new Decoder(event.gen)
  decoder.decode(raw, 0, raw.length, event.ranges[0] ?? 0, '', out)
  const [line] = out.lines
  if (line === undefined || out.lines.length !== 1 || decoder.pending.length > 0) return null
  // The rest of a line that was handed out earlier looks whole here; its event says `unparsed`.
  if (event.reason === 'unparsed' && event.source === 'unknown') return null
  return { ...line, ranges: event.ranges }
}

/** The agent's own events state everything in their raw bytes, and repeat them as attributes. */
function ownDifference(event: AuditEvent, text: string): string | null {
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    return 'its bytes are not json'
  }
  if (typeof body !== 'object' || body === null || canonicalize(body) !== text) {
    return 'its bytes are not canonical json'
  }
  const statement = new Map<string, unknown>(Object.entries(body))
  if (statement.get('kind') !== event.kind) {
    return `kind is ${show(event.kind)}, its line says ${show(statement.get('kind'))}`
  }
  return event.attributes === text ? null : 'attributes differ from its line'
}
