/**
 * Ed25519 as the log uses it: signing by tweetnacl, verifying by node:crypto, both behind checks that
 * neither makes. Keys arrive as bytes; reading, writing and erasing key files is the caller's part.
 *
 * Strict RFC 8032: a signature has one encoding (S < L), a public key has one encoding and is not of
 * small order. With a small-order key one signature fits every message, and both libraries accept it.
 */

import { createPublicKey, verify as verifyWithNode } from 'node:crypto'
import nacl from 'tweetnacl'
import { OpsError } from '../errors.ts'
import { encodeHex } from './encoding.ts'

export const seedBytes = 32
export const publicKeyBytes = 32
export const signatureBytes = 64

/** A key that can sign. The secret stays inside the closure and is never printed or serialised. */
export type SigningKey = {
  /** 32 bytes. */
  readonly publicKey: Uint8Array
  /** @returns 64 bytes, the same for the same message @see RFC 8032, section 5.1.6 */
  readonly sign: (message: Uint8Array) => Uint8Array
}

/**
 * The key pair of a seed. About 2 ms; a signature costs as much.
 *
 * @param seed 32 random bytes; copied, so the caller may erase its own
 * @throws {Error} `BUG:` when `seed` has another length
 */
export function signingKeyFromSeed(seed: Uint8Array): SigningKey {
  if (seed.length !== seedBytes) throw new Error(`BUG: seed has ${seed.length} bytes, not 32`)
  const { publicKey, secretKey } = nacl.sign.keyPair.fromSeed(seed)
  return { publicKey, sign: (message) => nacl.sign.detached(message, secretKey) }
}

/** Whether `signature` is a public key's over `message`. Never throws, whatever the bytes. */
export type SignatureCheck = (message: Uint8Array, signature: Uint8Array) => boolean

/**
 * A check for many signatures of one key (about 45 µs each, by node:crypto). A key that
 * `publicKeyProblem` refuses verifies nothing.
 *
 * @param publicKey 32 bytes, from anyone
 */
export function signatureCheck(publicKey: Uint8Array): SignatureCheck {
  const key = nodePublicKey(publicKey)
  if (key === undefined) return () => false
  return (message, signature) => {
    if (!isCanonicalSignature(signature)) return false
    try {
      return verifyWithNode(null, message, key, signature)
    } catch {
      return false
    }
  }
}

/** One signature checked by node:crypto. Never throws. */
export function verifyEd25519(
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  return signatureCheck(publicKey)(message, signature)
}

/** The same by tweetnacl (4 ms), an independent implementation to compare with. Never throws. */
export function verifyEd25519WithTweetnacl(
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  if (encodingProblem(publicKey) !== undefined || !isCanonicalSignature(signature)) return false
  return nacl.sign.detached.verify(message, signature, publicKey)
}

/**
 * Refuses public keys nobody should be enrolled with: of another length, not a point, not the one
 * encoding of their point, or of small order. About 50 µs.
 *
 * @throws {OpsError} `configuration`
 */
export function assertSafePublicKey(publicKey: Uint8Array): void {
  const problem = publicKeyProblem(publicKey)
  if (problem === undefined) return
  throw new OpsError('configuration', `public key refused: ${problem}`, {
    hint: 'Make a new key with `meshtrail keygen` on the node and enrol that one.',
  })
}

/** What is wrong with a public key, or undefined. See `assertSafePublicKey`. */
export function publicKeyProblem(publicKey: Uint8Array): string | undefined {
  const problem = encodingProblem(publicKey)
  if (problem !== undefined) return problem
  return isOnCurve(yOf(publicKey)) ? undefined : 'not a point of the curve'
}

// ---------------------------------------------------------------------------------------------
// Encodings

/** DER of a SubjectPublicKeyInfo up to the 32 key bytes. @see RFC 8410, section 4 */
const spkiPrefix = Buffer.from('302a300506032b6570032100', 'hex')

function nodePublicKey(publicKey: Uint8Array): ReturnType<typeof createPublicKey> | undefined {
  if (encodingProblem(publicKey) !== undefined) return undefined
  try {
    const key = Buffer.concat([spkiPrefix, publicKey])
    return createPublicKey({ key, format: 'der', type: 'spki' })
  } catch {
    return undefined
  }
}

/** The order of the base point, 2^252 + 27742317777372353535851937790883648493, little-endian. */
const orderL = Buffer.from(
  'edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010',
  'hex',
)

/** 64 bytes with S < L: otherwise S + L would be a second signature of the same message. */
function isCanonicalSignature(signature: Uint8Array): boolean {
  if (signature.length !== signatureBytes) return false
  for (let i = 31; i >= 0; i--) {
    const s = signature[32 + i] ?? 0
    const l = orderL[i] ?? 0
    if (s !== l) return s < l
  }
  return false
}

/** 2^255 - 19: the field. */
const p = 2n ** 255n - 19n
/** The curve's constant, -121665/121666 in the field. @see RFC 8032, section 5.1 */
const d = 37095705934669439343138083508754565189542113879843219016388785533085940283555n

/** The y coordinates of the eight points of order 1, 2, 4 and 8. */
const smallOrderY = new Set([
  0n,
  1n,
  p - 1n,
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n,
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n,
])

function encodingProblem(publicKey: Uint8Array): string | undefined {
  if (publicKey.length !== publicKeyBytes) return `${publicKey.length} bytes, not 32`
  const y = yOf(publicKey)
  if (y >= p) return 'not the canonical encoding of its point'
  if (smallOrderY.has(y)) return 'a point of small order, whose signatures fit every message'
  return undefined
}

/** The y coordinate: little-endian, without the top bit, which is the sign of x. */
function yOf(publicKey: Uint8Array): bigint {
  return BigInt(`0x${encodeHex(publicKey.toReversed())}`) % 2n ** 255n
}

/** Whether x² = (y² - 1) / (d·y² + 1) has a solution, by Euler's criterion on numerator · denominator. */
function isOnCurve(y: bigint): boolean {
  const ySquared = (y * y) % p
  return power(((ySquared - 1n) * (d * ySquared + 1n)) % p, (p - 1n) / 2n) === 1n
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n
  let square = ((base % p) + p) % p
  for (let rest = exponent; rest > 0n; rest /= 2n) {
    if (rest % 2n === 1n) result = (result * square) % p
    square = (square * square) % p
  }
  return result
}
