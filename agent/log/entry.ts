/**
 * What a leaf of the log holds: a fixed 53-byte commitment to one event's stored bytes and to where
 * they came from. Nothing of the event can be read from it without the salt.
 *
 *     entry  = "MTE1" | kind u8 | flags u8 | schema u16be | t_obs_ns u64be | commit[32] | 0[5]
 *     commit = SHA-256("meshtrail/event/v1\n" || salt[16] || u32be(len(prov)) || prov || raw)
 *     salt   = SHA-256(salt_key[32] || u64be(leaf index))[0:16]
 *     leaf   = SHA-256(0x00 || entry)
 *
 * `prov` is everything hidden that the leaf must fix beside the raw bytes. All integers are unsigned
 * and big-endian, so one event has one encoding:
 *
 *     version        u8   = 1
 *     gen length     u8   0 (the agent's own events) or 16, then that many bytes
 *     stream         u8   0 '', 1 'stdout', 2 'stderr'
 *     observed_ts    u64  microseconds since the epoch
 *     schema         u16  version of the columns
 *     range count    u32  then for each: offset u64, length u64, in bytes of the generation
 *     redacted count u32  then for each: offset u64, original length u64 (bytes of the line as
 *                         read), pattern length u16, pattern in UTF-8
 *
 * There is one fast path, `LeafHasher`, and one obvious one, `explainLeaf`; tests hold them equal.
 */

import { type Kind, schemaVersion } from '../event.ts'
import { decodeUtf8, encodeHex, refused, type Refused, sameBytes } from './encoding.ts'
import { hashBytes, leafHash } from './merkle.ts'

/** Bytes of an entry. */
export const entryBytes = 53
/** Bytes of a salt, and of the key that salts are derived from. */
export const saltBytes = 16
export const saltKeyBytes = 32

/** The `kind` byte of an entry. */
export const entryKinds = {
  event: 0,
  gap: 1,
  manifest: 2,
  key: 3,
  clock: 4,
  redaction: 5,
  prune: 6,
  lifecycle: 7,
  peerCheckpoint: 8,
  access: 9,
  heartbeat: 10,
} as const

/** The `kind` byte of an event: what an auditor may learn of it without opening it. */
export function entryKindOf(kind: Kind): number {
  switch (kind) {
    case 'gap':
      return entryKinds.gap
    case 'lifecycle':
      return entryKinds.lifecycle
    case 'access':
      return entryKinds.access
    case 'request':
    case 'connection':
    case 'handshake':
    case 'policy_change':
    case 'config_change':
    case 'certificate':
    case 'api_call':
    case 'finding':
    case 'other':
      return entryKinds.event
  }
}

/** Bytes removed at capture: where, how many there were, and by which pattern. */
export type Redaction = readonly [offsetBytes: number, lengthBytes: number, pattern: string]

/** The hidden columns a leaf commits to. An `AuditEvent` is one. */
export type LeafFields = {
  /** File generation, 32 lower-case hex digits; '' for the agent's own events. */
  readonly gen: string
  readonly stream: '' | 'stdout' | 'stderr'
  /** When the agent read the line, microseconds since the epoch. */
  readonly observed_ts: number
  /** Where the raw bytes lie in the generation: offset, length, offset, length, … */
  readonly ranges: readonly number[]
  /** Absent means none. */
  readonly redacted?: readonly Redaction[]
}

const magic = 'MTE1'
const commitPrefix = 'meshtrail/event/v1\n'
const provVersion = 1
const streams = ['', 'stdout', 'stderr'] as const

// ---------------------------------------------------------------------------------------------
// The obvious way

/** Every step from an event to its leaf: what `prove` discloses, and what tests compare with. */
export type ExplainedLeaf = {
  readonly salt: Uint8Array
  readonly prov: Uint8Array
  readonly commit: Uint8Array
  readonly entry: Uint8Array
  readonly leaf: Uint8Array
}

