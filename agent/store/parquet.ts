/**
 * Writes rows as Parquet: the column pages are encoded here, because every line passes through them;
 * page headers and footer are hyparquet-writer's.
 *
 * Text becomes dictionary pages, or plain ones where values hardly repeat; numbers and bytes are
 * plain; every page is one zstd frame. Deliberately absent: nesting, indexes, bloom filters.
 *
 * @see https://parquet.apache.org/docs/file-format/ (data page V1, RLE/bit-packing hybrid)
 */
import type { ColumnChunk, KeyValue, PageHeader, RowGroup, SchemaElement } from 'hyparquet'
import { ByteWriter } from 'hyparquet-writer'
import { writePageHeader } from 'hyparquet-writer/src/datapage.js'
import { writeMetadata } from 'hyparquet-writer/src/metadata.js'
import type { Column, ColumnType } from '../event.ts'

type NumberType = Exclude<ColumnType, 'utf8' | 'json' | 'bytes'>

/** Where the values of one column come from; `row` counts from 0 and rises. */
export type ColumnSource = { readonly name: string; readonly nullable: boolean } & (
  | {
      readonly type: 'utf8' | 'json'
      /** Values that hardly ever repeat (ids): do not even try a dictionary. */
      readonly distinct: boolean
      readonly text: (row: number) => string | null
    }
  | { readonly type: NumberType; readonly number: (row: number) => number | null }
  | {
      readonly type: 'bytes'
      /** Appends the value of `row` to `page`, length prefix excluded. */
      readonly bytes: (row: number, page: PageBuffer) => void
    }
)

/** Level 1: the commit waits for it, and sealing compresses once more. */
const zstdOptions = { level: 1 } as const

/** A growing byte buffer that is kept between pages, so that a busy node does not allocate one per page. */
export class PageBuffer {
  bytes: Buffer
  length = 0

  constructor(capacity: number) {
    this.bytes = Buffer.allocUnsafe(capacity)
  }

  reserve(more: number): void {
    const needed = this.length + more
    if (needed <= this.bytes.length) return
    const grown = Buffer.allocUnsafe(Math.max(needed, this.bytes.length * 2))
    this.bytes.copy(grown, 0, 0, this.length)
    this.bytes = grown
  }

  /** Gives memory back after an unusually large page. */
  reset(capacityKept: number): void {
    this.length = 0
    if (this.bytes.length > capacityKept) this.bytes = Buffer.allocUnsafe(capacityKept)
  }

  u32(value: number): void {
    this.reserve(4)
    this.length = this.bytes.writeUInt32LE(value >>> 0, this.length)
  }

  /** An integer of up to 53 bits as a signed 64-bit one. */
  i64(value: number): void {
    this.reserve(8)
    const low = value % 4294967296
    const unsignedLow = low < 0 ? low + 4294967296 : low
    this.bytes.writeUInt32LE(unsignedLow, this.length)
    this.length = this.bytes.writeInt32LE((value - unsignedLow) / 4294967296, this.length + 4)
  }

  /** A length-prefixed string, as PLAIN BYTE_ARRAY wants it. */
  text(value: string): void {
    this.reserve(4 + value.length * 3)
    const written = this.bytes.write(value, this.length + 4)
    this.bytes.writeUInt32LE(written, this.length)
    this.length += 4 + written
  }

  copy(source: Uint8Array, start: number, end: number): void {
    this.reserve(end - start)
    this.bytes.set(
      start === 0 && end === source.length ? source : source.subarray(start, end),
      this.length,
    )
    this.length += end - start
  }

  varint(value: number): void {
    this.reserve(5)
    let rest = value
    while (rest > 0x7f) {
      this.bytes[this.length++] = (rest & 0x7f) | 0x80
      rest >>>= 7
    }
    this.bytes[this.length++] = rest
  }

  view(): Buffer {
    return this.bytes.subarray(0, this.length)
  }
}

