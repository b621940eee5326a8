/**
 * The one table of key names under which operators print Envoy's access log fields as JSON.
 *
 * Order within a row is precedence: where a line has several, the first that is present fills the
 * column and the others stay in `attributes`. Names with dots are also nested objects.
 */
import { type FieldName, field } from '../normalise/envoy-record.ts'

/**
 * Istio's default and extended format, Envoy Gateway's default, names
 * of Envoy's own examples and of the Elastic Common Schema.
 */
const aliases: Readonly<Record<FieldName, readonly string[]>> = {
  start_time: ['start_time', 'startTime', 'time', 'timestamp', '@timestamp', 'ts'],
  method: [
    'method',
    ':method',
    'request_method',
    'http_method',
    'http.request.method',
    'request.method',
  ],
  path: [
    'x-envoy-original-path',
    'x-envoy-origin-path',
    'x_envoy_original_path',
    'path',
    ':path',
    'request_path',
    'uri_path',
    'http.request.path',
    'request.path',
    'url.path',
    'uri',
  ],
  protocol: ['protocol', 'http_protocol', 'request.protocol', 'http.protocol'],
  response_code: [
    'response_code',
    'responseCode',
    'status',
    'status_code',
    'http.response.status_code',
    'response.code',
    'response.status',
  ],
  response_flags: ['response_flags', 'responseFlags', 'response.flags', 'envoy.response_flags'],
  response_code_details: [
    'response_code_details',
    'responseCodeDetails',
    'response.code_details',
    'response.details',
    'envoy.response_code_details',
  ],
  connection_termination_details: [
    'connection_termination_details',
    'connectionTerminationDetails',
    'envoy.connection_termination_details',
  ],
  upstream_transport_failure_reason: [
    'upstream_transport_failure_reason',
    'upstreamTransportFailureReason',
    'upstream.transport_failure_reason',
  ],
  bytes_received: [
    'bytes_received',
    'bytesReceived',
    'request.bytes',
    'http.request.body.bytes',
    'bytes_in',
  ],
  bytes_sent: [
    'bytes_sent',
    'bytesSent',
    'response.bytes',
    'http.response.body.bytes',
    'bytes_out',
  ],
  duration: ['duration', 'duration_ms', 'request_duration', 'response.duration'],
  upstream_service_time: [
    'upstream_service_time',
    'x-envoy-upstream-service-time',
    'x_envoy_upstream_service_time',
    'upstreamServiceTime',
  ],
  x_forwarded_for: ['x_forwarded_for', 'x-forwarded-for', 'xForwardedFor'],
  user_agent: [
    'user_agent',
    'user-agent',
    'userAgent',
    'user_agent.original',
    'request.user_agent',
  ],
  request_id: [
    'request_id',
    'x-request-id',
    'x_request_id',
    'requestId',
    'request.id',
    'http.request.id',
  ],
  authority: ['authority', ':authority', 'host', 'request.authority', 'request.host', 'url.domain'],
  upstream_host: ['upstream_host', 'upstreamHost', 'upstream.host', 'upstream_address'],
  upstream_cluster: [
    'upstream_cluster',
    'upstream_cluster_raw',
    'upstreamCluster',
    'upstream.cluster',
    'envoy.upstream_cluster',
  ],
  upstream_local_address: [
    'upstream_local_address',
    'upstreamLocalAddress',
    'upstream.local_address',
  ],
  downstream_local_address: [
    'downstream_local_address',
    'downstreamLocalAddress',
    'downstream.local_address',
  ],
  downstream_remote_address: [
    'downstream_remote_address',
    'downstreamRemoteAddress',
    'downstream.remote_address',
  ],
  requested_server_name: [
    'requested_server_name',
    'requestedServerName',
    'downstream.requested_server_name',
    'sni',
  ],
  route_name: ['route_name', 'routeName', 'route.name'],
  downstream_transport_failure_reason: [
    'downstream_transport_failure_reason',
    'downstreamTransportFailureReason',
    'downstream.transport_failure_reason',
  ],
  downstream_direct_remote_address: [
    'downstream_direct_remote_address',
    'downstreamDirectRemoteAddress',
    'downstream.direct_remote_address',
  ],
  downstream_peer_uri_san: [
    'downstream_peer_uri_san',
    'downstreamPeerUriSan',
    'downstream.peer_uri_san',
  ],
  downstream_local_uri_san: [
    'downstream_local_uri_san',
    'downstreamLocalUriSan',
    'downstream.local_uri_san',
  ],
  upstream_peer_uri_san: ['upstream_peer_uri_san', 'upstreamPeerUriSan', 'upstream.peer_uri_san'],
  downstream_tls_version: [
    'downstream_tls_version',
    'downstreamTlsVersion',
    'downstream.tls_version',
    'tls_version',
  ],
  peer_principal: ['peer_principal', 'io.istio.peer_principal', 'downstream_peer_principal'],
  local_principal: ['local_principal', 'io.istio.local_principal'],
  x_forwarded_client_cert: ['x_forwarded_client_cert', 'x-forwarded-client-cert', 'xfcc'],
  dry_run_deny_policy: ['dry_run_deny_policy', 'istio_dry_run_deny_shadow_effective_policy_id'],
  dry_run_deny_result: ['dry_run_deny_result', 'istio_dry_run_deny_shadow_engine_result'],
  dry_run_allow_policy: ['dry_run_allow_policy', 'istio_dry_run_allow_shadow_effective_policy_id'],
  dry_run_allow_result: ['dry_run_allow_result', 'istio_dry_run_allow_shadow_engine_result'],
  grpc_status: [
    'grpc_status',
    'grpc_status_number',
    'grpc-status',
    'grpcStatus',
    'response.grpc_status',
  ],
  trace_id: ['trace_id', 'traceId', 'trace.id', 'x_b3_traceid', 'x-b3-traceid', 'b3_trace_id'],
  traceparent: ['traceparent'],
  end_user: ['end_user', 'jwt_sub', 'jwt.sub', 'jwt_subject', 'request_auth_claims.sub'],
  end_user_issuer: [
    'end_user_issuer',
    'jwt_iss',
    'jwt.iss',
    'jwt_issuer',
    'request_auth_claims.iss',
  ],
  request_principal: ['request_principal', 'request_auth_principal', 'request.auth.principal'],
  direction: ['direction', 'traffic_direction', 'reporter'],
}

