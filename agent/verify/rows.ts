/**
 * The rows: each one a leaf of the tree the head signs, and each byte of each source in one of them.
 * Streams: one row group is in memory at a time.
 */
import { messageOf } from '../errors.ts'
import type { AuditEvent } from '../event.ts'
import { encodeHex, sameBytes } from '../log/encoding.ts'
import { LeafHasher } from '../log/entry.ts'
import { CompactRange, hashBytes } from '../log/merkle.ts'
import { formatTilePath, parseTilePath, TileEdge, type TileFile, tilesOf } from '../log/tile.ts'
import { names, type PartName } from '../store/filenames.ts'
import { parsePartMeta } from '../store/part.ts'
import { eventGroups, leafRows, type LeafRows, type Opened, openParquet } from '../store/read.ts'
import { parseSegmentMeta, type SegmentMeta } from '../store/seal.ts'
import type { Cursor, Provenance } from '../tail/chunk.ts'
import { ByteAccount } from './account.ts'
import type { Evidence } from './evidence.ts'
import { leavesOf } from './files.ts'
import type { Complaints, LeafRange } from './report.ts'
import type { ExpectedHead, SealedSegment, SignedEnd } from './statements.ts'

/**
 * Says how an event's columns differ from what its raw bytes give, or null when they do not.
 * The provenance of the agent's own events is undefined: they have none.
 */
export type CompareColumns = (
  event: AuditEvent,
  provenance: Provenance | undefined,
) => string | null

export type RowOptions = {
  /** Parses every line again. Without it, only the rows of damaged files are, to name them. */
  readonly deep: boolean
  readonly compare: CompareColumns
  readonly onProgress?: (done: { readonly bytes: number; readonly total: number }) => void
}

/** Complaints about rows listed one by one before the rest is only counted. */
const rowComplaintsMax = 20

/** What a file's footer must say about its rows. */
type FileMeta = Pick<SegmentMeta, 'first' | 'count' | 'salts' | 'schema'>

