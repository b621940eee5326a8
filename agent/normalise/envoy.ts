/**
 * Turns an Envoy access log record into the columns of an event, the same way for JSON and text.
 *
 * A line speaks for the pod it comes from, no further: from an untrusted file neither
 * verdict nor any identity is taken, and what it claimed stays in `attributes`.
 *
 * Decided here:
 * - `client_ip` is the physical peer (DOWNSTREAM_DIRECT_REMOTE_ADDRESS) where the format prints it,
 *   because inside the mesh anyone may send X-Forwarded-For.
 * - `server_ip` is where the called side was reached: DOWNSTREAM_LOCAL_ADDRESS when inbound, else
 *   UPSTREAM_HOST, else DOWNSTREAM_LOCAL_ADDRESS.
 * - X-Forwarded-Client-Cert counts only on an inbound sidecar line, and only its last element.
 * - a refused handshake has no principal: Envoy prints the SAN of a certificate it has not accepted,
 *   so it stays in `attributes`, a claim.
 * - the caller of an outbound line is this pod; `principal` stays null unless the line states a peer.
 */
import type { AuditEvent } from '../event.ts'
import type { Provenance } from '../tail/chunk.ts'
import { parseAddress } from './address.ts'
import { type EnvoyRecord, field } from './envoy-record.ts'
import { decideDryRun, decideEnvoy } from './envoy-verdict.ts'
import { principalOfUriSan } from './principal.ts'
import { parseRbacDenial } from './rbac.ts'
import { parseResponseFlags } from './response-flags.ts'
import { epochUs, fixedWidthUs, parseTimestamp } from './time.ts'
import { parseTlsFailure, type TlsFailure } from './tls-failure.ts'
import { parseUpstreamCluster, serviceOfMeshSni, type UpstreamCluster } from './upstream-cluster.ts'
import { parseXfcc } from './xfcc.ts'

const u32Max = 0xffff_ffff
const grpcNames = [
  'OK',
  'Canceled',
  'Unknown',
  'InvalidArgument',
  'DeadlineExceeded',
  'NotFound',
  'AlreadyExists',
  'PermissionDenied',
  'ResourceExhausted',
  'FailedPrecondition',
  'Aborted',
  'OutOfRange',
  'Unimplemented',
  'Internal',
  'Unavailable',
  'DataLoss',
  'Unauthenticated',
]

export function normaliseEnvoy(
  record: EnvoyRecord,
  event: AuditEvent,
  provenance: Provenance,
  trusted: boolean,
): void {
  const clusterText = record.text(field.upstream_cluster)
  const cluster = clusterText === null ? noCluster : parseUpstreamCluster(clusterText)
  const details = record.text(field.response_code_details)
  const termination = record.text(field.connection_termination_details)
  const istio =
    provenance.container === 'istio-proxy' ||
    record.istioLayout ||
    cluster.istio ||
    (details !== null && parseRbacDenial(details)?.policy != null)

  event.source = istio ? 'istio.access' : 'envoy.access'
  event.mesh = istio ? 'istio' : null
  event.plane = 'data'
  fillTime(record, event)
  fillRequest(record, event)

  const flagsText = record.text(field.response_flags)
  const flags = flagsText === null ? null : parseResponseFlags(flagsText)
  if (flags !== null) {
    event.response_flags = flags.sorted === '' ? null : flags.sorted
    if (
      flags.exact &&
      flags.sorted !== '' &&
      typeof record.values[field.response_flags] === 'string'
    ) {
      record.held[field.response_flags] = 1
    }
  }

  const upstreamReason = record.text(field.upstream_transport_failure_reason)
  const downstreamReason = record.text(field.downstream_transport_failure_reason)
  const upstreamTls =
    (upstreamReason === null ? null : parseTlsFailure(upstreamReason)) ??
    (details === null || details === 'via_upstream' ? null : parseTlsFailure(details))
  const downstreamTls = downstreamReason === null ? null : parseTlsFailure(downstreamReason)

  const upstreamHost = record.text(field.upstream_host)
  // Bytes went through to an upstream: the handshake was over when TLS failed.
  const established =
    upstreamHost !== null && ((event.bytes_in ?? 0) > 0 || (event.bytes_out ?? 0) > 0)
  const isRequest =
    event.method !== null ||
    event.status !== null ||
    (event.protocol !== null && event.protocol.startsWith('HTTP'))
  const noFilterChain = details === 'filter_chain_not_found'
  if (isRequest) event.kind = 'request'
  // The upstream may be dialled before the handshake ends, so its address says nothing here.
  else if (noFilterChain || (downstreamTls !== null && !established)) event.kind = 'handshake'
  else if (flags?.codes.has('NR') === true && clusterText === null) event.kind = 'handshake'
  else event.kind = 'connection'
  if (event.kind === 'connection' && !record.outcomeAmbiguous) event.protocol ??= 'TCP'

  event.direction = directionOf(record, cluster, event.kind === 'handshake' && istio)
  fillTls(event, isRequest && flags === null ? null : (downstreamTls ?? upstreamTls))
  fillAddresses(record, event)
  fillService(event, cluster, provenance)

  if (!trusted) {
    event.reason = 'untrusted_source'
    return
  }
  const authenticated = event.kind !== 'handshake' || downstreamTls === null
  fillPeers(record, event, provenance, cluster, authenticated)
  fillEndUser(record, event)
  if (record.outcomeAmbiguous) return
  decideEnvoy(event, {
    istio,
    isRequest,
    status: event.status,
    flags,
    details,
    terminationDetails: termination,
    upstreamAnswered:
      details === 'via_upstream' || (details === null && upstreamHost !== null && isRequest),
    noFilterChain: noFilterChain || (event.kind === 'handshake' && flags?.codes.has('NR') === true),
    blackHole: cluster.blackHole || record.values[field.route_name] === 'block_all',
    sniPresent: event.sni !== null,
    upstreamTls,
    downstreamTls,
    bytesOut: event.bytes_out,
  })
  decideDryRun(
    event,
    record.text(field.dry_run_deny_result),
    record.text(field.dry_run_deny_policy),
    record.text(field.dry_run_allow_result),
    record.text(field.dry_run_allow_policy),
  )
  if (record.peersAmbiguous && event.verdict !== 'denied') {
    // Egress blocks and copies of denials are told by cluster and direction, which nobody knows here.
    event.verdict = null
    event.decided_by = null
    event.reason = null
    record.ambiguous = [...record.ambiguous, 'verdict']
  }
}

