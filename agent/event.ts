/**
 * The one event: every column of the `events` table, in order, with its type and meaning.
 *
 * The Parquet schema, the SQL views and the generated documentation come from `columns`.
 * What is not here: how a line becomes an event (`sources/`), how rows are laid out (`store/`).
 */

export const sources = [
  'istio.access',
  'istio.ztunnel',
  'istio.istiod',
  'envoy.access',
  'linkerd.access',
  'linkerd.proxy',
  'linkerd.control',
  'consul.access',
  'consul.audit',
  'consul.agent',
  'k8s.audit',
  'cilium.flow',
  'nginx.access',
  'meshtrail',
  /** A line no parser knows, from a file whose source cannot be told. */
  'unknown',
] as const
export type Source = (typeof sources)[number]

export const kinds = [
  'request',
  'connection',
  'handshake',
  'policy_change',
  'config_change',
  'certificate',
  'api_call',
  'finding',
  'gap',
  'access',
  'lifecycle',
  'other',
] as const
export type Kind = (typeof kinds)[number]

export type Verdict = 'allowed' | 'denied' | 'errored' | 'would_deny'
export type DecidedBy = 'this_proxy' | 'peer_proxy' | 'application' | 'api_server'
export type PrincipalKind = 'spiffe' | 'service_account' | 'user' | 'token'

/** The closed list of `reason`. */
export const reasons = [
  'rbac_denied',
  'rbac_no_match',
  'ext_authz_denied',
  'ext_authz_error',
  'jwt_invalid',
  'tls_handshake_failed',
  'plaintext_refused',
  'no_filter_chain',
  'no_route',
  'egress_blocked',
  'rate_limited',
  'fault_injected',
  'upstream_failed',
  'downstream_disconnected',
  'timeout',
  'overloaded',
  'protocol_error',
  'admission_rejected',
  'unauthenticated',
  'forbidden',
  'denied_by_peer',
  'untrusted_source',
  'unparsed',
] as const
export type Reason = (typeof reasons)[number]

/**
 * One event, flat, columns in table order. Null means absent; absent is never `''` or `'-'`.
 * Times are microseconds since the epoch, UTC. `raw` is a view on `rawBuffer`, which the event
 * borrows from the chunk it was read in and which nobody may change.
 */
export type AuditEvent = {
  ts: number | null
  observed_ts: number

  cluster: string | null
  node: string | null
  namespace: string | null
  pod: string | null
  container: string | null
  workload: string | null

  source: Source
  mesh: string | null
  plane: 'data' | 'control' | null
  kind: Kind
  direction: 'inbound' | 'outbound' | null

  verdict: Verdict | null
  decided_by: DecidedBy | null
  reason: Reason | null
  policy: string | null
  policy_kind: string | null
  policy_rule: string | null
  tls_version: string | null
  tls_failure: string | null
  tls_detail: string | null

  principal: string | null
  principal_kind: PrincipalKind | null
  principal_namespace: string | null
  principal_name: string | null
  end_user: string | null
  end_user_issuer: string | null
  on_behalf_of: string | null
  src_namespace: string | null
  src_workload: string | null
  client_ip: string | null
  client_port: number | null
  user_agent: string | null

  dst_principal: string | null
  dst_namespace: string | null
  dst_workload: string | null
  dst_service: string | null
  server_ip: string | null
  server_port: number | null
  sni: string | null

  method: string | null
  host: string | null
  path: string | null
  query: string | null
  protocol: string | null
  status: number | null
  grpc_status: number | null
  response_flags: string | null
  bytes_in: number | null
  bytes_out: number | null
  duration_us: number | null
  request_id: string | null
  trace_id: string | null

  api_group: string | null
  resource: string | null
  subresource: string | null
  object_namespace: string | null
  object_name: string | null
  change: string | null

  attributes: string | null
  rawBuffer: Uint8Array
  rawStart: number
  rawEnd: number

  /** File generation, 32 hex digits; '' for the agent's own events. */
  gen: string
  /** Where the raw bytes lie in the generation: offset, length, offset, length, … */
  ranges: readonly number[]
  stream: '' | 'stdout' | 'stderr'
}