/** Reads segments and parts in leaf order, then settles tree, tiles and account. */
export class RowReader {
  readonly #evidence: Evidence
  readonly #options: RowOptions
  readonly #complaints: Complaints
  readonly #expected: ExpectedHead | null
  readonly #account = new ByteAccount()
  readonly #cursors = new Map<string, Cursor>()
  readonly #edge = new TileEdge()
  readonly #tiles = new Map<string, TileFile>()
  readonly #tree = new CompactRange((subtree) => {
    if (subtree.level === 8) this.#edge.push(subtree.hash)
  })
  /** Root of as many leaves as the expected head has. */
  #rootAtExpected = ''
  #rowsThatDiffer = 0
  #bytesRead = 0
  gaps = 0
  rawBytes = 0
  /** Observed, µs; infinite while nothing was read. */
  from = Number.POSITIVE_INFINITY
  to = Number.NEGATIVE_INFINITY

  constructor(
    evidence: Evidence,
    options: RowOptions,
    expected: ExpectedHead | null,
    complaints: Complaints,
  ) {
    this.#evidence = evidence
    this.#options = options
    this.#expected = expected
    this.#complaints = complaints
  }

  async read(
    segments: readonly SealedSegment[],
    live: readonly PartName[],
    signed: SignedEnd,
  ): Promise<void> {
    for (const segment of segments) if (!(await this.#readSegment(segment))) break
    for (const part of live) if (!(await this.#readPart(part, signed))) break
    this.#checkTree(signed)
    this.#checkTiles(signed)
    this.#complaints.addAll(this.#account.settle(this.#cursors))
    if (this.#rowsThatDiffer > rowComplaintsMax) {
      const problem = `${this.#rowsThatDiffer} rows in all differ from their lines`
      this.#complaints.forged(names.segments, problem)
    }
  }

  /** @returns false when nothing behind it can be placed any more */
  async #readSegment({ manifest }: SealedSegment): Promise<boolean> {
    const { path } = manifest.file
    const leaves: LeafRange = [manifest.first, manifest.first + manifest.count]
    if (!this.#evidence.has(path)) return false
    const opened = await openParquet(this.#evidence.parquet(path))
    const footer = opened.ok ? parseSegmentMeta(opened.footer) : opened
    if (!opened.ok || !footer.ok) {
      this.#complaints.forged(path, footer.ok ? 'unreadable' : footer.problem, leaves)
      return false
    }
    const { meta } = footer
    if (!(await this.#readFile(path, opened, meta, leaves))) return false
    if (encodeHex(this.#tree.root()) !== manifest.rootAfter) {
      this.#complaints.forged(path, 'its rows do not give the root the manifest signs', leaves)
    }
    await this.#compareColumns(path, opened, new Map(Object.entries(meta.generations)))
    return true
  }

  async #readPart(part: PartName, signed: SignedEnd): Promise<boolean> {
    const { path } = part
    const leaves = leavesOf(part)
    const opened = await openParquet(this.#evidence.parquet(path))
    const footer = opened.ok ? parsePartMeta(opened.footer) : opened
    if (!opened.ok || !footer.ok) {
      const problem = footer.ok ? 'unreadable' : footer.problem
      if (part.first >= signed.size) this.#complaints.incomplete(path, problem, leaves)
      else this.#complaints.forged(path, problem, leaves)
      return false
    }
    const { meta } = footer
    if (meta.allCursors) this.#cursors.clear()
    for (const cursor of meta.cursors) this.#cursors.set(cursor.gen, cursor)
    const salts = [{ first: meta.first, count: meta.count, key: meta.saltKey }]
    if (!(await this.#readFile(path, opened, { ...meta, salts }, leaves))) return false
    if (encodeHex(this.#tree.root()) !== meta.root) {
      this.#complaints.forged(path, 'its rows do not give the root it states', leaves)
    }
    const provenances = new Map([...this.#cursors].map(([gen, cursor]) => [gen, cursor.provenance]))
    await this.#compareColumns(path, opened, provenances)
    return true
  }

  /** Appends a file's leaves to the tree and enters its bytes into the account. */
  async #readFile(
    path: string,
    opened: Opened,
    meta: FileMeta,
    leaves: LeafRange,
  ): Promise<boolean> {
    const count = leaves[1] - leaves[0]
    if (meta.first !== leaves[0] || meta.count !== count || opened.rows !== count) {
      const problem = `it holds ${opened.rows} rows from ${meta.first}, expected ${count} from ${leaves[0]}`
      this.#complaints.forged(path, problem, leaves)
      return false
    }
    const hashers = new SaltedHashers(meta)
    for await (const rows of leafRows(opened)) {
      const problem = rows.ok ? this.#takeRows(rows, hashers) : rows.problem
      if (problem !== null) {
        this.#complaints.forged(path, problem, [this.#tree.size, leaves[1]])
        return false
      }
      this.#collectTiles()
    }
    this.#bytesRead += this.#evidence.bytes(path)
    this.#options.onProgress?.({ bytes: this.#bytesRead, total: this.#totalBytes() })
    return true
  }

  /** @returns what is wrong with the first row that cannot be a leaf, or null */
  #takeRows(rows: LeafRows, hashers: SaltedHashers): string | null {
    const leaf = new Uint8Array(hashBytes)
    for (const [row, raw] of rows.raw.entries()) {
      const index = this.#tree.size
      if (rows.index[row] !== index) {
        return `row ${rows.firstRow + row} says it is leaf ${rows.index[row]}, not ${index}`
      }
      const gen = rows.gen[row] ?? ''
      const ranges = rows.ranges[row] ?? []
      const observed = rows.observed[row] ?? 0
      const kind = rows.kind[row] ?? 'other'
      const stream = rows.stream[row] ?? ''
      const fields = { gen, ranges, stream, observed_ts: observed }
      try {
        hashers.at(index).leafInto(index, kind, fields, raw, 0, raw.length, leaf, 0)
      } catch (thrown) {
        return `row ${rows.firstRow + row}: ${messageOf(thrown)}`
      }
      this.#tree.append(leaf)
      if (this.#expected?.size === index + 1) this.#rootAtExpected = encodeHex(this.#tree.root())
      this.rawBytes += raw.length
      this.from = Math.min(this.from, observed)
      this.to = Math.max(this.to, observed)
      this.#account.event(gen, ranges)
      if (kind === 'gap' && rows.source[row] === 'meshtrail') {
        this.gaps++
        this.#account.gap(parseJson(raw))
      }
    }
    return null
  }

  #totalBytes(): number {
    return this.#evidence
      .list()
      .filter((path) => path.endsWith('.parquet'))
      .reduce((sum, path) => sum + this.#evidence.bytes(path), 0)
  }

  /** Parses lines again: all of them with `deep`, else only those of a file that is already suspect. */
  async #compareColumns(
    path: string,
    opened: Opened,
    provenances: ReadonlyMap<string, Provenance>,
  ): Promise<void> {
    if (!this.#options.deep && !this.#complaints.suspects(path)) return
    const first = this.#tree.size - opened.rows
    try {
      for await (const { firstRow, events } of eventGroups(opened)) {
        for (const [position, event] of events.entries()) {
          const difference = this.#options.compare(event, provenances.get(event.gen))
          if (difference === null) continue
          const row = firstRow + position
          this.#complainAboutRow(path, row, first + row, difference)
        }
      }
    } catch (thrown) {
      this.#complaints.forged(path, messageOf(thrown))
    }
  }

  #complainAboutRow(path: string, row: number, index: number, difference: string): void {
    this.#rowsThatDiffer++
    if (this.#rowsThatDiffer > rowComplaintsMax) return
    this.#complaints.forged(path, `row ${row}, leaf ${index}: ${difference}`, [index, index + 1])
  }

  #checkTree(signed: SignedEnd): void {
    const { size } = this.#tree
    // An unsigned trailing commit was appended too: its root is not signed by anyone.
    if (size === signed.size && encodeHex(this.#tree.root()) !== signed.root) {
      this.#complaints.forged(names.head, `the ${size} rows do not give the signed root`)
    }
    if (size < signed.size) {
      const problem = 'rows below the signed end are missing or unreadable'
      this.#complaints.forged(names.parts, problem, [size, signed.size])
    }
    const expected = this.#expected
    if (expected === null) return
    if (expected.size > signed.size) {
      this.#complaints.forged(
        names.checkpoint,
        `the log was rolled back: ${expected.size} events were signed once, ${signed.size} are here`,
      )
    } else if (expected.size > 0 && expected.root !== this.#rootAtExpected) {
      this.#complaints.forged(
        names.checkpoint,
        `another root was signed for ${expected.size} events: the log forked`,
      )
    }
  }

  #collectTiles(): void {
    for (const file of this.#edge.take().files) this.#tiles.set(file.path, file)
  }

  /** Tiles of the current size must be there; older partial ones may, and all must be right. */
  #checkTiles(signed: SignedEnd): void {
    this.#collectTiles()
    for (const tile of tilesOf(this.#tree.size, 1)) {
      const path = `log/${formatTilePath(tile)}`
      if (this.#evidence.has(path)) continue
      // Tiles are written after the commit's rename: one that nobody signed yet may lack them.
      if (this.#tree.size > signed.size) this.#complaints.incomplete(path, 'not written yet')
      else this.#complaints.forged(path, 'missing')
    }
    for (const path of this.#evidence.list()) {
      if (path.startsWith('log/tile/')) this.#checkTile(path)
    }
  }

  #checkTile(path: string): void {
    const parsed = parseTilePath(path.slice('log/'.length))
    if (!parsed.ok) return
    const { level, index, width } = parsed.tile
    const expected = this.#widest(level, index)?.subarray(0, width * hashBytes)
    if (level === 'entries' || expected?.length !== width * hashBytes) {
      this.#complaints.forged(path, `no tile of a log of ${this.#tree.size} events`)
    } else if (!sameBytes(expected, this.#evidence.read(path))) {
      const span = 256 ** level
      this.#complaints.forged(path, 'its hashes are not those of the rows', [
        index * 256 * span,
        (index * 256 + width) * span,
      ])
    }
  }

  #widest(level: number | 'entries', index: number): Uint8Array | undefined {
    let widest: TileFile | undefined
    for (const file of this.#tiles.values()) {
      if (file.tile.level !== level || file.tile.index !== index) continue
      if (widest === undefined || file.tile.width > widest.tile.width) widest = file
    }
    return widest?.bytes
  }
}

/** The hasher of each salt range, in leaf order. */
class SaltedHashers {
  readonly #meta: FileMeta
  #range = -1
  #hasher: LeafHasher | null = null

  constructor(meta: FileMeta) {
    this.#meta = meta
  }

  at(index: number): LeafHasher {
    const { salts, schema } = this.#meta
    for (;;) {
      const range = salts[this.#range]
      if (this.#hasher !== null && range !== undefined && index < range.first + range.count) {
        return this.#hasher
      }
      this.#range++
      const next = salts[this.#range]
      if (next === undefined) throw new Error(`no salt key for leaf ${index}`)
      this.#hasher = new LeafHasher(Buffer.from(next.key, 'hex'), schema)
    }
  }
}

function parseJson(raw: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(raw).toString('utf8'))
  } catch {
    return null
  }
}