const noCluster: UpstreamCluster = {
  istio: false,
  direction: null,
  waypoint: false,
  blackHole: false,
  service: null,
  namespace: null,
}

function fillTime(record: EnvoyRecord, event: AuditEvent): void {
  const start = record.values[field.start_time]
  if (typeof start === 'string') {
    const fixed = fixedWidthUs(start)
    if (fixed >= 0) {
      event.ts = fixed
      // Three digits come back from µs that are whole milliseconds; six do not.
      if (start.length === 24) record.held[field.start_time] = 1
    } else {
      event.ts = parseTimestamp(start)?.us ?? null
    }
  } else if (typeof start === 'number') event.ts = epochUs(start)

  const duration = record.values[field.duration]
  if (typeof duration === 'number' && duration >= 0 && duration < 1e12) {
    event.duration_us = Math.round(duration * 1000)
    if (Number.isInteger(duration)) record.held[field.duration] = 1
  } else {
    const ms = record.count(field.duration, 1e12)
    if (ms !== null) event.duration_us = ms * 1000
  }
}

function fillRequest(record: EnvoyRecord, event: AuditEvent): void {
  event.method = record.hold(field.method)
  event.protocol = record.hold(field.protocol)
  event.host = record.hold(field.authority)
  event.user_agent = record.hold(field.user_agent)
  event.request_id = record.hold(field.request_id)
  event.sni = record.hold(field.requested_server_name)
  event.tls_version = record.hold(field.downstream_tls_version)
  event.bytes_in = record.count(field.bytes_received, Number.MAX_SAFE_INTEGER)
  event.bytes_out = record.count(field.bytes_sent, Number.MAX_SAFE_INTEGER)

  const status = record.count(field.response_code, u32Max)
  // 0 is how Envoy spells "no response".
  event.status = status === 0 ? null : status

  const path = record.hold(field.path)
  if (path !== null) {
    const mark = path.indexOf('?')
    if (mark < 0) event.path = path
    else {
      event.path = mark === 0 ? null : path.slice(0, mark)
      event.query = mark === path.length - 1 ? null : path.slice(mark + 1)
      if (event.path === null || event.query === null) record.held[field.path] = 0
    }
  }

  const grpc = record.values[field.grpc_status]
  if (grpc !== null) {
    const named = typeof grpc === 'string' ? grpcNames.indexOf(grpc) : -1
    event.grpc_status = named >= 0 ? named : record.count(field.grpc_status, u32Max)
  }

  event.trace_id = record.hold(field.trace_id)
  if (event.trace_id === null) {
    // W3C trace context: version-traceid-parentid-flags.
    const parent = record.text(field.traceparent)
    const match = parent === null ? null : /^[0-9a-f]{2}-([0-9a-f]{32})-/.exec(parent)
    event.trace_id = match?.[1] ?? null
  }
}

function directionOf(
  record: EnvoyRecord,
  cluster: UpstreamCluster,
  refusedAtListener: boolean,
): 'inbound' | 'outbound' | null {
  if (cluster.direction !== null) return cluster.direction
  const stated = record.text(field.direction)?.toLowerCase()
  if (stated === 'inbound' || stated === 'outbound') {
    if (stated === record.values[field.direction]) record.held[field.direction] = 1
    return stated
  }
  // Istio's reporter: the side that logs.
  if (stated === 'destination') return 'inbound'
  if (stated === 'source') return 'outbound'
  if (record.values[field.route_name] === 'block_all') return 'outbound'
  // A connection turned away at the listener came in, and went no further.
  return refusedAtListener && !record.peersAmbiguous ? 'inbound' : null
}

function fillTls(event: AuditEvent, tls: TlsFailure | null): void {
  if (tls === null) return
  event.tls_failure = tls.token
  event.tls_detail = tls.detail
}

