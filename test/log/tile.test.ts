import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import { z } from 'zod'
import { encodeHex } from '../../agent/log/encoding.ts'
import {
  CompactRange,
  consistencyProof,
  inclusionProof,
  leafHash,
  nodeHash,
  spanHash,
  type SubtreeHash,
  subtreesFromLeaves,
  verifyConsistency,
  verifyInclusion,
} from '../../agent/log/merkle.ts'
import {
  formatTilePath,
  type HashTile,
  parseTilePath,
  partialTile,
  subtreesFromTiles,
  type Tile,
  tileAt,
  TileEdge,
  tileHashCount,
  tilesOf,
} from '../../agent/log/tile.ts'
import {
  bytesOf,
  bytesOfBase64,
  vectorBytes,
  vectorJson,
  vectorPaths,
  vectorTest,
} from './vectors.ts'

/** 2^17 + 1000 leaf hashes, side by side: two full tiles at level 1, and a third begun. */
const leafCount = 2 ** 17 + 1000
const leaves = new Uint8Array(32 * leafCount)
for (let i = 0; i < leafCount; i++) leaves.set(leafHash(bytesOf(`leaf ${i}`)), 32 * i)
const hashOf = subtreesFromLeaves((i) => leaves.subarray(32 * i, 32 * i + 32))

/** A tile as the specification words it: each hash is that of 256^level leaves. */
function naiveTile({ level, index, width }: HashTile): Uint8Array {
  const hashes = Array.from({ length: width }, (_, i) => hashOf(8 * level, index * 256 + i))
  return new Uint8Array(Buffer.concat(hashes))
}

function pathsOf(size: number, fromLevel: number): string[] {
  return [...tilesOf(size, fromLevel)].map(formatTilePath)
}

function tesseraTree(size: number): SubtreeHash {
  return subtreesFromTiles(size, (tile) => vectorBytes(`tessera-log/${formatTilePath(tile)}`))
}

/** A log that writes tiles as it grows, into a map from path to bytes. */
class Log {
  readonly files = new Map<string, string>()
  #edge = new TileEdge()
  #range: CompactRange

  constructor() {
    this.#range = this.#newRange()
  }

