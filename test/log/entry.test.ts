import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import { encodeHex } from '../../agent/log/encoding.ts'
import {
  commitment,
  encodeEntry,
  encodeProvenance,
  entryKindOf,
  explainLeaf,
  type LeafFields,
  LeafHasher,
  parseEntry,
  parseProvenance,
  saltAt,
} from '../../agent/log/entry.ts'
import { newEvent } from '../../agent/event.ts'
import { leafHash } from '../../agent/log/merkle.ts'
import { bytesOf } from './vectors.ts'

const saltKey = Uint8Array.from({ length: 32 }, (_, i) => i)
const fields: LeafFields = {
  gen: '00112233445566778899aabbccddeeff',
  stream: 'stderr',
  observed_ts: 1_784_000_000_123_456,
  ranges: [4096, 17, 5_000_000_000, 3],
}

const index = fc.oneof(fc.nat(1000), fc.maxSafeNat(), fc.constant(2 ** 32), fc.constant(2 ** 31))
const kind = fc.constantFrom('gap', 'lifecycle', 'access', 'request', 'other', 'finding')
const anyFields = fc.record({
  gen: fc.oneof(
    fc.constant(''),
    fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => encodeHex(bytes)),
  ),
  stream: fc.constantFrom('' as const, 'stdout' as const, 'stderr' as const),
  observed_ts: fc.maxSafeNat(),
  ranges: fc
    .array(fc.tuple(fc.maxSafeNat(), fc.nat(1 << 20)), { maxLength: 70 })
    .map((pairs) => pairs.flat()),
  redacted: fc.array(fc.tuple(fc.maxSafeNat(), fc.nat(), fc.string({ unit: 'grapheme' })), {
    maxLength: 3,
  }),
})

describe('an entry', () => {
  test('has the bytes computed outside this program', () => {
    const raw = bytesOf('{"response_code":403}\n')
    const found = explainLeaf(saltKey, 2 ** 32 + 5, 'gap', fields, raw, 1)
    expect(encodeHex(found.salt)).toBe('f879cf820ab8589da3ba3a52d180bd49')
    expect(encodeHex(found.prov)).toBe(
      '011000112233445566778899aabbccddeeff0200065689de49624000010000000200000000000010000000000000000011000000012a05f200000000000000000300000000',
    )
    expect(encodeHex(found.entry)).toBe(
      '4d5445310100000118c20a8c4ea7ca00b477659a837c3ee539d56d84a8e07d00d14103aa539476b763fb110db22296790000000000',
    )
    expect(encodeHex(found.leaf)).toBe(
      '642d6c30afc76f1017e563796a6deb48d87201e4b9911d061ba59c056d6f1b0d',
    )
  })

  test('reads back as written, and one flipped header, magic or reserved byte is seen', () => {
    const commit = saltKey
    const entry = { kind: 9, flags: 3, schema: 513, observedNs: 2n ** 63n + 7n, commit }
    const bytes = encodeEntry(entry)
    expect(bytes).toHaveLength(53)
    const parsed = parseEntry(bytes)
    if (!parsed.ok) throw new Error(parsed.problem)
    expect(parsed.entry).toEqual(entry)
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Uint8Array.from(bytes)
      flipped[at] = (flipped[at] ?? 0) ^ 1
      const again = parseEntry(flipped)
      expect(again.ok).toBe(at >= 4 && at < 48)
      if (again.ok) expect(again.entry).not.toEqual(entry)
    }
    expect(parseEntry(bytes.subarray(1)).ok).toBe(false)
    expect(parseEntry(new Uint8Array(54)).ok).toBe(false)
  })

  test('kinds map to the bytes of the specification', () => {
    expect(entryKindOf('gap')).toBe(1)
    expect(entryKindOf('lifecycle')).toBe(7)
    expect(entryKindOf('access')).toBe(9)
    expect(entryKindOf('request')).toBe(0)
    expect(entryKindOf('finding')).toBe(0)
  })
})

