import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import { z } from 'zod'
import { signCheckpoint } from '../../agent/log/checkpoint.ts'
import { signingKeyFromSeed } from '../../agent/log/ed25519.ts'
import { encodeBase64, encodeHex } from '../../agent/log/encoding.ts'
import { inclusionProof, leafHash, spanHash, subtreesFromLeaves } from '../../agent/log/merkle.ts'
import { noteSigner, parseVkey, verifierKey } from '../../agent/log/note.ts'
import { formatProof, parseProof, type TlogProof, verifyProof } from '../../agent/log/proof.ts'
import { bytesOf, vectorBytes, vectorJson, vectorTest } from './vectors.ts'

const key = signingKeyFromSeed(new Uint8Array(32).fill(1))
const origin = 'prod/node-a/0123456789abcdef'
const trust = { origin, logKeys: [verifierKey(origin, 1, key.publicKey)] }
const size = 1000
const leafAt = (index: number): Uint8Array => leafHash(bytesOf(`leaf ${index}`))
const tree = subtreesFromLeaves(leafAt)
const root = spanHash({ begin: 0, end: size }, tree)
const checkpoint = signCheckpoint({ origin, size, root, extensions: [] }, [noteSigner(origin, key)])

function proofOf(index: number): TlogProof {
  const hashes = inclusionProof(index, size, tree)
  return { extra: bytesOf('leaf data'), index, hashes, checkpoint }
}

describe('a proof file', () => {
  const file = formatProof(proofOf(700))

  test('reads back as written, with and without extra', () => {
    const { index, hashes } = proofOf(700)
    const bare: TlogProof = { index, hashes, checkpoint }
    expect(parseProof(file)).toEqual({ ok: true, proof: proofOf(700) })
    expect(parseProof(formatProof(bare))).toEqual({ ok: true, proof: bare })
    const empty = { ...bare, extra: new Uint8Array(0) }
    expect(parseProof(formatProof(empty))).toEqual({ ok: true, proof: empty })
  })

  test('proves its leaf, and no other leaf, index or log', () => {
    const proof = proofOf(700)
    const verified = verifyProof(proof, leafAt(700), trust)
    expect(verified.ok && verified.checkpoint.size).toBe(size)
    expect(verifyProof(proof, leafAt(701), trust).ok).toBe(false)
    expect(verifyProof({ ...proof, index: 701 }, leafAt(700), trust).ok).toBe(false)
    expect(verifyProof({ ...proof, hashes: [] }, leafAt(700), trust).ok).toBe(false)
    expect(verifyProof(proof, leafAt(700), { ...trust, origin: 'other' }).ok).toBe(false)
    expect(verifyProof(proof, leafAt(700), { ...trust, logKeys: [] }).ok).toBe(false)
  })

  test('with any one byte changed no longer proves the leaf, but for the unauthenticated extra', () => {
    const head = 'c2sp.org/tlog-proof@v1\nextra '.length
    const extraEnd = head + encodeBase64(bytesOf('leaf data')).length
    for (let at = 0; at < file.length; at++) {
      const changed = Uint8Array.from(file)
      changed[at] = (changed[at] ?? 0) ^ 1
      const parsed = parseProof(changed)
      const holds = parsed.ok && verifyProof(parsed.proof, leafAt(700), trust).ok
      if (at < head || at >= extraEnd) expect([at, holds]).toEqual([at, false])
    }
  })

  test('malformed files are refused with a reason, never thrown', () => {
    const text = Buffer.from(file).toString()
    const hash = encodeBase64(root)
    const cases = [
      '',
      '\n\n',
      text.replace('@v1', '@v2'),
      text.replace('index 700', 'index 0700'),
      text.replace('index 700', 'index -1'),
      text.replace('index 700', 'index 9007199254740992'),
      text.replace('index 700\n', ''),
      text.replace('extra ', 'extra  '),
      text.replace('extra ', 'extras '),
      text.replace('index 700\n', 'index 700\nindex 700\n'),
      text.replace('index 700\n', `index 700\n${hash.slice(4)}\n`),
      text.replace('index 700\n', `index 700\n${hash} \n`),
      text.replace('index 700\n', `index 700\n${`${hash}\n`.repeat(60)}`),
      text.replace('index 700\n', 'index 700\r\n'),
      text.slice(0, text.indexOf('\n\n')),
    ]
    for (const bad of cases) expect([bad, parseProof(bytesOf(bad)).ok]).toEqual([bad, false])
    expect(parseProof(new Uint8Array(4 << 20)).ok).toBe(false)
    expect(() => formatProof({ ...proofOf(1), index: -1 })).toThrow('BUG')
  })

  test('whatever is accepted writes back the same bytes', () => {
    const piece = fc.constantFrom(
      'c2sp.org/tlog-proof@v1\n',
      'extra AA==\n',
      'index 5\n',
      `${encodeBase64(root)}\n`,
      '\n',
      'x\n',
    )
    const made = fc.array(piece, { maxLength: 7 }).map((pieces) => bytesOf(pieces.join('')))
    const started = made.map((rest) => Buffer.concat([bytesOf('c2sp.org/tlog-proof@v1\n'), rest]))
    fc.assert(
      fc.property(fc.oneof(made, started, fc.uint8Array()), (bytes) => {
        const parsed = parseProof(bytes)
        if (parsed.ok) expect(encodeHex(formatProof(parsed.proof))).toBe(encodeHex(bytes))
      }),
      { numRuns: 3000 },
    )
  })

  test('of an event is about 1.5 kB at a billion leaves', () => {
    const hashes = Array.from({ length: 30 }, () => root)
    const bytes = formatProof({ index: 5, hashes, checkpoint })
    expect(bytes.length).toBeLessThan(1800)
  })
})

vectorTest('generated proof files of a Tessera log verify and write back the same', 3, () => {
  const keys = z
    .object({ origin: z.string(), vkey: z.string(), entries: z.array(z.string()) })
    .parse(vectorJson('tessera-log/keys.json'))
  const log = parseVkey(keys.vkey)
  if (!log.ok) throw new Error(log.problem)
  for (const index of [0, 6, 14]) {
    const file = vectorBytes(`generated/entry-${index}.tlog-proof`)
    const parsed = parseProof(file)
    if (!parsed.ok) throw new Error(parsed.problem)
    const { proof } = parsed
    expect(proof.index).toBe(index)
    expect(formatProof(proof)).toEqual(file)
    const data = Buffer.from(proof.extra ?? []).toString()
    expect(data).toBe(keys.entries[index] ?? '')
    const logTrust = { origin: keys.origin, logKeys: [log.key] }
    const verified = verifyProof(proof, leafHash(bytesOf(data)), logTrust)
    expect(verified.ok && verified.checkpoint.size).toBe(15)
    expect(verifyProof(proof, leafHash(bytesOf('other')), logTrust).ok).toBe(false)
  }
})
