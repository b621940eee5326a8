/**
 * C2SP signed notes: a text with signatures under it, read and written as raw bytes, because what
 * is signed is bytes. This is the container of checkpoints, manifests and keyrings.
 *
 * A signature of a key nobody named is ignored; one of a named key that does not verify refuses the
 * whole note; so does having none that verifies. Stricter than the text: duplicate lines of a named
 * key must each verify, and notes are bounded in length and signatures.
 *
 * @see https://c2sp.org/signed-note
 */

import {
  publicKeyProblem,
  type SigningKey,
  signatureBytes,
  signatureCheck,
  type SignatureCheck,
} from './ed25519.ts'
import {
  decodeBase64,
  decodeUtf8,
  encodeBase64,
  encodeHex,
  refused,
  type Refused,
} from './encoding.ts'

/** Longer notes are refused unread: a manifest, the longest of them, is some tens of kilobytes. */
export const noteBytesMax = 1 << 20
/** More signature lines are refused, as in Go's `note` package: verifying is what costs. */
export const noteSignaturesMax = 100

/** The signature types of C2SP that we handle: plain Ed25519, and Ed25519 cosignature/v1. */
export const keyTypes = { ed25519: 0x01, cosignature: 0x04 } as const
export type KeyType = (typeof keyTypes)[keyof typeof keyTypes]

/** A public key under a name: what a vkey line says. */
export type VerifierKey = {
  readonly name: string
  /** 8 lower-case hex digits: the first 4 bytes of SHA-256(name || 0x0A || type || public key). */
  readonly keyId: string
  readonly type: KeyType
  /** 32 bytes. */
  readonly publicKey: Uint8Array
}

/** Checks the payload of one signature line (what follows the key id) over the note's text. */
export type NoteVerifier = {
  readonly name: string
  readonly keyId: string
  readonly verify: (text: Uint8Array, signature: Uint8Array) => boolean
}

/** Makes the payload of one signature line over the note's text. */
export type NoteSigner = {
  readonly name: string
  readonly keyId: string
  readonly sign: (text: Uint8Array) => Uint8Array
}

/** One signature line. */
export type NoteSignature = {
  readonly name: string
  readonly keyId: string
  /** What follows the 4 bytes of key id. */
  readonly signature: Uint8Array
}

/** A note taken apart, nothing verified. */
export type ParsedNote = {
  /** Everything above the blank line before the signatures, final newline included: what is signed. */
  readonly text: Uint8Array
  readonly signatures: readonly NoteSignature[]
}

/** A note at least one named key signed. */
export type OpenedNote = {
  readonly text: Uint8Array
  /** One per key, in the note's order. */
  readonly verified: readonly NoteSignature[]
  /** Lines of keys that were not named: proof of nothing. */
  readonly unknown: readonly NoteSignature[]
}

// ---------------------------------------------------------------------------------------------
// Keys

/** What is wrong with a key name, or undefined: it has no white space, no plus, no control characters. */
export function keyNameProblem(name: string): string | undefined {
  if (name === '') return 'key name is empty'
  if (!name.isWellFormed()) return 'key name is not valid text'
  if (/[\p{White_Space}+]/u.test(name)) return 'key name has a space or a plus'
  return hasControlCharacter(Buffer.from(name)) ? 'key name has a control character' : undefined
}

/**
 * Names a public key.
 *
 * @throws {Error} `BUG:` when `name` cannot be a key name or the key is not 32 bytes
 */
export function verifierKey(name: string, type: KeyType, publicKey: Uint8Array): VerifierKey {
  const problem = keyNameProblem(name)
  if (problem !== undefined) throw new Error(`BUG: ${problem}`)
  if (publicKey.length !== 32) throw new Error(`BUG: key has ${publicKey.length} bytes, not 32`)
  return { name, keyId: keyIdOf(name, type, publicKey), type, publicKey: publicKey.slice() }
}