/** The leaf of one event, step by step. Allocates freely: for one event at a time, not for capture. */
export function explainLeaf(
  saltKey: Uint8Array,
  index: number,
  kind: Kind,
  fields: LeafFields,
  raw: Uint8Array,
  schema = schemaVersion,
): ExplainedLeaf {
  const salt = saltAt(saltKey, index)
  const prov = encodeProvenance(fields, schema)
  const commit = commitment(salt, prov, raw)
  const observedNs = BigInt(fields.observed_ts) * 1000n
  const entry = encodeEntry({ kind: entryKindOf(kind), flags: 0, schema, observedNs, commit })
  return { salt, prov, commit, entry, leaf: leafHash(entry) }
}

/**
 * @param saltKey 32 bytes, one per sealing range
 * @returns 16 bytes: SHA-256(saltKey || u64be(index))[0:16]
 */
export function saltAt(saltKey: Uint8Array, index: number): Uint8Array {
  if (saltKey.length !== saltKeyBytes) throw new Error(`BUG: salt key has ${saltKey.length} bytes`)
  return sha256(saltKey, unsigned(index, 8)).slice(0, saltBytes)
}

/** @returns 32 bytes: the commitment to one event's provenance and raw bytes under its salt */
export function commitment(salt: Uint8Array, prov: Uint8Array, raw: Uint8Array): Uint8Array {
  if (salt.length !== saltBytes) throw new Error(`BUG: salt has ${salt.length} bytes, not 16`)
  return sha256(Buffer.from(commitPrefix), salt, unsigned(prov.length, 4), prov, raw)
}

/** The deterministic encoding of the hidden columns, as laid out at the top of this file. */
export function encodeProvenance(fields: LeafFields, schema = schemaVersion): Uint8Array {
  if (!isGen(fields.gen)) throw new Error('BUG: generation is not 32 lower-case hex digits')
  if (fields.ranges.length % 2 !== 0) throw new Error('BUG: ranges are not offset, length pairs')
  const gen = Buffer.from(fields.gen, 'hex')
  const redacted = fields.redacted ?? []
  return Buffer.concat([
    unsigned(provVersion, 1),
    unsigned(gen.length, 1),
    gen,
    unsigned(streams.indexOf(fields.stream), 1),
    unsigned(fields.observed_ts, 8),
    unsigned(schema, 2),
    unsigned(fields.ranges.length / 2, 4),
    ...fields.ranges.map((value) => unsigned(value, 8)),
    unsigned(redacted.length, 4),
    ...redacted.flatMap(([offset, length, pattern]) => {
      if (!pattern.isWellFormed()) throw new Error('BUG: pattern is not valid text')
      const text = Buffer.from(pattern)
      return [unsigned(offset, 8), unsigned(length, 8), unsigned(text.length, 2), text]
    }),
  ])
}

/**
 * Reads what `encodeProvenance` wrote. Takes bytes from anyone: refuses whatever that function
 * could not have written.
 */
