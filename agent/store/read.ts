/**
 * Reads parts and segments back without DuckDB: for recovery, sealing and verification, where bytes
 * may be anything. What is malformed is a value, never a throw; at most one row group is in memory.
 */
import { zstdDecompressSync } from 'node:zlib'
import type { AsyncBuffer, DecodedArray, FileMetaData, ParquetScan } from 'hyparquet'
import { parquetMetadataAsync, parquetScan } from 'hyparquet'
import { messageOf } from '../errors.ts'
import type { AuditEvent, Kind } from '../event.ts'
import { columns, kinds, newEvent } from '../event.ts'
import { pageBytesMax } from '../limits.ts'
import { metadataKey, rangesOf } from './part.ts'

/** Parquet bytes: the whole file in memory, or slices of it read when needed. */
export type ParquetFile = AsyncBuffer

export function memoryFile(bytes: Uint8Array): ParquetFile {
  return {
    byteLength: bytes.length,
    // The reader wants an `ArrayBuffer` of exactly the slice.
    slice: (start, end) => new Uint8Array(bytes.subarray(start, end)).buffer,
  }
}

/** A file on disk; the caller deletes or replaces it only after it is done. */
export function diskFile(path: string): ParquetFile {
  const file = Bun.file(path)
  return {
    byteLength: file.size,
    slice: (start, end) => file.slice(start, end).arrayBuffer(),
  }
}

export type Opened = {
  readonly file: ParquetFile
  readonly metadata: FileMetaData
  readonly rows: number
  /** The JSON our footer holds; whose shape is the caller's to check. */
  readonly footer: unknown
}

export type Malformed = { readonly ok: false; readonly problem: string }

export async function openParquet(
  file: ParquetFile,
): Promise<({ readonly ok: true } & Opened) | Malformed> {
  try {
    // Without these parsers, statistics of times would come back as dates, rounded to milliseconds.
    const metadata = await parquetMetadataAsync(file, { parsers })
    const text = metadata.key_value_metadata?.find((entry) => entry.key === metadataKey)?.value
    if (text === undefined) return { ok: false, problem: `footer has no ${metadataKey} entry` }
    const footer: unknown = JSON.parse(text)
    return { ok: true, file, metadata, rows: Number(metadata.num_rows), footer }
  } catch (thrown) {
    return { ok: false, problem: `not a parquet file of ours: ${messageOf(thrown)}` }
  }
}

/** What a leaf is made of, for the rows of one row group; arrays of equal length. */
export type LeafRows = {
  /** Row number in the file of the first one. */
  readonly firstRow: number
  readonly index: readonly number[]
  readonly kind: readonly Kind[]
  readonly observed: readonly number[]
  readonly gen: readonly string[]
  readonly ranges: readonly (readonly number[])[]
  readonly stream: readonly ('' | 'stdout' | 'stderr')[]
  readonly raw: readonly Uint8Array[]
  readonly source: readonly string[]
}

/** Yields row group after row group; ends with a problem if one cannot be read. */
export async function* leafRows(
  opened: Opened,
): AsyncGenerator<({ readonly ok: true } & LeafRows) | Malformed> {
  const scan = await scanOf(opened)
  const present = columnsOf(opened)
  let firstRow = 0
  for (const group of opened.metadata.row_groups) {
    const rowEnd = firstRow + Number(group.num_rows)
    const rowCount = rowEnd - firstRow
    const read = async (column: string): Promise<unknown[]> =>
      present.has(column)
        ? plainArray(await scan.readColumn({ column, rowStart: firstRow, rowEnd }), rowCount)
        : Array.from<unknown>({ length: rowCount })
    try {
      const offset = await read('_offset')
      const length = await read('_length')
      const several = await read('_ranges')
      yield {
        ok: true,
        firstRow,
        index: (await read('leaf_index')).map(asNumber),
        kind: (await read('kind')).map(asKind),
        observed: (await read('observed_ts')).map(asNumber),
        gen: (await read('_gen')).map(asText),
        ranges: offset.map((from, row) => asRanges(from, length[row], several[row])),
        stream: (await read('_stream')).map(asStream),
        raw: (await read('raw')).map(asBytes),
        source: (await read('source')).map(asText),
      }
    } catch (thrown) {
      yield { ok: false, problem: `rows ${firstRow} to ${rowEnd - 1}: ${messageOf(thrown)}` }
      return
    }
    firstRow = rowEnd
  }
}

/**
 * All rows as events again, as they were when they were committed, row group after row group.
 *
 * @throws {Error} when the file is malformed; for files whose hash was checked
 */
