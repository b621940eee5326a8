/**
 * What is done to the mesh and what must come of it: for each case the traffic, the lines Envoy writes
 * (recognised by plain facts of the line) and the event each line is.
 *
 * A case that passes a sidecar on either side has two lines, one per reporter. Every access-log line of
 * a run belongs to exactly one `ExpectedLine`.
 */
import { spiffeId } from './certificates.ts'
import { type DirectClient, type Mesh, services, type Workload } from './mesh.ts'
import {
  answeredByApplication,
  denied,
  deniedByNoMatch,
  type Outcome,
  outcome,
  served,
  tcpServed,
  wouldDeny,
} from './outcomes.ts'
import { exchange, httpRequest, type Reply, type Target } from './traffic.ts'

export type Fact = string | number | null

export type ExpectedLine = {
  readonly reporter: Workload
  /** A JSON line: these keys have these values. A text line: these strings are in it, in this order. */
  readonly facts: Readonly<Record<string, Fact>> | readonly string[]
  readonly outcome: Outcome
}

type Facts = Readonly<Record<string, Fact>>

export type Case = {
  readonly name: string
  /** How often in one round. */
  readonly count: number
  /** The status the client must see; null when there is no HTTP response. */
  readonly status: number | null
  readonly lines: readonly ExpectedLine[]
  readonly send: (mesh: Mesh, requestId: string) => Promise<Reply>
}

const frontend = spiffeId('shop', 'frontend')
const debugShell = spiffeId('dev', 'debug-shell')

const rbac = 'rbac_access_denied_matched_policy'

/** 20,000 bytes: with the rest of the line more than one 16 KiB piece of a container's log. */
const longUserAgent = `Mozilla/5.0 (${'compatible; '.repeat(1_665)})`
/** Ends a JSON string and begins another key; `\x9b` is a terminal's escape in one byte, and no UTF-8. */
const hostileUserAgent =
  'x","response_code":200,"response_code_details":"via_upstream","y":"\\u0000 \x9b31m \'<script>'
/** Ends the quoted column of the text format and goes on with columns of its own. */
const columnsUserAgent =
  'x" "00000000-0000-4000-8000-000000000000" "evil.example" "203.0.113.9:1" outbound|1||evil - - - - -'
const utf8UserAgent = Buffer.from('café/1.0 “quoted” ✓', 'utf8').toString('latin1')

export const cases: readonly Case[] = [
  ...paymentsHttp(),
  ...ledgerHttp(),
  ...failedCalls(),
  ...hostileRequests(),
  ...refusedHandshakes(),
  ...tcpConnections(),
]

function seenBy(reporter: Workload, facts: Facts, meaning: Outcome): ExpectedLine {
  return { reporter, facts, outcome: meaning }
}

