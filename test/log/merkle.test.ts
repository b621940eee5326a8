import { describe, expect, test } from 'bun:test'
import { createHash } from 'node:crypto'
import * as fc from 'fast-check'
import { z } from 'zod'
import { encodeHex } from '../../agent/log/encoding.ts'
import {
  CompactRange,
  type CompletedSubtree,
  consistencyProof,
  emptyRoot,
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
  bytesOf,
  bytesOfBase64,
  bytesOfHex,
  vectorJson,
  vectorPaths,
  vectorTest,
} from './vectors.ts'

function naiveHash(...parts: readonly Uint8Array[]): Buffer {
  return createHash('sha256').update(Buffer.concat(parts)).digest()
}

/** RFC 6962, section 2.1, word for word, over the leaves' data; quadratic and obvious. */
function naiveRoot(leaves: readonly Uint8Array[]): Buffer {
  const [only] = leaves
  if (only === undefined) return naiveHash()
  if (leaves.length === 1) return naiveHash(Buffer.from([0]), only)
  const k = naiveSplit(leaves.length)
  return naiveHash(Buffer.from([1]), naiveRoot(leaves.slice(0, k)), naiveRoot(leaves.slice(k)))
}

function naiveSplit(n: number): number {
  return 2 ** Math.ceil(Math.log2(n) - 1)
}

function naivePath(m: number, leaves: readonly Uint8Array[]): Buffer[] {
  if (leaves.length <= 1) return []
  const k = naiveSplit(leaves.length)
  return m < k
    ? [...naivePath(m, leaves.slice(0, k)), naiveRoot(leaves.slice(k))]
    : [...naivePath(m - k, leaves.slice(k)), naiveRoot(leaves.slice(0, k))]
}

function naiveProof(m: number, leaves: readonly Uint8Array[], whole = true): Buffer[] {
  if (m === leaves.length) return whole ? [] : [naiveRoot(leaves)]
  const k = naiveSplit(leaves.length)
  return m <= k
    ? [...naiveProof(m, leaves.slice(0, k), whole), naiveRoot(leaves.slice(k))]
    : [...naiveProof(m - k, leaves.slice(k), false), naiveRoot(leaves.slice(0, k))]
}

function leavesOf(size: number): Uint8Array[] {
  return Array.from({ length: size }, (_, i) => bytesOf(`leaf ${i}`))
}

function rangeOf(leaves: readonly Uint8Array[]): CompactRange {
  const range = new CompactRange()
  for (const leaf of leaves) range.append(leafHash(leaf))
  return range
}

function hashAt(hashes: readonly Uint8Array[], index: number): Uint8Array {
  const hash = hashes[index]
  if (hash === undefined) throw new Error(`no leaf ${index}`)
  return hash
}

function hexes(hashes: readonly Uint8Array[]): string[] {
  return hashes.map(encodeHex)
}

/**
 * A tree of 2^53 leaves that are all alike but for the given ones: large enough for indexes beyond
 * 2^32, and hashed in no time, because perfect subtrees without a given leaf depend on the level only.
 */
function sparseTree(special: ReadonlyMap<number, Uint8Array>): SubtreeHash {
  const plain = [leafHash(bytesOf('plain'))]
  const known = new Map<string, Uint8Array>()
  const plainAt = (level: number): Uint8Array => {
    const hash = plain[level]
    if (hash !== undefined) return hash
    const below = plainAt(level - 1)
    return (plain[level] = nodeHash(below, below))
  }
  const hashOf: SubtreeHash = (level, index) => {
    const begin = index * 2 ** level
    if (![...special.keys()].some((at) => at >= begin && at < begin + 2 ** level)) {
      return plainAt(level)
    }
    if (level === 0) return special.get(index) ?? plainAt(0)
    const key = `${level}/${index}`
    const hash =
      known.get(key) ?? nodeHash(hashOf(level - 1, index * 2), hashOf(level - 1, index * 2 + 1))
    known.set(key, hash)
    return hash
  }
  return hashOf
}

const rfcInputs = [
  '',
  '00',
  '10',
  '2021',
  '3031',
  '40414243',
  '5051525354555657',
  '606162636465666768696a6b6c6d6e6f',
]
const rfcRoots = [
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
]