/** @returns the vkey line, without newline: `<name>+<key id>+<base64(type || public key)>` */
export function formatVkey(key: VerifierKey): string {
  return `${key.name}+${key.keyId}+${encodeBase64(Buffer.from([key.type, ...key.publicKey]))}`
}

/**
 * Reads a vkey line (no newline). Besides malformed ones it refuses key ids that do not belong to
 * name and key, types other than 0x01 and 0x04, and public keys that are unsafe to trust.
 */
export function parseVkey(
  vkey: string,
): { readonly ok: true; readonly key: VerifierKey } | Refused {
  const [name = '', keyId = '', ...rest] = vkey.split('+')
  const nameProblem = keyNameProblem(name)
  if (nameProblem !== undefined) return refused(nameProblem)
  const bytes = decodeBase64(rest.join('+'))
  if (bytes === undefined) return refused('key is not base64')
  const type = Object.values(keyTypes).find((known) => known === bytes[0])
  if (type === undefined) return refused(`key type ${bytes[0] ?? 'missing'} is not 1 or 4`)
  const publicKey = bytes.slice(1)
  if (publicKey.length !== 32) return refused(`key has ${publicKey.length} bytes, not 32`)
  if (keyIdOf(name, type, publicKey) !== keyId) return refused('key id does not belong to the key')
  const keyProblem = publicKeyProblem(publicKey)
  if (keyProblem !== undefined) return refused(`key refused: ${keyProblem}`)
  return { ok: true, key: { name, keyId, type, publicKey } }
}

/** @returns 8 lower-case hex digits @see https://c2sp.org/signed-note#signatures */
export function keyIdOf(name: string, type: number, publicKey: Uint8Array): string {
  const hash = new Uint8Array(32)
  Bun.SHA256.hash(Buffer.concat([Buffer.from(`${name}\n`), Buffer.from([type]), publicKey]), hash)
  return encodeHex(hash.subarray(0, 4))
}

/**
 * Signs notes with a key of type 0x01, which signs the text as it is.
 *
 * @throws {Error} `BUG:` when `name` cannot be a key name
 */
export function noteSigner(name: string, key: SigningKey): NoteSigner {
  const { keyId } = verifierKey(name, keyTypes.ed25519, key.publicKey)
  return { name, keyId, sign: key.sign }
}

/**
 * Verifies signatures of a key of type 0x01.
 *
 * @throws {Error} `BUG:` for another type: a cosignature is over more than the text (`checkpoint.ts`)
 */
export function noteVerifier(key: VerifierKey): NoteVerifier {
  if (key.type !== keyTypes.ed25519) throw new Error(`BUG: key type ${key.type} is not 1`)
  const check: SignatureCheck = signatureCheck(key.publicKey)
  return {
    name: key.name,
    keyId: key.keyId,
    verify: (text, signature) => signature.length === signatureBytes && check(text, signature),
  }
}

// ---------------------------------------------------------------------------------------------
// Notes

/** U+2014 and a space, in UTF-8. */
const linePrefix = Buffer.from('— ')

/**
 * Signs a text.
 *
 * @param text valid UTF-8 without control characters, ends with a newline
 * @throws {Error} `BUG:` for any other text: our own notes are never malformed
 */
export function signNote(text: Uint8Array, signers: readonly NoteSigner[]): Uint8Array {
  if (signers.length === 0 || signers.length > noteSignaturesMax) {
    throw new Error(`BUG: ${signers.length} signers`)
  }
  const lines = signers.map(({ name, keyId, sign }) =>
    formatSignature({ name, keyId, signature: sign(text) }),
  )
  const note = Buffer.concat([text, Buffer.from(`\n${lines.join('')}`)])
  const parsed = parseNote(note)
  if (!parsed.ok) throw new Error(`BUG: ${parsed.problem}`)
  if (!Buffer.from(text).equals(parsed.note.text)) {
    throw new Error('BUG: note reads back as another text')
  }
  return new Uint8Array(note)
}

