/**
 * Reads one generation from a stream of bytes: a compressed file, a pipe, standard input.
 *
 * Offsets are of the bytes that come out, so that a rotated file that was compressed continues where
 * its plain form was left. What is held at any time is one piece of the stream and one line.
 */

import { createReadStream, readSync } from 'node:fs'
import { constants, createGunzip, gunzipSync } from 'node:zlib'
import { Decoder, type Decoded } from '../decode/decoder.ts'
import { scanBytesMax } from '../limits.ts'
import type { Cursor, Generation } from './chunk.ts'
import { defaultReadLimits, type ReadLimits } from './file-reader.ts'
import { lastBytes, lastLineBytesMax, lastLineOf, sha256Hex } from './identity.ts'

const newline = 0x0a

/** Bytes with a look ahead. */
export class ByteStream implements AsyncDisposable {
  readonly #source: AsyncIterator<Uint8Array>
  readonly #release: () => void
  #buffered: Buffer = Buffer.alloc(0)
  #ended = false

  /** @param release called once the stream is no longer needed, after the source was told to return */
  constructor(source: AsyncIterable<Uint8Array>, release: () => void = () => {}) {
    this.#source = source[Symbol.asyncIterator]()
    this.#release = release
  }

  /** What was read and not yet taken. Never written to again. */
  get buffered(): Buffer {
    return this.#buffered
  }

  get ended(): boolean {
    return this.#ended
  }

