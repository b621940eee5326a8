/**
 * Takes the container runtime's wrapper off: whole physical lines of one generation in, lines as their
 * writer meant them out, each with every byte range it came from.
 *
 * The wrapper is chosen line by line, by what the line itself looks like: a digit first may be CRI,
 * `{"log":"` may be Docker's, anything else is what the program printed. A line is unwrapped once, so
 * nothing that a program prints inside a wrapper can pose as one.
 *
 * Invariant: every byte handed to `decode` is afterwards in exactly one line, gap or pending range.
 * What it does not do: parse content, or find out where a file's lines end; the reader does that.
 */

import { isAscii } from 'node:buffer'
import { lineBytesMax, partsPerLineMax } from '../limits.ts'
import type { Cursor, Gap, GapCause, Line } from '../tail/chunk.ts'
import { CriHeader } from './cri.ts'
import { dockerStart, readDocker } from './docker.ts'
import { isLossy, textOf } from './text.ts'

const newline = 0x0a
const carriageReturn = 0x0d

/** Where decoded lines go, in file order of their last byte. */
export type Decoded = { readonly lines: Line[]; readonly gaps: Gap[] }

type Stream = 'stdout' | 'stderr'

/** What a physical line is beyond its bytes. */
type Ending = {
  /** The line goes on behind these bytes, and the rest is a gap. */
  readonly truncated: boolean
  /** The generation ends here without a terminator. */
  readonly unterminated: boolean
}

const whole: Ending = { truncated: false, unterminated: false }
const cutShort: Ending = { truncated: true, unterminated: false }
const atTheEnd: Ending = { truncated: false, unterminated: true }

/** One part of a split line, copied out of its chunk: a split line must not keep chunks alive. */
type Part = {
  readonly offset: number
  readonly raw: Buffer
  /** Bytes, so that a character split between parts is whole again; Docker's are text already. */
  readonly content: Buffer | string
}

type Joining = {
  parts: Part[]
  bytes: number
  /** The first part's time, µs. */
  timeUs: number
  /**
   * - `join`: parts are collected
   * - `cut`: the line became too long and was handed out; parts are gaps up to the final one
   * - `rest`: the line was handed out at what looked like the end of the generation; parts are
   *   continuations up to the final one
   */
  mode: 'join' | 'cut' | 'rest'
  /** Where the line that is cut began. */
  cutFrom: number
}

export type DecoderLimits = { readonly lineBytesMax: number; readonly partsPerLineMax: number }

/** One per generation: it holds the parts of lines that are not complete. */
export class Decoder {
  readonly #gen: string
  readonly #limits: DecoderLimits
  readonly #cri = new CriHeader()
  readonly #streams: Record<Stream, Joining> = { stdout: newJoining(), stderr: newJoining() }
  #midLine = false

  constructor(gen: string, limits: DecoderLimits = { lineBytesMax, partsPerLineMax }) {
    this.#gen = gen
    this.#limits = limits
  }

  /** Ranges read but not yet handed out, oldest first; see `Cursor.pending`. */
  get pending(): Cursor['pending'] {
    const ranges: { offset: number; length: number; stream: Stream }[] = []
    for (const stream of ['stdout', 'stderr'] as const) {
      const joining = this.#streams[stream]
      if (joining.mode === 'cut') ranges.push({ offset: joining.cutFrom, length: 0, stream })
      for (const { offset, raw } of joining.parts) {
        ranges.push({ offset, length: raw.length, stream })
      }
    }
    return ranges.length > 1 ? ranges.toSorted((a, b) => a.offset - b.offset) : ranges
  }

  /**
   * Puts back what a cursor says was pending.
   *
   * @param read the bytes of a range of the generation, as many as there are
   * @returns false when the ranges do not hold partial lines: the file is not the cursor's
   */
  restore(pending: Cursor['pending'], read: (offset: number, length: number) => Buffer): boolean {
    const out: Decoded = { lines: [], gaps: [] }
    for (const { offset, length, stream } of pending) {
      const joining = this.#streams[stream]
      if (length === 0) {
        joining.mode = 'cut'
        joining.cutFrom = offset
        continue
      }
      const raw = read(offset, length)
      if (raw.length !== length || raw.at(-1) !== newline) return false
      const partsBefore = joining.parts.length
      this.decode(raw, 0, length, offset, '', out)
      if (joining.parts.length !== partsBefore + 1) return false
    }
    return out.lines.length === 0 && out.gaps.length === 0
  }