describe('provenance', () => {
  test('reads back as written', () => {
    fc.assert(
      fc.property(anyFields, fc.nat(65535), (some, schema) => {
        const parsed = parseProvenance(encodeProvenance(some, schema))
        expect(parsed).toEqual({ ok: true, fields: some, schema })
      }),
    )
  })

  test('every truncation and every appended byte is refused', () => {
    const bytes = encodeProvenance({ ...fields, redacted: [[3, 9, 'café']] })
    for (let length = 0; length < bytes.length; length++) {
      expect(parseProvenance(bytes.subarray(0, length)).ok).toBe(false)
    }
    expect(parseProvenance(Buffer.concat([bytes, Buffer.alloc(1)])).ok).toBe(false)
  })

  test('whatever bytes are accepted encode to the same bytes again', () => {
    const bytes = encodeProvenance({ ...fields, redacted: [[3, 9, 'café']] })
    const oneChanged = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)).map(([at, value]) => {
      const changed = Uint8Array.from(bytes)
      changed[at] = value
      return changed
    })
    fc.assert(
      fc.property(fc.oneof(oneChanged, fc.uint8Array({ maxLength: 120 })), (hostile) => {
        const parsed = parseProvenance(hostile)
        if (!parsed.ok) return
        expect(encodeHex(encodeProvenance(parsed.fields, parsed.schema))).toBe(encodeHex(hostile))
      }),
      { numRuns: 3000 },
    )
  })

  test('a count that would need gigabytes is refused at once', () => {
    const bytes = Buffer.from(encodeProvenance({ ...fields, gen: '', ranges: [] }))
    bytes.writeUInt32BE(0xffffffff, 13)
    expect(parseProvenance(bytes)).toEqual({
      ok: false,
      problem: '4294967295 ranges do not fit in 21 bytes',
    })
  })
})

