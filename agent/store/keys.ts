/**
 * The log's identity on this node: its origin and Ed25519 key, made once, read at every start.
 *
 * Origin is `<cluster>/<node>/<install id>`; the install id is 64 random bits, so a re-imaged node is
 * a new log, never a reset of an old one.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { errnoOf, messageOf, OpsError } from '../errors.ts'
import type { SigningKey } from '../log/ed25519.ts'
import { seedBytes, signingKeyFromSeed } from '../log/ed25519.ts'
import { encodeHex } from '../log/encoding.ts'
import type { NoteSigner, NoteVerifier } from '../log/note.ts'
import {
  formatVkey,
  keyTypes,
  noteSigner,
  noteVerifier,
  parseVkey,
  verifierKey,
} from '../log/note.ts'
import { syncFolder, writeDurably } from './durable.ts'
import { names } from './filenames.ts'

export type LogIdentity = {
  readonly origin: string
  /** One line, without newline: what an auditor is given. */
  readonly vkey: string
  readonly signer: NoteSigner
  readonly verifier: NoteVerifier
}

/**
 * Reads the identity, or makes one in an empty data directory.
 *
 * @throws {OpsError} `permission` when the key cannot be read or written, `corrupt_input` when it is
 *   damaged, or gone while the log is there
 */
export function openIdentity(
  root: string,
  cluster: string,
  node: string,
  random: (bytes: Uint8Array) => void,
): LogIdentity {
  const hasKey = existsSync(join(root, names.logKey))
  const hasVkey = existsSync(join(root, names.vkey))
  if (!hasKey && hasVkey) {
    throw new OpsError('corrupt_input', `${names.logKey} is missing, but the log is there`, {
      hint: 'restore the key, or start a new log in another data directory and keep this one for verify',
    })
  }
  // A crash between the two files leaves a key nobody used yet: the origin is decided by the vkey.
  if (!hasVkey) createIdentity(root, cluster, node, random)
  const vkey = readText(root, names.vkey).trimEnd()
  const parsed = parseVkey(vkey)
  if (!parsed.ok) throw damaged(names.vkey, parsed.problem)
  const seed = readBytes(root, names.logKey)
  if (seed.length !== seedBytes) throw damaged(names.logKey, `${seed.length} bytes, expected 32`)
  const key = signingKeyFromSeed(seed)
  if (encodeHex(key.publicKey) !== encodeHex(parsed.key.publicKey)) {
    throw damaged(names.logKey, `it is not the key of ${names.vkey}`)
  }
  const origin = parsed.key.name
  return identityOf(origin, key, vkey)
}

function identityOf(origin: string, key: SigningKey, vkey: string): LogIdentity {
  return {
    origin,
    vkey,
    signer: noteSigner(origin, key),
    verifier: noteVerifier(verifierKey(origin, keyTypes.ed25519, key.publicKey)),
  }
}

function createIdentity(
  root: string,
  cluster: string,
  node: string,
  random: (bytes: Uint8Array) => void,
): void {
  const seed = new Uint8Array(seedBytes)
  const install = new Uint8Array(8)
  random(seed)
  random(install)
  try {
    mkdirSync(join(root, names.keys), { recursive: true, mode: 0o700 })
    mkdirSync(join(root, names.log), { recursive: true, mode: 0o750 })
  } catch (cause) {
    throw new OpsError('permission', `cannot make folders in ${root}: ${messageOf(cause)}`, {
      hint: 'give a data directory that this user may write with --data',
      cause,
    })
  }
  writeDurably(root, names.logKey, seed)
  chmodSync(join(root, names.logKey), 0o600)
  syncFolder(root, '.')
  const origin = `${originPart(cluster)}/${originPart(node)}/${encodeHex(install)}`
  const key = signingKeyFromSeed(seed)
  const vkey = formatVkey(verifierKey(origin, keyTypes.ed25519, key.publicKey))
  writeDurably(root, names.vkey, Buffer.from(`${vkey}\n`))
}

/** Names as an origin may have them: `[a-z0-9.-]`. */
function originPart(name: string): string {
  const part = name.toLowerCase().replaceAll(/[^a-z0-9.-]+/g, '-')
  return part === '' ? 'unnamed' : part
}

function readText(root: string, path: string): string {
  return Buffer.from(readBytes(root, path)).toString('utf8')
}

function readBytes(root: string, path: string): Uint8Array {
  try {
    return readFileSync(join(root, path))
  } catch (cause) {
    throw new OpsError(
      errnoOf(cause) === 'ENOENT' ? 'corrupt_input' : 'permission',
      `cannot read ${path}: ${messageOf(cause)}`,
      { hint: 'run as the user that owns the data directory, or restore the file', cause },
    )
  }
}

function damaged(path: string, problem: string): OpsError {
  return new OpsError('corrupt_input', `${path} is damaged: ${problem}`, {
    hint: 'restore it from a backup, or start a new log in another data directory',
    detail: { path },
  })
}