  /**
   * Says where a resumed generation stands when its last bytes were handed out as unterminated.
   *
   * @param lastLine what precedes the cursor, from the start of a line; empty when unknown
   */
  resumeAfter(lastLine: Buffer): void {
    if (lastLine.length === 0) return
    if (lastLine.at(-1) !== newline) {
      this.#midLine = true
      return
    }
    // A partial line that is not pending was handed out without its end.
    let stream: Stream
    if (this.#cri.read(lastLine, 0, contentEnd(lastLine, 0, lastLine.length))) {
      if (!this.#cri.partial) return
      stream = this.#cri.stream
    } else {
      const docker = readDocker(textOf(lastLine, 0, lastLine.length))
      if (docker === null || docker.log.endsWith('\n')) return
      stream = docker.stream
    }
    const joining = this.#streams[stream]
    if (joining.mode === 'join' && joining.parts.length === 0) joining.mode = 'rest'
  }

  /**
   * Decodes whole lines.
   *
   * @param bytes owned by the lines from now on: the caller must not write to it again
   * @param start index of the first byte; it is at `offset` in the generation
   * @param end exclusive; `bytes[end - 1]` is a newline
   * @param path for gaps
   */
  decode(
    bytes: Buffer,
    start: number,
    end: number,
    offset: number,
    path: string,
    out: Decoded,
  ): void {
    const chunk = bytes.subarray(start, end)
    // One conversion for the whole chunk, lines are slices of it: several times faster than line by
    // line. Latin-1 and ASCII are the same here, and byte index = character index.
    const text = isAscii(chunk) ? chunk.toString('latin1') : null
    const shift = offset - start
    const { lines } = out
    let lineStart = start
    while (lineStart < end) {
      const found = bytes.indexOf(newline, lineStart)
      if (found < 0 || found >= end) throw new Error('BUG: a chunk must end with a newline')
      const lineEnd = found + 1
      const length = lineEnd - lineStart
      const first = bytes[lineStart] ?? 0

      if (this.#midLine || length > this.#limits.lineBytesMax) {
        this.decodeCut(bytes, lineStart, lineEnd, lineStart + shift, length, false, path, out)
      } else if (isDigit(first) && this.#readWholeCri(bytes, lineStart, lineEnd)) {
        const from = this.#cri.contentStart
        const stop = contentEnd(bytes, from, lineEnd)
        lines.push({
          rawBuffer: bytes,
          rawStart: lineStart,
          rawEnd: lineEnd,
          ranges: [lineStart + shift, length],
          content:
            text === null ? textOf(bytes, from, stop) : text.slice(from - start, stop - start),
          stream: this.#cri.stream,
          wrapperUs: this.#cri.timeUs,
          lossy: text === null && isLossy(bytes, from, stop),
          truncated: false,
          unterminated: false,
        })
      } else if (isDigit(first) || startsLikeDocker(bytes, lineStart, lineEnd)) {
        this.#line(bytes, lineStart, lineEnd, lineStart + shift, whole, path, out)
      } else {
        const stop = contentEnd(bytes, lineStart, lineEnd)
        lines.push({
          rawBuffer: bytes,
          rawStart: lineStart,
          rawEnd: lineEnd,
          ranges: [lineStart + shift, length],
          content:
            text === null
              ? textOf(bytes, lineStart, stop)
              : text.slice(lineStart - start, stop - start),
          stream: '',
          wrapperUs: null,
          lossy: text === null && isLossy(bytes, lineStart, stop),
          truncated: false,
          unterminated: false,
        })
      }
      lineStart = lineEnd
    }
  }

  /**
   * Decodes one line of which only the beginning is at hand; the rest becomes a gap.
   *
   * @param end exclusive; at most `lineBytesMax` bytes from `start` are used
   * @param length of the whole line with its terminator, bytes
   * @param unterminated the generation ends without the line's terminator
   */
  decodeCut(
    bytes: Buffer,
    start: number,
    end: number,
    offset: number,
    length: number,
    unterminated: boolean,
    path: string,
    out: Decoded,
  ): void {
    const stop = Math.min(end, start + this.#limits.lineBytesMax)
    const truncated = length > stop - start
    const ending = truncated ? { truncated, unterminated } : unterminated ? atTheEnd : whole
    this.#line(bytes, start, stop, offset, ending, path, out)
    if (!truncated) return
    const detail = `a line of ${length} bytes, of which ${stop - start} were kept`
    this.#gap(out, offset + stop - start, offset + length, path, detail)
  }

  /** Decodes the unterminated end of a generation that will not grow. Same ownership as `decode`. */
  decodeLast(
    bytes: Buffer,
    start: number,
    end: number,
    offset: number,
    path: string,
    out: Decoded,
  ): void {
    this.decodeCut(bytes, start, end, offset, end - start, true, path, out)
  }

  /** Hands out, as unterminated, the lines whose final part will never come. */
  flush(out: Decoded): void {
    const waiting = [this.#streams.stdout, this.#streams.stderr]
      .filter((joining) => joining.parts.length > 0)
      .toSorted((a, b) => (a.parts[0]?.offset ?? 0) - (b.parts[0]?.offset ?? 0))
    for (const joining of waiting) {
      const stream = joining === this.#streams.stdout ? 'stdout' : 'stderr'
      out.lines.push(joinedLine(joining, stream, atTheEnd))
      this.#streams[stream] = newJoining()
    }
  }

  /** Reads the wrapper of a line that is complete in itself: nearly all are. */
  #readWholeCri(bytes: Buffer, start: number, end: number): boolean {
    if (!this.#cri.read(bytes, start, end - 1) || this.#cri.partial) return false
    const joining = this.#streams[this.#cri.stream]
    return joining.mode === 'join' && joining.parts.length === 0
  }

  /** One physical line of any kind; the slow and complete way. */
  #line(
    bytes: Buffer,
    start: number,
    end: number,
    offset: number,
    ending: Ending,
    path: string,
    out: Decoded,
  ): void {
    const terminatorLength = bytes[end - 1] === newline ? 1 : 0
    const stop = contentEnd(bytes, start, end)
    if (this.#midLine) {
      this.#midLine = false
      const content = textOf(bytes, start, stop)
      const lossy = isLossy(bytes, start, stop)
      const line = singleLine(bytes, start, end, offset, content, '', null, lossy, ending)
      out.lines.push({ ...line, continuation: true })
      return
    }

    const cri = this.#cri
    if (cri.read(bytes, start, end - terminatorLength)) {
      // A carriage return belongs to the program's terminator only where its line ends.
      const contentStop = cri.partial
        ? end - terminatorLength
        : contentEnd(bytes, cri.contentStart, end)
      const content = bytes.subarray(cri.contentStart, contentStop)
      this.#part(
        bytes,
        start,
        end,
        offset,
        cri.stream,
        content,
        !cri.partial,
        cri.timeUs,
        ending,
        path,
        out,
      )
      return
    }
    if (startsLikeDocker(bytes, start, stop)) {
      const record = readDocker(textOf(bytes, start, stop))
      if (record !== null) {
        const final = record.log.endsWith('\n')
        const content = final
          ? record.log.slice(0, record.log.endsWith('\r\n') ? -2 : -1)
          : record.log
        this.#part(
          bytes,
          start,
          end,
          offset,
          record.stream,
          content,
          final,
          record.timeUs,
          ending,
          path,
          out,
        )
        return
      }
    }
    const lossy = isLossy(bytes, start, stop)
    out.lines.push(
      singleLine(bytes, start, end, offset, textOf(bytes, start, stop), '', null, lossy, ending),
    )
  }

