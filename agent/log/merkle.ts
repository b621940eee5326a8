/**
 * RFC 6962 Merkle trees: hashing, the compact range of a growing log, and proofs made and checked.
 *
 * Indexes and sizes are numbers up to 2^53 - 1, handled by arithmetic only: JavaScript's bit
 * operators go wrong at 2^31. What is not here: what a leaf holds (`entry.ts`), where hashes are
 * kept (`tile.ts`), and who vouches for a root (`checkpoint.ts`).
 */

import { decodeHex, encodeHex, refused, type Refused, sameBytes } from './encoding.ts'

/** Bytes of a SHA-256 hash. */
export const hashBytes = 32

/** More than this many levels cannot occur below size 2^53. */
const levelsMax = 53

/** @returns 32 bytes: SHA-256("") @see RFC 6962, section 2.1 */
export function emptyRoot(): Uint8Array {
  return sha256(new Uint8Array(0))
}

/** @returns 32 bytes: SHA-256(0x00 || data) @see RFC 6962, section 2.1 */
export function leafHash(data: Uint8Array): Uint8Array {
  const input = new Uint8Array(1 + data.length)
  input.set(data, 1)
  return sha256(input)
}

/** @returns 32 bytes: SHA-256(0x01 || left || right) @see RFC 6962, section 2.1 */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  const input = new Uint8Array(1 + 2 * hashBytes)
  input[0] = 1
  input.set(left, 1)
  input.set(right, 1 + hashBytes)
  return sha256(input)
}

/**
 * The root of 2^n hashes that lie one after the other.
 *
 * @param hashes `count` hashes of 32 bytes from hash number `first` on; not changed
 * @param count a power of two
 */
export function perfectRoot(hashes: Uint8Array, first: number, count: number): Uint8Array {
  if (count === 1) return hashes.slice(first * hashBytes, (first + 1) * hashBytes)
  const middle = first + count / 2
  return nodeHash(perfectRoot(hashes, first, count / 2), perfectRoot(hashes, middle, count / 2))
}

function sha256(input: Uint8Array): Uint8Array {
  const output = new Uint8Array(hashBytes)
  Bun.SHA256.hash(input, output)
  return output
}

/** A perfect subtree: leaves `index * 2^level` up to, without, `(index + 1) * 2^level`. */
export type Subtree = { readonly level: number; readonly index: number }

/** A perfect subtree that an append completed, with its root. The receiver owns `hash`. */
export type CompletedSubtree = Subtree & { readonly hash: Uint8Array }

/** One perfect subtree waiting for its sibling, laid out as the input of the hash that joins them. */
type Level = {
  /** 0x01 || left || right */
  readonly node: Uint8Array
  readonly left: Uint8Array
  readonly right: Uint8Array
  filled: boolean
}

/**
 * The root hashes of the perfect subtrees that a log of `size` leaves splits into: all that appending
 * and the root need, at most 53 hashes.
 *
 * `onSubtree` hears of each completed perfect subtree of level 8, 16, 24, …: the hashes of which tiles
 * of level 1 and up consist, lower levels first.
 */
export class CompactRange {
  #size = 0
  readonly #levels: Level[] = []
  readonly #onSubtree: ((subtree: CompletedSubtree) => void) | undefined

  constructor(onSubtree?: (subtree: CompletedSubtree) => void) {
    this.#onSubtree = onSubtree
  }

  /** Leaves appended so far. */
  get size(): number {
    return this.#size
  }

