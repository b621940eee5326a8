/** Access-log lines of about 960 bytes as a busy sidecar writes them, in a CRI wrapper. */

const methods = ['GET', 'GET', 'GET', 'POST', 'PUT']
const agents = ['Go-http-client/2.0', 'grpc-go/1.64.0', 'python-requests/2.32', 'okhttp/4.12.0']

/** Deterministic: line `number` is always the same; no two are equal. */
export function accessLine(number: number): string {
  const mixed = Math.imul(number, 2_654_435_761) >>> 0
  const time = new Date(1_767_312_000_000 + number / 20).toISOString()
  const denied = mixed % 40 === 0
  const caller = mixed % 23
  const record = {
    start_time: time,
    log_kind: 'mesh-audit-v1',
    method: methods[mixed % methods.length],
    path: `/api/v1/accounts/${mixed % 5000}/orders`,
    protocol: 'HTTP/2',
    response_code: denied ? 403 : mixed % 97 === 0 ? 503 : 200,
    response_flags: mixed % 97 === 0 && !denied ? 'UF' : '-',
    response_code_details: denied
      ? 'rbac_access_denied_matched_policy[ns[prod]-policy[deny-admin]-rule[0]]'
      : 'via_upstream',
    connection_termination_details: null,
    upstream_transport_failure_reason: null,
    downstream_peer_uri_san: `spiffe://cluster.local/ns/team-${caller % 7}/sa/caller-${caller}`,
    downstream_local_uri_san: 'spiffe://cluster.local/ns/prod/sa/payments',
    downstream_tls_version: 'TLSv1.3',
    bytes_received: mixed % 900,
    bytes_sent: denied ? 19 : mixed % 20_000,
    duration: mixed % 250,
    x_forwarded_for: null,
    user_agent: agents[mixed % agents.length],
    request_id: `${mixed.toString(16).padStart(8, '0')}-1c2d-4e3f-8a9b-${number.toString(16).padStart(12, '0')}`,
    authority: 'payments.prod.svc.cluster.local:8080',
    upstream_host: denied ? null : `10.42.${caller}.7:8080`,
    upstream_cluster: 'inbound|8080||',
    upstream_local_address: `127.0.0.6:${30_000 + (mixed % 20_000)}`,
    downstream_local_address: '10.42.3.17:8080',
    downstream_remote_address: `10.42.${caller}.${mixed % 200}:${20_000 + (mixed % 40_000)}`,
    requested_server_name: 'outbound_.8080_._.payments.prod.svc.cluster.local',
    route_name: 'default',
  }
  return `${time.slice(0, 23)}000000Z stdout F ${JSON.stringify(record)}\n`
}