function paymentsHttp(): Case[] {
  const reached = {
    authority: `${services.payments}:8080`,
    upstream_cluster: `outbound|8080||${services.payments}`,
  }
  const identified = { downstream_peer_uri_san: frontend, upstream_cluster: 'inbound|8080||' }
  const called = (facts: Facts, meaning: Outcome): ExpectedLine =>
    seenBy('frontend', { ...reached, response_code_details: 'via_upstream', ...facts }, meaning)
  const answered = (facts: Facts, meaning: Outcome): ExpectedLine =>
    seenBy('payments', { ...identified, ...facts }, meaning)
  const viaUpstream = { response_code_details: 'via_upstream' }
  const denial = (method: string, path: string, found: string, outcomeOfDenial: Outcome) => {
    const facts = { method, path, response_code: 403, bytes_sent: 19 }
    return [
      called(facts, outcome.calledAndDeniedByPeer),
      answered({ ...facts, response_code_details: `${rbac}[${found}]` }, outcomeOfDenial),
    ]
  }
  const get = { method: 'GET', path: '/v1/charges', response_code: 200 }
  const post = { method: 'POST', path: '/v1/charges', response_code: 200, bytes_received: 22 }
  const refused = { path: '/v1/refuse', response_code: 403, bytes_sent: 37 }
  const failed = { path: '/v1/fail', response_code: 500 }
  const exported = { path: '/v1/export', response_code: 200 }
  return [
    {
      name: 'GET allowed',
      count: 12,
      status: 200,
      send: throughFrontend('payments', '/v1/charges?order=1001&currency=EUR', {
        agent: 'checkout/2.4.1',
      }),
      lines: [
        called(get, outcome.calledAndAllowed),
        answered({ ...get, ...viaUpstream }, served(frontend)),
      ],
    },
    {
      name: 'POST allowed',
      count: 4,
      status: 200,
      send: throughFrontend('payments', '/v1/charges', {
        agent: 'okhttp/4.12.0',
        method: 'POST',
        body: '{"amount":42,"id":177}',
      }),
      lines: [
        called(post, outcome.calledAndAllowed),
        answered({ ...post, ...viaUpstream }, served(frontend)),
      ],
    },
    {
      name: 'the application answers 403 itself',
      count: 2,
      status: 403,
      send: throughFrontend('payments', '/v1/refuse', { agent: 'checkout/2.4.1' }),
      lines: [
        called(refused, outcome.calledAndAnsweredByApplication),
        answered({ ...refused, ...viaUpstream }, answeredByApplication(frontend)),
      ],
    },
    {
      name: 'the application answers 500',
      count: 2,
      status: 500,
      send: throughFrontend('payments', '/v1/fail', { agent: 'checkout/2.4.1' }),
      lines: [
        called(failed, outcome.calledAndAnsweredByApplication),
        answered({ ...failed, ...viaUpstream }, answeredByApplication(frontend)),
      ],
    },
    {
      name: 'denied by a DENY policy',
      count: 3,
      status: 403,
      send: throughFrontend('payments', '/admin/users', { agent: 'curl/8.9.1' }),
      lines: denial(
        'GET',
        '/admin/users',
        'ns[prod]-policy[deny-admin]-rule[0]',
        denied('prod/deny-admin', '0', frontend),
      ),
    },
    {
      name: 'denied by the second rule of a DENY policy',
      count: 1,
      status: 403,
      send: throughFrontend('payments', '/v1/charges/1001', {
        agent: 'curl/8.9.1',
        method: 'DELETE',
      }),
      lines: denial(
        'DELETE',
        '/v1/charges/1001',
        'ns[prod]-policy[deny-admin]-rule[1]',
        denied('prod/deny-admin', '1', frontend),
      ),
    },
    {
      name: 'denied because no ALLOW policy matches the path',
      count: 2,
      status: 403,
      send: throughFrontend('payments', '/metrics', { agent: 'Prometheus/3.1.0' }),
      lines: denial('GET', '/metrics', 'none', deniedByNoMatch(frontend)),
    },
    {
      name: 'denied because no ALLOW policy matches the principal',
      count: 2,
      status: 403,
      send: direct('paymentsHttp', 'debugShell', '/v1/charges', 'python-requests/2.32.3'),
      lines: [
        answered(
          {
            downstream_peer_uri_san: debugShell,
            response_code: 403,
            response_code_details: `${rbac}[none]`,
          },
          deniedByNoMatch(debugShell),
        ),
      ],
    },
    {
      name: 'would be denied by a dry-run policy',
      count: 2,
      status: 200,
      send: throughFrontend('payments', '/v1/export', { agent: 'reporting/0.9' }),
      lines: [
        called(exported, outcome.calledAndAllowed),
        answered(
          {
            ...exported,
            dry_run_deny_result: 'denied',
            dry_run_deny_policy: 'ns[prod]-policy[freeze-exports]-rule[0]',
          },
          wouldDeny('prod/freeze-exports', '0', frontend),
        ),
      ],
    },
  ]
}

function toLedger(facts: Facts, meaning: Outcome): ExpectedLine {
  const upstream = { upstream_cluster: `outbound|8080||${services.ledger}` }
  return seenBy('frontend', { ...upstream, ...facts }, meaning)
}
function atLedger(request: string, rest: string, meaning: Outcome): ExpectedLine {
  const fragments = [`"${request} HTTP/1.1" ${rest} `, ' inbound|8080|| ']
  return { reporter: 'ledger', facts: fragments, outcome: meaning }
}