/**
 * An event with every column absent. All events are made here, so that they share one hidden class
 * and the column loops of the store stay monomorphic.
 */
export function newEvent(observedUs: number): AuditEvent {
  return {
    ts: null,
    observed_ts: observedUs,
    cluster: null,
    node: null,
    namespace: null,
    pod: null,
    container: null,
    workload: null,
    source: 'unknown',
    mesh: null,
    plane: null,
    kind: 'other',
    direction: null,
    verdict: null,
    decided_by: null,
    reason: null,
    policy: null,
    policy_kind: null,
    policy_rule: null,
    tls_version: null,
    tls_failure: null,
    tls_detail: null,
    principal: null,
    principal_kind: null,
    principal_namespace: null,
    principal_name: null,
    end_user: null,
    end_user_issuer: null,
    on_behalf_of: null,
    src_namespace: null,
    src_workload: null,
    client_ip: null,
    client_port: null,
    user_agent: null,
    dst_principal: null,
    dst_namespace: null,
    dst_workload: null,
    dst_service: null,
    server_ip: null,
    server_port: null,
    sni: null,
    method: null,
    host: null,
    path: null,
    query: null,
    protocol: null,
    status: null,
    grpc_status: null,
    response_flags: null,
    bytes_in: null,
    bytes_out: null,
    duration_us: null,
    request_id: null,
    trace_id: null,
    api_group: null,
    resource: null,
    subresource: null,
    object_namespace: null,
    object_name: null,
    change: null,
    attributes: null,
    rawBuffer: noBytes,
    rawStart: 0,
    rawEnd: 0,
    gen: '',
    ranges: [],
    stream: '',
  }
}

const noBytes = new Uint8Array(0)

/** How a column is stored: `utf8` and `json` as strings, `time` as µs, `u64`/`u32`/`i64` as integers. */
export type ColumnType = 'utf8' | 'json' | 'time' | 'u64' | 'i64' | 'u32' | 'bytes'

export type Column = {
  readonly name: string
  readonly type: ColumnType
  /** Not in the `events` view: provenance and storage, covered by the leaf. */
  readonly hidden: boolean
  readonly nullable: boolean
  readonly meaning: string
}

function column(name: string, type: ColumnType, meaning: string): Column {
  return { name, type, hidden: name.startsWith('_'), nullable: true, meaning }
}
function required(name: string, type: ColumnType, meaning: string): Column {
  return { name, type, hidden: name.startsWith('_'), nullable: false, meaning }
}