/** Buffers of pages are kept up to this size: fresh memory costs a page fault every 4 KiB. */
const pageBytesKept = 8 << 20
/** A page of raw lines is closed once it has so many bytes. */
const bytesPageMin = 1 << 20

/** Encodes files one after the other, reusing its buffers. Not for concurrent use. */
export class ParquetEncoder {
  readonly #page = new PageBuffer(1 << 20)
  readonly #dictionaryPage = new PageBuffer(1 << 16)
  #indexes = new Int32Array(0)
  #present = new Uint8Array(0)

  /**
   * Appends one row group to `file`. A nullable column without a value has no chunk.
   *
   * @param rowCount at least 1
   */
  rowGroup(file: ByteWriter, columns: readonly ColumnSource[], rowCount: number): EncodedColumn[] {
    if (this.#indexes.length < rowCount) {
      this.#indexes = new Int32Array(rowCount)
      this.#present = new Uint8Array(rowCount)
    }
    const encoded: EncodedColumn[] = []
    for (const column of columns) {
      const chunk = this.#encodeColumn(file, column, rowCount)
      if (chunk !== null) encoded.push({ name: column.name, chunk })
    }
    this.#page.reset(pageBytesKept)
    this.#dictionaryPage.reset(pageBytesKept)
    return encoded
  }

  /** Appends a chunk of a nullable column in which every row is null. */
  nullChunk(file: ByteWriter, column: Column, rowCount: number): ColumnChunk {
    const page = this.#page
    page.length = 0
    page.u32(0)
    page.varint(rowCount << 1)
    page.reserve(1)
    page.bytes[page.length++] = 0
    page.bytes.writeUInt32LE(page.length - 4, 0)
    return this.#writeChunk(file, column, rowCount, { presentCount: 0, distinct: null })
  }

