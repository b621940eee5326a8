/**
 * RFC 3339 times as container runtimes write them: up to nine digits of a second, `Z` or an offset.
 *
 * Works on bytes, because it runs once a line, and remembers the last second it converted, because
 * neighbours share it. Digits below a microsecond are dropped; the raw line keeps them.
 */

/** One per generation: it holds the last second seen. */
export class TimestampReader {
  /** Microseconds since the epoch of the last timestamp that `read` accepted. */
  us = 0

  readonly #second = new Uint8Array(19)
  #secondUs = Number.NaN

  /**
   * Reads a timestamp at `start`.
   *
   * @returns the index after it, or -1 when there is none; then `us` is unchanged
   */
  read(bytes: Uint8Array, start: number, end: number): number {
    if (end - start < 20) return -1
    if (!this.#isSameSecond(bytes, start) && !this.#readSecond(bytes, start)) return -1

    let at = start + 19
    let micros = 0
    if (bytes[at] === 0x2e) {
      at++
      let digits = 0
      for (; at < end; at++, digits++) {
        const digit = (bytes[at] ?? 0) - 0x30
        if (digit < 0 || digit > 9) break
        if (digits < 6) micros = micros * 10 + digit
      }
      if (digits === 0 || digits > 9) return -1
      for (; digits < 6; digits++) micros *= 10
    }

    if (bytes[at] === 0x5a) {
      this.us = this.#secondUs + micros
      return at + 1
    }
    const sign = bytes[at] === 0x2b ? 1 : bytes[at] === 0x2d ? -1 : 0
    if (sign === 0 || end - at < 6 || bytes[at + 3] !== 0x3a) return -1
    const hours = twoDigits(bytes, at + 1)
    const minutes = twoDigits(bytes, at + 4)
    if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return -1
    this.us = this.#secondUs + micros - sign * (hours * 3600 + minutes * 60) * 1_000_000
    return at + 6
  }

  #isSameSecond(bytes: Uint8Array, start: number): boolean {
    // From the end: seconds change most often.
    for (let i = 18; i >= 0; i--) if (bytes[start + i] !== this.#second[i]) return false
    return true
  }

  #readSecond(bytes: Uint8Array, start: number): boolean {
    if (
      bytes[start + 4] !== 0x2d ||
      bytes[start + 7] !== 0x2d ||
      bytes[start + 10] !== 0x54 ||
      bytes[start + 13] !== 0x3a ||
      bytes[start + 16] !== 0x3a
    ) {
      return false
    }
    const century = twoDigits(bytes, start)
    const yearOfCentury = twoDigits(bytes, start + 2)
    const month = twoDigits(bytes, start + 5)
    const day = twoDigits(bytes, start + 8)
    const hour = twoDigits(bytes, start + 11)
    const minute = twoDigits(bytes, start + 14)
    const second = twoDigits(bytes, start + 17)
    if (century < 10 || yearOfCentury < 0 || month < 1 || month > 12 || day < 1 || day > 31) {
      return false
    }
    // 60: a leap second, which counts as the first of the next minute.
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
      return false
    this.#second.set(bytes.subarray(start, start + 19))
    this.#secondUs =
      Date.UTC(century * 100 + yearOfCentury, month - 1, day, hour, minute, second) * 1000
    return true
  }
}

function twoDigits(bytes: Uint8Array, at: number): number {
  const tens = (bytes[at] ?? 0) - 0x30
  const ones = (bytes[at + 1] ?? 0) - 0x30
  return tens < 0 || tens > 9 || ones < 0 || ones > 9 ? -1 : tens * 10 + ones
}