describe('hashing', () => {
  test('the published roots of the eight RFC 6962 inputs come out', () => {
    for (const [size, root] of rfcRoots.entries()) {
      const leaves = rfcInputs.slice(0, size).map(bytesOfHex)
      expect(encodeHex(rangeOf(leaves).root())).toBe(root)
    }
    expect(encodeHex(emptyRoot())).toBe(rfcRoots[0] ?? '')
  })

  test('leaf and node hashes are the published ones', () => {
    expect(encodeHex(leafHash(bytesOf('L123456')))).toBe(
      '395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56',
    )
    expect(encodeHex(nodeHash(bytesOfHex('11'.repeat(32)), bytesOfHex('22'.repeat(32))))).toBe(
      '1d8f52d3ec81ac02cd97cb3281523be47af850c0f0295af866f04bc245f46bbf',
    )
  })
})

describe('compact range', () => {
  test('its root equals the naive root at every size up to 300', () => {
    const leaves = leavesOf(300)
    const range = new CompactRange()
    for (const [i, leaf] of leaves.entries()) {
      range.append(leafHash(leaf))
      expect(encodeHex(range.root())).toBe(naiveRoot(leaves.slice(0, i + 1)).toString('hex'))
    }
    expect(range.size).toBe(300)
  })

  test('a restored range and a clone go on as the original does', () => {
    fc.assert(
      fc.property(fc.nat(600), fc.nat(600), (before, after) => {
        const leaves = leavesOf(before + after)
        const original = rangeOf(leaves.slice(0, before))
        const restored = CompactRange.restore(before, original.frontier())
        if (!restored.ok) throw new Error(restored.problem)
        const clone = original.clone()
        const rootBefore = encodeHex(original.root())
        for (const leaf of leaves.slice(before)) {
          restored.range.append(leafHash(leaf))
          clone.append(leafHash(leaf))
        }
        expect(encodeHex(original.root())).toBe(rootBefore)
        expect(original.size).toBe(before)
        const all = rangeOf(leaves)
        for (const grown of [restored.range, clone]) {
          expect(encodeHex(grown.root())).toBe(encodeHex(all.root()))
          expect(grown.frontier()).toEqual(all.frontier())
          expect(grown.size).toBe(before + after)
        }
      }),
      { numRuns: 60 },
    )
  })

  test('a frontier of another size or with a bad hash is refused', () => {
    const frontier = rangeOf(leavesOf(7)).frontier()
    expect(frontier).toHaveLength(3)
    expect(CompactRange.restore(8, frontier).ok).toBe(false)
    expect(CompactRange.restore(-1, []).ok).toBe(false)
    expect(CompactRange.restore(1.5, frontier).ok).toBe(false)
    expect(CompactRange.restore(2 ** 53, [frontier[0] ?? '']).ok).toBe(false)
    expect(CompactRange.restore(7, [...frontier.slice(1), 'AB']).ok).toBe(false)
    expect(
      CompactRange.restore(
        7,
        frontier.map((hash) => hash.toUpperCase()),
      ).ok,
    ).toBe(false)
  })

  test('each completed subtree of level 8 and 16 is told once, with its root', () => {
    const told: CompletedSubtree[] = []
    const range = new CompactRange((subtree) => told.push(subtree))
    const size = 2 * 65536 + 300
    const leaves = new Uint8Array(32 * size)
    for (let i = 0; i < size; i++) leaves.set(leafHash(bytesOf(`leaf ${i}`)), 32 * i)
    for (let i = 0; i < size; i++) range.append(leaves, 32 * i)
    expect(told.filter(({ level }) => level === 8).map(({ index }) => index)).toEqual(
      Array.from({ length: 513 }, (_, i) => i),
    )
    expect(told.filter(({ level }) => level === 16).map(({ index }) => index)).toEqual([0, 1])
    expect(told).toHaveLength(515)
    const hashOf = subtreesFromLeaves((i) => leaves.slice(32 * i, 32 * i + 32))
    for (const { level, index, hash } of told) {
      expect(encodeHex(hash)).toBe(encodeHex(hashOf(level, index)))
    }
  })

  test('it grows past 2^32 and 2^52 leaves as the tree says', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.integer({ min: 2 ** 31 - 40, max: 2 ** 31 + 40 }),
          fc.integer({ min: 2 ** 32 - 40, max: 2 ** 32 + 40 }),
          fc.maxSafeNat().map((size) => Math.min(size, Number.MAX_SAFE_INTEGER - 100)),
        ),
        fc.integer({ min: 1, max: 80 }),
        (size, count) => {
          const hashOf = sparseTree(new Map([[size, leafHash(bytesOf('x'))]]))
          const full = { begin: 0, end: size }
          const hashes: string[] = []
          for (let level = 52, at = 0; level >= 0; level--) {
            if (at + 2 ** level > size) continue
            hashes.push(encodeHex(hashOf(level, at / 2 ** level)))
            at += 2 ** level
          }
          const told: CompletedSubtree[] = []
          const restored = CompactRange.restore(size, hashes, (subtree) => told.push(subtree))
          if (!restored.ok) throw new Error(restored.problem)
          expect(encodeHex(restored.range.root())).toBe(encodeHex(spanHash(full, hashOf)))
          for (let i = 0; i < count; i++) restored.range.append(hashOf(0, size + i))
          const whole = { begin: 0, end: size + count }
          expect(encodeHex(restored.range.root())).toBe(encodeHex(spanHash(whole, hashOf)))
          for (const { level, index, hash } of told) {
            expect(encodeHex(hash)).toBe(encodeHex(hashOf(level, index)))
          }
          expect(told.length > 0).toBe(Math.floor((size + count) / 256) > Math.floor(size / 256))
        },
      ),
      { numRuns: 60 },
    )
  })
})