/** One signature line, newline included. */
export function formatSignature({ name, keyId, signature }: NoteSignature): string {
  return `— ${name} ${encodeBase64(Buffer.concat([Buffer.from(keyId, 'hex'), signature]))}\n`
}

/** Takes a note apart. Takes bytes from anyone; what it returns is well formed, not authentic. */
export function parseNote(
  bytes: Uint8Array,
): { readonly ok: true; readonly note: ParsedNote } | Refused {
  if (bytes.length > noteBytesMax) return refused(`note has ${bytes.length} bytes, too many`)
  if (hasControlCharacter(bytes)) return refused('note has a control character')
  if (decodeUtf8(bytes) === undefined) return refused('note is not utf-8')
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  // The last blank line: a text may have blank lines of its own.
  const blank = buffer.lastIndexOf('\n\n')
  if (blank < 0) return refused('note has no blank line before its signatures')
  const text = new Uint8Array(buffer.subarray(0, blank + 1))

  const below = buffer.subarray(blank + 2)
  if (below.length === 0) return refused('note has no signatures')
  if (below.at(-1) !== newline) return refused('note does not end with a newline')
  const signatures: NoteSignature[] = []
  for (let at = 0; at < below.length; ) {
    const end = below.indexOf(newline, at)
    if (signatures.length === noteSignaturesMax) {
      return refused(`note has more than ${noteSignaturesMax} signatures`)
    }
    const signature = parseSignature(below.subarray(at, end))
    if (signature === undefined) return refused(`signature line ${signatures.length} is malformed`)
    signatures.push(signature)
    at = end + 1
  }
  return { ok: true, note: { text, signatures } }
}

/**
 * Takes a note apart and checks it against the keys one trusts.
 *
 * @param verifiers no two with the same name and key id
 */
export function openNote(
  bytes: Uint8Array,
  verifiers: readonly NoteVerifier[],
): { readonly ok: true; readonly note: OpenedNote } | Refused {
  const parsed = parseNote(bytes)
  if (!parsed.ok) return parsed
  const known = new Map(verifiers.map((verifier) => [keyOf(verifier), verifier]))
  if (known.size !== verifiers.length) return refused('two of the given keys have one name and id')

  const { text, signatures } = parsed.note
  const verified = new Map<string, NoteSignature>()
  const unknown: NoteSignature[] = []
  for (const signature of signatures) {
    const key = keyOf(signature)
    const verifier = known.get(key)
    if (verifier === undefined) {
      unknown.push(signature)
      continue
    }
    if (!verifier.verify(text, signature.signature)) {
      return refused(`invalid signature for key ${signature.name}+${signature.keyId}`)
    }
    if (!verified.has(key)) verified.set(key, signature)
  }
  if (verified.size === 0) return refused('note has no signature of a known key')
  return { ok: true, note: { text, verified: [...verified.values()], unknown } }
}

const newline = 0x0a

function keyOf({ name, keyId }: { readonly name: string; readonly keyId: string }): string {
  return `${name}+${keyId}`
}

function parseSignature(line: Uint8Array): NoteSignature | undefined {
  if (!linePrefix.equals(line.subarray(0, linePrefix.length))) return undefined
  const rest = decodeUtf8(line.subarray(linePrefix.length))
  if (rest === undefined) return undefined
  const space = rest.indexOf(' ')
  if (space < 0) return undefined
  const name = rest.slice(0, space)
  if (keyNameProblem(name) !== undefined) return undefined
  const bytes = decodeBase64(rest.slice(space + 1))
  if (bytes === undefined || bytes.length < 5) return undefined
  return { name, keyId: encodeHex(bytes.subarray(0, 4)), signature: bytes.slice(4) }
}

/** Whether there is a byte below 0x20 other than newline. */
function hasControlCharacter(bytes: Uint8Array): boolean {
  return bytes.some((byte) => byte < 0x20 && byte !== newline)
}
