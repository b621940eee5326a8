/**
 * Sealing: parts become one immutable segment with a signed manifest.
 *
 * Large parts are copied page by page, small ones are encoded anew, so that a busy node spends next
 * to nothing and a quiet one does not keep hundreds of tiny row groups. The tree is not touched.
 */
import { closeSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { ColumnChunk, FileMetaData, RowGroup } from 'hyparquet'
import { ByteWriter } from 'hyparquet-writer'
import { z } from 'zod'
import { messageOf, OpsError } from '../errors.ts'
import type { AuditEvent } from '../event.ts'
import { columns, parserVersion, schemaVersion } from '../event.ts'
import { rowGroupRowsMin } from '../limits.ts'
import { encodeHex } from '../log/encoding.ts'
import { emptyRoot } from '../log/merkle.ts'
import type { Cursor, Provenance } from '../tail/chunk.ts'
import { headNote, sha256Hex, stageNext } from './commit.ts'
import { makeFolder, publish, stage, syncFile, syncFolder } from './durable.ts'
import { manifestName, names, segmentName } from './filenames.ts'
import type { LogState, PartRef, StepHook } from './log-state.ts'
import type { ParquetEncoder } from './parquet.ts'
import { finishFile, rowGroupOf, startFile } from './parquet.ts'
import { columnSources, metadataKey, parsePartMeta, provenanceSchema } from './part.ts'
import type { Malformed } from './read.ts'
import { memoryFile, openParquet, readEvents } from './read.ts'
import type { Manifest } from './statement.ts'
import { signManifest } from './statement.ts'

/** The footer of a segment, as JSON under the key `meshtrail`. */
export type SegmentMeta = {
  readonly format: 'meshtrail/segment@v1'
  readonly origin: string
  readonly first: number
  readonly count: number
  /** Keys of the leaf salts, hex, in leaf order; compaction keeps the list. */
  readonly salts: readonly {
    readonly first: number
    readonly count: number
    readonly key: string
  }[]
  /** Where the lines of each generation came from, so that they can be parsed again. */
  readonly generations: Readonly<Record<string, Provenance>>
  readonly schema: number
  readonly parser: number
}

const whole = z.number().int().nonnegative()
const segmentMetaSchema: z.ZodType<SegmentMeta> = z.strictObject({
  format: z.literal('meshtrail/segment@v1'),
  origin: z.string(),
  first: whole,
  count: z.number().int().positive(),
  salts: z.array(
    z.strictObject({ first: whole, count: whole, key: z.string().regex(/^[0-9a-f]{64}$/) }),
  ),
  generations: z.record(z.string(), provenanceSchema),
  schema: whole,
  parser: whole,
})

/** Reads a segment's footer; takes JSON from anyone. */
export function parseSegmentMeta(
  footer: unknown,
): { readonly ok: true; readonly meta: SegmentMeta } | Malformed {
  const parsed = segmentMetaSchema.safeParse(footer)
  if (parsed.success) return { ok: true, meta: parsed.data }
  return { ok: false, problem: `footer: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}` }
}

/**
 * @param parts consecutive parts of one UTC day, the oldest that no manifest covers; not while a
 *   commit is unsigned
 * @returns the segment's manifest
 * @throws {OpsError} `disk_full` (nothing changed), `corrupt_input` when a part is not what was
 *   committed (nothing changed; `verify` says more)
 */
export async function seal(
  log: LogState,
  parts: readonly PartRef[],
  encoder: ParquetEncoder,
  agentVersion: string,
  nowMs: number,
  step: StepHook,
): Promise<Manifest> {
  const [oldest] = parts
  const newest = parts.at(-1)
  if (oldest === undefined || newest === undefined) throw new Error('BUG: seal of no parts')
  const { after, totals } = newest
  const count = after.size - oldest.first
  const temporary = `${names.segments}/.sealing.tmp`
  const written = await writeSegment(log, parts, count, encoder, temporary)
  step('segment-synced')

  const path = segmentName(oldest.date, oldest.first, count, written.sha256)
  makeFolder(log.root, dirname(path))
  renameSync(join(log.root, temporary), join(log.root, path))
  syncFolder(log.root, dirname(path))
  syncFolder(log.root, names.segments)
  step('segment-renamed')
  // A crash here leaves a segment without a manifest: recovery removes it, its parts still count.

  const manifest: Manifest = {
    origin: log.identity.origin,
    seq: log.manifest === null ? 0 : log.manifest.seq + 1,
    previous: log.manifest?.sha256 ?? '',
    first: oldest.first,
    count,
    rootBefore: log.segments.at(-1)?.manifest.rootAfter ?? encodeHex(emptyRoot()),
    rootAfter: after.root,
    frontier: [...after.frontier],
    file: {
      path,
      bytes: written.bytes,
      sha256: written.sha256,
      rowGroups: written.rowGroups,
    },
    parts: parts.map((part) => ({ path: part.path, sha256: part.sha256 })),
    time: written.time,
    observed: written.observed,
    rulesThrough: log.rulesThrough,
    totals,
    schema: schemaVersion,
    parser: parserVersion,
    agent: agentVersion,
  }
  const note = signManifest(manifest, log.identity.signer)
  const stored = manifestName(manifest.seq)
  const before = log.manifest
  stage(log.root, stored, note)
  const sha256 = sha256Hex(note)
  log.manifest = { seq: manifest.seq, sha256 }
  try {
    stageNext(log, names.headNext, headNote(log))
  } catch (thrown) {
    log.manifest = before
    throw thrown
  }
  step('manifest-staged')
  publish(log.root, stored)
  syncFolder(log.root, names.manifests)
  step('manifest-renamed')
  publish(log.root, names.head, names.headNext)
  syncFolder(log.root, names.log)
  step('seal-head-renamed')

  const sealed = new Set(parts.map((part) => part.path))
  log.parts = log.parts.filter((part) => !sealed.has(part.path))
  log.segments.push({ manifest, manifestSha256: sha256 })
  log.retired.push(...parts.map((part) => ({ path: part.path, bytes: part.bytes, sinceMs: nowMs })))
  log.bytes += written.bytes + note.length
  log.listAllCursors = true
  return manifest
}

type Written = {
  readonly bytes: number
  readonly sha256: string
  readonly rowGroups: number
  readonly time: { readonly min: number; readonly max: number }
  readonly observed: { readonly min: number; readonly max: number }
}

async function writeSegment(
  log: LogState,
  parts: readonly PartRef[],
  count: number,
  encoder: ParquetEncoder,
  temporary: string,
): Promise<Written> {
  const path = join(log.root, temporary)
  const sink = new FileSink(path)
  try {
    const file = new ByteWriter(1 << 20)
    startFile(file)
    const rowGroups: RowGroup[] = []
    const generations = new Map<string, Provenance>()
    let small: AuditEvent[] = []
    let smallFirst = 0
    const flushSmall = (): void => {
      if (small.length === 0) return
      rowGroups.push(encodeGroup(encoder, file, small, smallFirst))
      small = []
      sink.take(file)
    }

    for (const part of parts) {
      await captureTurn()
      const bytes = readPart(log.root, part)
      const opened = await openParquet(memoryFile(bytes))
      if (!opened.ok) throw changed(part, opened.problem)
      for (const { gen, provenance } of movedCursors(part, opened.footer)) {
        generations.set(gen, provenance)
      }
      if (opened.rows >= rowGroupRowsMin) {
        flushSmall()
        rowGroups.push(copyGroup(encoder, file, bytes, opened.metadata, part))
        sink.take(file)
      } else {
        if (small.length === 0) smallFirst = part.first
        small.push(...(await readEvents(opened)))
        if (small.length >= rowGroupRowsMin * 4) flushSmall()
      }
    }
    flushSmall()

    const meta: SegmentMeta = {
      format: 'meshtrail/segment@v1',
      origin: log.identity.origin,
      first: parts[0]?.first ?? 0,
      count,
      salts: saltRanges(parts),
      generations: Object.fromEntries(generations),
      schema: schemaVersion,
      parser: parserVersion,
    }
    const rows = rowGroups.reduce((sum, group) => sum + Number(group.num_rows), 0)
    if (rows !== count) throw new Error(`BUG: segment has ${rows} rows, expected ${count}`)
    finishFile(file, columns, rowGroups, [{ key: metadataKey, value: JSON.stringify(meta) }])
    sink.take(file)
    const { bytes, sha256 } = sink.finish()
    syncFile(log.root, temporary)
    return {
      bytes,
      sha256,
      rowGroups: rowGroups.length,
      time: bounds(rowGroups, 'time'),
      observed: bounds(rowGroups, 'observed_ts'),
    }
  } catch (thrown) {
    sink.abandon()
    rmSync(path, { force: true })
    throw thrown
  }
}

/** Reading a part awaits nothing but memory: without this, capture would wait for the whole seal. */
function captureTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}