  /**
   * Adds the next piece to `buffered`.
   *
   * @returns false at the end
   * @throws the source's error
   */
  async more(): Promise<boolean> {
    if (this.#ended) return false
    const result = await this.#source.next()
    if (result.done === true) {
      this.#ended = true
      return false
    }
    const { value } = result
    const piece = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    this.#buffered =
      this.#buffered.length === 0 ? Buffer.from(piece) : Buffer.concat([this.#buffered, piece])
    return true
  }

  /** Reads on until `length` bytes are buffered, or the stream ends. */
  async peek(length: number): Promise<Buffer> {
    while (this.#buffered.length < length && (await this.more()));
    return this.#buffered.subarray(0, length)
  }

  take(length: number): Buffer {
    const taken = this.#buffered.subarray(0, length)
    this.#buffered = this.#buffered.subarray(length)
    return taken
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true
    await this.#source.return?.()
    this.#release()
  }
}

/** Decompresses an open file from its beginning. The descriptor stays the caller's. */
export function gunzipFile(fd: number): ByteStream {
  const file = createReadStream('', { fd, start: 0, autoClose: false, highWaterMark: 64 * 1024 })
  const gunzip = createGunzip({ chunkSize: 128 * 1024 })
  file.on('error', (error) => gunzip.destroy(error))
  file.pipe(gunzip)
  return new ByteStream(gunzip, () => {
    file.unpipe(gunzip)
    file.pause()
    gunzip.destroy()
  })
}

/** Compressed bytes in which the beginning of a log is looked for; they unfold to 1.5 MiB at most. */
const packedHeadBytes = 1536

/**
 * The first `lengthBytes` of a compressed file's content, at once. A stream takes milliseconds to set up,
 * and a start finds every rotated file of the node: reading would begin when all were looked into.
 *
 * @returns null when a stream must tell: the content is shorter, or damaged
 */
export function gzipHead(fd: number, lengthBytes: number): Buffer | null {
  const packed = Buffer.alloc(packedHeadBytes)
  const length = readSync(fd, packed, 0, packedHeadBytes, 0)
  try {
    const head = gunzipSync(packed.subarray(0, length), {
      finishFlush: constants.Z_SYNC_FLUSH,
      chunkSize: 32 * 1024,
    })
    return head.length >= lengthBytes ? head.subarray(0, lengthBytes) : null
  } catch {
    return null
  }
}

export class StreamReader implements AsyncDisposable {
  readonly generation: Generation
  readonly #stream: ByteStream
  readonly #fingerprint: { readonly digest: string; readonly bytes: number }
  readonly #place: { readonly dev: number; readonly ino: number }
  readonly #limits: ReadLimits
  readonly #decoder: Decoder
  #offset = 0
  #before: Buffer = Buffer.alloc(0)
  /** The line being passed over: its beginning, and how long it is so far. */
  #overlong: { readonly head: Buffer; length: number } | null = null

  /** @param stream owned by the reader from now on; at its beginning */
  constructor(
    stream: ByteStream,
    generation: Generation,
    fingerprint: { readonly digest: string; readonly bytes: number },
    place: { readonly dev: number; readonly ino: number },
    limits: ReadLimits = defaultReadLimits,
  ) {
    this.#stream = stream
    this.generation = generation
    this.#fingerprint = fingerprint
    this.#place = place
    this.#limits = limits
    this.#decoder = new Decoder(generation.id, limits)
  }

  get offset(): number {
    return this.#offset
  }

  /**
   * Reads and drops everything up to a cursor.
   *
   * @returns false when the stream does not hold what the cursor has read; it is then of no more use
   * @throws the stream's error
   */
  async resume(cursor: Cursor): Promise<boolean> {
    const pending = new Map<number, Buffer>()
    for (const { offset, length } of cursor.pending) pending.set(offset, Buffer.alloc(length))
    let window: Buffer = Buffer.alloc(0)
    let offset = 0
    while (offset < cursor.offset) {
      if (this.#stream.buffered.length === 0 && !(await this.#stream.more())) return false
      const piece = this.#stream.take(cursor.offset - offset)
      for (const [at, bytes] of pending) {
        const from = Math.max(at, offset)
        const to = Math.min(at + bytes.length, offset + piece.length)
        if (from < to) piece.copy(bytes, from - at, from - offset, to - offset)
      }
      window = Buffer.from(Buffer.concat([window, piece]).subarray(-lastLineBytesMax))
      offset += piece.length
    }
    this.#offset = offset
    this.#before = lastBytes(Buffer.alloc(0), window)
    if (sha256Hex(this.#before) !== cursor.before) return false
    if (!this.#decoder.restore(cursor.pending, (at) => pending.get(at) ?? Buffer.alloc(0))) {
      return false
    }
    this.#decoder.resumeAfter(lastLineOf(window, window.length === offset))
    return true
  }

  /** Reads and drops everything. @returns the offset of the end @throws the stream's error */
  async skip(): Promise<number> {
    for (;;) {
      this.#advance(this.#stream.take(this.#stream.buffered.length))
      if (!(await this.#stream.more())) return this.#offset
    }
  }

  /**
   * Reads the next lines; at the end of the stream also what has no terminator.
   *
   * @returns false when that was the end: everything is then in lines and gaps
   * @throws the stream's error; `abandon` then hands out what waits to be joined
   */
  async read(out: Decoded): Promise<boolean> {
    if (this.#overlong !== null) return this.#readOverlong(out)
    const { chunkBytesMax, lineBytesMax } = this.#limits
    const { path } = this.generation
    for (;;) {
      const view = this.#stream.buffered
      const last = view
        .subarray(0, Math.max(chunkBytesMax, view.indexOf(newline) + 1))
        .lastIndexOf(newline)
      if (last >= 0) {
        const bytes = this.#stream.take(last + 1)
        this.#decoder.decode(bytes, 0, bytes.length, this.#offset, path, out)
        this.#advance(bytes)
        return true
      }
      if (view.length >= lineBytesMax) {
        this.#overlong = { head: Buffer.from(view.subarray(0, lineBytesMax)), length: 0 }
        return this.#readOverlong(out)
      }
      if (!(await this.#stream.more())) {
        const rest = this.#stream.take(view.length)
        if (rest.length > 0) {
          this.#decoder.decodeLast(rest, 0, rest.length, this.#offset, path, out)
          this.#advance(rest)
        }
        this.#decoder.flush(out)
        return false
      }
    }
  }

  /** Hands out what was read and waits for a line's end, after the stream failed. */
  abandon(out: Decoded): void {
    const { path } = this.generation
    const rest = this.#overlong?.head ?? this.#stream.take(this.#stream.buffered.length)
    const length = this.#overlong?.length ?? rest.length
    if (length > 0) {
      // The overlong line's bytes were counted as they passed; the cursor did not move for them.
      const at = this.#overlong === null ? this.#offset : this.#offset - length
      this.#decoder.decodeCut(rest, 0, rest.length, at, length, true, path, out)
      if (this.#overlong === null) this.#advance(rest)
    }
    this.#overlong = null
    this.#decoder.flush(out)
  }

  cursor(seenUs: number, finished: boolean): Cursor {
    return {
      gen: this.generation.id,
      path: this.generation.path,
      dev: this.#place.dev,
      ino: this.#place.ino,
      offset: this.#offset,
      fingerprint: this.#fingerprint.digest,
      fingerprintBytes: this.#fingerprint.bytes,
      before: sha256Hex(this.#before),
      pending: this.#decoder.pending,
      provenance: this.generation.provenance,
      finished,
      seenUs,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stream[Symbol.asyncDispose]()
  }

  /**
   * Passes over a line too long to be held, up to `scanBytesMax` a turn. Nothing is handed out before
   * its end, so no cursor ever stands inside it.
   */
  async #readOverlong(out: Decoded): Promise<boolean> {
    const overlong = this.#overlong
    if (overlong === null) throw new Error('BUG: no overlong line')
    const { path } = this.generation
    const stop = overlong.length + scanBytesMax
    while (overlong.length < stop) {
      const view = this.#stream.buffered
      const found = view.indexOf(newline)
      const bytes = this.#stream.take(found < 0 ? view.length : found + 1)
      overlong.length += bytes.length
      this.#advance(bytes)
      const isEnd = found < 0 && !(await this.#stream.more())
      if (found < 0 && !isEnd) continue
      const { head, length } = overlong
      this.#overlong = null
      this.#decoder.decodeCut(head, 0, head.length, this.#offset - length, length, isEnd, path, out)
      if (isEnd) this.#decoder.flush(out)
      return !isEnd
    }
    return true
  }

  #advance(bytes: Buffer): void {
    this.#before = lastBytes(this.#before, bytes)
    this.#offset += bytes.length
  }
}
