/**
 * C2SP checkpoints: the signed head of a log, and witnesses' cosignatures under it.
 *
 * A checkpoint says which root a log had at which size, and nothing else: times, manifests and
 * cursors belong in leaves. This file does not decide whether signing is safe (durable bytes, never
 * two roots for one size): that is the committer's and the witness's part.
 *
 * @see https://c2sp.org/tlog-checkpoint and https://c2sp.org/tlog-cosignature
 */

import { signatureBytes, signatureCheck, type SigningKey } from './ed25519.ts'
import {
  decodeBase64,
  decodeUtf8,
  encodeBase64,
  parseDecimal,
  refused,
  type Refused,
} from './encoding.ts'
import { hashBytes } from './merkle.ts'
import {
  formatSignature,
  keyTypes,
  type NoteSigner,
  type NoteVerifier,
  noteVerifier,
  openNote,
  parseNote,
  signNote,
  type VerifierKey,
  verifierKey,
} from './note.ts'

/** The head of a log. */
export type Checkpoint = {
  /** Which log: for ours `<cluster>/<node>/<install id>`. */
  readonly origin: string
  /** Leaves. */
  readonly size: number
  /** 32 bytes: the RFC 6962 root. */
  readonly root: Uint8Array
  /** Lines below the root: none in ours; kept because they are signed, and nothing audits them. */
  readonly extensions: readonly string[]
}

/** A cosignature that verified. */
export type Cosignature = {
  readonly name: string
  readonly keyId: string
  /** When the witness says it saw this head as the largest consistent one, seconds since the epoch. */
  readonly timeSeconds: number
}

/** A checkpoint that the log's own key signed. */
export type OpenedCheckpoint = {
  readonly checkpoint: Checkpoint
  /** The signed bytes. */
  readonly text: Uint8Array
  /** Key ids of the log's keys that signed, at least one. */
  readonly logKeyIds: readonly string[]
  /** One per witness key. */
  readonly cosignatures: readonly Cosignature[]
}

/** Whom to believe about one log. */
export type CheckpointTrust = {
  /** The log this must be: a key may sign for several. */
  readonly origin: string
  /** The log's keys, type 0x01; more than one while a key is being replaced. */
  readonly logKeys: readonly VerifierKey[]
  /** Witnesses' keys, type 0x04. A signature of theirs that does not verify refuses the checkpoint. */
  readonly witnessKeys?: readonly VerifierKey[]
}

/**
 * The signed text: origin, size in decimal, root in base64, a newline after each.
 *
 * @throws {Error} `BUG:` when it would not read back as the same checkpoint
 */
export function formatCheckpoint({ origin, size, root, extensions }: Checkpoint): Uint8Array {
  const lines = [origin, String(size), encodeBase64(root), ...extensions]
  const text = Buffer.from(lines.map((line) => `${line}\n`).join(''))
  const parsed = parseCheckpoint(text)
  if (!parsed.ok) throw new Error(`BUG: ${parsed.problem}`)
  const again = parsed.checkpoint
  if (again.origin !== origin || again.extensions.length !== extensions.length) {
    throw new Error('BUG: checkpoint reads back as another')
  }
  return new Uint8Array(text)
}

/** Reads the text of a checkpoint (no signatures). Takes bytes from anyone. */
export function parseCheckpoint(
  text: Uint8Array,
): { readonly ok: true; readonly checkpoint: Checkpoint } | Refused {
  const decoded = decodeUtf8(text)
  if (decoded === undefined) return refused('checkpoint is not utf-8')
  if (!decoded.endsWith('\n')) return refused('checkpoint does not end with a newline')
  const [origin = '', sizeText = '', rootText = '', ...extensions] = decoded
    .slice(0, -1)
    .split('\n')
  if (origin === '') return refused('checkpoint has no origin')
  const size = parseDecimal(sizeText)
  if (size === undefined) return refused('checkpoint size is not a decimal below 2^53')
  const root = decodeBase64(rootText)
  if (root === undefined) return refused('checkpoint root is not base64')
  if (root.length !== hashBytes) return refused(`checkpoint root has ${root.length} bytes, not 32`)
  if (extensions.includes('')) return refused('checkpoint has an empty extension line')
  return { ok: true, checkpoint: { origin, size, root, extensions } }
}

/**
 * Signs the head of a log.
 *
 * @param signers the log's keys; each is named after the origin
 * @returns the note
 */
export function signCheckpoint(checkpoint: Checkpoint, signers: readonly NoteSigner[]): Uint8Array {
  const stranger = signers.find(({ name }) => name !== checkpoint.origin)
  if (stranger !== undefined) {
    throw new Error(`BUG: key ${stranger.name} signs for origin ${checkpoint.origin}`)
  }
  return signNote(formatCheckpoint(checkpoint), signers)
}

/**
 * Reads a signed checkpoint and checks it against the keys one trusts. Enough cosignatures for a
 * quorum is the caller's question.
 */
