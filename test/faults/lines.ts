/** Numbered access-log lines as containerd writes them; every 50th is refused, which a shipped rule finds. */

/** Whether a rule finds this line. */
export function isDenied(number: number): boolean {
  return number % 50 === 0
}

/** One line, wrapper and newline included. `number` comes back as the request id. */
export function criLine(number: number, timeMs = firstMs + number): string {
  return `${stamp(timeMs)} stdout F ${content(number, timeMs)}\n`
}

/** The same in two pieces, as containerd cuts lines that are too long for one. */
export function criLineInPieces(number: number, timeMs = firstMs + number): string {
  const text = content(number, timeMs)
  const at = 1 + (number % (text.length - 1))
  const time = stamp(timeMs)
  return `${time} stdout P ${text.slice(0, at)}\n${time} stdout F ${text.slice(at)}\n`
}

const firstMs = 1_767_312_000_000

function stamp(timeMs: number): string {
  return `${new Date(timeMs).toISOString().slice(0, 23)}000000Z`
}

function content(number: number, timeMs: number): string {
  const time = new Date(timeMs).toISOString()
  const denied = isDenied(number)
  const record = {
    start_time: time,
    method: 'GET',
    path: `${denied ? '/admin' : '/items'}/${number % 97}`,
    protocol: 'HTTP/1.1',
    response_code: denied ? 403 : 200,
    response_flags: '-',
    response_code_details: denied
      ? 'rbac_access_denied_matched_policy[ns[prod]-policy[deny-admin]-rule[0]]'
      : 'via_upstream',
    connection_termination_details: null,
    bytes_received: 0,
    bytes_sent: denied ? 19 : 512,
    duration: number % 40,
    user_agent: 'load/1.0',
    request_id: `line-${number}`,
    authority: 'payments.prod.svc.cluster.local',
    upstream_host: denied ? null : '10.1.2.3:8080',
    upstream_cluster: 'inbound|8080||',
    downstream_local_address: '10.1.2.3:8080',
    downstream_remote_address: '10.9.8.7:41234',
    downstream_peer_uri_san: 'spiffe://cluster.local/ns/shop/sa/frontend',
    requested_server_name: 'outbound_.8080_._.payments.prod.svc.cluster.local',
    route_name: 'default',
  }
  return JSON.stringify(record)
}
