import { describe, expect, test } from 'bun:test'
import { createPrivateKey, sign as signWithNode } from 'node:crypto'
import * as fc from 'fast-check'
import { z } from 'zod'
import { OpsError } from '../../agent/errors.ts'
import {
  assertSafePublicKey,
  publicKeyProblem,
  signatureCheck,
  signingKeyFromSeed,
  verifyEd25519,
  verifyEd25519WithTweetnacl,
} from '../../agent/log/ed25519.ts'
import { encodeHex } from '../../agent/log/encoding.ts'
import { bytesOf, bytesOfHex, vectorJson, vectorTest } from './vectors.ts'

const verifiers = { node: verifyEd25519, tweetnacl: verifyEd25519WithTweetnacl }

const p = 2n ** 255n - 19n
const orderL = 2n ** 252n + 27742317777372353535851937790883648493n

function mod(value: bigint): bigint {
  return ((value % p) + p) % p
}

function littleEndian(value: bigint): Uint8Array {
  return bytesOfHex(value.toString(16).padStart(64, '0')).toReversed()
}

/** The encodings of the points of order 1, 2, 4 and 8, with either sign bit. */
const smallOrderKeys = [
  0n,
  1n,
  p - 1n,
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n,
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n,
].flatMap((y) => [littleEndian(y), littleEndian(y + 2n ** 255n)])

describe('signatures', () => {
  test('the first RFC 8032 test vector comes out', () => {
    const key = signingKeyFromSeed(
      bytesOfHex('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60'),
    )
    expect(encodeHex(key.publicKey)).toBe(
      'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    )
    expect(encodeHex(key.sign(new Uint8Array(0)))).toBe(
      'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
    )
  })

  test('both libraries sign alike, and both verify what either signed', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.uint8Array({ maxLength: 300 }),
        fc.nat(63),
        (seed, message, at) => {
          const key = signingKeyFromSeed(seed)
          const signature = key.sign(message)
          const pkcs8 = Buffer.concat([bytesOfHex('302e020100300506032b657004220420'), seed])
          const nodeKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
          expect(encodeHex(signWithNode(null, message, nodeKey))).toBe(encodeHex(signature))
          const flipped = Uint8Array.from(signature)
          flipped[at] = (flipped[at] ?? 0) ^ 4
          for (const verify of Object.values(verifiers)) {
            expect(verify(key.publicKey, message, signature)).toBe(true)
            expect(verify(key.publicKey, message, flipped)).toBe(false)
            expect(verify(key.publicKey, Buffer.concat([message, seed]), signature)).toBe(false)
          }
        },
      ),
      { numRuns: 15 },
    )
  })

  test('one signature has one encoding: S plus a multiple of L is refused', () => {
    const key = signingKeyFromSeed(new Uint8Array(32).fill(7))
    const message = bytesOf('message')
    const signature = key.sign(message)
    const s = BigInt(`0x${encodeHex(signature.slice(32).toReversed())}`)
    for (const multiple of [1n, 2n, 4n, 8n]) {
      const other = Uint8Array.from(signature)
      other.set(littleEndian(s + multiple * orderL), 32)
      for (const verify of Object.values(verifiers)) {
        expect(verify(key.publicKey, message, other)).toBe(false)
      }
    }
  })

  test('wrong lengths are refused, not thrown', () => {
    const key = signingKeyFromSeed(new Uint8Array(32))
    const message = bytesOf('message')
    const signature = key.sign(message)
    for (const verify of Object.values(verifiers)) {
      for (const length of [0, 1, 31, 63, 65, 128]) {
        expect(verify(key.publicKey, message, new Uint8Array(length))).toBe(false)
        expect(verify(new Uint8Array(length), message, signature)).toBe(false)
      }
    }
    expect(() => signingKeyFromSeed(new Uint8Array(31))).toThrow('BUG')
  })

  test('the seed may be erased once the key is made', () => {
    const seed = new Uint8Array(32).fill(3)
    const key = signingKeyFromSeed(seed)
    const before = encodeHex(key.sign(bytesOf('x')))
    seed.fill(0)
    expect(encodeHex(key.sign(bytesOf('x')))).toBe(before)
  })
})

