/**
 * C2SP tlog-tiles: which tiles a log of a given size has, what they are called, and the bytes of
 * those at level 1 and up while a log grows. Level 0 is recomputed from the stored events when asked
 * for. Nothing here reads or writes files.
 *
 * Tile `index` of `level` holds the roots of 256 perfect subtrees of level 8·level, side by side.
 *
 * @see https://c2sp.org/tlog-tiles
 */

import { parseDecimal, refused, type Refused, sameBytes } from './encoding.ts'
import {
  type CompactRange,
  hashBytes,
  perfectRoot,
  spanSubtrees,
  type SubtreeHash,
} from './merkle.ts'

/** Hashes in a full tile. */
export const tileWidth = 256
/** The highest level the format has. Below 2^53 leaves the highest in use is 6. */
const tileLevelMax = 63

/** A tile of hashes, or a bundle of entries. */
export type Tile = {
  readonly level: number | 'entries'
  readonly index: number
  /** Hashes (or entries) in it, 1 to 256; less than 256 is a partial tile. */
  readonly width: number
}

/** A tile of hashes. */
export type HashTile = Tile & { readonly level: number }

/** A tile to be written: `bytes` has 32 bytes for each hash and belongs to the receiver. */
export type TileFile = {
  readonly tile: HashTile
  readonly path: string
  readonly bytes: Uint8Array
}

/** @returns the path under the log's prefix, such as `tile/1/x001/x234/067.p/17` */
export function formatTilePath({ level, index, width }: Tile): string {
  const groups = [String(index % 1000).padStart(3, '0')]
  for (let rest = Math.floor(index / 1000); rest > 0; rest = Math.floor(rest / 1000)) {
    groups.unshift(`x${String(rest % 1000).padStart(3, '0')}`)
  }
  return `tile/${level}/${groups.join('/')}${width === tileWidth ? '' : `.p/${width}`}`
}

/** Reads a tile's path; takes text from anyone and accepts the one spelling of each tile. */
export function parseTilePath(path: string): { readonly ok: true; readonly tile: Tile } | Refused {
  const match =
    /^tile\/([0-9]{1,2}|entries)\/((?:x[0-9]{3}\/){0,5}[0-9]{3})(?:\.p\/([0-9]{1,3}))?$/.exec(path)
  if (match === null) return refused('not the path of a tile')
  const [, levelText = '', groups = '', widthText] = match
  const level: Tile['level'] | undefined =
    levelText === 'entries' ? levelText : parseDecimal(levelText)
  if (level === undefined || (level !== 'entries' && level > tileLevelMax)) {
    return refused(`tile level is not a number from 0 to ${tileLevelMax}`)
  }
  const index = Number(groups.replaceAll(/[x/]/g, ''))
  if (!Number.isSafeInteger(index)) return refused('tile index is not below 2^53')
  const width = widthText === undefined ? tileWidth : parseDecimal(widthText)
  if (width === undefined || width < 1 || (widthText !== undefined && width >= tileWidth)) {
    return refused(`partial tile width is not a number from 1 to ${tileWidth - 1}`)
  }
  const tile: Tile = { level, index, width }
  // Leading groups of zeros would be a second name for the same tile.
  return formatTilePath(tile) === path ? { ok: true, tile } : refused('tile path is not canonical')
}

/** How many subtrees of level 8·`level` are complete in a log of `size` leaves. */
export function tileHashCount(size: number, level: number): number {
  return Math.floor(size / tileWidth ** level)
}

/**
 * The tile that holds hash number `position` of `level` in a log of `size` leaves, as wide as that
 * log has it.
 *
 * @throws {Error} `BUG:` when the log has no such hash
 */
export function tileAt(size: number, level: number, position: number): HashTile {
  const count = tileHashCount(size, level)
  if (position < 0 || position >= count) {
    throw new Error(`BUG: no hash ${position} at level ${level} of ${size} leaves`)
  }
  const index = Math.floor(position / tileWidth)
  return { level, index, width: Math.min(tileWidth, count - index * tileWidth) }
}

/** The partial tile at the right edge of `level`, if a log of `size` leaves has one. */
export function partialTile(size: number, level: number): HashTile | undefined {
  const count = tileHashCount(size, level)
  const width = count % tileWidth
  return width === 0 ? undefined : { level, index: Math.floor(count / tileWidth), width }
}

/**
 * All tiles of a log of `size` leaves, by level, left to right. Lazy: level 0 of a large log is long.
 *
 * @param fromLevel 0 for all, 1 for those that are kept as files
 */
export function* tilesOf(size: number, fromLevel: number): Generator<HashTile, void> {
  for (let level = fromLevel; tileHashCount(size, level) > 0; level++) {
    const fullCount = Math.floor(tileHashCount(size, level) / tileWidth)
    for (let index = 0; index < fullCount; index++) yield { level, index, width: tileWidth }
    const partial = partialTile(size, level)
    if (partial !== undefined) yield partial
  }
}

/**
 * Reads hashes of perfect subtrees out of tiles, to make proofs with.
 *
 * @param size the log's size, which says how wide the right-most tiles are
 * @param readTile gives a tile's bytes, 32 for each hash
 */