describe('the fast hasher', () => {
  test('agrees with the obvious one on any event, one hasher for all of them', () => {
    const hasher = new LeafHasher(saltKey)
    const out = new Uint8Array(96)
    fc.assert(
      fc.property(
        index,
        kind,
        anyFields,
        fc.uint8Array({ maxLength: 6000 }),
        fc.nat(40),
        fc.nat(40),
        (at, what, some, buffer, head, tail) => {
          const start = Math.min(head, buffer.length)
          const end = Math.max(start, buffer.length - tail)
          out.fill(0xee)
          hasher.leafInto(at, what, some, buffer, start, end, out, 32)
          const expected = explainLeaf(saltKey, at, what, some, buffer.subarray(start, end))
          expect(encodeHex(out.subarray(32, 64))).toBe(encodeHex(expected.leaf))
          expect(out.subarray(0, 32).every((byte) => byte === 0xee)).toBe(true)
          expect(out.subarray(64).every((byte) => byte === 0xee)).toBe(true)
        },
      ),
      { numRuns: 500 },
    )
  })

  test('lines longer than its buffer, and then short ones, come out right', () => {
    const hasher = new LeafHasher(saltKey)
    const out = new Uint8Array(32)
    const buffer = new Uint8Array(3 << 20).fill(65)
    for (const [at, length] of [0, 1, 10, 65_536, 1 << 20, 10, 3 << 20, 10, 1, 4096].entries()) {
      hasher.leafInto(at, 'request', fields, buffer, 0, length, out, 0)
      const expected = explainLeaf(saltKey, at, 'request', fields, buffer.subarray(0, length))
      expect([length, encodeHex(out)]).toEqual([length, encodeHex(expected.leaf)])
    }
  })

  test('redactions longer than its buffer come out right', () => {
    const pattern = 'é'.repeat(20_000)
    const redacted = [
      [0, 5, pattern],
      [9, 5, pattern],
    ] as const
    const out = new Uint8Array(32)
    const raw = bytesOf('line\n')
    new LeafHasher(saltKey).leafInto(1, 'request', { ...fields, redacted }, raw, 0, 5, out, 0)
    const expected = explainLeaf(saltKey, 1, 'request', { ...fields, redacted }, raw)
    expect(encodeHex(out)).toBe(encodeHex(expected.leaf))
  })

  test('an event is its own fields, and views on one buffer are told apart', () => {
    const hasher = new LeafHasher(saltKey, 4)
    const event = newEvent(1_784_000_000_000_001)
    const shared = new Uint8Array(64).map((_, i) => i)
    const out = new Uint8Array(32)
    for (const view of [shared.subarray(3, 20), shared.subarray(4, 21), Buffer.from(shared)]) {
      hasher.leafInto(1, event.kind, event, view, 1, 9, out, 0)
      const expected = explainLeaf(saltKey, 1, event.kind, event, view.subarray(1, 9), 4)
      expect(encodeHex(out)).toBe(encodeHex(expected.leaf))
    }
  })

  test('everything the leaf commits to changes it', () => {
    const raw = bytesOf('line\n')
    const leafOf = (
      key = saltKey,
      at = 5,
      what: 'request' | 'gap' = 'request',
      some: LeafFields = fields,
      bytes = raw,
      schema = 1,
    ): string => {
      const out = new Uint8Array(32)
      new LeafHasher(key, schema).leafInto(at, what, some, bytes, 0, bytes.length, out, 0)
      return encodeHex(out)
    }
    const leaves = [
      leafOf(),
      leafOf(saltKey.map((byte) => byte ^ 1)),
      leafOf(saltKey, 6),
      leafOf(saltKey, 5 + 2 ** 32),
      leafOf(saltKey, 5, 'gap'),
      leafOf(saltKey, 5, 'request', { ...fields, gen: '' }),
      leafOf(saltKey, 5, 'request', { ...fields, stream: 'stdout' }),
      leafOf(saltKey, 5, 'request', { ...fields, observed_ts: fields.observed_ts + 1 }),
      leafOf(saltKey, 5, 'request', { ...fields, ranges: [4096, 17] }),
      leafOf(saltKey, 5, 'request', { ...fields, ranges: [4096, 17, 5_000_000_000, 4] }),
      leafOf(saltKey, 5, 'request', { ...fields, redacted: [[0, 4, 'p']] }),
      leafOf(saltKey, 5, 'request', fields, bytesOf('line')),
      leafOf(saltKey, 5, 'request', fields, raw, 2),
    ]
    expect(new Set(leaves).size).toBe(leaves.length)
  })

  test('numbers that have no encoding stop the process instead of being bent', () => {
    const hasher = new LeafHasher(saltKey)
    const raw = new Uint8Array(8)
    const out = new Uint8Array(32)
    const hash = (at: number, some: LeafFields, end = 8, to = 0): void => {
      hasher.leafInto(at, 'request', some, raw, 0, end, out, to)
    }
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 53]) {
      expect(() => hash(bad, fields)).toThrow('BUG')
      expect(() => hash(0, { ...fields, observed_ts: bad })).toThrow('BUG')
      expect(() => hash(0, { ...fields, ranges: [bad, 1] })).toThrow('BUG')
    }
    expect(() => hash(0, { ...fields, ranges: [1] })).toThrow('BUG')
    expect(() => hash(0, { ...fields, gen: 'xyz' })).toThrow('BUG')
    expect(() => hash(0, { ...fields, gen: fields.gen.toUpperCase() })).toThrow('BUG')
    expect(() => hash(0, fields, 9)).toThrow('BUG')
    expect(() => hash(0, fields, 8, 1)).toThrow('BUG')
    expect(() => new LeafHasher(new Uint8Array(31))).toThrow('BUG')
    // A failed call leaves nothing behind that the next one would hash.
    hash(3, fields)
    expect(encodeHex(out)).toBe(encodeHex(explainLeaf(saltKey, 3, 'request', fields, raw).leaf))
  })

  test('one disclosed event is checked from its salt, provenance and raw bytes', () => {
    const raw = bytesOf('line\n')
    const { salt, prov, commit, entry, leaf } = explainLeaf(saltKey, 9, 'access', fields, raw)
    expect(encodeHex(salt)).toBe(encodeHex(saltAt(saltKey, 9)))
    const parsed = parseEntry(entry)
    if (!parsed.ok) throw new Error(parsed.problem)
    expect(encodeHex(parsed.entry.commit)).toBe(encodeHex(commitment(salt, prov, raw)))
    expect(encodeHex(commit)).toBe(encodeHex(parsed.entry.commit))
    expect(encodeHex(leafHash(entry))).toBe(encodeHex(leaf))
    expect(parsed.entry.observedNs).toBe(1_784_000_000_123_456_000n)
  })
})
