/**
 * Reads one generation from an open plain file: whole lines only, a chunk at a time.
 *
 * The reader belongs to the file's content, not to its name: its descriptor stays open through
 * renames and deletion. An unterminated last line waits in the file, unread, until it is terminated
 * or the generation is final.
 *
 * Before any byte is taken, the bytes before it are compared with what they were, in the same system
 * call; so a file that was truncated and written anew is noticed however fast it grew. Limit: not if
 * the new content has the same first line (or KiB) and the same 64 bytes before the cursor.
 *
 * Reads are synchronous: these are local files, mostly in the page cache, and a read of a chunk takes
 * about 50 µs. A log directory on a network file system would hold up the process.
 */

import { closeSync, fstatSync, readSync } from 'node:fs'
import type { Decoded } from '../decode/decoder.ts'
import { Decoder } from '../decode/decoder.ts'
import {
  beforeBytesMax,
  chunkBytesMax,
  lineBytesMax,
  partsPerLineMax,
  scanBytesMax,
} from '../limits.ts'
import type { Cursor, Generation } from './chunk.ts'
import { lastBytes, lastLineBytesMax, lastLineOf, sha256Hex } from './identity.ts'
import { readRange } from './open-file.ts'

export type ReadLimits = {
  readonly chunkBytesMax: number
  readonly lineBytesMax: number
  readonly partsPerLineMax: number
}

export const defaultReadLimits: ReadLimits = { chunkBytesMax, lineBytesMax, partsPerLineMax }

const newline = 0x0a

export class FileReader {
  /** Owned by the reader: closed by `close`, unless `release` gives it back. */
  readonly fd: number
  readonly generation: Generation
  readonly dev: number
  readonly ino: number
  /** Bytes of the file, as of the last `poll`. */
  size = 0
  /** Names the file still has, as of the last `poll`; 0: deleted. */
  linkCount = 1
  /** Everything below it has been looked at, and every whole line of it handed out. */
  scannedTo = 0
  mtimeMs = 0

  readonly #limits: ReadLimits
  readonly #fingerprint: Buffer
  readonly #fingerprintDigest: string
  readonly #decoder: Decoder
  #offset = 0
  #before: Buffer = Buffer.alloc(0)

  /** @param fingerprint the bytes the generation's fingerprint is of; kept for comparison */
  constructor(
    file: { readonly fd: number; readonly dev: number; readonly ino: number },
    generation: Generation,
    fingerprint: Buffer,
    limits: ReadLimits = defaultReadLimits,
  ) {
    this.fd = file.fd
    this.dev = file.dev
    this.ino = file.ino
    this.generation = generation
    this.#fingerprint = Buffer.from(fingerprint)
    this.#fingerprintDigest = sha256Hex(fingerprint)
    this.#limits = limits
    this.#decoder = new Decoder(generation.id, limits)
  }

  /** Bytes of the generation that were read. */
  get offset(): number {
    return this.#offset
  }