  /**
   * Appends one leaf.
   *
   * @param hashes holds the leaf's hash (`SHA-256(0x00 || data)`) in the 32 bytes from `offset` on;
   *   copied
   */
  append(hashes: Uint8Array, offset = 0): void {
    if (offset + hashBytes > hashes.length) {
      throw new Error(`BUG: no 32 bytes at ${offset} of ${hashes.length}`)
    }
    if (this.#size === Number.MAX_SAFE_INTEGER) throw new Error('BUG: the log has 2^53 - 1 leaves')

    let level = 0
    let at = this.#level(0)
    const target = at.filled ? at.right : at.left
    for (let i = 0; i < hashBytes; i++) target[i] = hashes[offset + i] ?? 0

    // Like adding one to a binary number: each filled level carries into the next. The hash goes
    // straight to where the next level wants it, left or right, so nothing is copied on the way.
    this.#size++
    while (at.filled) {
      at.filled = false
      const next = this.#level(level + 1)
      const output = next.filled ? next.right : next.left
      Bun.SHA256.hash(at.node, output)
      at = next
      level++
      if (level % 8 === 0) {
        const index = this.#size / 2 ** level - 1
        this.#onSubtree?.({ level, index, hash: output.slice() })
      }
    }
    at.filled = true
  }

  /** @returns 32 bytes: the RFC 6962 root of everything appended so far */
  root(): Uint8Array {
    let root: Uint8Array | undefined
    for (const { filled, left } of this.#levels) {
      if (filled) root = root === undefined ? left.slice() : nodeHash(left, root)
    }
    return root ?? emptyRoot()
  }

  /** @returns the hash of the right-most perfect subtree of `level`, if the size has that bit set */
  hashAt(level: number): Uint8Array | undefined {
    const at = this.#levels[level]
    return at?.filled === true ? at.left.slice() : undefined
  }

  /** The range as text: its hashes in hex, from the largest (left-most) subtree to the smallest. */
  frontier(): string[] {
    return this.#levels
      .filter((level) => level.filled)
      .map((level) => encodeHex(level.left))
      .toReversed()
  }

  /** A copy that grows on its own. `onSubtree` belongs to the copy; the original's is not inherited. */
  clone(onSubtree?: (subtree: CompletedSubtree) => void): CompactRange {
    const copy = new CompactRange(onSubtree)
    copy.#size = this.#size
    for (const [level, { filled, left }] of this.#levels.entries()) {
      const to = copy.#level(level)
      to.filled = filled
      to.left.set(left)
    }
    return copy
  }

  /** Reads back what `frontier` wrote. The hashes are taken on trust: compare `root()` with a signed one. */
  static restore(
    size: number,
    frontier: readonly string[],
    onSubtree?: (subtree: CompletedSubtree) => void,
  ): { readonly ok: true; readonly range: CompactRange } | Refused {
    if (!isSize(size)) return refused(`size ${size} is not a whole number from 0 to 2^53 - 1`)
    const subtrees = spanSubtrees({ begin: 0, end: size })
    if (subtrees.length !== frontier.length) {
      return refused(`size ${size} needs ${subtrees.length} hashes, found ${frontier.length}`)
    }
    const range = new CompactRange(onSubtree)
    range.#size = size
    for (const [i, { level }] of subtrees.entries()) {
      const hash = decodeHex(frontier[i] ?? '')
      if (hash?.length !== hashBytes) return refused(`hash ${i} is not 64 lower-case hex digits`)
      const at = range.#level(level)
      at.filled = true
      at.left.set(hash)
    }
    return { ok: true, range }
  }

  #level(level: number): Level {
    const known = this.#levels[level]
    if (known !== undefined) return known
    for (let i = this.#levels.length; i <= level; i++) {
      const node = new Uint8Array(1 + 2 * hashBytes)
      node[0] = 1
      const left = node.subarray(1, 1 + hashBytes)
      const right = node.subarray(1 + hashBytes)
      this.#levels.push({ node, left, right, filled: false })
    }
    return this.#level(level)
  }
}

// ---------------------------------------------------------------------------------------------
// Making proofs

/** Leaves `begin` up to, without, `end`, as RFC 6962 splits a tree: `begin` is aligned to the width. */
export type Span = { readonly begin: number; readonly end: number }

/** Gives the 32-byte root of a perfect subtree that lies wholly inside the log. */
export type SubtreeHash = (level: number, index: number) => Uint8Array

/** Hashes of perfect subtrees computed from leaf hashes: 2^level of them each time. */
export function subtreesFromLeaves(leafHashAt: (index: number) => Uint8Array): SubtreeHash {
  const hashOf: SubtreeHash = (level, index) =>
    level === 0
      ? leafHashAt(index)
      : nodeHash(hashOf(level - 1, index * 2), hashOf(level - 1, index * 2 + 1))
  return hashOf
}