function ledgerHttp(): Case[] {
  return [
    {
      name: 'text: allowed, with a query string',
      count: 6,
      status: 200,
      send: throughFrontend('ledger', '/v1/entries?account=42&limit=10', {
        agent: 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)',
      }),
      lines: [
        toLedger({ path: '/v1/entries', response_code: 200 }, outcome.calledAndAllowed),
        atLedger('GET /v1/entries?account=42&limit=10', '200 - via_upstream', served(null)),
      ],
    },
    {
      name: 'text: the application answers 403 itself',
      count: 1,
      status: 403,
      send: throughFrontend('ledger', '/v1/refuse', { agent: 'checkout/2.4.1' }),
      lines: [
        toLedger(
          { path: '/v1/refuse', response_code: 403, bytes_sent: 37 },
          outcome.calledAndAnsweredByApplication,
        ),
        atLedger('GET /v1/refuse', '403 - via_upstream', answeredByApplication(null)),
      ],
    },
    {
      name: 'text: the application answers 500',
      count: 1,
      status: 500,
      send: throughFrontend('ledger', '/v1/fail', { agent: 'checkout/2.4.1' }),
      lines: [
        toLedger({ path: '/v1/fail', response_code: 500 }, outcome.calledAndAnsweredByApplication),
        atLedger('GET /v1/fail', '500 - via_upstream', answeredByApplication(null)),
      ],
    },
    {
      name: 'text: denied by a DENY policy',
      count: 2,
      status: 403,
      send: throughFrontend('ledger', '/v1/close', {
        agent: 'curl/8.9.1',
        method: 'POST',
        body: '',
      }),
      lines: [
        toLedger(
          { path: '/v1/close', response_code: 403, bytes_sent: 19 },
          outcome.calledAndDeniedByPeer,
        ),
        atLedger(
          'POST /v1/close',
          `403 - ${rbac}[ns[prod]-policy[ledger-freeze]-rule[0]]`,
          denied('prod/ledger-freeze', '0', null),
        ),
      ],
    },
    {
      name: 'text: denied because no ALLOW policy matches',
      count: 2,
      status: 403,
      send: throughFrontend('ledger', '/internal/dump', { agent: 'curl/8.9.1' }),
      lines: [
        toLedger(
          { path: '/internal/dump', response_code: 403, bytes_sent: 19 },
          outcome.calledAndDeniedByPeer,
        ),
        atLedger('GET /internal/dump', `403 - ${rbac}[none]`, deniedByNoMatch(null)),
      ],
    },
  ]
}

/** Calls that `frontend` or `batch` could not complete. */
function failedCalls(): Case[] {
  const plaintextArrived: ExpectedLine = {
    reporter: 'payments',
    facts: {
      response_code: 0,
      response_flags: 'NR',
      response_code_details: 'filter_chain_not_found',
      downstream_transport_failure_reason:
        'TLS_error|error:1000009c:SSL_routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end',
      upstream_cluster: null,
    },
    outcome: outcome.plaintextRefused,
  }
  return [
    {
      name: 'the upstream is down',
      count: 2,
      status: 503,
      send: throughFrontend('offline', '/v1/ping', { agent: 'checkout/2.4.1' }),
      lines: [
        seenBy(
          'frontend',
          {
            upstream_cluster: `outbound|8080||${services.offline}`,
            response_code: 503,
            response_flags: 'UF',
            upstream_transport_failure_reason: 'delayed_connect_error:_Connection_refused',
          },
          outcome.upstreamFailed,
        ),
      ],
    },
    {
      name: "the server's certificate names another workload",
      count: 2,
      status: 503,
      send: throughFrontend('vault', '/v1/secret', { agent: 'checkout/2.4.1' }),
      lines: [
        seenBy(
          'frontend',
          {
            upstream_cluster: `outbound|8080||${services.vault}`,
            response_code: 503,
            response_flags: 'UF',
            upstream_transport_failure_reason:
              'TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:' +
              'verify_cert_failed:_SAN_matcher,_certificate_SANs_are_' +
              '[spiffe://cluster.local/ns/dev/sa/squatter]:TLS_error_end',
          },
          outcome.serverRefused,
        ),
      ],
    },
    {
      name: 'no route matches',
      count: 1,
      status: 404,
      send: throughFrontend('reports', '/v2/summary', { agent: 'reporting/0.9' }),
      lines: [
        seenBy(
          'frontend',
          {
            authority: `${services.reports}:8080`,
            response_code: 404,
            response_flags: 'NR',
            response_code_details: 'route_not_found',
          },
          outcome.noRoute,
        ),
      ],
    },
    {
      name: 'a host outside the mesh is blocked',
      count: 1,
      status: 502,
      send: (mesh, requestId) =>
        exchange(
          { port: mesh.ports.frontendHttp },
          httpRequest({
            method: 'POST',
            path: '/upload',
            host: 'paste.example.com',
            headers: { 'user-agent': 'curl/8.9.1', 'x-request-id': requestId },
            body: 'customers.csv',
          }),
        ),
      lines: [
        seenBy(
          'frontend',
          {
            authority: 'paste.example.com',
            response_code: 502,
            route_name: 'block_all',
            response_code_details: 'direct_response',
          },
          outcome.egressBlocked,
        ),
      ],
    },
    {
      name: 'plaintext to a strict server, through the sidecar',
      count: 1,
      status: 503,
      send: throughFrontend('payments', '/v1/charges', {
        agent: 'checkout/2.4.1',
        headers: { 'x-subset': 'plaintext' },
      }),
      lines: [
        seenBy(
          'frontend',
          {
            upstream_cluster: `outbound|8080|plaintext|${services.payments}`,
            response_code: 503,
            response_flags: 'UC',
          },
          outcome.upstreamFailed,
        ),
        plaintextArrived,
      ],
    },
    {
      name: 'plaintext to a strict server, around the sidecar',
      count: 2,
      status: null,
      send: direct('paymentsHttp', undefined, '/v1/charges', 'Wget/1.24.5'),
      lines: [plaintextArrived],
    },
    {
      name: 'text: plaintext to a strict server',
      count: 1,
      status: null,
      send: direct('ledgerHttp', undefined, '/v1/entries', 'Wget/1.24.5'),
      lines: [
        {
          reporter: 'ledger',
          facts: ['"- - -" 0 NR filter_chain_not_found - "-" 0 0 '],
          outcome: outcome.plaintextRefused,
        },
      ],
    },
    {
      name: "the caller's sidecar has an expired certificate",
      count: 1,
      status: 503,
      send: (mesh, requestId) =>
        exchange(
          { port: mesh.ports.batchHttp },
          httpRequest({
            method: 'GET',
            path: '/v1/settle',
            host: `${services.payments}:8080`,
            headers: { 'user-agent': 'batch/1.0', 'x-request-id': requestId },
          }),
        ),
      lines: [
        seenBy(
          'batch',
          { path: '/v1/settle', response_code: 503, response_flags: 'UC' },
          outcome.upstreamFailed,
        ),
        refusedHandshake('certificate_has_expired', spiffeId('shop', 'batch')),
      ],
    },
  ]
}