export function parseProvenance(
  bytes: Uint8Array,
): { readonly ok: true; readonly fields: Required<LeafFields>; readonly schema: number } | Refused {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  // Past the end, or beyond 2^53 - 1, reads as -1: every use below refuses that.
  const next = (width: 1 | 2 | 4 | 8): number => {
    const from = at
    at += width
    if (at > bytes.length) return -1
    if (width === 1) return view.getUint8(from)
    if (width === 2) return view.getUint16(from)
    if (width === 4) return view.getUint32(from)
    const value = Number(view.getBigUint64(from))
    return Number.isSafeInteger(value) ? value : -1
  }
  const take = (length: number): Uint8Array => bytes.subarray(at, (at += length))

  const version = next(1)
  if (version !== provVersion) return refused(`provenance version ${version}, not ${provVersion}`)
  const genLength = next(1)
  if (genLength !== 0 && genLength !== 16) return refused(`generation has ${genLength} bytes`)
  const gen = encodeHex(take(genLength))
  const stream = streams[next(1)]
  if (stream === undefined) return refused('unknown stream')
  const observedUs = next(8)
  if (observedUs < 0) return refused('observed time out of range')
  const schema = next(2)
  if (schema < 0) return refused(`provenance ends at byte ${bytes.length}`)

  const rangeCount = next(4)
  if (rangeCount < 0 || at + rangeCount * 16 > bytes.length) {
    return refused(`${rangeCount} ranges do not fit in ${bytes.length} bytes`)
  }
  const ranges: number[] = []
  for (let i = 0; i < 2 * rangeCount; i++) {
    const value = next(8)
    if (value < 0) return refused(`range ${Math.floor(i / 2)} out of bounds`)
    ranges.push(value)
  }

  const redactedCount = next(4)
  if (redactedCount < 0 || at + redactedCount * 18 > bytes.length) {
    return refused(`${redactedCount} redactions do not fit in ${bytes.length} bytes`)
  }
  const redacted: Redaction[] = []
  for (let i = 0; i < redactedCount; i++) {
    const offset = next(8)
    const length = next(8)
    const patternBytes = next(2)
    if (offset < 0 || length < 0 || patternBytes < 0 || at + patternBytes > bytes.length) {
      return refused(`redaction ${i} out of bounds`)
    }
    const pattern = decodeUtf8(take(patternBytes))
    if (pattern === undefined) return refused(`pattern of redaction ${i} is not utf-8`)
    redacted.push([offset, length, pattern])
  }
  if (at !== bytes.length) return refused(`provenance ends at byte ${at} of ${bytes.length}`)
  return { ok: true, fields: { gen, stream, observed_ts: observedUs, ranges, redacted }, schema }
}

/** An entry taken apart. */
export type Entry = {
  readonly kind: number
  readonly flags: number
  /** Version of the columns. */
  readonly schema: number
  /** When the agent read the line, nanoseconds since the epoch. */
  readonly observedNs: bigint
  /** 32 bytes. */
  readonly commit: Uint8Array
}

/** @returns the 53 bytes of an entry, as C2SP entry bundles carry them */
export function encodeEntry(entry: Entry): Uint8Array {
  if (entry.commit.length !== hashBytes) {
    throw new Error(`BUG: commitment has ${entry.commit.length} bytes, not 32`)
  }
  return Buffer.concat([
    Buffer.from(magic),
    unsigned(entry.kind, 1),
    unsigned(entry.flags, 1),
    unsigned(entry.schema, 2),
    unsigned(entry.observedNs, 8),
    entry.commit,
    Buffer.alloc(5),
  ])
}

/** Reads what `encodeEntry` wrote; takes bytes from anyone. */
export function parseEntry(
  bytes: Uint8Array,
): { readonly ok: true; readonly entry: Entry } | Refused {
  if (bytes.length !== entryBytes) return refused(`entry has ${bytes.length} bytes, not 53`)
  if (!sameBytes(bytes.subarray(0, 4), Buffer.from(magic))) return refused('entry is not MTE1')
  if (bytes.subarray(48).some((byte) => byte !== 0)) return refused('reserved bytes are not zero')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return {
    ok: true,
    entry: {
      kind: view.getUint8(4),
      flags: view.getUint8(5),
      schema: view.getUint16(6),
      observedNs: view.getBigUint64(8),
      commit: bytes.slice(16, 48),
    },
  }
}

function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const output = new Uint8Array(hashBytes)
  Bun.SHA256.hash(Buffer.concat(parts), output)
  return output
}

/** @throws {Error} `BUG:` when `value` does not fit in `width` bytes */
function unsigned(value: number | bigint, width: 1 | 2 | 4 | 8): Uint8Array {
  const bound = 2n ** BigInt(8 * width)
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new Error(`BUG: ${value} is not a safe integer`)
  }
  const big = BigInt(value)
  if (big < 0n || big >= bound) throw new Error(`BUG: ${big} does not fit in ${width} bytes`)
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, big)
  return bytes.slice(8 - width)
}

function isGen(gen: string): boolean {
  return gen === '' || /^[0-9a-f]{32}$/.test(gen)
}

// ---------------------------------------------------------------------------------------------
// The fast way

