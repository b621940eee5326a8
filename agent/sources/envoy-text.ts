/**
 * Reads Envoy access log lines in text: Istio's default format (1.9 and newer) and Envoy's own.
 *
 * Envoy escapes nothing in text (envoyproxy/envoy#4191), so path, X-Forwarded-For, User-Agent,
 * X-Request-ID and, before the fix of CVE-2024-45808, the SNI can hold whole forged columns. The
 * reader therefore never takes the first match that fits. It looks for every place where the numbers
 * in the middle could stand, and every place where the addresses at the end could. One place each:
 * the values are certain, whatever quotes lie between. Two: nobody can tell, the columns they would
 * fill stay null, and `attributes.ambiguous` names them.
 *
 * Every scan moves forward only, so that a hostile line costs time in proportion to its length.
 *
 * Not read: text formats an operator made up, which nothing in the line describes.
 *
 * @see istio pilot/pkg/model/telemetry_logging.go; envoyproxy/envoy#4191 (quotes are not escaped)
 */
import type { AuditEvent } from '../event.ts'
import { looksLikeAddress } from '../normalise/address.ts'
import { normaliseEnvoy } from '../normalise/envoy.ts'
import { EnvoyRecord, type FieldName, field, isAbsent } from '../normalise/envoy-record.ts'
import type { Provenance } from '../tail/chunk.ts'
import { encode } from './json.ts'

