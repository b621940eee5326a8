/**
 * Finds the reason of a failed TLS handshake in the text Envoy prints about it.
 *
 * The reason token is read, not the error number, which changes between BoringSSL versions. A text
 * without TLS in it (`delayed_connect_error:_Connection_refused`) is no TLS failure.
 */
import { remember } from './memo.ts'

export type TlsFailure = {
  /** Such as CERTIFICATE_VERIFY_FAILED. */
  readonly token: string
  /** Such as `verify cert failed: verify SAN list`. */
  readonly detail: string | null
  /**
   * - `here`: this side refused the other
   * - `peer`: the other side sent an alert
   * - `transport`: the connection broke, or this side was not ready; nobody refused
   */
  readonly refusedBy: 'here' | 'peer' | 'transport'
}

/** Longer texts are cut: a proxy's own are a few hundred bytes. */
const textLengthMax = 8192

/**
 * @param text UPSTREAM_ or DOWNSTREAM_TRANSPORT_FAILURE_REASON, or RESPONSE_CODE_DETAILS with a copy
 * in braces; with blanks or with underscores in their place
 * @see envoy source/common/tls/ssl_socket.cc
 */
export function parseTlsFailure(text: string): TlsFailure | null {
  if (!text.includes('TLS')) return null
  return parseCached(text.length > textLengthMax ? text.slice(0, textLengthMax) : text)
}

const parseCached: (text: string) => TlsFailure | null = remember(1024, (text) => {
  const start = /TLS[_ ]error[:|][_ ]?/.exec(text)
  if (start === null) return null
  let body = text.slice(start.index + start[0].length)
  const end = /:?[_ ]?TLS[_ ]error[_ ]end/.exec(body)
  if (end !== null) body = body.slice(0, end.index)
  else if (body.endsWith('}')) body = body.slice(0, -1)

  const pieces = body.includes('|') ? body.split('|') : body.split(/[_ ](?=\d{6,10}:)/)
  const errors = pieces.map(parseOpensslError).filter((error) => error !== null)
  // The queue lists causes before effects: the last error is what the handshake failed with.
  const last = errors.at(-1)
  if (last === undefined) return plainFailure(body)
  const causes = errors.slice(0, -1).map((error) => error.token)
  const detail = last.detail ?? (causes.length > 0 ? causes.join(', ') : null)
  return { token: last.token, detail, refusedBy: last.refusedBy }
})

function parseOpensslError(
  piece: string,
): { token: string; detail: string | null; refusedBy: TlsFailure['refusedBy'] } | null {
  // <number>:<library>:<function>:<reason>[:<detail>]; before a filter chain is chosen, Envoy prints
  // the library's own form, error:<number in hex>:…
  const [number = '', library = '', , reason = '', ...rest] = piece
    .trim()
    .replace(/^error:(?=[0-9a-f]{8}:)/i, '')
    .split(':')
  if (!/^[\da-f]{1,12}$/i.test(number) || reason === '') return null
  const token = tokenOf(reason)
  if (token === null) return null
  const detail = rest.length === 0 ? null : readable(rest.join(':'))
  const refusedBy = /^system[_ ]library/i.test(library)
    ? 'transport'
    : token.includes('_ALERT_')
      ? 'peer'
      : 'here'
  return { token, detail, refusedBy }
}

function plainFailure(body: string): TlsFailure | null {
  if (/^[_ |]*Secret[_ ]is[_ ]not[_ ]supplied[_ ]by[_ ]SDS/.test(body)) {
    return { token: 'SECRET_NOT_SUPPLIED_BY_SDS', detail: null, refusedBy: 'transport' }
  }
  const token = tokenOf(body.replaceAll('|', ' ').trim())
  return token === null ? null : { token, detail: null, refusedBy: 'transport' }
}

function tokenOf(reason: string): string | null {
  const token = reason
    .trim()
    .replaceAll(/[^A-Za-z0-9]+/g, '_')
    .toUpperCase()
  return token === '' || token === '_' || token.length > 120 ? null : token
}

function readable(detail: string): string | null {
  const text = detail.includes(' ') ? detail : detail.replaceAll('_', ' ')
  const trimmed = text.replace('X509 verify cert', 'X509_verify_cert').trim()
  return trimmed === '' ? null : trimmed
}