/** Where the salt stands in the committed bytes, and where the provenance's length follows it. */
const saltAtByte = commitPrefix.length
const provLengthAtByte = saltAtByte + saltBytes
const provAtByte = provLengthAtByte + 4
/** The entry's fields, counted in the leaf's hash input, which has 0x00 before the entry. */
const kindAtByte = 5
const schemaAtByte = 7
const observedAtByte = 9
const commitAtByte = 17
/** Inputs up to this long keep their view of the scratch buffer, to save allocating one a line. */
const viewsMax = 4096

/**
 * Hashes events as leaves, one per log line. Keeps all its buffers, so a call allocates nothing for
 * lines up to 4 kB. Holds the last raw buffer it saw until the next call; not re-entrant.
 */
export class LeafHasher {
  readonly #schema: number
  /** saltKey[32] || u64be(index) */
  readonly #saltInput = new Uint8Array(saltKeyBytes + 8)
  readonly #saltView = new DataView(this.#saltInput.buffer)
  /** 0x00 || entry */
  readonly #leafInput = new Uint8Array(1 + entryBytes)
  readonly #leafView = new DataView(this.#leafInput.buffer)
  readonly #commitOutput = this.#leafInput.subarray(commitAtByte, commitAtByte + hashBytes)
  readonly #leafOutput = new Uint8Array(hashBytes)

  /** prefix || salt || u32be(len(prov)) || prov || raw; grows with the longest line. */
  #input = Buffer.alloc(0)
  #inputView = new DataView(this.#input.buffer)
  #saltOutput = new Uint8Array(0)
  #inputViews: Uint8Array[] = []

  // Lines come in chunks: same generation, same buffer.
  #gen = ''
  #genBytes: Uint8Array = new Uint8Array(0)
  #rawOwner: Uint8Array = new Uint8Array(0)
  #raw: Buffer = Buffer.alloc(0)

  /**
   * @param saltKey 32 bytes; copied
   * @param schema version of the columns of the events to hash
   */
  constructor(saltKey: Uint8Array, schema = schemaVersion) {
    if (saltKey.length !== saltKeyBytes) {
      throw new Error(`BUG: salt key has ${saltKey.length} bytes, not 32`)
    }
    this.#schema = schema
    this.#saltInput.set(saltKey)
    this.#leafInput.set(Buffer.from(magic), 1)
    this.#leafView.setUint16(schemaAtByte, schema)
    this.#grow(1 << 16)
  }