export async function* eventGroups(
  opened: Opened,
): AsyncGenerator<{ readonly firstRow: number; readonly events: readonly AuditEvent[] }> {
  const scan = await scanOf(opened)
  const present = columnsOf(opened)
  let firstRow = 0
  for (const group of opened.metadata.row_groups) {
    const rowEnd = firstRow + Number(group.num_rows)
    const events = Array.from({ length: rowEnd - firstRow }, () => newEvent(0))
    for (const { name } of columns) {
      const set = setterOf(name)
      if (set === null || !present.has(name)) continue
      const column = await scan.readColumn({ column: name, rowStart: firstRow, rowEnd })
      const values = plainArray(column, events.length)
      for (const [row, event] of events.entries()) set(event, values[row])
    }
    yield { firstRow, events }
    firstRow = rowEnd
  }
}

/** All rows of a file small enough to hold them: a part. @throws {Error} when it is malformed */
export async function readEvents(opened: Opened): Promise<AuditEvent[]> {
  const all: AuditEvent[] = []
  for await (const { events } of eventGroups(opened)) all.push(...events)
  return all
}

type Setter = (event: AuditEvent, value: unknown) => void

/** How a column's value goes back into an event; null for columns that say only where the row lies. */
function setterOf(name: string): Setter | null {
  const special = specialSetters[name]
  if (special !== undefined) return special
  // The column list and the event's fields are one list (`event.ts`); a test holds them together.
  return (event, value) => {
    if (value == null) return
    Reflect.set(event, name, typeof value === 'bigint' ? Number(value) : value)
  }
}

const specialSetters: Readonly<Record<string, Setter | null>> = {
  leaf_index: null,
  time: null,
  raw: (event, value) => {
    event.rawBuffer = asBytes(value)
    event.rawEnd = event.rawBuffer.length
  },
  _gen: (event, value) => {
    event.gen = asText(value)
  },
  _stream: (event, value) => {
    event.stream = asStream(value)
  },
  _offset: (event, value) => {
    event.ranges = asRanges(value, 0, null)
  },
  _length: (event, value) => {
    event.ranges = asRanges(event.ranges[0], value, null)
  },
  _ranges: (event, value) => {
    if (value != null) event.ranges = asRanges(null, null, value)
  },
}

function scanOf(opened: Opened): Promise<ParquetScan> {
  return parquetScan({
    file: opened.file,
    metadata: opened.metadata,
    compressors: {
      ZSTD: (input, outputLength) => {
        if (outputLength > pageBytesMax) {
          throw new Error(`a page of ${outputLength} bytes, more than ${pageBytesMax}`)
        }
        const output = zstdDecompressSync(input, { maxOutputLength: Math.max(outputLength, 1) })
        if (output.length !== outputLength) {
          throw new Error(`page has ${output.length} bytes, its header says ${outputLength}`)
        }
        return output
      },
    },
    utf8: false,
    parsers,
  })
}

/** Times as numbers of microseconds. */
const parsers = { timestampFromMicroseconds: Number }

function plainArray(values: DecodedArray, expected: number): unknown[] {
  if (values.length !== expected) throw new Error(`${values.length} values, expected ${expected}`)
  return Array.from<unknown>(values)
}

function columnsOf(opened: Opened): ReadonlySet<string> {
  return new Set(opened.metadata.schema.slice(1).map((element) => element.name))
}

function asRanges(offset: unknown, length: unknown, several: unknown): number[] {
  const ranges = rangesOf(
    offset == null ? null : asNumber(offset),
    length == null ? null : asNumber(length),
    several == null ? null : asText(several),
  )
  if (ranges === null) throw new Error(`_ranges holds ${JSON.stringify(several)}`)
  return ranges
}

function asNumber(value: unknown): number {
  const number = typeof value === 'bigint' ? Number(value) : value
  if (typeof number !== 'number' || !Number.isSafeInteger(number)) {
    throw new TypeError(`not a whole number: ${String(value)}`)
  }
  return number
}

function asText(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError(`not text: ${typeof value}`)
  return value
}

function asKind(value: unknown): Kind {
  const kind = kinds.find((known) => known === value)
  if (kind === undefined) throw new TypeError(`not a kind of event: ${String(value)}`)
  return kind
}

function asBytes(value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw new TypeError(`not bytes: ${typeof value}`)
  return value
}

function asStream(value: unknown): '' | 'stdout' | 'stderr' {
  if (value !== '' && value !== 'stdout' && value !== 'stderr') {
    throw new TypeError(`not a stream: ${String(value)}`)
  }
  return value
}
