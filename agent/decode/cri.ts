/**
 * The wrapper that containerd and CRI-O put before each line: `<time> <stdout|stderr> <tags> <content>`.
 *
 * The first tag is `F` (the line is complete) or `P` (more parts of it follow on the same stream).
 */

import { TimestampReader } from './timestamp.ts'

/** Reads wrappers into its own fields: one object a generation instead of one a line. */
export class CriHeader {
  stream: 'stdout' | 'stderr' = 'stdout'
  partial = false
  /** Microseconds since the epoch. */
  timeUs = 0
  /** Index of the first byte after the wrapper; may be `end`. */
  contentStart = 0

  readonly #timestamp = new TimestampReader()

  /**
   * @param end exclusive, before the terminator
   * @returns false when there is no CRI wrapper; the fields then mean nothing
   */
  read(bytes: Uint8Array, start: number, end: number): boolean {
    let at = this.#timestamp.read(bytes, start, end)
    // At least ` stdout F` must follow.
    if (at < 0 || end - at < 9) return false

    // ' ' s t d, then o u t or e r r, then ' '
    if (
      bytes[at] !== 0x20 ||
      bytes[at + 1] !== 0x73 ||
      bytes[at + 2] !== 0x74 ||
      bytes[at + 3] !== 0x64 ||
      bytes[at + 7] !== 0x20
    ) {
      return false
    }
    if (bytes[at + 4] === 0x6f && bytes[at + 5] === 0x75 && bytes[at + 6] === 0x74) {
      this.stream = 'stdout'
    } else if (bytes[at + 4] === 0x65 && bytes[at + 5] === 0x72 && bytes[at + 6] === 0x72) {
      this.stream = 'stderr'
    } else {
      return false
    }

    const tag = bytes[at + 8]
    if (tag !== 0x46 && tag !== 0x50) return false
    this.partial = tag === 0x50
    at += 9
    if (at < end && bytes[at] !== 0x20) {
      if (bytes[at] !== 0x3a) return false
      while (at < end && bytes[at] !== 0x20) at++
    }
    this.contentStart = at < end ? at + 1 : end
    this.timeUs = this.#timestamp.us
    return true
  }
}