  #newRange(): CompactRange {
    return new CompactRange((subtree) => {
      if (subtree.level === 8) this.#edge.push(subtree.hash)
    })
  }

  grow(size: number): void {
    for (let i = this.#range.size; i < size; i++) this.#range.append(leaves, 32 * i)
    const { files, superseded } = this.#edge.take()
    for (const { path, bytes, tile } of files) {
      expect(path).toBe(formatTilePath(tile))
      expect(this.files.has(path)).toBe(false)
      this.files.set(path, encodeHex(bytes))
    }
    for (const tile of superseded) expect(this.files.delete(formatTilePath(tile))).toBe(true)
    expect(this.#edge.runCount).toBe(Math.floor(size / 256))
  }

  restart(): void {
    const restored = CompactRange.restore(this.#range.size, this.#range.frontier(), (subtree) => {
      if (subtree.level === 8) this.#edge.push(subtree.hash)
    })
    if (!restored.ok) throw new Error(restored.problem)
    const edge = TileEdge.restore(restored.range, (tile) => {
      const hex = this.files.get(formatTilePath(tile))
      return hex === undefined ? undefined : new Uint8Array(Buffer.from(hex, 'hex'))
    })
    if (!edge.ok) throw new Error(edge.problem)
    this.#range = restored.range
    this.#edge = edge.edge
  }

  expectComplete(): void {
    const expected = new Map<string, string>()
    for (const tile of tilesOf(this.#range.size, 1)) {
      expected.set(formatTilePath(tile), encodeHex(naiveTile(tile)))
    }
    expect(this.files).toEqual(expected)
  }
}

describe('tile paths', () => {
  test('the examples of the specification come out and read back', () => {
    const cases: [Tile, string][] = [
      [{ level: 0, index: 0, width: 256 }, 'tile/0/000'],
      [{ level: 0, index: 273, width: 112 }, 'tile/0/273.p/112'],
      [{ level: 1, index: 1_234_067, width: 256 }, 'tile/1/x001/x234/067'],
      [{ level: 'entries', index: 1000, width: 1 }, 'tile/entries/x001/000.p/1'],
      [{ level: 63, index: 999, width: 255 }, 'tile/63/999.p/255'],
      [
        { level: 0, index: Number.MAX_SAFE_INTEGER, width: 256 },
        'tile/0/x009/x007/x199/x254/x740/991',
      ],
    ]
    for (const [tile, path] of cases) {
      expect(formatTilePath(tile)).toBe(path)
      expect(parseTilePath(path)).toEqual({ ok: true, tile })
    }
  })

  test('every other spelling is refused', () => {
    const paths = [
      '',
      'tile',
      'tile/0/',
      '/tile/0/000',
      'tile/0/000/',
      'tile/00/000',
      'tile/64/000',
      'tile/-1/000',
      'tile/data/000',
      'tile/0/00',
      'tile/0/0000',
      'tile/0/x000/001',
      'tile/0/x001/x002',
      'tile/0/001/002',
      'tile/0/X001/002',
      'tile/0/000.p/0',
      'tile/0/000.p/256',
      'tile/0/000.p/01',
      'tile/0/000.p/',
      'tile/0/000.p/1/',
      'tile/0/../000',
      'tile/0/000\n',
      'tile/8/0/000',
      'tile/0/x009/x007/x199/x254/x740/992',
      'tile/0/x001/x000/x000/x000/x000/x000/000',
    ]
    for (const path of paths) expect([path, parseTilePath(path).ok]).toEqual([path, false])
  })

  test('format and parse are inverse, and no text crashes the parser', () => {
    const any = fc.record({
      level: fc.oneof(fc.nat(63), fc.constant('entries' as const)),
      index: fc.oneof(fc.nat(2000), fc.maxSafeNat()),
      width: fc.integer({ min: 1, max: 256 }),
    })
    fc.assert(
      fc.property(any, (tile) => {
        expect(parseTilePath(formatTilePath(tile))).toEqual({ ok: true, tile })
      }),
    )
    const piece = fc.constantFrom('tile', '/', 'x', '000', '123', '.p', '0', '9', 'entries')
    fc.assert(
      fc.property(
        fc.array(piece).map((pieces) => pieces.join('')),
        (path) => {
          const parsed = parseTilePath(path)
          if (parsed.ok) expect(formatTilePath(parsed.tile)).toBe(path)
        },
      ),
      { numRuns: 2000 },
    )
  })
})

describe('the tiles of a log', () => {
  test('of 256 and of 70,000 leaves are those of the specification', () => {
    expect(pathsOf(0, 0)).toEqual([])
    expect(pathsOf(255, 0)).toEqual(['tile/0/000.p/255'])
    expect(pathsOf(255, 1)).toEqual([])
    expect(pathsOf(256, 0)).toEqual(['tile/0/000', 'tile/1/000.p/1'])
    const all = pathsOf(70_000, 0)
    expect(all).toHaveLength(277)
    expect(all.slice(272)).toEqual([
      'tile/0/272',
      'tile/0/273.p/112',
      'tile/1/000',
      'tile/1/001.p/17',
      'tile/2/000.p/1',
    ])
    expect(pathsOf(70_000, 1)).toEqual(all.slice(274))
  })

  test('beyond 2^32 leaves are counted as bigints count them', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.nat(7), (size, level) => {
        const count = BigInt(size) / 256n ** BigInt(level)
        expect(BigInt(tileHashCount(size, level))).toBe(count)
        const partial = partialTile(size, level)
        expect(BigInt(partial?.width ?? 0)).toBe(count % 256n)
        if (partial === undefined) return
        expect(BigInt(partial.index)).toBe(count / 256n)
        const last = tileHashCount(size, level) - 1
        expect(tileAt(size, level, last)).toEqual(partial)
        expect(() => tileAt(size, level, last + 1)).toThrow('BUG')
      }),
    )
  })

  test('written while it grows in random steps, over restarts, are what the specification says', () => {
    const steps = fc.array(
      fc.record({
        by: fc.oneof(fc.nat(600), fc.nat(40_000), fc.constantFrom(0, 1, 255, 256, 65_536)),
        restart: fc.boolean(),
      }),
      { minLength: 1, maxLength: 7 },
    )
    fc.assert(
      fc.property(steps, (list) => {
        const log = new Log()
        let size = 0
        for (const { by, restart } of list) {
          size = Math.min(leafCount, size + by)
          log.grow(size)
          log.expectComplete()
          if (restart) log.restart()
        }
      }),
      { numRuns: 12, endOnFailure: true },
    )
  }, 60_000)

  test('at each size next to a tile boundary are complete', () => {
    const log = new Log()
    for (const size of [0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 131_071, 131_072]) {
      log.grow(size)
      log.expectComplete()
      log.restart()
    }
  }, 60_000)

  test('come from the list of run hashes alone', () => {
    const edge = new TileEdge()
    for (let i = 0; i < 513; i++) edge.push(hashOf(8, i))
    const { files, superseded } = edge.take()
    expect(superseded).toEqual([])
    expect(files.map(({ path }) => path)).toEqual([
      'tile/1/000',
      'tile/1/001',
      'tile/1/002.p/1',
      'tile/2/000.p/2',
    ])
    for (const { tile, bytes } of files) expect(bytes).toEqual(naiveTile(tile))
    expect(edge.take()).toEqual({ files: [], superseded: [] })
  })

  test('a clone that is thrown away leaves the original as it was', () => {
    const edge = new TileEdge()
    for (let i = 0; i < 255; i++) edge.push(hashOf(8, i))
    edge.take()
    const clone = edge.clone()
    clone.push(hashOf(8, 0))
    clone.push(hashOf(8, 0))
    expect(clone.take().files.map(({ path }) => path)).toEqual([
      'tile/1/000',
      'tile/1/001.p/1',
      'tile/2/000.p/1',
    ])
    edge.push(hashOf(8, 255))
    const { files, superseded } = edge.take()
    expect(files.map(({ path }) => path)).toEqual(['tile/1/000', 'tile/2/000.p/1'])
    expect(superseded).toEqual([{ level: 1, index: 0, width: 255 }])
    for (const { tile, bytes } of files) expect(bytes).toEqual(naiveTile(tile))
  })

  test('a clone and its original grow apart, and files not yet taken go with both', () => {
    const edge = new TileEdge()
    for (let i = 0; i < 258; i++) edge.push(hashOf(8, i))
    const clone = edge.clone()
    clone.push(hashOf(8, 0))
    edge.push(hashOf(8, 258))
    const mine = edge.take().files
    for (const { tile, bytes } of mine) expect(bytes).toEqual(naiveTile(tile))
    const its = clone.take().files
    expect(its.map(({ path }) => path)).toEqual(mine.map(({ path }) => path))
    expect(its.map(({ path }) => path)).toContain('tile/1/000')
    const partial = its.find(({ path }) => path === 'tile/1/001.p/3')?.bytes
    expect(encodeHex(partial?.slice(64) ?? new Uint8Array(0))).toBe(encodeHex(hashOf(8, 0)))
  })

  test('a damaged, short, missing or foreign right edge is not built upon', () => {
    const size = 70_000
    const range = new CompactRange()
    for (let i = 0; i < size; i++) range.append(leaves, 32 * i)
    const restore = (change: (bytes: Uint8Array, tile: HashTile) => Uint8Array | undefined) =>
      TileEdge.restore(range, (tile) => change(naiveTile(tile), tile))
    expect(restore((bytes) => bytes).ok).toBe(true)
    expect(restore(() => undefined)).toEqual({ ok: false, problem: 'tile/1/001.p/17 is missing' })
    expect(restore((bytes) => bytes.subarray(1)).ok).toBe(false)
    for (let at = 0; at < 17 * 32; at++) {
      const result = restore((bytes, { level }) => {
        if (level === 1) bytes[at] = (bytes[at] ?? 0) ^ 1
        return bytes
      })
      expect([at, result.ok]).toEqual([at, false])
    }
    const above = restore((bytes, { level }) => (level === 2 ? bytes.fill(0) : bytes))
    expect(above).toEqual({
      ok: false,
      problem: 'tile/2/000.p/1 does not belong to the tree of 70000 leaves',
    })
  })

  test('give the hashes for any proof', () => {
    const size = 66_100
    const tree = subtreesFromTiles(size, naiveTile)
    const root = spanHash({ begin: 0, end: size }, tree)
    expect(encodeHex(root)).toBe(encodeHex(spanHash({ begin: 0, end: size }, hashOf)))
    for (const index of [0, 255, 256, 65_535, 65_536, 66_099]) {
      const proof = inclusionProof(index, size, tree)
      const leaf = leaves.slice(32 * index, 32 * index + 32)
      expect(verifyInclusion({ index, size, leaf, proof, root })).toEqual({ ok: true })
    }
    for (const size1 of [1, 256, 300, 65_536, 66_000]) {
      const root1 = spanHash({ begin: 0, end: size1 }, hashOf)
      const proof = consistencyProof(size1, size, tree)
      const claim = { size1, size2: size, root1, root2: root, proof }
      expect(verifyConsistency(claim)).toEqual({ ok: true })
    }
  })
})

