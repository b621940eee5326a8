/**
 * Bytes to a port and back, once per connection: a client that can be as rude as a case needs, which no
 * HTTP library allows. Everything goes to 127.0.0.1 and ends within `exchangeMs`.
 */
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Credential } from './certificates.ts'

export type Target = {
  readonly port: number
  /** Absent: plain TCP. */
  readonly tls?: {
    /** Absent: the client shows no certificate. */
    readonly credential?: Credential
    readonly serverName: string
  }
}

export type Reply = {
  /** The status of an HTTP response; null when there was none. */
  readonly status: number | null
  readonly bytes: Buffer
  /** The socket's error code; null when the connection ended in order. */
  readonly failure: string | null
}

const exchangeMs = 5_000

/**
 * Connects, sends, and reads until the other side closes, a whole HTTP response has come, or `enough`
 * bytes have.
 *
 * @param bytes sent after the handshake; none at all when empty
 */
export async function exchange(
  target: Target,
  bytes: Uint8Array,
  enough = Number.POSITIVE_INFINITY,
): Promise<Reply> {
  return new Promise((resolve) => {
    const received: Buffer[] = []
    let failure: string | null = null
    const socket = open(target, () => {
      if (bytes.length > 0) socket.write(bytes)
    })
    socket.setTimeout(exchangeMs, () => {
      failure = 'TIMEOUT'
      socket.destroy()
    })
    socket.on('data', (chunk: Buffer) => {
      received.push(chunk)
      const all = Buffer.concat(received)
      if (all.length >= enough || isWholeResponse(all)) socket.end()
    })
    socket.on('error', (error: Error & { code?: string }) => {
      failure = error.code ?? error.message
      socket.destroy() // Envoy would keep a refused connection for a second more
    })
    socket.on('end', () => socket.end())
    socket.on('close', () => {
      const all = Buffer.concat(received)
      const status = /^HTTP\/1\.[01] (\d{3}) /.exec(all.toString('latin1'))?.[1]
      resolve({ status: status === undefined ? null : Number(status), bytes: all, failure })
    })
  })
}

export type HttpRequest = {
  readonly method: string
  readonly path: string
  readonly host: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

/**
 * An HTTP/1.1 request that asks for the connection to be closed. Latin-1, so that a header may hold any
 * byte; nothing is checked or escaped.
 */
export function httpRequest(request: HttpRequest): Buffer {
  const { method, path, host, headers, body } = request
  const lines = [`${method} ${path} HTTP/1.1`, `host: ${host}`, 'connection: close']
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`)
  if (body !== undefined) lines.push(`content-length: ${Buffer.byteLength(body, 'latin1')}`)
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body ?? ''}`, 'latin1')
}

/** Envoy leaves the connection open for a second after a reply of its own, so its end is no sign. */
function isWholeResponse(bytes: Buffer): boolean {
  const bodyStart = bytes.indexOf('\r\n\r\n') + 4
  if (bodyStart === 3) return false
  const head = bytes.toString('latin1', 0, bodyStart).toLowerCase()
  const length = /\r\ncontent-length: (\d+)\r\n/.exec(head)?.[1]
  if (length !== undefined) return bytes.length >= bodyStart + Number(length)
  return (
    head.includes('\r\ntransfer-encoding: chunked\r\n') && bytes.includes('0\r\n\r\n', bodyStart)
  )
}

function open(target: Target, connected: () => void): Socket {
  const address = { host: '127.0.0.1', port: target.port }
  if (target.tls === undefined) return connectTcp(address, connected)
  const { credential, serverName } = target.tls
  const identity =
    credential === undefined ? {} : { cert: credential.certificate, key: credential.key }
  // The server's certificate has no host name to check; who it is, the sidecars check.
  const options = { ...address, ...identity, servername: serverName, rejectUnauthorized: false }
  return connectTls(options, connected)
}