  #encodeColumn(file: ByteWriter, column: ColumnSource, rowCount: number): ColumnChunk | null {
    switch (column.type) {
      case 'utf8':
      case 'json':
        return this.#encodeText(file, column, rowCount)
      case 'bytes':
        return this.#encodeBytes(file, column, rowCount)
      case 'time':
      case 'u64':
      case 'i64':
      case 'u32':
        return this.#encodeNumbers(file, column, rowCount)
    }
  }

  #encodeText(
    file: ByteWriter,
    column: ColumnSource & { readonly type: 'utf8' | 'json' },
    rowCount: number,
  ): ColumnChunk | null {
    const indexes = this.#indexes
    const present = this.#present
    const dictionary = this.#dictionaryPage
    dictionary.length = 0
    const known = new Map<string, number>()
    // A dictionary pays while distinct values are few; give up after a sample, or half-way.
    let distinctMax = column.distinct ? 0 : Math.max(16, rowCount >>> 1)
    let presentCount = 0
    let last: string | null = null
    let lastIndex = 0
    let row = 0
    for (; row < rowCount; row++) {
      const value = column.text(row)
      if (value === null) {
        present[row] = 0
        continue
      }
      if (distinctMax === 0) break
      present[row] = 1
      if (value !== last) {
        let index = known.get(value)
        if (index === undefined) {
          if (known.size === distinctMax) break
          index = known.size
          known.set(value, index)
          dictionary.text(value)
          if (index === sampleRows && presentCount < sampleRows * 2) distinctMax = index + 1
        }
        last = value
        lastIndex = index
      }
      indexes[presentCount++] = lastIndex
    }
    const encoded: EncodedPages =
      row === rowCount
        ? { presentCount, distinct: known.size }
        : { presentCount: this.#plainText(column, rowCount), distinct: null }
    if (encoded.presentCount === 0 && column.nullable) return null

    const page = this.#page
    if (encoded.distinct !== null) {
      page.length = 0
      this.#levels(column.nullable, rowCount, encoded.presentCount)
      const width = bitWidth(encoded.distinct)
      page.reserve(1)
      page.bytes[page.length++] = width
      packIndexes(page, indexes, encoded.presentCount, width, encoded.distinct)
    }
    return this.#writeChunk(file, column, rowCount, encoded)
  }

  /** Fills the page with levels and plain values; returns how many values there were. */
  #plainText(column: ColumnSource & { readonly type: 'utf8' | 'json' }, rowCount: number): number {
    const present = this.#present
    const values = this.#dictionaryPage
    values.length = 0
    let presentCount = 0
    for (let row = 0; row < rowCount; row++) {
      const value = column.text(row)
      present[row] = value === null ? 0 : 1
      if (value === null) continue
      values.text(value)
      presentCount++
    }
    this.#page.length = 0
    this.#levels(column.nullable, rowCount, presentCount)
    this.#page.copy(values.bytes, 0, values.length)
    return presentCount
  }

  #encodeNumbers(
    file: ByteWriter,
    column: ColumnSource & { readonly type: NumberType },
    rowCount: number,
  ): ColumnChunk | null {
    const present = this.#present
    const values = this.#dictionaryPage
    values.length = 0
    const wide = column.type !== 'u32'
    let presentCount = 0
    let min = Number.POSITIVE_INFINITY
    let max = Number.NEGATIVE_INFINITY
    for (let row = 0; row < rowCount; row++) {
      const value = column.number(row)
      present[row] = value === null ? 0 : 1
      if (value === null) continue
      presentCount++
      if (value < min) min = value
      if (value > max) max = value
      if (wide) values.i64(value)
      else values.u32(value)
    }
    if (presentCount === 0 && column.nullable) return null
    const page = this.#page
    page.length = 0
    this.#levels(column.nullable, rowCount, presentCount)
    page.copy(values.bytes, 0, values.length)
    const chunk = this.#writeChunk(file, column, rowCount, { presentCount, distinct: null })
    // Unsigned 32-bit statistics would need another representation; only the wide ones prune.
    if (wide && presentCount > 0 && chunk.meta_data !== undefined) {
      chunk.meta_data.statistics = {
        null_count: BigInt(rowCount - presentCount),
        min_value: BigInt(min),
        max_value: BigInt(max),
      }
    }
    return chunk
  }

  /** Pages of about a megabyte: they stay in the cache from being filled to being compressed. */
  #encodeBytes(
    file: ByteWriter,
    column: ColumnSource & { readonly type: 'bytes' },
    rowCount: number,
  ): ColumnChunk {
    const page = this.#page
    page.length = 0
    const chunk = new ChunkBuilder(file, column)
    let valuesInPage = 0
    for (let row = 0; row < rowCount; row++) {
      const lengthAt = page.length
      page.u32(0)
      column.bytes(row, page)
      page.bytes.writeUInt32LE(page.length - lengthAt - 4, lengthAt)
      valuesInPage++
      if (page.length < bytesPageMin && row < rowCount - 1) continue
      chunk.dataPage(page.view(), valuesInPage, 'PLAIN')
      page.length = 0
      valuesInPage = 0
    }
    return chunk.finish(rowCount)
  }

  /** Definition levels of a nullable column: one bit a row, or one run where all are present. */
  #levels(nullable: boolean, rowCount: number, presentCount: number): void {
    if (!nullable) return
    const page = this.#page
    const lengthAt = page.length
    page.u32(0)
    if (presentCount === rowCount) {
      page.varint(rowCount << 1)
      page.reserve(1)
      page.bytes[page.length++] = 1
    } else {
      const groups = (rowCount + 7) >>> 3
      page.varint((groups << 1) | 1)
      page.reserve(groups)
      const present = this.#present
      for (let group = 0; group < groups; group++) {
        let bits = 0
        const end = Math.min(rowCount - group * 8, 8)
        for (let bit = 0; bit < end; bit++) bits |= (present[group * 8 + bit] ?? 0) << bit
        page.bytes[page.length++] = bits
      }
    }
    page.bytes.writeUInt32LE(page.length - lengthAt - 4, lengthAt)
  }

  #writeChunk(
    file: ByteWriter,
    column: Pick<Column, 'name' | 'type'>,
    rowCount: number,
    encoded: EncodedPages,
  ): ColumnChunk {
    const chunk = new ChunkBuilder(file, column)
    if (encoded.distinct !== null) {
      chunk.dictionaryPage(this.#dictionaryPage.view(), encoded.distinct)
    }
    const encoding = encoded.distinct === null ? 'PLAIN' : 'RLE_DICTIONARY'
    chunk.dataPage(this.#page.view(), rowCount, encoding)
    return chunk.finish(rowCount)
  }
}

/** Appends the pages of one column chunk and keeps its metadata. */
class ChunkBuilder {
  readonly #file: ByteWriter
  readonly #column: Pick<Column, 'name' | 'type'>
  readonly #start: number
  #uncompressed = 0
  #dictionaryAt: number | undefined
  #dataAt: number | undefined
  #encoding: 'PLAIN' | 'RLE_DICTIONARY' = 'PLAIN'

  constructor(file: ByteWriter, column: Pick<Column, 'name' | 'type'>) {
    this.#file = file
    this.#column = column
    this.#start = file.offset
  }

  dictionaryPage(values: Buffer, distinct: number): void {
    this.#dictionaryAt = this.#file.offset
    const compressed = Bun.zstdCompressSync(values, zstdOptions)
    this.#page(values.length, compressed, {
      type: 'DICTIONARY_PAGE',
      uncompressed_page_size: values.length,
      compressed_page_size: compressed.length,
      dictionary_page_header: { num_values: distinct, encoding: 'PLAIN' },
    })
  }

  dataPage(values: Buffer, valueCount: number, encoding: 'PLAIN' | 'RLE_DICTIONARY'): void {
    this.#dataAt ??= this.#file.offset
    this.#encoding = encoding
    const compressed = Bun.zstdCompressSync(values, zstdOptions)
    this.#page(values.length, compressed, {
      type: 'DATA_PAGE',
      uncompressed_page_size: values.length,
      compressed_page_size: compressed.length,
      data_page_header: {
        num_values: valueCount,
        encoding,
        definition_level_encoding: 'RLE',
        repetition_level_encoding: 'RLE',
      },
    })
  }

  #page(length: number, compressed: Uint8Array, header: PageHeader): void {
    const start = this.#file.offset
    writePageHeader(this.#file, header)
    this.#uncompressed += this.#file.offset - start + length
    this.#file.appendBytes(compressed)
  }

  finish(rowCount: number): ColumnChunk {
    const { name, type } = this.#column
    const dictionary = this.#dictionaryAt
    return {
      file_offset: BigInt(this.#start),
      meta_data: {
        type: physicalType(type),
        encodings: dictionary === undefined ? ['PLAIN', 'RLE'] : ['PLAIN', 'RLE', this.#encoding],
        path_in_schema: [name],
        codec: 'ZSTD',
        num_values: BigInt(rowCount),
        total_uncompressed_size: BigInt(this.#uncompressed),
        total_compressed_size: BigInt(this.#file.offset - this.#start),
        data_page_offset: BigInt(this.#dataAt ?? this.#start),
        ...(dictionary === undefined ? {} : { dictionary_page_offset: BigInt(dictionary) }),
      },
    }
  }
}

type EncodedPages = {
  readonly presentCount: number
  /** Entries of the dictionary page; null where the values are plain. */
  readonly distinct: number | null
}

export type EncodedColumn = { readonly name: string; readonly chunk: ColumnChunk }

/** 'PAR1', little endian. */
const parquetMagic = 0x31524150

export function startFile(file: ByteWriter): void {
  file.appendUint32(parquetMagic)
}

/** One row group's entry in the footer; its bytes were appended from `startOffset` on. */
export function rowGroupOf(
  chunks: readonly ColumnChunk[],
  rowCount: number,
  startOffset: number,
  endOffset: number,
): RowGroup {
  return {
    columns: [...chunks],
    total_byte_size: chunks.reduce(
      (sum, chunk) => sum + (chunk.meta_data?.total_uncompressed_size ?? 0n),
      0n,
    ),
    num_rows: BigInt(rowCount),
    total_compressed_size: BigInt(endOffset - startOffset),
  }
}

/** The footer. Every row group must have a chunk for each of `columns`, in that order. */
export function finishFile(
  file: ByteWriter,
  columns: readonly Pick<Column, 'name' | 'type' | 'nullable'>[],
  rowGroups: readonly RowGroup[],
  metadata: readonly KeyValue[],
): void {
  writeMetadata(file, {
    version: 2,
    created_by: 'meshtrail',
    schema: [{ name: 'events', num_children: columns.length }, ...columns.map(schemaElement)],
    num_rows: rowGroups.reduce((sum, group) => sum + group.num_rows, 0n),
    row_groups: [...rowGroups],
    key_value_metadata: [...metadata],
    // The type asks for it; the writer computes it and writes nothing for this one.
    metadata_length: 0,
  })
  file.appendUint32(parquetMagic)
}

/** After this many distinct values, a column that repeated less than half of the time goes plain. */
const sampleRows = 512

function bitWidth(distinct: number): number {
  return Math.max(1, 32 - Math.clz32(Math.max(distinct - 1, 0)))
}

/** RLE/bit-packing hybrid of the dictionary indexes: one run where there is one value, else one packed run. */
function packIndexes(
  page: PageBuffer,
  indexes: Int32Array,
  count: number,
  width: number,
  distinct: number,
): void {
  if (distinct <= 1) {
    page.varint(count << 1)
    page.reserve(1)
    page.bytes[page.length++] = 0
    return
  }
  const groups = (count + 7) >>> 3
  page.varint((groups << 1) | 1)
  page.reserve(groups * width)
  const bytes = page.bytes
  let at = page.length
  let pending = 0
  let pendingBits = 0
  for (let row = 0; row < groups * 8; row++) {
    // At most 7 pending bits and 24 new ones: batches are far smaller than 2^24 rows.
    pending |= (row < count ? (indexes[row] ?? 0) : 0) << pendingBits
    pendingBits += width
    while (pendingBits >= 8) {
      bytes[at++] = pending & 0xff
      pending >>>= 8
      pendingBits -= 8
    }
  }
  page.length = at
}

function physicalType(type: ColumnType): 'BYTE_ARRAY' | 'INT32' | 'INT64' {
  switch (type) {
    case 'utf8':
    case 'json':
    case 'bytes':
      return 'BYTE_ARRAY'
    case 'u32':
      return 'INT32'
    case 'time':
    case 'u64':
    case 'i64':
      return 'INT64'
  }
}

function schemaElement(column: Pick<Column, 'name' | 'type' | 'nullable'>): SchemaElement {
  const base = {
    name: column.name,
    type: physicalType(column.type),
    repetition_type: column.nullable ? 'OPTIONAL' : 'REQUIRED',
  } as const
  switch (column.type) {
    case 'utf8':
    // JSON is text here: a reader that believes the type would fail on one line's hostile value.
    case 'json':
      return { ...base, converted_type: 'UTF8', logical_type: { type: 'STRING' } }
    case 'u32':
      return { ...base, converted_type: 'UINT_32' }
    case 'u64':
      return { ...base, converted_type: 'UINT_64' }
    case 'time':
      return {
        ...base,
        converted_type: 'TIMESTAMP_MICROS',
        logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' },
      }
    case 'i64':
    case 'bytes':
      return base
  }
}