  /**
   * Goes to where a cursor stands.
   *
   * @returns false when the file does not hold what the cursor has read
   * @throws the system's error
   */
  resume(cursor: Cursor): boolean {
    if (!this.#moveTo(cursor.offset) || sha256Hex(this.#before) !== cursor.before) return false
    const read = (offset: number, length: number): Buffer => readRange(this.fd, offset, length)
    if (!this.#decoder.restore(cursor.pending, read)) return false
    this.#decoder.resumeAfter(this.#lastLine())
    return true
  }

  /**
   * Passes over what is there, up to the end of the last whole line (or of the file, if `all`).
   *
   * @returns the offset it stands at now
   * @throws the system's error
   */
  skip(all: boolean): number {
    const { size } = fstatSync(this.fd)
    let to = size
    if (!all) {
      const from = Math.max(0, size - this.#limits.lineBytesMax)
      const last = readRange(this.fd, from, size - from).lastIndexOf(newline)
      if (last >= 0) to = from + last + 1
    }
    this.#moveTo(to)
    this.#decoder.resumeAfter(this.#lastLine())
    return this.#offset
  }

  /**
   * Looks at the file's size.
   *
   * @returns `replaced` when its content is no longer the one that was read
   * @throws the system's error
   */
  poll(): 'quiet' | 'changed' | 'replaced' {
    const { size, mtimeMs, nlink } = fstatSync(this.fd)
    this.linkCount = nlink
    if (size === this.size && mtimeMs === this.mtimeMs) return 'quiet'
    this.size = size
    this.mtimeMs = mtimeMs
    if (size < this.#offset || !this.#isSame()) return 'replaced'
    if (this.scannedTo > size) this.scannedTo = this.#offset
    return 'changed'
  }

  /**
   * Reads the next chunk of whole lines, up to the size last polled.
   *
   * @returns `nothing` also when an overlong line's end was looked for in vain: then `scannedTo` has moved
   * @throws the system's error
   */
  read(out: Decoded): 'read' | 'nothing' | 'replaced' {
    const available = this.size - this.#offset
    if (available <= 0) return 'nothing'
    if (this.scannedTo - this.#offset >= this.#limits.lineBytesMax) return this.#readOverlong(out)

    let want = Math.min(this.#limits.chunkBytesMax, available)
    for (;;) {
      const context = this.#before.length
      const bytes = readRange(this.fd, this.#offset - context, context + want)
      if (!this.#isContinued(bytes)) return 'replaced'
      const last = bytes.lastIndexOf(newline)
      if (last >= context) {
        const end = last + 1
        this.#decoder.decode(bytes, context, end, this.#offset, this.generation.path, out)
        this.#before = lastBytes(this.#before, bytes.subarray(context, end))
        this.#offset += end - context
        const isAll = bytes.length === context + available
        this.scannedTo = isAll ? this.#offset + bytes.length - end : this.#offset
        return 'read'
      }
      const seen = bytes.length - context
      if (seen >= this.#limits.lineBytesMax) {
        this.scannedTo = this.#offset + this.#limits.lineBytesMax
        return this.#readOverlong(out)
      }
      if (seen < want || want === available) {
        this.scannedTo = this.#offset + seen
        return 'nothing'
      }
      want = Math.min(want * 4, available, Math.max(this.#limits.lineBytesMax, want + 1))
    }
  }

  /**
   * Hands out what waits for an end that will not come: the unterminated line and unjoined parts.
   * Call it when `scannedTo` has reached `size`.
   *
   * @throws the system's error
   */
  finish(out: Decoded): void {
    const length = this.size - this.#offset
    const bytes = readRange(this.fd, this.#offset, Math.min(length, this.#limits.lineBytesMax))
    if (bytes.length > 0) {
      const all = bytes.length < this.#limits.lineBytesMax ? bytes.length : length
      const { path } = this.generation
      this.#decoder.decodeCut(bytes, 0, bytes.length, this.#offset, all, true, path, out)
      this.#moveTo(this.#offset + all)
    }
    this.#decoder.flush(out)
  }

  /** Hands out bytes that were seen before the file lost them, as all there is of the generation. */
  finishWith(bytes: Buffer, out: Decoded): void {
    if (this.#offset !== 0) throw new Error('BUG: the generation was begun')
    this.#decoder.decodeLast(bytes, 0, bytes.length, 0, this.generation.path, out)
    this.#before = lastBytes(this.#before, bytes)
    this.#offset = bytes.length
    this.#decoder.flush(out)
  }

  /** Hands out the parts that wait to be joined: the rest of the content is lost. */
  abandon(out: Decoded): void {
    this.#decoder.flush(out)
  }

  cursor(seenUs: number, finished: boolean): Cursor {
    return {
      gen: this.generation.id,
      path: this.generation.path,
      dev: this.dev,
      ino: this.ino,
      offset: this.#offset,
      fingerprint: this.#fingerprintDigest,
      fingerprintBytes: this.#fingerprint.length,
      before: sha256Hex(this.#before),
      pending: this.#decoder.pending,
      provenance: this.generation.provenance,
      finished,
      seenUs,
    }
  }

  close(): void {
    closeSync(this.fd)
  }

  /** Whether `bytes`, which begin as far before the cursor as `#before` reaches, belong to what was read. */
  #isContinued(bytes: Buffer): boolean {
    if (this.#offset > 0) return bytes.subarray(0, this.#before.length).equals(this.#before)
    // Nothing was read yet, but the file was given its name for what it began with.
    const length = Math.min(bytes.length, this.#fingerprint.length)
    return bytes.subarray(0, length).equals(this.#fingerprint.subarray(0, length))
  }

  #isSame(): boolean {
    const head = readRange(this.fd, 0, this.#fingerprint.length)
    if (!head.equals(this.#fingerprint)) return false
    const context = this.#before.length
    return readRange(this.fd, this.#offset - context, context).equals(this.#before)
  }

  #moveTo(offset: number): boolean {
    const context = Math.min(offset, beforeBytesMax)
    const before = readRange(this.fd, offset - context, context)
    this.#before = before
    this.#offset = offset
    this.scannedTo = offset
    return before.length === context
  }

  #lastLine(): Buffer {
    const from = Math.max(0, this.#offset - lastLineBytesMax)
    const bytes = readRange(this.fd, from, this.#offset - from)
    return lastLineOf(bytes, from === 0)
  }

  /** The line is too long to be held: its end is looked for, and only its beginning kept. */
  #readOverlong(out: Decoded): 'read' | 'nothing' | 'replaced' {
    const stop = Math.min(this.size, this.scannedTo + scanBytesMax)
    const scratch = Buffer.allocUnsafe(this.#limits.chunkBytesMax)
    while (this.scannedTo < stop) {
      const want = Math.min(scratch.length, stop - this.scannedTo)
      const count = readSync(this.fd, scratch, 0, want, this.scannedTo)
      if (count === 0) return 'nothing'
      const bytes = scratch.subarray(0, count)
      const found = bytes.indexOf(newline)
      if (found < 0) {
        this.scannedTo += bytes.length
        continue
      }
      const end = this.scannedTo + found + 1
      const context = this.#before.length
      const kept = this.#limits.lineBytesMax
      const head = readRange(this.fd, this.#offset - context, context + kept)
      if (!this.#isContinued(head) || head.length !== context + kept) return 'replaced'
      const { path } = this.generation
      const length = end - this.#offset
      this.#decoder.decodeCut(head, context, head.length, this.#offset, length, false, path, out)
      this.#moveTo(end)
      return 'read'
    }
    return 'nothing'
  }
}