export type KeyMeaning = {
  readonly place: number
  /** 0 is the first choice for its field. */
  readonly rank: number
}

/** Any accepted key → its field. */
export const meaningOfKey: ReadonlyMap<string, KeyMeaning> = new Map(
  Object.entries(aliases).flatMap(([name, keys]) =>
    keys.map((key, rank) => [key, { place: placeOf(name), rank }] as const),
  ),
)

/** Fields no other program's JSON log has: two of them, and an outcome, make an Envoy access log line. */
export const envoyOnly: ReadonlySet<number> = new Set([
  field.response_flags,
  field.response_code_details,
  field.connection_termination_details,
  field.upstream_transport_failure_reason,
  field.downstream_transport_failure_reason,
  field.upstream_host,
  field.upstream_cluster,
  field.upstream_local_address,
  field.upstream_service_time,
  field.downstream_local_address,
  field.downstream_remote_address,
  field.downstream_direct_remote_address,
  field.downstream_peer_uri_san,
  field.requested_server_name,
  field.route_name,
])

export const outcomeFields: ReadonlySet<number> = new Set([
  field.response_code,
  field.response_flags,
  field.response_code_details,
  field.connection_termination_details,
])

/** Keys only Istio's own formats have. */
export const istioKeys: ReadonlySet<string> = new Set([
  'istio_policy_status',
  'io.istio.peer_principal',
  'io.istio.local_principal',
  'istio_dry_run_deny_shadow_engine_result',
  'istio_dry_run_allow_shadow_engine_result',
])

function placeOf(name: string): number {
  for (const [known, place] of Object.entries(field)) if (known === name) return place
  throw new Error(`BUG: no Envoy field ${name}`)
}