describe('proofs', () => {
  const leaves = leavesOf(400)
  const hashes = leaves.map(leafHash)
  const hashOf = subtreesFromLeaves((i) => hashAt(hashes, i))

  test('inclusion proofs equal the naive ones and verify', () => {
    fc.assert(
      fc.property(
        fc
          .integer({ min: 1, max: 400 })
          .chain((size) => fc.tuple(fc.nat(size - 1), fc.constant(size))),
        ([index, size]) => {
          const proof = inclusionProof(index, size, hashOf)
          const some = leaves.slice(0, size)
          expect(hexes(proof)).toEqual(hexes(naivePath(index, some)))
          const root = naiveRoot(some)
          const leaf = hashAt(hashes, index)
          expect(verifyInclusion({ index, size, leaf, proof, root })).toEqual({ ok: true })
          const next = hashAt(hashes, (index + 1) % 400)
          expect(verifyInclusion({ index, size, leaf: next, proof, root }).ok).toBe(false)
          expect(verifyInclusion({ index: index + 1, size, leaf, proof, root }).ok).toBe(false)
          expect(verifyInclusion({ index, size, leaf, proof: [...proof, root], root }).ok).toBe(
            false,
          )
          if (proof.length > 0) {
            expect(verifyInclusion({ index, size, leaf, proof: proof.slice(1), root }).ok).toBe(
              false,
            )
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  test('consistency proofs equal the naive ones and verify', () => {
    fc.assert(
      fc.property(
        fc
          .integer({ min: 1, max: 400 })
          .chain((size2) => fc.tuple(fc.integer({ min: 1, max: size2 }), fc.constant(size2))),
        ([size1, size2]) => {
          const proof = consistencyProof(size1, size2, hashOf)
          const some = leaves.slice(0, size2)
          expect(hexes(proof)).toEqual(hexes(naiveProof(size1, some)))
          const root1 = naiveRoot(leaves.slice(0, size1))
          const root2 = naiveRoot(some)
          const claim = { size1, size2, root1, root2, proof }
          expect(verifyConsistency(claim)).toEqual({ ok: true })
          expect(verifyConsistency({ ...claim, root1: leafHash(root1) }).ok).toBe(false)
          expect(verifyConsistency({ ...claim, root2: leafHash(root2) }).ok).toBe(false)
          expect(verifyConsistency({ ...claim, proof: [...proof, root1] }).ok).toBe(false)
          if (proof.length > 0) {
            expect(verifyConsistency({ ...claim, proof: proof.slice(1) }).ok).toBe(false)
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  test('proofs in trees of more than 2^32 leaves verify, and with a changed leaf do not', () => {
    const sizes = fc.oneof(
      fc.integer({ min: 2 ** 31 - 3, max: 2 ** 31 + 3 }),
      fc.integer({ min: 2 ** 32 - 3, max: 2 ** 32 + 3 }),
      fc.bigInt({ min: 2n ** 32n, max: 2n ** 53n - 1n }).map(Number),
    )
    fc.assert(
      fc.property(sizes, sizes, fc.double({ min: 0, max: 1, noNaN: true }), (a, b, part) => {
        const size1 = Math.min(a, b)
        const size2 = Math.max(a, b)
        const index = Math.min(size1 - 1, Math.floor(part * size1))
        const leaf = leafHash(bytesOf('the one'))
        const tree = sparseTree(new Map([[index, leaf]]))
        const root1 = spanHash({ begin: 0, end: size1 }, tree)
        const root2 = spanHash({ begin: 0, end: size2 }, tree)
        const proof = inclusionProof(index, size2, tree)
        const claim = { index, size: size2, leaf, proof, root: root2 }
        expect(verifyInclusion(claim)).toEqual({ ok: true })
        expect(verifyInclusion({ ...claim, index: index === 0 ? 1 : index - 1 }).ok).toBe(false)

        const kept = consistencyProof(size1, size2, tree)
        expect(verifyConsistency({ size1, size2, root1, root2, proof: kept })).toEqual({ ok: true })
        const other = spanHash({ begin: 0, end: size1 }, sparseTree(new Map()))
        expect(verifyConsistency({ size1, size2, root1: other, root2, proof: kept }).ok).toBe(false)
      }),
      { numRuns: 150 },
    )
  })

  test('from the empty tree everything follows, but only where the caller allows it', () => {
    const root2 = naiveRoot(leaves.slice(0, 5))
    const claim = { size1: 0, size2: 5, root1: emptyRoot(), root2, proof: [] }
    expect(verifyConsistency(claim).ok).toBe(false)
    expect(verifyConsistency(claim, { allowEmpty: true }).ok).toBe(true)
    const allow = { allowEmpty: true }
    expect(verifyConsistency({ ...claim, proof: [root2] }, allow).ok).toBe(false)
    expect(verifyConsistency({ ...claim, root1: root2 }, allow).ok).toBe(false)
    expect(verifyConsistency({ ...claim, size2: 0 }, allow).ok).toBe(false)
    expect(consistencyProof(0, 5, hashOf)).toEqual([])
  })

  test('sizes that are no whole numbers are refused, never hashed', () => {
    const leaf = hashAt(hashes, 0)
    for (const size of [-1, 0.5, Number.NaN, Infinity, 2 ** 53, 1.8e19]) {
      expect(verifyInclusion({ index: 0, size, leaf, proof: [], root: leaf }).ok).toBe(false)
      expect(verifyInclusion({ index: size, size: 1, leaf, proof: [], root: leaf }).ok).toBe(false)
      const roots = { root1: leaf, root2: leaf, proof: [] }
      expect(verifyConsistency({ size1: size, size2: size, ...roots }).ok).toBe(false)
    }
  })
})

describe('published vectors', () => {
  const hash = z
    .string()
    .nullable()
    .transform((text) => bytesOfBase64(text ?? ''))
  const proof = z
    .array(hash)
    .nullable()
    .transform((list) => list ?? [])
  const inclusion = z.object({
    leafIdx: z.number(),
    treeSize: z.number(),
    root: hash,
    leafHash: hash,
    proof,
    wantErr: z.boolean(),
  })
  const consistency = z.object({
    size1: z.number(),
    size2: z.number(),
    root1: hash,
    root2: hash,
    proof,
    wantErr: z.boolean(),
  })

  vectorTest('inclusion proofs, good and mutated, are judged as published', 98, () => {
    const paths = vectorPaths('merkle-proofs/inclusion')
    for (const path of paths) {
      const {
        leafIdx,
        treeSize,
        leafHash: leaf,
        wantErr,
        ...rest
      } = inclusion.parse(vectorJson(path))
      const result = verifyInclusion({ index: leafIdx, size: treeSize, leaf, ...rest })
      expect([path, result.ok]).toEqual([path, !wantErr])
    }
    expect(paths).toHaveLength(98)
  })

  vectorTest('consistency proofs, good and mutated, are judged as published', 98, () => {
    const paths = vectorPaths('merkle-proofs/consistency')
    for (const path of paths) {
      const { wantErr, ...claim } = consistency.parse(vectorJson(path))
      expect([path, verifyConsistency(claim).ok]).toEqual([path, !wantErr])
    }
    expect(paths).toHaveLength(98)
  })

  vectorTest('roots at the edges of tiles are the published ones', 14, () => {
    const { root_by_size_b64: roots } = z
      .object({ root_by_size_b64: z.record(z.string(), z.string()) })
      .parse(vectorJson('generated/edge-size-roots.json'))
    const range = new CompactRange()
    let checked = 0
    for (let size = 0; size <= 70_000; size++) {
      const root = roots[String(size)]
      if (root !== undefined) {
        expect([size, Buffer.from(range.root()).toString('base64')]).toEqual([size, root])
        checked++
      }
      range.append(leafHash(bytesOf(`leaf ${size}`)))
    }
    expect(checked).toBe(14)
  })
})
