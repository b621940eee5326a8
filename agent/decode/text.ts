/** Bytes to text. Bytes that are not UTF-8 become U+FFFD and are said to be lossy; the raw line keeps them. */

import { isAscii, isUtf8 } from 'node:buffer'

/**
 * @param end exclusive
 * @returns the text of `bytes[start, end)`; a byte order mark stays in it
 */
export function textOf(bytes: Buffer, start: number, end: number): string {
  const part = bytes.subarray(start, end)
  return isAscii(part) ? part.toString('latin1') : part.toString('utf8')
}

/** Whether `textOf` had to replace anything. */
export function isLossy(bytes: Buffer, start: number, end: number): boolean {
  return !isUtf8(bytes.subarray(start, end))
}