export function openCheckpoint(
  note: Uint8Array,
  trust: CheckpointTrust,
): ({ readonly ok: true } & OpenedCheckpoint) | Refused {
  const witnessKeys = trust.witnessKeys ?? []
  const opened = openNote(note, [
    ...trust.logKeys.map(noteVerifier),
    ...witnessKeys.map(cosignatureVerifier),
  ])
  if (!opened.ok) return opened
  const { text, verified } = opened.note

  const logKeyIds: string[] = []
  const cosignatures: Cosignature[] = []
  for (const { name, keyId, signature } of verified) {
    if (trust.logKeys.some((key) => key.name === name && key.keyId === keyId)) {
      logKeyIds.push(keyId)
    } else {
      cosignatures.push({ name, keyId, timeSeconds: readTime(signature) ?? 0 })
    }
  }
  if (logKeyIds.length === 0) return refused('checkpoint is not signed by the log')

  const parsed = parseCheckpoint(text)
  if (!parsed.ok) return parsed
  if (parsed.checkpoint.origin !== trust.origin) {
    return refused(`checkpoint is of log ${parsed.checkpoint.origin}, not ${trust.origin}`)
  }
  return { ok: true, checkpoint: parsed.checkpoint, text, logKeyIds, cosignatures }
}

// ---------------------------------------------------------------------------------------------
// Cosignatures

/** Bytes of a cosignature's payload: u64be seconds, then the Ed25519 signature. */
const cosignatureBytes = 8 + signatureBytes

/**
 * Signs checkpoints as a witness. The signed message does not name the witness: use one key for one
 * witness, never a log's.
 *
 * @param timeSeconds seconds since the epoch at which the witness stored this head
 * @throws {Error} `BUG:` when `name` cannot be a key name or the time is not a whole number
 */
export function cosignatureSigner(name: string, key: SigningKey, timeSeconds: number): NoteSigner {
  const { keyId } = verifierKey(name, keyTypes.cosignature, key.publicKey)
  if (!Number.isSafeInteger(timeSeconds) || timeSeconds < 0) {
    throw new Error(`BUG: time ${timeSeconds} is not a whole number of seconds`)
  }
  return {
    name,
    keyId,
    sign: (text) => {
      const payload = Buffer.alloc(cosignatureBytes)
      payload.writeBigUInt64BE(BigInt(timeSeconds))
      payload.set(key.sign(cosignedMessage(text, timeSeconds)), 8)
      return new Uint8Array(payload)
    },
  }
}

/**
 * Verifies cosignatures of one witness.
 *
 * @throws {Error} `BUG:` when the key is not of type 0x04
 */
export function cosignatureVerifier(key: VerifierKey): NoteVerifier {
  if (key.type !== keyTypes.cosignature) throw new Error(`BUG: key type ${key.type} is not 4`)
  const check = signatureCheck(key.publicKey)
  return {
    name: key.name,
    keyId: key.keyId,
    verify: (text, signature) => {
      const timeSeconds = readTime(signature)
      if (timeSeconds === undefined) return false
      return check(cosignedMessage(text, timeSeconds), signature.subarray(8))
    },
  }
}

/**
 * A witness's answer to a checkpoint: the one line to put under it.
 *
 * @param note the signed checkpoint; its signatures must already be verified
 */
export function cosignatureLine(
  note: Uint8Array,
  signer: NoteSigner,
): { readonly ok: true; readonly line: string } | Refused {
  const parsed = parseNote(note)
  if (!parsed.ok) return parsed
  const body = parseCheckpoint(parsed.note.text)
  if (!body.ok) return body
  const { name, keyId } = signer
  return {
    ok: true,
    line: formatSignature({ name, keyId, signature: signer.sign(parsed.note.text) }),
  }
}

/**
 * Puts signature lines, each ending with a newline, under a note.
 *
 * @returns the longer note, unless the lines (a witness's answer) would make it malformed or change
 *   its text
 */
export function appendSignatureLines(
  note: Uint8Array,
  lines: Uint8Array,
): { readonly ok: true; readonly note: Uint8Array } | Refused {
  const before = parseNote(note)
  if (!before.ok) return before
  const joined = new Uint8Array(Buffer.concat([note, lines]))
  const after = parseNote(joined)
  if (!after.ok) return after
  if (after.note.text.length !== before.note.text.length) {
    return refused('the added lines hold a blank line')
  }
  return { ok: true, note: joined }
}

function cosignedMessage(text: Uint8Array, timeSeconds: number): Uint8Array {
  return Buffer.concat([Buffer.from(`cosignature/v1\ntime ${timeSeconds}\n`), text])
}

function readTime(payload: Uint8Array): number | undefined {
  if (payload.length !== cosignatureBytes) return undefined
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength)
  const seconds = Number(view.getBigUint64(0))
  return Number.isSafeInteger(seconds) ? seconds : undefined
}