export function subtreesFromTiles(
  size: number,
  readTile: (tile: HashTile) => Uint8Array,
): SubtreeHash {
  return (level, index) => {
    const tileLevel = Math.floor(level / 8)
    const hashCount = 2 ** (level - 8 * tileLevel)
    const first = index * hashCount
    const tile = tileAt(size, tileLevel, first)
    const bytes = readTile(tile)
    if (bytes.length !== tile.width * hashBytes) {
      throw new Error(`BUG: tile ${formatTilePath(tile)} has ${bytes.length} bytes`)
    }
    return perfectRoot(bytes, first % tileWidth, hashCount)
  }
}

/** The growing tile of one level: the hashes of its right edge, and what became full meanwhile. */
type Edge = { readonly bytes: Uint8Array; width: number; index: number }

/**
 * The right edge of the tiles of level 1 and up, at most 6 × 8 kB. Fed with the root of each
 * completed run of 256 leaves (`CompactRange` calls them subtrees of level 8), it says which files to
 * write. What they hold depends on those hashes only, so writing them again is harmless.
 */
export class TileEdge {
  /** By level, from level 1. */
  #edges: Edge[] = []
  #full: TileFile[] = []
  /** The partial tiles as they were taken last, by level: to write only what changed. */
  #taken: readonly (HashTile | undefined)[] = []

  /** Runs of 256 leaves seen: the log's size divided by 256, rounded down. */
  get runCount(): number {
    const first = this.#edges[0]
    return first === undefined ? 0 : first.index * tileWidth + first.width
  }

  /** Adds the root of the next 256 leaves: 32 bytes, copied. */
  push(runRoot: Uint8Array): void {
    this.#push(1, runRoot)
  }

  /**
   * The files that bring a log's tiles from where they were at the last call (or at `restore`) to
   * here: every tile that became full, and the partial tiles as they are now.
   *
   * @returns `superseded` are the partial tiles written earlier that others replace: they may be
   *   deleted once `files` are durable
   */
  take(): { readonly files: TileFile[]; readonly superseded: HashTile[] } {
    const files = this.#full
    const superseded: HashTile[] = []
    const partials = this.#partials()
    for (const [i, edge] of this.#edges.entries()) {
      const now = partials[i]
      const before = this.#taken[i]
      if (now?.index === before?.index && now?.width === before?.width) continue
      if (before !== undefined) superseded.push(before)
      if (now !== undefined) files.push(tileFile(now, edge.bytes.slice(0, now.width * hashBytes)))
    }
    this.#full = []
    this.#taken = partials
    return { files, superseded }
  }

  /** A copy that grows on its own, for a commit that may yet fail. */
  clone(): TileEdge {
    const copy = new TileEdge()
    copy.#edges = this.#edges.map((edge) => ({ ...edge, bytes: edge.bytes.slice() }))
    copy.#full = [...this.#full]
    copy.#taken = this.#taken
    return copy
  }

  /**
   * Rebuilds the edge of a log from its partial tiles, and checks each against the log's range, so
   * that a damaged tile cannot be built upon.
   *
   * @param range the log's compact range; its size says which tiles there must be
   * @param readTile gives a partial tile's bytes, or undefined when it is missing
   */
  static restore(
    range: CompactRange,
    readTile: (tile: HashTile) => Uint8Array | undefined,
  ): { readonly ok: true; readonly edge: TileEdge } | Refused {
    const restored = new TileEdge()
    for (let level = 1; tileHashCount(range.size, level) > 0; level++) {
      const edge = restored.#edge(level)
      const tile = partialTile(range.size, level)
      edge.index = Math.floor(tileHashCount(range.size, level) / tileWidth)
      if (tile === undefined) continue
      const path = formatTilePath(tile)
      const bytes = readTile(tile)
      if (bytes === undefined) return refused(`${path} is missing`)
      if (bytes.length !== tile.width * hashBytes) {
        return refused(`${path} has ${bytes.length} bytes, not ${tile.width * hashBytes}`)
      }
      for (const part of spanSubtrees({ begin: 0, end: tile.width })) {
        const hashCount = 2 ** part.level
        const root = perfectRoot(bytes, part.index * hashCount, hashCount)
        const expected = range.hashAt(8 * level + part.level)
        if (expected === undefined || !sameBytes(root, expected)) {
          return refused(`${path} does not belong to the tree of ${range.size} leaves`)
        }
      }
      edge.bytes.set(bytes)
      edge.width = tile.width
    }
    restored.#taken = restored.#partials()
    return { ok: true, edge: restored }
  }

  #push(level: number, hash: Uint8Array): void {
    if (hash.length !== hashBytes) throw new Error(`BUG: hash has ${hash.length} bytes, not 32`)
    const edge = this.#edge(level)
    edge.bytes.set(hash, edge.width * hashBytes)
    edge.width++
    if (edge.width < tileWidth) return
    this.#full.push(tileFile({ level, index: edge.index, width: tileWidth }, edge.bytes.slice()))
    edge.width = 0
    edge.index++
    this.#push(level + 1, perfectRoot(edge.bytes, 0, tileWidth))
  }

  #edge(level: number): Edge {
    return (this.#edges[level - 1] ??= {
      bytes: new Uint8Array(tileWidth * hashBytes),
      width: 0,
      index: 0,
    })
  }

  #partials(): (HashTile | undefined)[] {
    return this.#edges.map(({ index, width }, i) =>
      width === 0 ? undefined : { level: i + 1, index, width },
    )
  }
}

function tileFile(tile: HashTile, bytes: Uint8Array): TileFile {
  return { tile, path: formatTilePath(tile), bytes }
}