/** `" 403 - details termination "upstream failure" 0 19 0 - "`, between path and X-Forwarded-For. */
const istioMiddle =
  /" (\d{1,9}|-) (-|[A-Z][A-Za-z0-9_]*(?:,[A-Z][A-Za-z0-9_]*)*) ([^\s"]+) ([^\s"]+) "([^"]*)" (\d{1,18}|-) (\d{1,18}|-) (\d{1,18}|-) ([^\s"]+) "/y
/** `" 200 - 0 178 2 1 "`: Envoy's own default has no details. */
const envoyMiddle =
  /" (\d{1,9}|-) (-|[A-Z][A-Za-z0-9_]*(?:,[A-Z][A-Za-z0-9_]*)*) (\d{1,18}|-) (\d{1,18}|-) (\d{1,18}|-) ([^\s"]+) "/y
/** What follows UPSTREAM_HOST up to the two downstream addresses. */
const istioTailStart = /" ([^\s"]+) ([^\s"]+) ([^\s"]+) ([^\s"]+) /y

const istioMiddleFields: readonly FieldName[] = [
  'response_code',
  'response_flags',
  'response_code_details',
  'connection_termination_details',
  'upstream_transport_failure_reason',
  'bytes_received',
  'bytes_sent',
  'duration',
  'upstream_service_time',
]
const envoyMiddleFields: readonly FieldName[] = [
  'response_code',
  'response_flags',
  'bytes_received',
  'bytes_sent',
  'duration',
  'upstream_service_time',
]
const istioTailFields: readonly FieldName[] = [
  'upstream_cluster',
  'upstream_local_address',
  'downstream_local_address',
  'downstream_remote_address',
]

/** What `ambiguous` lists, in column names; X-Forwarded-For has no column. */
const outcomeColumns = [
  'path',
  'query',
  'protocol',
  'status',
  'response_flags',
  'bytes_in',
  'bytes_out',
  'duration_us',
  'tls_failure',
  'verdict',
]
const headerColumns = ['x_forwarded_for', 'user_agent', 'request_id']
const peerColumns = [
  'host',
  'server_ip',
  'server_port',
  'client_ip',
  'client_port',
  'sni',
  'direction',
  'dst_service',
]

const separator = '" "'

/** Enough to see what was forged; the raw line has the rest. */
const outcomesMax = 4
const outcomeLengthMax = 300

export class EnvoyTextReader {
  private readonly record = new EnvoyRecord()

  /**
   * @param unterminated the line may have been cut: the last token is then not certain
   * @returns false when the line has neither layout; the event is then unchanged
   */
  read(
    content: string,
    unterminated: boolean,
    event: AuditEvent,
    provenance: Provenance,
    trusted: boolean,
  ): boolean {
    // A request blob, then the rest.
    const bracket = content.indexOf('] "')
    if (bracket < 2 || bracket > 64) return false
    const { record } = this
    record.reset()

    const istio = !content.endsWith('"')
    const scanned = istio
      ? this.scan(content, bracket + 2, istioMiddle, istioMiddleFields)
      : this.scan(content, bracket + 2, envoyMiddle, envoyMiddleFields)
    if (!scanned) return false
    const values = record.values
    values[field.start_time] = content.slice(1, bracket)
    record.istioLayout = istio
    if (istio) this.readTail(content, unterminated)
    else this.readHeaders(content, this.middleEnd, content.length - 1)

    normaliseEnvoy(record, event, provenance, trusted)
    if (record.outcomeAmbiguous) record.ambiguous = [...outcomeColumns, ...record.ambiguous]
    event.attributes = this.attributes()
    return true
  }

  /** Index after the quote that opens X-Forwarded-For. */
  private middleEnd = 0
  /** Every text found where status, flags, details and sizes could stand. */
  private outcomes: string[] = []

  /** Finds the middle and, by it, the end of the request blob. */
  private scan(
    content: string,
    quote: number,
    middle: RegExp,
    names: readonly FieldName[],
  ): boolean {
    const { record } = this
    const values = record.values
    let found: RegExpExecArray | null = null
    this.outcomes = []
    let at = content.indexOf('" ', quote + 1)
    while (at >= 0) {
      // Cheap look at the first character before the expression runs.
      const next = content.charCodeAt(at + 2)
      if (next === 0x2d || (next >= 0x30 && next <= 0x39)) {
        middle.lastIndex = at
        const match = middle.exec(content)
        if (match !== null) {
          this.outcomes.push(match[0])
          found ??= match
          if (this.outcomes.length === outcomesMax) break
        }
      }
      at = content.indexOf('" ', at + 1)
    }
    if (found === null) return false
    record.outcomeAmbiguous = this.outcomes.length > 1
    this.middleEnd = found.index + found[0].length

    const blob = content.slice(quote + 1, found.index)
    const first = blob.indexOf(' ')
    if (first < 0) return false
    // No header reaches the method, and no blank is in it: the first word is always the method.
    values[field.method] = blob.slice(0, first)
    if (record.outcomeAmbiguous) return true
    const last = blob.lastIndexOf(' ')
    const protocol = blob.slice(last + 1)
    const hasProtocol = last > first && (protocol === '-' || protocol.startsWith('HTTP/'))
    values[field.protocol] = hasProtocol ? protocol : null
    values[field.path] = blob.slice(first + 1, hasProtocol ? last : undefined)
    for (let index = 0; index < names.length; index += 1) {
      const name = names[index]
      if (name !== undefined) values[field[name]] = found[index + 1]
    }
    return true
  }

  private readTail(content: string, unterminated: boolean): void {
    const { record, middleEnd } = this
    const values = record.values
    const lastQuote = content.lastIndexOf('"')
    // ['', cluster, upstream local, downstream local, downstream remote, SNI, route]
    const tokens = content.slice(lastQuote + 1).split(' ', 16)
    const wellFormed =
      tokens[0] === '' &&
      tokens.length >= 6 &&
      tokens.length < 16 &&
      isLocal(tokens[3] ?? '') &&
      looksLikeAddress(tokens[4] ?? '')
    if (!wellFormed) {
      this.forgetHeaders()
      this.forgetPeers()
      return
    }
    if (!this.readHeaders(content, middleEnd, lastQuote)) return
    if (this.tailMayStartBefore(content, lastQuote)) {
      this.forgetPeers()
      return
    }
    for (let index = 0; index < istioTailFields.length; index += 1) {
      const name = istioTailFields[index]
      if (name !== undefined) values[field[name]] = tokens[index + 1]
    }
    const [sni = null, route = null, ...more] = tokens.slice(5)
    if (more.length > 0) {
      // Blanks in the SNI or in the route's name: where one ends is anybody's guess.
      record.ambiguous = [...record.ambiguous, 'sni', 'route_name']
      return
    }
    if (unterminated && route === null) {
      record.ambiguous = [...record.ambiguous, 'sni']
      return
    }
    values[field.requested_server_name] = sni
    if (!unterminated) values[field.route_name] = route
  }

  /**
   * `xff" "ua" "rid" "authority" "upstream host`: the last two cannot hold quotes and are read from
   * the right; the three headers before them only when nothing else could separate them.
   *
   * @returns false when the last two are not what they should be
   */
  private readHeaders(content: string, start: number, end: number): boolean {
    const { record } = this
    const values = record.values
    const upstream = content.lastIndexOf(separator, end - 3)
    const authority = content.lastIndexOf(separator, upstream - 3)
    if (upstream < start || authority < start) {
      this.forgetHeaders()
      this.forgetPeers()
      return false
    }
    const host = content.slice(authority + 3, upstream)
    const upstreamHost = content.slice(upstream + 3, end)
    if (host.includes('"') || upstreamHost.includes('"')) {
      this.forgetHeaders()
      this.forgetPeers()
      return false
    }
    values[field.authority] = host
    values[field.upstream_host] = upstreamHost

    // Overlapping: `" " "` separates in two ways.
    const first = content.indexOf(separator, start - 1)
    const second = content.indexOf(separator, first + 1)
    const third = content.indexOf(separator, second + 1)
    // The opening quote is at start - 1: a separator there means that the header itself begins with
    // a blank and a quote. `start` comes from the first middle, so two of them leave it open too.
    if (record.outcomeAmbiguous || first < start || second < 0 || third !== authority) {
      this.forgetHeaders()
      return true
    }
    values[field.x_forwarded_for] = content.slice(start, first)
    values[field.user_agent] = content.slice(first + 3, second)
    values[field.request_id] = content.slice(second + 3, third)
    return true
  }

  /** Whether the SNI, not the User-Agent, may be what holds the quotes before `lastQuote`. */
  private tailMayStartBefore(content: string, lastQuote: number): boolean {
    let separators = 0
    let at = content.indexOf('" ', this.middleEnd)
    while (at >= 0 && at < lastQuote) {
      if (separators >= 4) {
        istioTailStart.lastIndex = at
        const match = istioTailStart.exec(content)
        if (match !== null && isLocal(match[3] ?? '') && looksLikeAddress(match[4] ?? '')) {
          return true
        }
      }
      if (content.charCodeAt(at + 2) === 0x22) separators += 1
      at = content.indexOf('" ', at + 1)
    }
    return false
  }

  private forgetHeaders(): void {
    const { record } = this
    if (record.ambiguous.includes('user_agent')) return
    record.ambiguous = [...record.ambiguous, ...headerColumns]
  }

  private forgetPeers(): void {
    const { record } = this
    if (record.peersAmbiguous) return
    record.peersAmbiguous = true
    record.values[field.authority] = null
    record.values[field.upstream_host] = null
    record.ambiguous = [...record.ambiguous, ...peerColumns]
  }

  private attributes(): string | null {
    const { values, held, ambiguous } = this.record
    let text = ''
    for (let index = 0; index < attributeNames.length; index += 1) {
      const place = attributePlaces[index] ?? 0
      const value = values[place]
      if (isAbsent(value) || held[place] === 1) continue
      text += `${text === '' ? '{' : ','}${attributeNames[index] ?? ''}${encode(value)}`
    }
    if (this.record.outcomeAmbiguous) {
      const claims = this.outcomes.map((claim) => claim.slice(2, outcomeLengthMax).trimEnd())
      text += `${text === '' ? '{' : ','}"possible_outcomes":${encode(claims)}`
    }
    if (ambiguous.length > 0) {
      text += `${text === '' ? '{' : ','}"ambiguous":${encode([...new Set(ambiguous)])}`
    }
    return text === '' ? null : `${text}}`
  }
}

/** A downstream local address is missing on some listener lines. */
function isLocal(token: string): boolean {
  return token === '-' || looksLikeAddress(token)
}

const attributeEntries = Object.entries(field)
const attributeNames: readonly string[] = attributeEntries.map(([name]) => `${encode(name)}:`)
const attributePlaces: readonly number[] = attributeEntries.map(([, place]) => place)
