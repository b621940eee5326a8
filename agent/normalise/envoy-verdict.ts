/**
 * What the mesh decided about a request or connection, told from one Envoy access log line.
 *
 * The rules, first match wins:
 *
 * 1. RBAC words → denied by this proxy, with the policy where one is named.
 * 2. ext_authz, JWT, rate limit → denied by this proxy. A decider that failed while the proxy was set
 *    to refuse then (`ext_authz_error`, RLSE) refused all the same: denied.
 * 3. No filter chain → denied: Istio, no SNI: `plaintext_refused` (a mesh peer always sends one);
 *    otherwise `no_filter_chain`.
 * 4. BlackHoleCluster, `block_all` → denied, `egress_blocked`.
 * 5. A TLS handshake that failed: denied when this proxy, as server, refused its client; errored when
 *    it was the client, when the peer sent the alert, or when the connection broke.
 * 6. A failure flag → errored, with its reason.
 * 7. The upstream answered (`via_upstream`): the mesh let it through, so `allowed`; 4xx and 5xx are
 *    decided by the application. One exception: 403 with exactly 19 bytes (`RBAC: access denied`) on
 *    an outbound line is the copy of the peer proxy's denial: errored, `denied_by_peer`. An application
 *    that answers 403 with 19 bytes of its own is mistaken for one.
 * 8. The proxy answered itself without a flag: 401 and 403 are refusals of a filter unknown here
 *    (basic auth, CSRF, Wasm, a configured direct response) → denied; other 4xx and 5xx errored.
 * 9. Anything else, a TCP connection without flag included → allowed. Where a dry-run policy would
 *    have refused → `would_deny`.
 *
 * @see envoy source/extensions/filters/common/rbac/utility.cc; istio pilot/pkg/security/authz
 */
import type { AuditEvent, DecidedBy, Reason, Verdict } from '../event.ts'
import { parsePolicyId, parseRbacDenial } from './rbac.ts'
import type { ResponseFlags } from './response-flags.ts'
import type { TlsFailure } from './tls-failure.ts'

export type EnvoyOutcome = {
  readonly istio: boolean
  readonly isRequest: boolean
  /** Null when there was no response. */
  readonly status: number | null
  readonly flags: ResponseFlags | null
  readonly details: string | null
  readonly terminationDetails: string | null
  readonly upstreamAnswered: boolean
  /** The listener had no filter chain for the connection: in words, or NR before there was any route. */
  readonly noFilterChain: boolean
  readonly blackHole: boolean
  readonly sniPresent: boolean
  readonly upstreamTls: TlsFailure | null
  readonly downstreamTls: TlsFailure | null
  readonly bytesOut: number | null
}