  /** One part of a wrapped line; a line that was not split is its own final part. */
  #part(
    bytes: Buffer,
    start: number,
    end: number,
    offset: number,
    stream: Stream,
    content: Buffer | string,
    final: boolean,
    timeUs: number,
    ending: Ending,
    path: string,
    out: Decoded,
  ): void {
    const joining = this.#streams[stream]
    const length = end - start
    const alone = (how: Ending): Line =>
      singleLine(
        bytes,
        start,
        end,
        offset,
        typeof content === 'string' ? content : textOf(content, 0, content.length),
        stream,
        timeUs,
        typeof content !== 'string' && isLossy(content, 0, content.length),
        how,
      )

    if (joining.mode === 'cut') {
      this.#gap(out, offset, offset + length, path, 'the rest of a line that was too long to join')
      if (final) this.#streams[stream] = newJoining()
      return
    }
    if (joining.mode === 'rest') {
      out.lines.push({ ...alone(ending), continuation: true })
      if (final) this.#streams[stream] = newJoining()
      return
    }

    if (joining.parts.length === 0) {
      if (final || ending.unterminated || ending.truncated) {
        out.lines.push(alone(ending))
        if (!final && ending.truncated && !ending.unterminated) this.#cut(stream, offset)
        return
      }
    } else if (
      joining.bytes + length > this.#limits.lineBytesMax ||
      joining.parts.length >= this.#limits.partsPerLineMax
    ) {
      const cutFrom = joining.parts[0]?.offset ?? offset
      out.lines.push(joinedLine(joining, stream, cutShort))
      this.#gap(out, offset, offset + length, path, 'the rest of a line that was too long to join')
      if (final) this.#streams[stream] = newJoining()
      else this.#cut(stream, cutFrom)
      return
    }

    // Copies: a line that waits for its end must not keep its chunk alive.
    const raw = Buffer.from(bytes.subarray(start, end))
    const kept = typeof content === 'string' ? content : Buffer.from(content)
    if (joining.parts.length === 0) joining.timeUs = timeUs
    joining.parts.push({ offset, raw, content: kept })
    joining.bytes += length
    if (!final && !ending.unterminated) return
    out.lines.push(joinedLine(joining, stream, ending))
    this.#streams[stream] = newJoining()
  }

  #cut(stream: Stream, cutFrom: number): void {
    this.#streams[stream] = { ...newJoining(), mode: 'cut', cutFrom }
  }

  /** Adjoining gaps become one: a line of a gibibyte in small parts is one loss, not a million. */
  #gap(out: Decoded, from: number, to: number, path: string, detail: string): void {
    const cause: GapCause = 'line_too_long'
    const last = out.gaps.at(-1)
    const adjoins = last !== undefined && last.cause === cause && last.to === from
    if (adjoins) out.gaps.pop()
    out.gaps.push({ gen: this.#gen, path, cause, from: adjoins ? last.from : from, to, detail })
  }
}

