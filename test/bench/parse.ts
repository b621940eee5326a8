/**
 * Measures parse and normalise: µs for a line, each format by itself, best of several rounds.
 *
 *   bun test/bench/parse.ts [lines]
 */
import { LineParser } from '../../agent/sources/sources.ts'
import type { Line, Provenance } from '../../agent/tail/chunk.ts'

const linesCount = Number(process.argv[2] ?? 20_000)
const rounds = 9
const provenance: Provenance = {
  trust: 'proxy',
  namespace: 'shop',
  pod: 'cart-7d4f8b9c5-x2x7k',
  podUid: null,
  container: 'istio-proxy',
  workload: 'cart',
}
const apiServer: Provenance = { ...provenance, trust: 'api_server', container: 'kube-apiserver' }

function two(index: number): string {
  return String(index % 60).padStart(2, '0')
}

/** The extended format of an operator who reads the documentation: about 960 bytes. */
function envoyJson(i: number): string {
  const denied = i % 20 === 0
  return JSON.stringify({
    start_time: `2026-11-20T10:${two(i >> 6)}:${two(i)}.${String(i % 1000).padStart(3, '0')}Z`,
    method: i % 3 === 0 ? 'POST' : 'GET',
    path: `/api/v1/carts/${i * 7919}/items?page=${i % 10}`,
    protocol: 'HTTP/1.1',
    response_code: denied ? 403 : 200,
    response_flags: '-',
    response_code_details: denied
      ? 'rbac_access_denied_matched_policy[ns[shop]-policy[cart-read-only]-rule[0]]'
      : 'via_upstream',
    connection_termination_details: null,
    upstream_transport_failure_reason: null,
    downstream_peer_uri_san: `spiffe://cluster.local/ns/shop/sa/front-${i % 40}`,
    downstream_local_uri_san: 'spiffe://cluster.local/ns/shop/sa/cart',
    downstream_tls_version: 'TLSv1.3',
    bytes_received: i % 512,
    bytes_sent: denied ? 19 : 1024 + (i % 4096),
    duration: i % 300,
    upstream_service_time: String(i % 290),
    x_forwarded_for: null,
    user_agent: 'python-requests/2.32.3',
    request_id: `8b8aedf5-e4e1-42af-a7e3-${String(i).padStart(12, '0')}`,
    authority: 'cart.shop.svc.cluster.local:8080',
    upstream_host: denied ? null : '10.244.3.17:8080',
    upstream_cluster: 'inbound|8080||',
    upstream_local_address: `127.0.0.6:${40000 + (i % 20000)}`,
    downstream_local_address: '10.244.3.17:8080',
    downstream_remote_address: `10.244.${i % 200}.${i % 250}:${30000 + (i % 30000)}`,
    requested_server_name: 'outbound_.8080_._.cart.shop.svc.cluster.local',
    route_name: 'default',
  })
}

function envoyText(i: number): string {
  const time = `2026-11-20T10:${two(i >> 6)}:${two(i)}.${String(i % 1000).padStart(3, '0')}Z`
  return `[${time}] "GET /api/v1/carts/${i * 7919}/items?page=${i % 10} HTTP/1.1" 200 - via_upstream - "-" 0 ${i % 4096} ${i % 300} ${i % 290} "-" "python-requests/2.32.3" "8b8aedf5-e4e1-42af-a7e3-${String(i).padStart(12, '0')}" "cart.shop:8080" "10.244.3.17:8080" inbound|8080|| 127.0.0.6:${40000 + (i % 20000)} 10.244.3.17:8080 10.244.${i % 200}.${i % 250}:${30000 + (i % 30000)} outbound_.8080_._.cart.shop.svc.cluster.local default`
}

function audit(i: number): string {
  return JSON.stringify({
    kind: 'Event',
    apiVersion: 'audit.k8s.io/v1',
    level: 'Metadata',
    auditID: `8b8aedf5-e4e1-42af-a7e3-${String(i).padStart(12, '0')}`,
    stage: 'ResponseComplete',
    requestURI: `/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/l${i % 50}?timeout=5s`,
    verb: 'update',
    user: {
      username: 'system:serviceaccount:kube-system:controller',
      uid: 'a20761b8-1a36-4318-a048-96d61644b436',
      groups: ['system:serviceaccounts', 'system:authenticated'],
    },
    sourceIPs: ['10.0.0.5'],
    userAgent: 'controller/v1.31.0 (linux/amd64) kubernetes/9edcffc',
    objectRef: {
      resource: 'leases',
      namespace: 'kube-system',
      name: `l${i % 50}`,
      apiGroup: 'coordination.k8s.io',
      apiVersion: 'v1',
    },
    responseStatus: { metadata: {}, code: 200 },
    requestReceivedTimestamp: '2026-11-20T10:00:01.000001Z',
    stageTimestamp: '2026-11-20T10:00:01.010000Z',
    annotations: { 'authorization.k8s.io/decision': 'allow', 'authorization.k8s.io/reason': '' },
  })
}

function lineOf(content: string): Line {
  const rawBuffer = new TextEncoder().encode(content)
  return {
    rawBuffer,
    rawStart: 0,
    rawEnd: rawBuffer.length,
    ranges: [0, rawBuffer.length],
    content,
    stream: 'stdout',
    wrapperUs: null,
    lossy: false,
    truncated: false,
    unterminated: false,
  }
}

function best(run: () => void): number {
  let least = Number.POSITIVE_INFINITY
  for (let round = 0; round < rounds; round += 1) {
    const start = performance.now()
    run()
    least = Math.min(least, performance.now() - start)
  }
  return (least * 1000) / linesCount
}

function measure(name: string, make: (i: number) => string, from: Provenance): void {
  const lines = Array.from({ length: linesCount }, (_, i) => lineOf(make(i)))
  const bytes = lines.reduce((sum, line) => sum + line.rawEnd, 0) / linesCount
  const parser = new LineParser({ cluster: 'c', node: 'n' })
  let attributes = 0
  const us = best(() => {
    for (const line of lines) {
      const event = parser.parse(line, from, '0'.repeat(32), 1)
      if (event.reason === 'unparsed') throw new Error(`unparsed: ${line.content}`)
      // Flattens the rope, which whoever encodes the column pays otherwise.
      attributes += event.attributes?.charCodeAt(event.attributes.length - 1) ?? 0
    }
  })
  const jsonUs = best(() => {
    for (const line of lines) if (line.content.startsWith('{')) JSON.parse(line.content)
  })
  const json = jsonUs > 0.05 ? `, JSON.parse alone ${jsonUs.toFixed(2)}` : ''
  console.log(
    `${name}: ${us.toFixed(2)} µs a line of ${bytes.toFixed(0)} bytes${json} (${attributes % 2})`,
  )
}

measure('envoy json', envoyJson, provenance)
measure('envoy text', envoyText, provenance)
measure('k8s audit', audit, apiServer)