describe('public keys', () => {
  test('small-order keys, whose signature fits every message, verify nothing and are not enrolled', () => {
    const forged = new Uint8Array(64)
    forged[0] = 1
    for (const key of smallOrderKeys) {
      for (const verify of Object.values(verifiers)) {
        for (let i = 0; i < 16; i++) expect(verify(key, bytesOf(`m${i}`), forged)).toBe(false)
      }
      expect(publicKeyProblem(key)).toContain('small order')
      expect(() => assertSafePublicKey(key)).toThrow(OpsError)
    }
  })

  test('the listed small-order points are the ones that eight times themselves is nothing', () => {
    // Affine addition on the curve, as RFC 8032 gives it; slow and obvious.
    const d = 37095705934669439343138083508754565189542113879843219016388785533085940283555n
    const power = (base: bigint, exponent: bigint): bigint => {
      if (exponent === 0n) return 1n
      const root = power(mod(base * base), exponent / 2n)
      return exponent % 2n === 1n ? mod(root * base) : root
    }
    const inverse = (value: bigint): bigint => power(mod(value), p - 2n)
    const double = ([x, y]: readonly [bigint, bigint]): readonly [bigint, bigint] => {
      const product = mod(d * x * x * y * y)
      return [mod(2n * x * y * inverse(1n + product)), mod((y * y + x * x) * inverse(1n - product))]
    }
    const seen = new Set<string>()
    for (const key of smallOrderKeys) {
      const y = BigInt(`0x${encodeHex(key.toReversed())}`) % 2n ** 255n
      const xSquared = mod((y * y - 1n) * inverse(d * y * y + 1n))
      let x = power(xSquared, (p + 3n) / 8n)
      if (mod(x * x) !== xSquared) x = mod(x * power(2n, (p - 1n) / 4n))
      expect(mod(x * x)).toBe(xSquared)
      for (const root of [x, mod(-x)]) {
        expect(double(double(double([root, y])))).toEqual([0n, 1n])
        seen.add(`${root},${y}`)
      }
    }
    // There are exactly eight such points.
    expect(seen.size).toBe(8)
  })

  test('non-canonical encodings and what is no point are refused, real keys are not', () => {
    for (let y = p; y < 2n ** 255n; y++) {
      expect(publicKeyProblem(littleEndian(y))).toContain('canonical')
      expect(publicKeyProblem(littleEndian(y + 2n ** 255n))).toContain('canonical')
    }
    // RFC 8032 section 5.1.3: y = 2 has no x.
    expect(publicKeyProblem(littleEndian(2n))).toBe('not a point of the curve')
    expect(publicKeyProblem(new Uint8Array(31))).toBe('31 bytes, not 32')
    for (let i = 0; i < 20; i++) {
      const { publicKey } = signingKeyFromSeed(new Uint8Array(32).fill(i))
      expect(publicKeyProblem(publicKey)).toBeUndefined()
      expect(() => assertSafePublicKey(publicKey)).not.toThrow()
    }
  })
})

describe('published vectors', () => {
  const schema = z.object({
    testGroups: z.array(
      z.object({
        publicKey: z.object({ pk: z.string() }),
        tests: z.array(
          z.object({ tcId: z.number(), msg: z.string(), sig: z.string(), result: z.string() }),
        ),
      }),
    ),
  })

  for (const [name, verify] of Object.entries(verifiers)) {
    vectorTest(`Wycheproof, ${name}`, 151, () => {
      const { testGroups } = schema.parse(vectorJson('wycheproof/ed25519_test.json'))
      let checked = 0
      for (const { publicKey, tests } of testGroups) {
        for (const { tcId, msg, sig, result } of tests) {
          const valid = verify(bytesOfHex(publicKey.pk), bytesOfHex(msg), bytesOfHex(sig))
          expect([tcId, valid]).toEqual([tcId, result === 'valid'])
          checked++
        }
      }
      expect(checked).toBe(151)
    })
  }

  vectorTest('Wycheproof keys make one check each that serves all their signatures', 151, () => {
    const { testGroups } = schema.parse(vectorJson('wycheproof/ed25519_test.json'))
    for (const { publicKey, tests } of testGroups) {
      const check = signatureCheck(bytesOfHex(publicKey.pk))
      for (const { msg, sig, result } of tests) {
        expect(check(bytesOfHex(msg), bytesOfHex(sig))).toBe(result === 'valid')
      }
    }
  })
})