function newJoining(): Joining {
  return { parts: [], bytes: 0, timeUs: 0, mode: 'join', cutFrom: 0 }
}

/** Only a digit can begin a CRI line. */
function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39
}

function startsLikeDocker(bytes: Buffer, start: number, end: number): boolean {
  if (end - start < dockerStart.length) return false
  for (let i = 0; i < dockerStart.length; i++) {
    if (bytes[start + i] !== dockerStart.charCodeAt(i)) return false
  }
  return true
}

/** Where the content ends: before LF or CRLF, or at `end` when there is no terminator. */
function contentEnd(bytes: Uint8Array, start: number, end: number): number {
  if (end <= start || bytes[end - 1] !== newline) return end
  return end - 1 > start && bytes[end - 2] === carriageReturn ? end - 2 : end - 1
}

function singleLine(
  rawBuffer: Buffer,
  rawStart: number,
  rawEnd: number,
  offset: number,
  content: string,
  stream: Line['stream'],
  wrapperUs: number | null,
  lossy: boolean,
  ending: Ending,
): Line {
  return {
    rawBuffer,
    rawStart,
    rawEnd,
    ranges: [offset, rawEnd - rawStart],
    content,
    stream,
    wrapperUs,
    lossy,
    truncated: ending.truncated,
    unterminated: ending.unterminated,
  }
}

function joinedLine(joining: Joining, stream: Stream, ending: Ending): Line {
  const rawBuffer = Buffer.concat(joining.parts.map((part) => part.raw))
  let content = ''
  let lossy = false
  const bytes: Buffer[] = []
  for (const part of joining.parts) {
    if (typeof part.content === 'string') content += part.content
    else bytes.push(part.content)
  }
  if (bytes.length > 0) {
    const joined = Buffer.concat(bytes)
    content += textOf(joined, 0, joined.length)
    lossy = isLossy(joined, 0, joined.length)
  }
  return {
    rawBuffer,
    rawStart: 0,
    rawEnd: rawBuffer.length,
    ranges: joining.parts.flatMap((part) => [part.offset, part.raw.length]),
    content,
    stream,
    wrapperUs: joining.timeUs,
    lossy,
    truncated: ending.truncated,
    unterminated: ending.unterminated,
  }
}