/** A request that was allowed, as both sidecars write it. */
function allowedOnBothSides(path: string, agent: string): ExpectedLine[] {
  const facts = { path, response_code: 200, user_agent: agent }
  const reached = { authority: `${services.payments}:8080`, ...facts }
  return [
    seenBy('frontend', reached, outcome.calledAndAllowed),
    seenBy('payments', facts, served(frontend)),
  ]
}

/** Bytes meant to mislead whoever reads the log. The path and the host are always the case's own. */
function hostileRequests(): Case[] {
  const fakePath = '/v1/","response_code":200,"path":"/x\\u0022'
  const fakePathLogged = '/v1/%22,%22response_code%22:200,%22path%22:%22/x/u0022'
  return [
    {
      name: 'fake JSON in the user agent',
      count: 1,
      status: 200,
      send: throughFrontend('payments', '/v1/hostile', { agent: hostileUserAgent }),
      lines: allowedOnBothSides('/v1/hostile', hostileUserAgent),
    },
    {
      name: 'UTF-8 in the user agent',
      count: 1,
      status: 200,
      send: throughFrontend('payments', '/v1/unicode', { agent: utf8UserAgent }),
      lines: allowedOnBothSides('/v1/unicode', 'café/1.0 “quoted” ✓'),
    },
    {
      name: 'fake JSON in the path',
      count: 1,
      status: 200,
      send: throughFrontend('payments', fakePath, { agent: 'curl/8.9.1' }),
      lines: allowedOnBothSides(fakePathLogged, 'curl/8.9.1'),
    },
    {
      name: 'a terminal escape in the user agent',
      count: 1,
      status: 400,
      send: throughFrontend('payments', '/v1/charges', { agent: '\x1b[31mred' }),
      lines: [
        {
          reporter: 'frontend',
          facts: {
            response_code: 400,
            response_flags: 'DPE',
            response_code_details: 'http1.invalid_characters',
          },
          outcome: outcome.protocolError,
        },
      ],
    },
    {
      name: 'no HTTP at all',
      count: 1,
      status: 400,
      send: (mesh) =>
        exchange({ port: mesh.ports.frontendHttp }, Buffer.from('HELO example.com\r\n\r\n')),
      lines: [
        {
          reporter: 'frontend',
          facts: {
            response_code: 400,
            response_flags: 'DPE',
            response_code_details: 'http1.codec_error',
          },
          outcome: outcome.protocolError,
        },
      ],
    },
    {
      name: 'a line longer than 16 KiB',
      count: 1,
      status: 200,
      send: throughFrontend('payments', '/v1/long', { agent: longUserAgent }),
      lines: allowedOnBothSides('/v1/long', longUserAgent),
    },
    {
      name: 'text: fake columns in the user agent',
      count: 1,
      status: 200,
      send: throughFrontend('ledger', '/v1/hostile', { agent: columnsUserAgent }),
      lines: [
        {
          reporter: 'frontend',
          facts: { path: '/v1/hostile', response_code: 200, user_agent: columnsUserAgent },
          outcome: outcome.calledAndAllowed,
        },
        {
          reporter: 'ledger',
          facts: [
            '"GET /v1/hostile HTTP/1.1" 200 - via_upstream ',
            ` "${columnsUserAgent}" "`,
            ' inbound|8080|| ',
          ],
          outcome: served(null),
        },
      ],
    },
    {
      name: 'text: a line longer than 16 KiB',
      count: 1,
      status: 200,
      send: throughFrontend('ledger', '/v1/long', { agent: longUserAgent }),
      lines: [
        {
          reporter: 'frontend',
          facts: {
            path: '/v1/long',
            authority: `${services.ledger}:8080`,
            response_code: 200,
            user_agent: longUserAgent,
          },
          outcome: outcome.calledAndAllowed,
        },
        {
          reporter: 'ledger',
          facts: ['"GET /v1/long HTTP/1.1" 200 - via_upstream ', ` "${longUserAgent}" "`],
          outcome: served(null),
        },
      ],
    },
  ]
}