function readPart(root: string, part: PartRef): Uint8Array {
  let bytes: Uint8Array
  try {
    bytes = readFileSync(join(root, part.path))
  } catch (thrown) {
    throw changed(part, messageOf(thrown))
  }
  if (sha256Hex(bytes) !== part.sha256) throw changed(part, 'its hash is not the committed one')
  return bytes
}

function movedCursors(part: PartRef, footer: unknown): readonly Cursor[] {
  const parsed = parsePartMeta(footer)
  if (!parsed.ok) throw changed(part, parsed.problem)
  return parsed.meta.cursors
}

function changed(part: PartRef, problem: string): OpsError {
  return new OpsError('corrupt_input', `${part.path} was changed after its commit: ${problem}`, {
    hint: 'keep the directory as it is and run meshtrail verify on it',
    detail: { path: part.path },
  })
}

function encodeGroup(
  encoder: ParquetEncoder,
  file: ByteWriter,
  events: readonly AuditEvent[],
  first: number,
): RowGroup {
  const start = file.offset
  const encoded = new Map(
    encoder
      .rowGroup(file, columnSources(events, first), events.length)
      .map(({ name, chunk }) => [name, chunk]),
  )
  const chunks = columns.map(
    (column) => encoded.get(column.name) ?? encoder.nullChunk(file, column, events.length),
  )
  return rowGroupOf(chunks, events.length, start, file.offset)
}

