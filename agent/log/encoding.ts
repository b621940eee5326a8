/**
 * The text encodings the C2SP formats share, read strictly: one spelling per value, so that nobody
 * can change a signed file's bytes without changing its meaning. Nothing here throws on input.
 */

/** Why bytes from outside were not accepted: lower case, with the numbers in. An answer, not an error. */
export type Refused = { readonly ok: false; readonly problem: string }

/** Shorthand for a refusal. */
export function refused(problem: string): Refused {
  return { ok: false, problem }
}

/**
 * Decodes standard base64 with padding. `Buffer.from` skips characters it does not know and ignores
 * stray bits in the last one; encoding again and comparing refuses both.
 *
 * @returns the bytes, or undefined when `text` is not the one encoding of them
 * @see RFC 4648, section 4
 */
export function decodeBase64(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? new Uint8Array(bytes) : undefined
}

/** Standard base64 with padding. */
export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')
}

/** Lower-case hex, two digits a byte. */
export function encodeHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')
}

/** @returns the bytes of lower-case hex, or undefined when `text` is anything else */
export function decodeHex(text: string): Uint8Array | undefined {
  return /^(?:[0-9a-f]{2})*$/.test(text) ? new Uint8Array(Buffer.from(text, 'hex')) : undefined
}

/**
 * Reads an ASCII decimal without sign, spaces or leading zeros, at most 2^53 - 1.
 *
 * @returns the number, or undefined when `text` is anything else
 */
export function parseDecimal(text: string): number | undefined {
  if (text.length > 16 || !/^(?:0|[1-9][0-9]*)$/.test(text)) return undefined
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : undefined
}

/**
 * Decodes UTF-8 without mending it: bad bytes are refused, a byte order mark is kept.
 *
 * @returns the text, or undefined when `bytes` is not valid UTF-8
 */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}

/** Whether two byte strings are equal. Not constant time: nothing compared here is secret. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0
}
