/**
 * X.509 certificates as a mesh's own CA makes them: P-256, an empty subject, the SPIFFE ID as the only
 * (critical) subject alternative name. Made in memory for one test run and never kept.
 *
 * It encodes just the DER such certificates need; it is no general X.509 library and checks nothing.
 *
 * @see RFC 5280, section 4; SPIFFE X509-SVID, sections 2 to 4
 */
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'

export type Credential = {
  /** The leaf alone, PEM. */
  readonly certificate: string
  /** PKCS #8, PEM. */
  readonly key: string
}

export type Authority = {
  /** The self-signed root, PEM: what a verifier trusts. */
  readonly root: string
  /** @param days validity from `-days` to now when negative, from an hour ago to `days` otherwise */
  readonly issue: (spiffeId: string, days: number) => Credential
}

export function spiffeId(namespace: string, serviceAccount: string): string {
  return `spiffe://cluster.local/ns/${namespace}/sa/${serviceAccount}`
}

/** @param nowMs the moment the validity periods are counted from */
export function createAuthority(organization: string, nowMs: number): Authority {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const name = sequence(set(sequence(oid('2.5.4.10'), utf8(organization))))
  const identifier = keyIdentifier(pair.publicKey)

  const root = certificate({
    issuer: name,
    subject: name,
    notBeforeMs: nowMs - 400 * dayMs,
    notAfterMs: nowMs + 365 * dayMs,
    publicKey: pair.publicKey,
    signingKey: pair.privateKey,
    extensions: [
      extension('2.5.29.19', sequence(boolean(true)), true),
      extension('2.5.29.15', keyUsageCertSign, true),
      extension('2.5.29.14', octets(identifier), false),
    ],
  })

  function issue(spiffe: string, days: number): Credential {
    const leaf = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const issued = certificate({
      issuer: name,
      subject: sequence(),
      notBeforeMs: days < 0 ? nowMs + days * dayMs : nowMs - hourMs,
      notAfterMs: days < 0 ? nowMs - hourMs : nowMs + days * dayMs,
      publicKey: leaf.publicKey,
      signingKey: pair.privateKey,
      extensions: [
        extension('2.5.29.15', keyUsageSignAndEncipher, true),
        extension('2.5.29.37', sequence(oid(serverAuth), oid(clientAuth)), false),
        extension('2.5.29.19', sequence(), true),
        extension('2.5.29.35', sequence(tagged(0x80, identifier)), false),
        extension('2.5.29.17', sequence(tagged(0x86, Buffer.from(spiffe, 'ascii'))), true),
      ],
    })
    return { certificate: issued, key: pemOfKey(leaf.privateKey) }
  }

  return { root, issue }
}

const hourMs = 3_600_000
const dayMs = 24 * hourMs
const serverAuth = '1.3.6.1.5.5.7.3.1'
const clientAuth = '1.3.6.1.5.5.7.3.2'
/** BIT STRINGs: keyCertSign and cRLSign; digitalSignature and keyEncipherment. */
const keyUsageCertSign = Buffer.from([0x03, 0x02, 0x01, 0x06])
const keyUsageSignAndEncipher = Buffer.from([0x03, 0x02, 0x05, 0xa0])

type Fields = {
  readonly issuer: Buffer
  readonly subject: Buffer
  readonly notBeforeMs: number
  readonly notAfterMs: number
  readonly publicKey: KeyObject
  readonly signingKey: KeyObject
  readonly extensions: readonly Buffer[]
}

function certificate(fields: Fields): string {
  const ecdsaWithSha256 = sequence(oid('1.2.840.10045.4.3.2'))
  const toBeSigned = sequence(
    tagged(0xa0, tagged(0x02, Buffer.from([2]))), // version 3
    serialNumber(),
    ecdsaWithSha256,
    fields.issuer,
    sequence(utcTime(fields.notBeforeMs), utcTime(fields.notAfterMs)),
    fields.subject,
    fields.publicKey.export({ type: 'spki', format: 'der' }),
    tagged(0xa3, sequence(...fields.extensions)),
  )
  const signature = sign('sha256', toBeSigned, fields.signingKey)
  const bits = tagged(0x03, Buffer.concat([Buffer.from([0]), signature]))
  return pem('CERTIFICATE', sequence(toBeSigned, ecdsaWithSha256, bits))
}

function pemOfKey(key: KeyObject): string {
  return pem('PRIVATE KEY', key.export({ type: 'pkcs8', format: 'der' }))
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? []
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n')
}

/** Method 1 of RFC 5280, 4.2.1.2: SHA-1 of the key's bits, which for P-256 are the last 65 bytes. */
function keyIdentifier(key: KeyObject): Buffer {
  const bits = key.export({ type: 'spki', format: 'der' }).subarray(-65)
  return createHash('sha1').update(bits).digest()
}

function serialNumber(): Buffer {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40 // positive, and never shorter than written
  return tagged(0x02, bytes)
}

function extension(id: string, value: Buffer, critical: boolean): Buffer {
  return critical
    ? sequence(oid(id), boolean(true), octets(value))
    : sequence(oid(id), octets(value))
}

function tagged(tag: number, content: Buffer): Buffer {
  const length = content.length
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content])
  if (length < 0x100) return Buffer.concat([Buffer.from([tag, 0x81, length]), content])
  return Buffer.concat([Buffer.from([tag, 0x82, length >> 8, length & 0xff]), content])
}

function sequence(...parts: Buffer[]): Buffer {
  return tagged(0x30, Buffer.concat(parts))
}
function set(part: Buffer): Buffer {
  return tagged(0x31, part)
}
function octets(content: Buffer): Buffer {
  return tagged(0x04, content)
}
function utf8(text: string): Buffer {
  return tagged(0x0c, Buffer.from(text, 'utf8'))
}
function boolean(value: boolean): Buffer {
  return tagged(0x01, Buffer.from([value ? 0xff : 0]))
}

/** UTCTime, `YYMMDDHHMMSSZ`: what RFC 5280 demands until 2049. */
function utcTime(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replace(/[-:T]/g, '').slice(2, 14)
  return tagged(0x17, Buffer.from(`${digits}Z`, 'ascii'))
}

function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const bytes = [first * 40 + second]
  for (const arc of rest) {
    const groups = [arc & 0x7f]
    for (let left = arc >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80)
    bytes.push(...groups)
  }
  return tagged(0x06, Buffer.from(bytes))
}