/** Fills verdict, decided_by, reason and policy columns. Expects `direction` to be set. */
export function decideEnvoy(event: AuditEvent, o: EnvoyOutcome): void {
  const denial =
    (o.details === null ? null : parseRbacDenial(o.details)) ??
    (o.terminationDetails === null ? null : parseRbacDenial(o.terminationDetails))
  if (denial !== null) {
    set(event, 'denied', 'this_proxy', denial.reason)
    event.policy = denial.policy
    event.policy_kind = denial.policyKind
    event.policy_rule = denial.rule
    return
  }
  const details = o.details ?? ''
  if (details.startsWith('ext_authz_error')) {
    return set(event, 'denied', 'this_proxy', 'ext_authz_error')
  }
  if (details === 'ext_authz_denied' || o.flags?.codes.has('UAEX') === true) {
    return set(event, 'denied', 'this_proxy', 'ext_authz_denied')
  }
  if (details.startsWith('jwt_authn_access_denied')) {
    return set(event, 'denied', 'this_proxy', 'jwt_invalid')
  }
  if (details === 'local_rate_limited' || details === 'request_rate_limited') {
    return set(event, 'denied', 'this_proxy', 'rate_limited')
  }
  if (o.noFilterChain) {
    const plaintext = o.istio && !o.sniPresent
    return set(event, 'denied', 'this_proxy', plaintext ? 'plaintext_refused' : 'no_filter_chain')
  }
  if (o.blackHole) return set(event, 'denied', 'this_proxy', 'egress_blocked')

  if (o.downstreamTls !== null && !o.isRequest) {
    return decideHandshake(event, o.downstreamTls, 'denied')
  }
  if (o.upstreamTls !== null && !(o.upstreamAnswered && o.flags === null)) {
    return decideHandshake(event, o.upstreamTls, 'errored')
  }
  const failure = o.flags?.failure ?? null
  if (failure !== null) {
    return set(event, failure.verdict, failure.decidedBy, failure.reason)
  }

  const status = o.status ?? 0
  if (o.upstreamAnswered || !o.isRequest || status < 400) {
    if (status === 403 && o.bytesOut === 19 && o.istio && event.direction === 'outbound') {
      return set(event, 'errored', 'peer_proxy', 'denied_by_peer')
    }
    const reason = o.upstreamAnswered ? null : reasonOfDetails(details)
    if (status === 0 && reason !== null) return set(event, 'errored', 'this_proxy', reason)
    return set(event, 'allowed', status >= 400 ? 'application' : 'this_proxy', null)
  }
  if (status === 401) return set(event, 'denied', 'this_proxy', 'unauthenticated')
  if (status === 403) return set(event, 'denied', 'this_proxy', 'forbidden')
  set(event, 'errored', 'this_proxy', reasonOfDetails(details))
}

/**
 * A dry-run policy changes nothing but the answer to "what if": only an allowed event can become
 * `would_deny`. The keys are Istio's shadow engine results.
 */
export function decideDryRun(
  event: AuditEvent,
  denyResult: string | null,
  denyPolicy: string | null,
  allowResult: string | null,
  allowPolicy: string | null,
): void {
  if (event.verdict !== 'allowed') return
  const policy =
    denyResult === 'denied' ? denyPolicy : allowResult === 'denied' ? allowPolicy : null
  if (denyResult !== 'denied' && allowResult !== 'denied') return
  event.verdict = 'would_deny'
  event.decided_by = 'this_proxy'
  event.reason = policy === null ? 'rbac_no_match' : 'rbac_denied'
  if (policy === null) return
  const parsed = parsePolicyId(policy)
  event.policy = parsed.policy
  event.policy_kind = parsed.policyKind
  event.policy_rule = parsed.rule
}

function decideHandshake(event: AuditEvent, tls: TlsFailure, refusal: 'denied' | 'errored'): void {
  switch (tls.refusedBy) {
    case 'here':
      return set(event, refusal, 'this_proxy', 'tls_handshake_failed')
    case 'peer':
      return set(event, 'errored', 'peer_proxy', 'tls_handshake_failed')
    case 'transport':
      return set(event, 'errored', null, 'tls_handshake_failed')
  }
}

/** For answers of the proxy's own that carry no flag, or an old Envoy's without it. */
function reasonOfDetails(details: string): Reason | null {
  if (details === 'route_not_found' || details === 'cluster_not_found') return 'no_route'
  if (details.includes('timeout')) return 'timeout'
  if (details.includes('overload')) return 'overloaded'
  if (details === 'fault_filter_abort') return 'fault_injected'
  if (
    details.includes('codec_error') ||
    details.startsWith('http1.') ||
    details.startsWith('http2.')
  ) {
    return 'protocol_error'
  }
  if (details.startsWith('upstream_') || details === 'no_healthy_upstream') return 'upstream_failed'
  if (details.startsWith('downstream_')) return 'downstream_disconnected'
  return null
}

function set(
  event: AuditEvent,
  verdict: Verdict,
  decidedBy: DecidedBy | null,
  reason: Reason | null,
): void {
  event.verdict = verdict
  event.decided_by = decidedBy
  event.reason = reason
}