function fillAddresses(record: EnvoyRecord, event: AuditEvent): void {
  const direct = record.text(field.downstream_direct_remote_address)
  const clientPlace =
    direct === null ? field.downstream_remote_address : field.downstream_direct_remote_address
  const clientText = direct ?? record.text(field.downstream_remote_address)
  const client = clientText === null ? null : parseAddress(clientText)
  if (client !== null) {
    event.client_ip = client.ip
    event.client_port = client.port
    if (client.exact) record.held[clientPlace] = 1
  }
  if (event.direction !== 'inbound' && fillServer(record, event, field.upstream_host)) return
  if (fillServer(record, event, field.downstream_local_address)) return
  if (event.direction === 'inbound') fillServer(record, event, field.upstream_host)
}

function fillServer(record: EnvoyRecord, event: AuditEvent, place: number): boolean {
  const text = record.text(place)
  const address = text === null ? null : parseAddress(text)
  if (address === null) return false
  event.server_ip = address.ip
  event.server_port = address.port
  if (address.exact) record.held[place] = 1
  return true
}

function fillService(event: AuditEvent, cluster: UpstreamCluster, provenance: Provenance): void {
  if (cluster.service !== null) {
    event.dst_service = cluster.service
    if (cluster.direction === 'outbound' || cluster.waypoint) {
      event.dst_namespace = cluster.namespace
    }
    return
  }
  if (event.direction !== 'inbound' || event.sni === null) return
  // The caller chooses the SNI: it may name a service of this pod's own namespace, and no other.
  const service = serviceOfMeshSni(event.sni)
  if (
    service !== null &&
    service.namespace !== null &&
    service.namespace === provenance.namespace
  ) {
    event.dst_service = service.host
  }
}

function fillPeers(
  record: EnvoyRecord,
  event: AuditEvent,
  provenance: Provenance,
  cluster: UpstreamCluster,
  authenticated: boolean,
): void {
  const sidecarInbound =
    event.direction === 'inbound' && !cluster.waypoint && provenance.container === 'istio-proxy'
  const xfccText = sidecarInbound ? record.text(field.x_forwarded_client_cert) : null
  const nearest = xfccText === null ? undefined : parseXfcc(xfccText)?.at(-1)

  if (authenticated) fillPrincipal(record, event, nearest?.uri)
  if (event.direction === 'inbound') {
    event.src_namespace = event.principal_namespace
    if (!cluster.waypoint) {
      event.dst_namespace = provenance.namespace
      event.dst_workload = provenance.workload
    }
    event.dst_principal =
      holdSan(record, field.downstream_local_uri_san) ??
      holdSan(record, field.local_principal) ??
      (nearest?.by.length === 1 ? (principalOfUriSan(nearest.by[0] ?? '')?.id ?? null) : null)
  } else if (event.direction === 'outbound') {
    event.src_namespace = provenance.namespace
    event.src_workload = provenance.workload
    event.dst_principal = holdSan(record, field.upstream_peer_uri_san)
  } else {
    event.src_namespace = event.principal_namespace
  }
}

/**
 * The peer of the TLS connection; behind a waypoint the filter state that HBONE termination set; at
 * last the header that this sidecar itself appended.
 */
function fillPrincipal(
  record: EnvoyRecord,
  event: AuditEvent,
  headerUris: readonly string[] | undefined,
): void {
  const place =
    record.text(field.downstream_peer_uri_san) === null
      ? field.peer_principal
      : field.downstream_peer_uri_san
  const stated = record.text(place)
  let principal = null
  if (stated !== null) {
    // FILTER_STATE without :PLAIN prints a JSON string.
    const bare = stated.startsWith('"') && stated.endsWith('"') ? stated.slice(1, -1) : stated
    principal = principalOfUriSan(bare)
    if (principal?.id === record.values[place]) record.held[place] = 1
  } else if (headerUris !== undefined) {
    principal = principalOfUriSan(headerUris.join(','))
  }
  if (principal === null) return
  event.principal = principal.id
  event.principal_kind = principal.kind
  event.principal_namespace = principal.namespace
  event.principal_name = principal.name
}

function holdSan(record: EnvoyRecord, place: number): string | null {
  const text = record.text(place)
  const id = text === null ? null : (principalOfUriSan(text)?.id ?? null)
  if (id !== null && id === record.values[place]) record.held[place] = 1
  return id
}

/** Claims of a JWT that the proxy's jwt_authn filter had verified before it logged them. */
function fillEndUser(record: EnvoyRecord, event: AuditEvent): void {
  event.end_user = record.hold(field.end_user)
  event.end_user_issuer = record.hold(field.end_user_issuer)
  if (event.end_user !== null) return
  // Istio's request.auth.principal is `<issuer>/<subject>`; issuers are URLs, subjects rarely have a slash.
  const joined = record.text(field.request_principal)
  const slash = joined === null ? -1 : joined.lastIndexOf('/')
  if (joined === null || slash <= 0 || slash === joined.length - 1) return
  event.end_user = joined.slice(slash + 1)
  event.end_user_issuer ??= joined.slice(0, slash)
}