/** The perfect subtrees a span consists of, left to right: what must be fetched to hash it. */
export function spanSubtrees({ begin, end }: Span): Subtree[] {
  const subtrees: Subtree[] = []
  let at = begin
  for (let level = levelsMax - 1; level >= 0; level--) {
    const width = 2 ** level
    if (end - at >= width) {
      subtrees.push({ level, index: at / width })
      at += width
    }
  }
  return subtrees
}

/** @returns 32 bytes: MTH of the span's leaves @see RFC 6962, section 2.1 */
export function spanHash(span: Span, hashOf: SubtreeHash): Uint8Array {
  let hash: Uint8Array | undefined
  for (const { level, index } of spanSubtrees(span).toReversed()) {
    const left = hashOf(level, index)
    hash = hash === undefined ? left : nodeHash(left, hash)
  }
  return hash ?? emptyRoot()
}

/**
 * What the hashes of an inclusion proof cover, leaf's sibling first.
 *
 * @throws {Error} `BUG:` unless 0 <= index < size < 2^53
 * @see RFC 6962, section 2.1.1, PATH(m, D[n])
 */
export function inclusionSpans(index: number, size: number): Span[] {
  if (!isSize(size) || !isSize(index) || index >= size) {
    throw new Error(`BUG: no leaf ${index} in a tree of ${size}`)
  }
  const spans: Span[] = []
  let begin = 0
  let end = size
  while (end - begin > 1) {
    const middle = begin + largestPowerOfTwoBelow(end - begin)
    if (index < middle) {
      spans.push({ begin: middle, end })
      end = middle
    } else {
      spans.push({ begin, end: middle })
      begin = middle
    }
  }
  return spans.toReversed()
}

/**
 * What the hashes of a consistency proof cover, in the proof's order. From size 0 it is empty.
 *
 * @throws {Error} `BUG:` unless 0 <= size1 <= size2 < 2^53
 * @see RFC 6962, section 2.1.2, PROOF(m, D[n])
 */
export function consistencySpans(size1: number, size2: number): Span[] {
  if (!isSize(size1) || !isSize(size2) || size1 > size2) {
    throw new Error(`BUG: no proof from size ${size1} to ${size2}`)
  }
  if (size1 === 0) return []
  const spans: Span[] = []
  let begin = 0
  let end = size2
  while (end !== size1) {
    const middle = begin + largestPowerOfTwoBelow(end - begin)
    if (size1 <= middle) {
      spans.push({ begin: middle, end })
      end = middle
    } else {
      spans.push({ begin, end: middle })
      begin = middle
    }
  }
  // Only when the old tree is not itself the left-most subtree does the verifier need its last part.
  if (begin > 0) spans.push({ begin, end })
  return spans.toReversed()
}

/** The inclusion proof of leaf `index` in the tree of the first `size` leaves. @see RFC 6962, 2.1.1 */
export function inclusionProof(index: number, size: number, hashOf: SubtreeHash): Uint8Array[] {
  return inclusionSpans(index, size).map((span) => spanHash(span, hashOf))
}

/** The proof that the first `size1` of `size2` leaves are unchanged. @see RFC 6962, section 2.1.2 */
export function consistencyProof(size1: number, size2: number, hashOf: SubtreeHash): Uint8Array[] {
  return consistencySpans(size1, size2).map((span) => spanHash(span, hashOf))
}

// ---------------------------------------------------------------------------------------------
// Checking proofs

/** Whether a proof holds. */
export type ProofResult = { readonly ok: true } | Refused

/**
 * Checks that the leaf with `leaf` as its hash is number `index` of the tree of `size` leaves with
 * root `root`. All of it may come from an attacker but the root, which must come from a signed head.
 *
 * @see RFC 9162, section 2.1.3.2
 */
export function verifyInclusion(claim: {
  readonly index: number
  readonly size: number
  readonly leaf: Uint8Array
  readonly proof: readonly Uint8Array[]
  readonly root: Uint8Array
}): ProofResult {
  const { index, size, leaf, proof, root } = claim
  if (!isSize(size) || !isSize(index)) return refused(`index ${index} or size ${size} out of range`)
  if (index >= size) return refused(`no leaf ${index} in a tree of ${size}`)
  const odd = [leaf, root, ...proof].find((hash) => hash.length !== hashBytes)
  if (odd !== undefined) return refused(`a hash has ${odd.length} bytes, not 32`)

  let fn = index
  let sn = size - 1
  let r = leaf
  for (const p of proof) {
    if (sn === 0) return refused(`proof has ${proof.length} hashes, too many`)
    if (isOdd(fn) || fn === sn) {
      r = nodeHash(p, r)
      while (!isOdd(fn) && fn !== 0) {
        fn = half(fn)
        sn = half(sn)
      }
    } else {
      r = nodeHash(r, p)
    }
    fn = half(fn)
    sn = half(sn)
  }
  if (sn !== 0) return refused(`proof has ${proof.length} hashes, too few`)
  if (!sameBytes(r, root)) return refused(`leaf ${index} is not in the tree of ${size}`)
  return { ok: true }
}