describe('published vectors', () => {
  vectorTest('tile paths come out as published', 22, () => {
    const published = z
      .object({
        c2sp_tile_path: z.array(
          z.object({ level: z.number(), index: z.number(), p: z.number(), path: z.string() }),
        ),
        c2sp_entries_path: z.array(
          z.object({ index: z.number(), p: z.number(), path: z.string() }),
        ),
        c2sp_entries_path_for_log_index: z.array(z.object({ size: z.number(), path: z.string() })),
        spec_example: z.object({ index: z.number(), path: z.string() }),
        go_bad_paths: z.array(z.string()),
        go_sumdb_paths_with_height: z.array(z.tuple([z.string()]).rest(z.number())),
      })
      .parse(vectorJson('tiles/paths.json'))
    const tiles = [
      ...published.c2sp_tile_path,
      ...published.c2sp_entries_path.map((entry) => ({ ...entry, level: 'entries' as const })),
    ]
    for (const { level, index, p, path } of tiles) {
      const tile = { level, index, width: p === 0 ? 256 : p }
      expect(formatTilePath(tile)).toBe(path)
      expect(parseTilePath(path)).toEqual({ ok: true, tile })
    }
    const { index, path: example } = published.spec_example
    expect(formatTilePath({ level: 0, index, width: 256 })).toBe(`tile/0/${example}`)
    for (const { size, path } of published.c2sp_entries_path_for_log_index) {
      const { index: at, width } = tileAt(size, 0, size - 1)
      expect(formatTilePath({ level: 'entries', index: at, width })).toBe(path)
    }
    // Go's own paths have the tile height in them: another format, and not read as ours.
    const foreign = published.go_sumdb_paths_with_height.map(([path]) => path)
    for (const path of [...published.go_bad_paths, ...foreign]) {
      expect([path, parseTilePath(path).ok]).toEqual([path, false])
    }
    expect([tiles.length, foreign.length]).toEqual([9, 6])
  })

  vectorTest('the tiles and bundles of a Tessera log belong to its entries', 30, () => {
    const { entries } = z
      .object({ entries: z.array(z.string()) })
      .parse(vectorJson('tessera-log/keys.json'))
    const found = vectorPaths('tessera-log/tile')
    let tiles = 0
    let bundles = 0
    for (const file of found) {
      const parsed = parseTilePath(file.slice('tessera-log/'.length))
      if (!parsed.ok) throw new Error(`${file}: ${parsed.problem}`)
      const { level, index, width } = parsed.tile
      const some = entries.slice(256 * index, 256 * index + width).map(bytesOf)
      expect(some).toHaveLength(width)
      const expected =
        level === 'entries'
          ? some.flatMap((entry) => [Buffer.from([0, entry.length]), entry])
          : some.map(leafHash)
      expect(vectorBytes(file)).toEqual(new Uint8Array(Buffer.concat(expected)))
      if (level === 'entries') bundles++
      else tiles++
    }
    expect([tiles, bundles]).toEqual([15, 15])
    expect(partialTile(15, 0)).toEqual({ level: 0, index: 0, width: 15 })
  })

  vectorTest('proofs out of Tessera tiles are the generated ones and verify', 172, () => {
    const { inclusion, consistency } = z
      .object({
        inclusion: z.array(
          z.object({
            size: z.number(),
            index: z.number(),
            leaf_hash: z.string(),
            root: z.string(),
            proof: z.array(z.string()),
          }),
        ),
        consistency: z.array(
          z.object({ old: z.number(), size: z.number(), proof: z.array(z.string()) }),
        ),
      })
      .parse(vectorJson('generated/tessera-log-proofs.json'))
    for (const { size, index, leaf_hash, root, proof } of inclusion) {
      const made = inclusionProof(index, size, tesseraTree(size))
      expect(made.map((hash) => Buffer.from(hash).toString('base64'))).toEqual(proof)
      const leaf = bytesOfBase64(leaf_hash)
      const claim = {
        index,
        size,
        leaf,
        proof: proof.map(bytesOfBase64),
        root: bytesOfBase64(root),
      }
      expect(verifyInclusion(claim)).toEqual({ ok: true })
    }
    for (const { old, size, proof } of consistency) {
      const tree = tesseraTree(size)
      const made = consistencyProof(old, size, tree)
      expect(made.map((hash) => Buffer.from(hash).toString('base64'))).toEqual(proof)
      const root1 = spanHash({ begin: 0, end: old }, tree)
      const root2 = spanHash({ begin: 0, end: size }, tree)
      const claim = { size1: old, size2: size, root1, root2, proof: proof.map(bytesOfBase64) }
      expect(verifyConsistency(claim, { allowEmpty: true })).toEqual({ ok: true })
    }
    expect([inclusion.length, consistency.length]).toEqual([36, 136])
  })
})

test('the tree of run hashes above level 0 is the tree', () => {
  // Guards the tests above: their naive tiles rest on `hashOf`.
  expect(encodeHex(hashOf(1, 0))).toBe(encodeHex(nodeHash(hashOf(0, 0), hashOf(0, 1))))
})