  /**
   * Writes the leaf hash of one event.
   *
   * @param index the event's place in the log
   * @param fields the hidden columns; the event itself will do
   * @param rawBuffer holds the line's exact bytes from `rawStart` up to, without, `rawEnd`
   * @param out receives 32 bytes from `outOffset` on
   * @throws {Error} `BUG:` when a number is negative, fractional or beyond 2^53 - 1, or a bound is off
   */
  leafInto(
    index: number,
    kind: Kind,
    fields: LeafFields,
    rawBuffer: Uint8Array,
    rawStart: number,
    rawEnd: number,
    out: Uint8Array,
    outOffset: number,
  ): void {
    if (rawStart < 0 || rawStart > rawEnd || rawEnd > rawBuffer.length) {
      throw new Error(`BUG: no raw bytes ${rawStart} to ${rawEnd} of ${rawBuffer.length}`)
    }
    if (outOffset < 0 || outOffset + hashBytes > out.length) {
      throw new Error(`BUG: no 32 bytes at ${outOffset} of ${out.length}`)
    }

    this.#reserve(provAtByte + provenanceBytes(fields) + rawEnd - rawStart)
    setUint64(this.#saltView, saltKeyBytes, index)
    // 32 bytes land where 16 are wanted: length and provenance, written next, go over the surplus.
    Bun.SHA256.hash(this.#saltInput, this.#saltOutput)
    const rawAt = this.#writeProvenance(fields)

    this.#rawView(rawBuffer).copy(this.#input, rawAt, rawStart, rawEnd)
    Bun.SHA256.hash(this.#inputUpTo(rawAt + rawEnd - rawStart), this.#commitOutput)

    this.#leafInput[kindAtByte] = entryKindOf(kind)
    setNanoseconds(this.#leafView, observedAtByte, fields.observed_ts)
    Bun.SHA256.hash(this.#leafInput, this.#leafOutput)
    out.set(this.#leafOutput, outOffset)
  }

  /** Writes length and provenance into the input and returns where the raw bytes go. */
  #writeProvenance(fields: LeafFields): number {
    const { gen, ranges, redacted } = fields
    if (ranges.length % 2 !== 0) throw new Error('BUG: ranges are not offset, length pairs')
    // Redactions are rare: their encoding may cost what it costs.
    if (redacted !== undefined && redacted.length > 0) {
      const prov = encodeProvenance(fields, this.#schema)
      this.#inputView.setUint32(provLengthAtByte, prov.length)
      this.#input.set(prov, provAtByte)
      return provAtByte + prov.length
    }

    if (gen !== this.#gen) {
      if (!isGen(gen)) throw new Error('BUG: generation is not 32 lower-case hex digits')
      this.#genBytes = new Uint8Array(Buffer.from(gen, 'hex'))
      this.#gen = gen
    }
    const genBytes = this.#genBytes
    const input = this.#input
    const view = this.#inputView
    view.setUint32(provLengthAtByte, provenanceBytes(fields))
    let at = provAtByte
    input[at++] = provVersion
    input[at++] = genBytes.length
    for (let i = 0; i < genBytes.length; i++) input[at++] = genBytes[i] ?? 0
    input[at++] = fields.stream === '' ? 0 : fields.stream === 'stdout' ? 1 : 2
    setUint64(view, at, fields.observed_ts)
    view.setUint16(at + 8, this.#schema)
    view.setUint32(at + 10, ranges.length / 2)
    at += 14
    for (let i = 0; i < ranges.length; i++) {
      setUint64(view, at, ranges[i] ?? 0)
      at += 8
    }
    view.setUint32(at, 0)
    return at + 4
  }

  #rawView(rawBuffer: Uint8Array): Buffer {
    if (rawBuffer !== this.#rawOwner) {
      this.#rawOwner = rawBuffer
      this.#raw = Buffer.from(rawBuffer.buffer, rawBuffer.byteOffset, rawBuffer.byteLength)
    }
    return this.#raw
  }

  #inputUpTo(length: number): Uint8Array {
    if (length >= viewsMax) return this.#input.subarray(0, length)
    return (this.#inputViews[length] ??= new Uint8Array(this.#input.buffer, 0, length))
  }

  #reserve(bytes: number): void {
    if (bytes > this.#input.length) this.#grow(2 * bytes)
  }

  #grow(bytes: number): void {
    const buffer = new ArrayBuffer(bytes)
    this.#input = Buffer.from(buffer)
    this.#input.write(commitPrefix, 0, 'latin1')
    this.#inputView = new DataView(buffer)
    this.#saltOutput = new Uint8Array(buffer, saltAtByte, hashBytes)
    this.#inputViews = []
  }
}

/** How long the encoded provenance will be. */
function provenanceBytes({ gen, ranges, redacted }: LeafFields): number {
  let bytes = 21 + gen.length / 2 + 8 * ranges.length
  if (redacted !== undefined) {
    for (const [, , pattern] of redacted) bytes += 18 + Buffer.byteLength(pattern)
  }
  return bytes
}

const twoTo32 = 2 ** 32

/** @param value a whole number from 0 to 2^53 - 1 */
function setUint64(view: DataView, offset: number, value: number): void {
  if (value < 0 || !Number.isSafeInteger(value)) throw new Error(`BUG: ${value} is not an index`)
  const high = Math.floor(value / twoTo32)
  view.setUint32(offset, high)
  view.setUint32(offset + 4, value - high * twoTo32)
}

/** Writes `microseconds` as nanoseconds; 1000 times a time of today is beyond 2^53, so by halves. */
function setNanoseconds(view: DataView, offset: number, microseconds: number): void {
  const high = Math.floor(microseconds / twoTo32)
  const low = (microseconds - high * twoTo32) * 1000
  const carry = Math.floor(low / twoTo32)
  view.setUint32(offset, high * 1000 + carry)
  view.setUint32(offset + 4, low - carry * twoTo32)
}