/**
 * Checks that the tree of `size2` leaves with `root2` starts with the tree of `size1` and `root1`.
 *
 * RFC 9162 has no proof from size 0 and refuses one. `allowEmpty` accepts it when the proof is empty
 * and `root1` is the empty root, as C2SP tlog-witness wants; it proves nothing about `root2`.
 *
 * @see RFC 9162, section 2.1.4.2
 */
export function verifyConsistency(
  claim: {
    readonly size1: number
    readonly size2: number
    readonly root1: Uint8Array
    readonly root2: Uint8Array
    readonly proof: readonly Uint8Array[]
  },
  options: { readonly allowEmpty: boolean } = { allowEmpty: false },
): ProofResult {
  const { size1, size2, root1, root2, proof } = claim
  if (!isSize(size1) || !isSize(size2)) return refused(`size ${size1} or ${size2} out of range`)
  if (size1 > size2) return refused(`size ${size1} is larger than ${size2}`)

  if (size1 === 0) {
    if (!options.allowEmpty) return refused('consistency with the empty tree says nothing')
    if (proof.length > 0) return refused(`proof from size 0 has ${proof.length} hashes, not 0`)
    if (!sameBytes(root1, emptyRoot())) return refused('root of size 0 is not the empty root')
    if (size2 === 0 && !sameBytes(root2, root1)) return refused('two roots for size 0')
    return { ok: true }
  }
  if (size1 === size2) {
    if (proof.length > 0) return refused(`proof for equal sizes has ${proof.length} hashes, not 0`)
    return sameBytes(root1, root2) ? { ok: true } : refused(`two roots for size ${size1}`)
  }

  const odd = [root1, root2, ...proof].find((hash) => hash.length !== hashBytes)
  if (odd !== undefined) return refused(`a hash has ${odd.length} bytes, not 32`)

  // An old tree that is one perfect subtree is its own first hash, and the proof leaves it out.
  const hashes = isPowerOfTwo(size1) ? [root1, ...proof] : proof
  const [first, ...rest] = hashes
  if (first === undefined || proof.length === 0) return refused('proof is empty')

  let fn = size1 - 1
  let sn = size2 - 1
  while (isOdd(fn)) {
    fn = half(fn)
    sn = half(sn)
  }
  let fr = first
  let sr = first
  for (const c of rest) {
    if (sn === 0) return refused(`proof has ${proof.length} hashes, too many`)
    if (isOdd(fn) || fn === sn) {
      fr = nodeHash(c, fr)
      sr = nodeHash(c, sr)
      while (!isOdd(fn) && fn !== 0) {
        fn = half(fn)
        sn = half(sn)
      }
    } else {
      sr = nodeHash(sr, c)
    }
    fn = half(fn)
    sn = half(sn)
  }
  if (sn !== 0) return refused(`proof has ${proof.length} hashes, too few`)
  if (!sameBytes(fr, root1)) return refused(`proof does not lead to the root of size ${size1}`)
  if (!sameBytes(sr, root2)) return refused(`proof does not lead to the root of size ${size2}`)
  return { ok: true }
}

// ---------------------------------------------------------------------------------------------
// Arithmetic on indexes

function isSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0
}

function isOdd(value: number): boolean {
  return value % 2 === 1
}

function half(value: number): number {
  return Math.floor(value / 2)
}

/** @param value at least 2 */
function largestPowerOfTwoBelow(value: number): number {
  let power = 1
  while (power * 2 < value) power *= 2
  return power
}

function isPowerOfTwo(value: number): boolean {
  return value === 1 || largestPowerOfTwoBelow(value) * 2 === value
}