/** The stored columns in order. `log_origin` is the same for a whole file and lives in its metadata. */
export const columns: readonly Column[] = [
  required('leaf_index', 'u64', 'position in the log; with log_origin the id of the event'),
  column('ts', 'time', 'the time the source states, UTC'),
  required('observed_ts', 'time', 'when the agent read the line, UTC'),
  required('time', 'time', 'ts if present, else observed_ts: what filters and order use'),
  column('cluster', 'utf8', 'cluster of the reporter'),
  column('node', 'utf8', 'node of the reporter'),
  column('namespace', 'utf8', 'namespace of the reporter: whose log this is'),
  column('pod', 'utf8', 'pod of the reporter'),
  column('container', 'utf8', 'container of the reporter'),
  column('workload', 'utf8', 'workload of the reporter, without the pod hash'),
  required('source', 'utf8', 'which format: istio.access, k8s.audit, meshtrail, …'),
  column('mesh', 'utf8', 'istio, linkerd, consul, cilium, or absent'),
  column('plane', 'utf8', 'data or control'),
  required('kind', 'utf8', 'request, connection, handshake, policy_change, finding, …'),
  column('direction', 'utf8', 'inbound or outbound, seen from the reporter'),
  column('verdict', 'utf8', 'allowed, denied, errored, would_deny'),
  column('decided_by', 'utf8', 'this_proxy, peer_proxy, application, api_server'),
  column('reason', 'utf8', 'why it was not simply allowed; a closed list'),
  column('policy', 'utf8', 'namespace/name of the policy that decided'),
  column('policy_kind', 'utf8', 'AuthorizationPolicy, PeerAuthentication, …'),
  column('policy_rule', 'utf8', 'which rule of the policy, from 0'),
  column('tls_version', 'utf8', 'TLS version of the connection'),
  column('tls_failure', 'utf8', 'token such as CERTIFICATE_VERIFY_FAILED'),
  column('tls_detail', 'utf8', 'the rest of what the proxy said of the TLS failure'),
  column('principal', 'utf8', 'the authenticated peer'),
  column('principal_kind', 'utf8', 'spiffe, service_account, user, token'),
  column('principal_namespace', 'utf8', 'namespace within the principal'),
  column('principal_name', 'utf8', 'service account or user name within the principal'),
  column('end_user', 'utf8', 'subject of the JWT'),
  column('end_user_issuer', 'utf8', 'issuer of the JWT'),
  column('on_behalf_of', 'utf8', 'impersonated user'),
  column('src_namespace', 'utf8', 'namespace of the caller'),
  column('src_workload', 'utf8', 'workload of the caller'),
  column('client_ip', 'utf8', 'address of the caller, without port'),
  column('client_port', 'u32', 'port of the caller'),
  column('user_agent', 'utf8', 'user agent as sent: not authenticated'),
  column('dst_principal', 'utf8', 'identity of the called side'),
  column('dst_namespace', 'utf8', 'namespace of the called side'),
  column('dst_workload', 'utf8', 'workload of the called side'),
  column('dst_service', 'utf8', 'service that was called'),
  column('server_ip', 'utf8', 'address of the called side, without port'),
  column('server_port', 'u32', 'port of the called side'),
  column('sni', 'utf8', 'server name of the TLS handshake'),
  column('method', 'utf8', 'HTTP method or Kubernetes verb'),
  column('host', 'utf8', 'HTTP authority'),
  column('path', 'utf8', 'path without query'),
  column('query', 'utf8', 'query string without the question mark'),
  column('protocol', 'utf8', 'HTTP/1.1, HTTP/2, TCP, …'),
  column('status', 'u32', 'HTTP status; absent where there was no response'),
  column('grpc_status', 'u32', 'gRPC status'),
  column('response_flags', 'utf8', 'Envoy response flags, sorted, comma separated'),
  column('bytes_in', 'i64', 'bytes received from the caller'),
  column('bytes_out', 'i64', 'bytes sent to the caller'),
  column('duration_us', 'i64', 'duration in microseconds'),
  column('request_id', 'utf8', 'x-request-id or audit id'),
  column('trace_id', 'utf8', 'trace id'),
  column('api_group', 'utf8', 'API group of the Kubernetes object; absent for the core group'),
  column('resource', 'utf8', 'resource of the Kubernetes object, plural'),
  column('subresource', 'utf8', 'subresource of the Kubernetes object'),
  column('object_namespace', 'utf8', 'namespace of the Kubernetes object'),
  column('object_name', 'utf8', 'name of the Kubernetes object'),
  column('change', 'json', 'before and after, where known'),
  column('attributes', 'json', 'every source field without a column of its own'),
  required('raw', 'bytes', 'the exact bytes of the file: wrapper and terminator included'),
  required('_gen', 'utf8', 'file generation'),
  column('_offset', 'i64', 'where the raw bytes begin in the generation'),
  column('_length', 'i64', 'how many there are'),
  column('_ranges', 'utf8', 'offset+length, comma separated, where they are in several places'),
  required('_stream', 'utf8', 'stdout, stderr or empty'),
]

export const parserVersion = 1
/** The `_schema` of every row of a file, kept in its metadata: bump it when `columns` changes. */
export const schemaVersion = 1