/** Copies a part's one row group; columns it left out become all-null chunks. */
function copyGroup(
  encoder: ParquetEncoder,
  file: ByteWriter,
  bytes: Uint8Array,
  metadata: FileMetaData,
  part: PartRef,
): RowGroup {
  const [group] = metadata.row_groups
  if (group === undefined) throw changed(part, 'it has no row group')
  const rowCount = Number(group.num_rows)
  const start = file.offset
  const known = new Map(
    group.columns.map((chunk) => [chunk.meta_data?.path_in_schema.join('.') ?? '', chunk]),
  )
  const chunks = columns.map((column) => {
    const chunk = known.get(column.name)
    return chunk === undefined
      ? encoder.nullChunk(file, column, rowCount)
      : copyChunk(file, bytes, chunk)
  })
  return rowGroupOf(chunks, rowCount, start, file.offset)
}

function copyChunk(file: ByteWriter, bytes: Uint8Array, chunk: ColumnChunk): ColumnChunk {
  const meta = chunk.meta_data
  if (meta === undefined) throw new Error('BUG: column chunk without metadata')
  const from = Number(meta.dictionary_page_offset ?? meta.data_page_offset)
  const shift = BigInt(file.offset - from)
  file.appendBytes(bytes.subarray(from, from + Number(meta.total_compressed_size)))
  return {
    file_offset: BigInt(from) + shift,
    meta_data: {
      ...meta,
      data_page_offset: meta.data_page_offset + shift,
      ...(meta.dictionary_page_offset === undefined
        ? {}
        : { dictionary_page_offset: meta.dictionary_page_offset + shift }),
    },
  }
}

function saltRanges(parts: readonly PartRef[]): SegmentMeta['salts'] {
  const ranges: { first: number; count: number; key: string }[] = []
  for (const part of parts) {
    const last = ranges.at(-1)
    if (last?.key === part.saltKey) last.count += part.count
    else ranges.push({ first: part.first, count: part.count, key: part.saltKey })
  }
  return ranges
}

function bounds(groups: readonly RowGroup[], name: string): { min: number; max: number } {
  let min = Number.POSITIVE_INFINITY
  let max = Number.NEGATIVE_INFINITY
  for (const group of groups) {
    const chunk = group.columns.find((candidate) => candidate.meta_data?.path_in_schema[0] === name)
    const statistics = chunk?.meta_data?.statistics
    min = Math.min(min, Number(statistics?.min_value))
    max = Math.max(max, Number(statistics?.max_value))
  }
  if (!Number.isFinite(min) || !Number.isFinite(max)) throw new Error(`BUG: no bounds of ${name}`)
  return { min, max }
}

/** Appends to a file what a `ByteWriter` has gathered, and hashes it on the way. */
class FileSink {
  readonly #fd: number
  readonly #hash = new Bun.CryptoHasher('sha256')
  #bytes = 0

  constructor(path: string) {
    this.#fd = openSync(path, 'w', 0o640)
  }

  /** Empties the writer's buffer; its `offset` keeps counting from the start of the file. */
  take(file: ByteWriter): void {
    const bytes = file.getBytes()
    let written = 0
    try {
      while (written < bytes.length) written += writeSync(this.#fd, bytes, written)
    } catch (cause) {
      throw new OpsError('disk_full', `no space left to write a segment: ${messageOf(cause)}`, {
        hint: 'free space on the disk; sealing is tried again by itself',
        cause,
      })
    }
    this.#hash.update(bytes)
    this.#bytes += bytes.length
    file.index = 0
  }

  finish(): { bytes: number; sha256: string } {
    closeSync(this.#fd)
    return { bytes: this.#bytes, sha256: this.#hash.digest('hex') }
  }

  abandon(): void {
    try {
      closeSync(this.#fd)
    } catch {
      // Already closed by `finish`.
    }
  }
}
