/**
 * What an Envoy access log line said, field by field, before any of it has a meaning.
 *
 * The JSON and the text reader fill one record each and use it again for every line. The names are
 * Istio's default JSON keys and those of the extended format; other spellings are `envoy-keys.ts`.
 */

/** Field name → place in the record. */
export const field = {
  start_time: 0,
  method: 1,
  path: 2,
  protocol: 3,
  response_code: 4,
  response_flags: 5,
  response_code_details: 6,
  connection_termination_details: 7,
  upstream_transport_failure_reason: 8,
  bytes_received: 9,
  bytes_sent: 10,
  duration: 11,
  upstream_service_time: 12,
  x_forwarded_for: 13,
  user_agent: 14,
  request_id: 15,
  authority: 16,
  upstream_host: 17,
  upstream_cluster: 18,
  upstream_local_address: 19,
  downstream_local_address: 20,
  downstream_remote_address: 21,
  requested_server_name: 22,
  route_name: 23,
  downstream_transport_failure_reason: 24,
  downstream_direct_remote_address: 25,
  downstream_peer_uri_san: 26,
  downstream_local_uri_san: 27,
  upstream_peer_uri_san: 28,
  downstream_tls_version: 29,
  peer_principal: 30,
  local_principal: 31,
  x_forwarded_client_cert: 32,
  dry_run_deny_policy: 33,
  dry_run_deny_result: 34,
  dry_run_allow_policy: 35,
  dry_run_allow_result: 36,
  grpc_status: 37,
  trace_id: 38,
  traceparent: 39,
  end_user: 40,
  end_user_issuer: 41,
  request_principal: 42,
  direction: 43,
} as const

export type FieldName = keyof typeof field
export const fieldCount = 44

export class EnvoyRecord {
  /** By place: a JSON value or the text between the separators; null when the line has no such field. */
  readonly values: unknown[] = Array.from({ length: fieldCount }, () => null)
  /** 1 where a column holds the value unchanged (or in a form that gives it back). */
  readonly held = new Uint8Array(fieldCount)
  /** The line may hold lone surrogates (JSON escapes), which no UTF-8 column can. */
  escapes = false
  /** Istio's own layout or keys were seen, whatever the values say. */
  istioLayout = false
  /** Columns that a hostile line left without a certain value. */
  ambiguous: string[] = noColumns
  /** Status, flags, details, sizes: more than one place in the line could be the real ones. */
  outcomeAmbiguous = false
  /** Authority, upstream, addresses, SNI: as above. */
  peersAmbiguous = false

  reset(): void {
    this.values.fill(null)
    this.held.fill(0)
    this.escapes = false
    this.istioLayout = false
    this.ambiguous = noColumns
    this.outcomeAmbiguous = false
    this.peersAmbiguous = false
  }

  /** The value as text; null when absent (`null`, `''`, `'-'`) or no scalar. Holds nothing. */
  text(place: number): string | null {
    const value = this.values[place]
    if (typeof value === 'string') {
      if (value === '' || value === '-') return null
      return this.escapes ? value.toWellFormed() : value
    }
    if (typeof value === 'number' || typeof value === 'boolean') return String(value)
    return null
  }

  /** The same, for a column that takes the text as it is. */
  hold(place: number): string | null {
    const text = this.text(place)
    if (text !== null && text === this.values[place]) this.held[place] = 1
    return text
  }

  /** A whole number from 0 to `max`, printed as number or digits. */
  count(place: number, max: number): number | null {
    const value = this.values[place]
    if (typeof value === 'number') {
      if (!Number.isInteger(value) || value < 0 || value > max) return null
      this.held[place] = 1
      return value
    }
    if (typeof value !== 'string' || value.length > 16 || !digits.test(value)) return null
    const number = Number(value)
    if (number > max) return null
    if (value.charCodeAt(0) !== 0x30 || value.length === 1) this.held[place] = 1
    return number
  }
}

const digits = /^\d+$/
const noColumns: string[] = []

/** Absent in every encoder's spelling; an empty object or list is absent too. */
export function isAbsent(value: unknown): boolean {
  return value === null || value === undefined || value === '' || value === '-'
}
