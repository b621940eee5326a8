/**
 * Reads the X-Forwarded-Client-Cert header: one element for each hop, the nearest last.
 *
 * Whether the header may be believed is the caller's question: only an inbound sidecar sets it itself.
 */

export type XfccElement = {
  readonly by: readonly string[]
  readonly uri: readonly string[]
  readonly dns: readonly string[]
  readonly hash: string | null
  readonly subject: string | null
}

/** Envoy's own limit for all request headers is 60 KiB; more than this many hops is no mesh. */
const elementsMax = 64

/**
 * @returns the elements in order, or null when the text does not follow the grammar
 * @see envoy docs/root/configuration/http/http_conn_man/headers.rst
 */
export function parseXfcc(text: string): readonly XfccElement[] | null {
  const elements: XfccElement[] = []
  let position = 0
  while (position <= text.length) {
    const by: string[] = []
    const uri: string[] = []
    const dns: string[] = []
    let hash: string | null = null
    let subject: string | null = null
    for (;;) {
      const equals = text.indexOf('=', position)
      if (equals < 0) return null
      const key = text.slice(position, equals).trim().toLowerCase()
      if (!/^[a-z]{1,16}$/.test(key)) return null
      const value = readValue(text, equals + 1)
      if (value === null) return null
      if (key === 'by') by.push(value.text)
      else if (key === 'uri') uri.push(value.text)
      else if (key === 'dns') dns.push(value.text)
      else if (key === 'hash') hash = value.text
      else if (key === 'subject') subject = value.text
      position = value.end
      if (text.charCodeAt(position) !== 0x3b) break
      position += 1
    }
    elements.push({ by, uri, dns, hash, subject })
    if (position === text.length) return elements
    if (text.charCodeAt(position) !== 0x2c || elements.length >= elementsMax) return null
    position += 1
  }
  return null
}

function readValue(text: string, start: number): { text: string; end: number } | null {
  if (text.charCodeAt(start) !== 0x22) {
    let end = start
    while (end < text.length) {
      const code = text.charCodeAt(end)
      if (code === 0x2c || code === 0x3b) break
      // An unquoted value holds no quote and no second `=`.
      if (code === 0x22 || code === 0x3d) return null
      end += 1
    }
    return { text: text.slice(start, end), end }
  }
  let value = ''
  let from = start + 1
  for (let index = from; index < text.length; index += 1) {
    const code = text.charCodeAt(index)
    if (code === 0x5c && text.charCodeAt(index + 1) === 0x22) {
      value += `${text.slice(from, index)}"`
      index += 1
      from = index + 1
    } else if (code === 0x22) {
      return { text: value + text.slice(from, index), end: index + 1 }
    }
  }
  return null
}
