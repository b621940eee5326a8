/**
 * Splits the addresses Envoy prints into IP and port.
 *
 * Pipes, internal listeners and host names have no IP: the answer is null and the caller keeps the text.
 */

export type Address = {
  /** Without brackets. */
  readonly ip: string
  /** Null for port 0, which Envoy prints when the address came from a header. */
  readonly port: number | null
  /** `ip:port` (with brackets for IPv6) gives the text back. */
  readonly exact: boolean
}

const v6 = /^[0-9A-Fa-f:.]{2,45}(?:%[0-9A-Za-z._-]{1,32})?$/

/**
 * `10.0.0.1:80`, `[2a02::7]:3000`, `10.0.0.1`, `envoy://connect_originate/10.0.0.1:80`.
 * @see envoy docs/root/configuration/observability/access_log/usage.rst
 */
export function parseAddress(text: string): Address | null {
  const colon = text.lastIndexOf(':')
  const first = text.charCodeAt(0)
  if (first >= 0x30 && first <= 0x39) {
    if (colon < 0) return isV4(text, text.length) ? { ip: text, port: null, exact: false } : null
    if (isV4(text, colon)) return withPort(text.slice(0, colon), text, colon)
  }
  if (first === 0x5b) {
    const close = text.indexOf(']')
    const ip = text.slice(1, close)
    if (close < 0 || !v6.test(ip)) return null
    if (close + 1 === text.length) return { ip, port: null, exact: false }
    return close + 1 === colon ? withPort(ip, text, colon) : null
  }
  if (text.startsWith('envoy://')) {
    const slash = text.indexOf('/', 8)
    // An internal address may name another one behind it: only one level is followed.
    const inner = slash < 0 ? '' : text.slice(slash + 1)
    if (inner === '' || inner.startsWith('envoy://')) return null
    const address = parseAddress(inner)
    return address === null ? null : { ip: address.ip, port: address.port, exact: false }
  }
  // A bare IPv6 address has two colons at least.
  if (colon > 0 && text.indexOf(':') !== colon && v6.test(text)) {
    return { ip: text, port: null, exact: false }
  }
  return null
}

/** Whether a token stands where an address should: also pipes, internal listeners and host names. */
export function looksLikeAddress(token: string): boolean {
  return token.includes(':') || token.startsWith('/') || token.startsWith('@')
}

function withPort(ip: string, text: string, colon: number): Address | null {
  const width = text.length - colon - 1
  if (width < 1 || width > 5) return null
  let port = 0
  for (let index = colon + 1; index < text.length; index += 1) {
    const digit = text.charCodeAt(index) - 48
    if (digit < 0 || digit > 9) return null
    port = port * 10 + digit
  }
  if (port > 65535) return null
  if (port === 0) return { ip, port: null, exact: false }
  return { ip, port, exact: text.charCodeAt(colon + 1) !== 0x30 }
}

function isV4(text: string, end: number): boolean {
  if (end < 7 || end > 15) return false
  let dots = 0
  let octet = -1
  for (let index = 0; index < end; index += 1) {
    const code = text.charCodeAt(index)
    if (code === 0x2e) {
      if (octet < 0) return false
      dots += 1
      octet = -1
    } else {
      const digit = code - 48
      if (digit < 0 || digit > 9) return false
      octet = (octet < 0 ? 0 : octet * 10) + digit
      if (octet > 255) return false
    }
  }
  return dots === 3 && octet >= 0
}