/** The server's sidecar refuses the client's certificate. */
function refusedHandshakes(): Case[] {
  return [
    refusedClient(
      "the client's certificate is from another authority",
      'stranger',
      2,
      refusedHandshake('unable_to_get_local_issuer_certificate', frontend),
    ),
    refusedClient(
      "the client's certificate has expired",
      'expired',
      2,
      refusedHandshake('certificate_has_expired', frontend),
    ),
    refusedClient('the client shows no certificate', null, 2, {
      reporter: 'payments',
      facts: {
        downstream_transport_failure_reason:
          'TLS_error:|268435648:SSL_routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:' +
          'peer_did_not_provide_required_client_certificate:TLS_error_end',
        downstream_peer_uri_san: null,
      },
      outcome: outcome.handshakeRefused,
    }),
  ]
}

function refusedClient(
  name: string,
  client: DirectClient | null,
  count: number,
  line: ExpectedLine,
): Case {
  const send = direct('paymentsHttp', client, '/v1/charges', 'curl/8.9.1')
  return { name, count, status: null, lines: [line], send }
}

/** @param claimed what Envoy logs as the peer although it refused its certificate */
function refusedHandshake(
  why: string,
  claimed: string,
  cluster: string | null = null,
): ExpectedLine {
  return {
    reporter: 'payments',
    facts: {
      response_code: 0,
      response_flags: '-',
      downstream_transport_failure_reason:
        'TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:' +
        'verify_cert_failed:_X509_verify_cert:_certificate_verification_error_at_depth_0:_' +
        `${why}:TLS_error_end`,
      downstream_peer_uri_san: claimed,
      upstream_cluster: cluster,
    },
    outcome: outcome.handshakeRefused,
  }
}

function tcpCalled(port: number, service: string, sent: number): ExpectedLine {
  const upstream = `outbound|${port}||${service}`
  const facts = { method: null, upstream_cluster: upstream, bytes_sent: sent }
  return seenBy('frontend', facts, outcome.tcpCalled)
}
function tcpArrived(facts: Facts, meaning: Outcome): ExpectedLine {
  return seenBy('payments', { method: null, response_code: 0, ...facts }, meaning)
}

