/**
 * Whether a file on disk is one that was read before, under whatever name.
 *
 * Content decides: its first line (the fingerprint) and the bytes before the cursor. Inode numbers
 * only break ties, for they are reused at once on most file systems, and names change at rotation.
 *
 * Limit: two files of one container that begin with the same line, and hold the same 64 bytes before
 * the cursor, are one to it. With a time in each line, as every runtime writes, there are no such files.
 */

import { hash } from 'node:crypto'
import { basename } from 'node:path'
import { beforeBytesMax, fingerprintBytesMax } from '../limits.ts'
import type { Cursor, Provenance } from './chunk.ts'
import { readLogName } from './log-name.ts'
import { podLogOf } from './provenance.ts'

/** SHA-256, hex. */
export function sha256Hex(bytes: Uint8Array): string {
  return hash('sha256', bytes, 'hex')
}

/**
 * What a generation's identity takes from its provenance: a pod's container, wherever its files lie,
 * or, for a file that belongs to no pod, the trust it is given. Stating another trust for such a file
 * is another claim, and its content is read again under it.
 */
export function identityOf(provenance: Provenance): string {
  const { namespace, pod, podUid, container, trust } = provenance
  return pod === null
    ? `file\0${trust}`
    : `pod\0${namespace ?? ''}\0${pod}\0${podUid ?? ''}\0${container ?? ''}`
}

/**
 * What may be rotated into each other: the files of one container run, or one path and its siblings.
 *
 * @param livePath the path under which the content is, or was, written
 */
export function familyOf(provenance: Provenance, livePath: string): string {
  if (provenance.pod === null) return livePath
  return `${identityOf(provenance)}\0${podLogOf(livePath)?.restart ?? ''}`
}

/** The family of what a cursor has read; `null` where its path (behind Docker's links) does not tell. */
export function familyOfCursor(cursor: Cursor): string | null {
  const name = basename(cursor.path)
  const livePath = cursor.path.slice(0, -name.length) + readLogName(name).live
  if (cursor.provenance.pod !== null && podLogOf(cursor.path) === null) return null
  return familyOf(cursor.provenance, livePath)
}

/**
 * How much of a file's beginning identifies it: its first line, at most `fingerprintBytesMax`.
 *
 * @param head the first `fingerprintBytesMax` bytes, or all there are
 * @returns null while there is neither a whole line nor that much
 */
export function fingerprintLength(head: Uint8Array): number | null {
  const newline = head.subarray(0, fingerprintBytesMax).indexOf(0x0a)
  if (newline >= 0) return newline + 1
  return head.length >= fingerprintBytesMax ? fingerprintBytesMax : null
}

/** Whether a fingerprint is a whole line or a full KiB, and not merely all a file had at its end. */
export function isFullFingerprint(fingerprint: Uint8Array): boolean {
  return fingerprintLength(fingerprint) === fingerprint.length
}

/**
 * @param ordinal 0, or how many generations with the same provenance and beginning came before:
 *   logs that always begin with the same line
 * @returns 32 hex digits
 */
export function generationId(provenance: Provenance, fingerprint: string, ordinal: number): string {
  const suffix = ordinal === 0 ? '' : `\0${ordinal}`
  const text = `${identityOf(provenance)}\0${fingerprint}${suffix}`
  return hash('sha256', text, 'hex').slice(0, 32)
}

/** The last `beforeBytesMax` of `previous` followed by `bytes`, in a buffer of its own. */
export function lastBytes(previous: Buffer, bytes: Buffer): Buffer {
  if (bytes.length >= beforeBytesMax) return Buffer.from(bytes.subarray(-beforeBytesMax))
  return Buffer.from(Buffer.concat([previous, bytes]).subarray(-beforeBytesMax))
}

/** How far back the start of the line before a cursor is looked for; a runtime's parts are 16 KiB. */
export const lastLineBytesMax = 64 * 1024

/**
 * The line that ends where `bytes` end, or that goes on after them.
 *
 * @param fromBeginning `bytes` begin where the file does
 * @returns empty when the line's start is further back
 */
export function lastLineOf(bytes: Buffer, fromBeginning: boolean): Buffer {
  const start = bytes.subarray(0, -1).lastIndexOf(0x0a) + 1
  const isWhole = start > 0 || fromBeginning || bytes.at(-1) !== 0x0a
  return isWhole ? bytes.subarray(start) : Buffer.alloc(0)
}

/** A file's beginning, hashed as often as cursors ask, but once per length. */
export class Head {
  readonly bytes: Buffer
  readonly #hashes = new Map<number, string>()

  /** @param bytes the first `fingerprintBytesMax` bytes, or all there are */
  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  /** Whether a cursor's fingerprint is this file's. */
  matches(cursor: Cursor): boolean {
    const length = cursor.fingerprintBytes
    if (length === 0 || length > this.bytes.length) return false
    let digest = this.#hashes.get(length)
    if (digest === undefined) {
      digest = sha256Hex(this.bytes.subarray(0, length))
      this.#hashes.set(length, digest)
    }
    return digest === cursor.fingerprint
  }
}