function tcpConnections(): Case[] {
  const ping = Buffer.from('ping\n')
  // Envoy writes this connection twice: the listener's line and the TCP proxy's, alike but for times.
  const strangerLine = refusedHandshake(
    'unable_to_get_local_issuer_certificate',
    frontend,
    'inbound|9000||',
  )
  return [
    {
      name: 'TCP allowed',
      count: 3,
      status: null,
      send: (mesh) => exchange({ port: mesh.ports.frontendPaymentsTcp }, ping, 5),
      lines: [
        tcpCalled(9000, services.payments, 5),
        tcpArrived(
          {
            upstream_cluster: 'inbound|9000||',
            bytes_sent: 5,
            downstream_peer_uri_san: frontend,
            connection_termination_details: null,
          },
          tcpServed(frontend),
        ),
      ],
    },
    {
      name: 'TCP denied by a DENY policy',
      count: 2,
      status: null,
      send: (mesh) => exchange(tlsTarget(mesh, 'paymentsTcp', 'debugShell'), ping),
      lines: [
        tcpArrived(
          {
            upstream_cluster: 'inbound|9000||',
            bytes_sent: 0,
            downstream_peer_uri_san: debugShell,
            connection_termination_details: `${rbac}[ns[prod]-policy[payments-no-shells]-rule[0]]`,
          },
          { ...denied('prod/payments-no-shells', '0', debugShell), kind: 'connection' },
        ),
      ],
    },
    {
      name: 'TCP denied because no ALLOW policy matches',
      count: 1,
      status: null,
      send: (mesh) => exchange({ port: mesh.ports.frontendReplicationTcp }, ping),
      lines: [
        // The caller's sidecar sees a connection that the other side closed, and no more.
        tcpCalled(9001, services.payments, 0),
        tcpArrived(
          {
            upstream_cluster: 'inbound|9001||',
            bytes_sent: 0,
            downstream_peer_uri_san: frontend,
            connection_termination_details: `${rbac}[none]`,
          },
          { ...deniedByNoMatch(frontend), kind: 'connection' },
        ),
      ],
    },
    {
      name: "TCP: the client's certificate is from another authority",
      count: 1,
      status: null,
      send: (mesh) => exchange(tlsTarget(mesh, 'paymentsTcp', 'stranger'), ping),
      lines: [strangerLine, strangerLine],
    },
    {
      name: 'text: TCP allowed',
      count: 1,
      status: null,
      send: (mesh) => exchange({ port: mesh.ports.frontendLedgerTcp }, ping, 5),
      lines: [
        tcpCalled(9000, services.ledger, 5),
        {
          reporter: 'ledger',
          facts: ['"- - -" 0 - - - "-" 5 5 ', ' inbound|9000|| '],
          outcome: tcpServed(null),
        },
      ],
    },
    {
      name: 'text: TCP denied by a DENY policy',
      count: 1,
      status: null,
      send: (mesh) => exchange(tlsTarget(mesh, 'ledgerTcp', 'debugShell'), ping),
      lines: [
        {
          reporter: 'ledger',
          facts: [
            `"- - -" 0 - - ${rbac}[ns[prod]-policy[ledger-no-shells]-rule[0]] "-" 5 0 `,
            ' inbound|9000|| ',
          ],
          outcome: { ...denied('prod/ledger-no-shells', '0', null), kind: 'connection' },
        },
      ],
    },
  ]
}

type Call = {
  readonly agent: string
  readonly method?: string
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
}

function throughFrontend(service: keyof typeof services, path: string, call: Call): Case['send'] {
  return (mesh, requestId) =>
    exchange(
      { port: mesh.ports.frontendHttp },
      httpRequest({
        method: call.method ?? 'GET',
        path,
        host: `${services[service]}:8080`,
        headers: { 'user-agent': call.agent, 'x-request-id': requestId, ...call.headers },
        ...(call.body === undefined ? {} : { body: call.body }),
      }),
    )
}

type ServerPort = 'paymentsHttp' | 'paymentsTcp' | 'ledgerHttp' | 'ledgerTcp'

/** @param client null: TLS without a certificate; undefined: no TLS */
function direct(
  port: ServerPort,
  client: DirectClient | null | undefined,
  path: string,
  agent: string,
): Case['send'] {
  return (mesh, requestId) => {
    const target = client === undefined ? { port: mesh.ports[port] } : tlsTarget(mesh, port, client)
    const headers = { 'user-agent': agent, 'x-request-id': requestId }
    const host = `${services.payments}:8080`
    return exchange(target, httpRequest({ method: 'GET', path, host, headers }))
  }
}

function tlsTarget(mesh: Mesh, port: ServerPort, client: DirectClient | null): Target {
  const service = port.startsWith('payments') ? services.payments : services.ledger
  const serverName = `outbound_.${port.endsWith('Tcp') ? 9000 : 8080}_._.${service}`
  return {
    port: mesh.ports[port],
    tls: client === null ? { serverName } : { serverName, credential: mesh.credentials[client] },
  }
}
