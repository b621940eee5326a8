/**
 * The configuration of one sidecar, as istiod would push it, as far as logs can tell the difference:
 * its grammar for clusters, policies, routes and filter chains, DENY before ALLOW, dry-run as shadow
 * rules, mTLS in both directions, access log on stdout.
 *
 * What differs from a real sidecar: no iptables, so each port is a listener of its own on 127.0.0.1
 * (port 0: the kernel picks), no xDS, and certificates come from files.
 */

export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [k: string]: Json }
export type JsonObject = { readonly [k: string]: Json }

export type LogFormat = 'json' | 'text'

/** One `AuthorizationPolicy` rule: who (any when absent) may or may not do what. */
export type PolicyRule = {
  readonly namespace: string
  readonly policy: string
  readonly rule: number
  readonly principal?: string
  readonly method?: string
  readonly pathPrefix?: string
}

export type Authorization = {
  readonly deny: readonly PolicyRule[]
  readonly allow: readonly PolicyRule[]
  /** DENY rules under dry-run: reported, not enforced. */
  readonly dryRunDeny: readonly PolicyRule[]
}

export type Inbound = {
  readonly protocol: 'http' | 'tcp'
  /** The port the service states; the listener's own is picked by the kernel. */
  readonly servicePort: number
  readonly applicationPort: number
  readonly authorization: Authorization
}

/** Where outbound traffic for one service goes. */
export type Outbound = {
  readonly service: string
  readonly servicePort: number
  readonly subset: string
  readonly upstreamPort: number
  /** The SPIFFE ID the server must present; absent means plaintext, as with `tls: DISABLE`. */
  readonly expectedServer?: string
  /** Only this path prefix has a route; absent means every path. */
  readonly onlyPathPrefix?: string
}

export type Sidecar = {
  readonly namespace: string
  readonly workload: string
  readonly pod: string
  readonly format: LogFormat
  readonly inbound: readonly Inbound[]
  readonly outboundHttp: readonly Outbound[]
  readonly outboundTcp: readonly Outbound[]
}

/** The name Envoy's admin interface reports a listener under. */
export function inboundListener(inbound: Inbound): string {
  return `inbound_0.0.0.0_${inbound.servicePort}`
}
export const outboundHttpListener = 'outbound_0.0.0.0_8080'
export function outboundTcpListener(outbound: Outbound): string {
  return `outbound_${outbound.service}_${outbound.servicePort}`
}

/** Certificate files lie in `certificates/` under Envoy's working directory. */
export function bootstrap(sidecar: Sidecar): JsonObject {
  const outbound = [...sidecar.outboundHttp, ...sidecar.outboundTcp]
  const listeners: Json[] = []
  for (const inbound of sidecar.inbound) listeners.push(inboundConfiguration(sidecar, inbound))
  for (const target of sidecar.outboundTcp) listeners.push(outboundTcp(sidecar, target))
  if (sidecar.outboundHttp.length > 0) listeners.push(outboundHttp(sidecar))
  return {
    node: {
      id: `sidecar~127.0.0.1~${sidecar.pod}.${sidecar.namespace}~${sidecar.namespace}.svc.cluster.local`,
      cluster: `${sidecar.workload}.${sidecar.namespace}`,
    },
    admin: { address: localAddress(0) },
    static_resources: {
      listeners,
      clusters: [
        ...sidecar.inbound.map((inbound) => inboundCluster(inbound)),
        ...outbound.map((target) => outboundCluster(sidecar, target)),
      ],
    },
  }
}

/** The fields of the recommended audit format, in its order. */
const auditFields = {
  start_time: '%START_TIME%',
  log_kind: 'mesh-audit-v1',
  method: '%REQ(:METHOD)%',
  path: '%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%',
  protocol: '%PROTOCOL%',
  response_code: '%RESPONSE_CODE%',
  response_flags: '%RESPONSE_FLAGS%',
  response_code_details: '%RESPONSE_CODE_DETAILS%',
  connection_termination_details: '%CONNECTION_TERMINATION_DETAILS%',
  upstream_transport_failure_reason: '%UPSTREAM_TRANSPORT_FAILURE_REASON%',
  downstream_transport_failure_reason: '%DOWNSTREAM_TRANSPORT_FAILURE_REASON%',
  downstream_peer_uri_san: '%DOWNSTREAM_PEER_URI_SAN%',
  downstream_local_uri_san: '%DOWNSTREAM_LOCAL_URI_SAN%',
  downstream_tls_version: '%DOWNSTREAM_TLS_VERSION%',
  downstream_peer_fingerprint_256: '%DOWNSTREAM_PEER_FINGERPRINT_256%',
  upstream_peer_subject: '%UPSTREAM_PEER_SUBJECT%',
  upstream_peer_uri_san: '%UPSTREAM_PEER_URI_SAN%',
  peer_principal: '%FILTER_STATE(io.istio.peer_principal:PLAIN)%',
  dry_run_deny_policy: dryRun('deny_shadow_effective_policy_id'),
  dry_run_deny_result: dryRun('deny_shadow_engine_result'),
  dry_run_allow_policy: dryRun('allow_shadow_effective_policy_id'),
  dry_run_allow_result: dryRun('allow_shadow_engine_result'),
  bytes_received: '%BYTES_RECEIVED%',
  bytes_sent: '%BYTES_SENT%',
  duration: '%DURATION%',
  x_forwarded_for: '%REQ(X-FORWARDED-FOR)%',
  user_agent: '%REQ(USER-AGENT)%',
  request_id: '%REQ(X-REQUEST-ID)%',
  authority: '%REQ(:AUTHORITY)%',
  upstream_host: '%UPSTREAM_HOST%',
  upstream_cluster: '%UPSTREAM_CLUSTER_RAW%',
  downstream_local_address: '%DOWNSTREAM_LOCAL_ADDRESS%',
  downstream_remote_address: '%DOWNSTREAM_REMOTE_ADDRESS%',
  downstream_direct_remote_address: '%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%',
  connection_id: '%CONNECTION_ID%',
  requested_server_name: '%REQUESTED_SERVER_NAME%',
  route_name: '%ROUTE_NAME%',
  filter_chain_name: '%FILTER_CHAIN_NAME%',
}

function dryRun(key: string): string {
  return `%DYNAMIC_METADATA(envoy.filters.http.rbac:istio_dry_run_${key})%`
}

/** Istio's default since 1.9, to the letter. */
const istioTextFormat =
  '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% ' +
  '%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ' +
  '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ' +
  '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" ' +
  '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% ' +
  '%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ' +
  '%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n'

function accessLog(format: LogFormat): JsonObject {
  const logFormat: JsonObject =
    format === 'json'
      ? { json_format: auditFields, formatters: [requestWithoutQuery] }
      : { text_format_source: { inline_string: istioTextFormat } }
  return {
    name: 'envoy.access_loggers.file',
    typed_config: {
      '@type': type('extensions.access_loggers.file.v3.FileAccessLog'),
      path: '/dev/stdout',
      log_format: logFormat,
    },
  }
}

const requestWithoutQuery: JsonObject = {
  name: 'envoy.formatter.req_without_query',
  typed_config: { '@type': type('extensions.formatter.req_without_query.v3.ReqWithoutQuery') },
}

/**
 * The listener's own log. Istio writes only `NR` here; the JSON sidecars also write every connection
 * whose handshake failed, which no other log has.
 */
function listenerLog(format: LogFormat): JsonObject {
  const noRoute: JsonObject = { response_flag_filter: { flags: ['NR'] } }
  const failedHandshake: JsonObject = {
    extension_filter: {
      name: 'envoy.access_loggers.extension_filters.cel',
      typed_config: {
        '@type': type('extensions.access_loggers.filters.cel.v3.ExpressionFilter'),
        expression: 'connection.transport_failure_reason != ""',
      },
    },
  }
  const filter =
    format === 'json' ? { or_filter: { filters: [noRoute, failedHandshake] } } : noRoute
  return { ...accessLog(format), filter }
}

function inboundConfiguration(sidecar: Sidecar, inbound: Inbound): JsonObject {
  const filters =
    inbound.protocol === 'http'
      ? [
          httpConnectionManager(sidecar.format, `inbound_0.0.0.0_${inbound.servicePort}`, {
            forward_client_cert_details: 'APPEND_FORWARD',
            set_current_client_cert_details: { subject: true, dns: true, uri: true },
            http_filters: [...httpRbac(inbound.authorization), router],
            route_config: inboundRoute(inbound),
          }),
        ]
      : [
          ...networkRbac(inbound.authorization),
          tcpProxy(sidecar.format, inboundClusterName(inbound)),
        ]
  return {
    name: inboundListener(inbound),
    address: localAddress(0),
    traffic_direction: 'INBOUND',
    access_log: [listenerLog(sidecar.format)],
    listener_filters: [
      {
        name: 'envoy.filters.listener.tls_inspector',
        typed_config: {
          '@type': type('extensions.filters.listener.tls_inspector.v3.TlsInspector'),
        },
      },
    ],
    listener_filters_timeout: '3s',
    filter_chains: [
      {
        name: `0.0.0.0_${inbound.servicePort}`,
        filter_chain_match: { transport_protocol: 'tls' },
        transport_socket: {
          name: 'tls',
          typed_config: {
            '@type': type('extensions.transport_sockets.tls.v3.DownstreamTlsContext'),
            require_client_certificate: true,
            common_tls_context: tlsContext(sidecar, 'spiffe://cluster.local/'),
          },
        },
        filters,
      },
    ],
  }
}

function inboundRoute(inbound: Inbound): JsonObject {
  const cluster = inboundClusterName(inbound)
  return {
    name: cluster,
    virtual_hosts: [
      {
        name: `inbound|http|${inbound.servicePort}`,
        domains: ['*'],
        routes: [{ name: 'default', match: { prefix: '/' }, route: { cluster, timeout: '5s' } }],
      },
    ],
  }
}

function outboundHttp(sidecar: Sidecar): JsonObject {
  const services = new Map<string, JsonObject[]>()
  for (const target of sidecar.outboundHttp) {
    const name = `${target.service}:${target.servicePort}`
    const routes = services.get(name) ?? []
    services.set(name, routes)
    // A subset is chosen by a header, as a VirtualService would, and so goes before the plain route.
    const match: JsonObject =
      target.subset === ''
        ? { prefix: target.onlyPathPrefix ?? '/' }
        : { prefix: '/', headers: [{ name: 'x-subset', string_match: { exact: target.subset } }] }
    const route: JsonObject = {
      name: target.subset === '' ? 'default' : target.subset,
      match,
      route: { cluster: outboundClusterName(target), timeout: '5s' },
    }
    if (target.subset === '') routes.push(route)
    else routes.unshift(route)
  }
  const virtualHosts: Json[] = [...services].map(([name, routes]) => ({
    name,
    domains: [name.slice(0, name.indexOf(':'))],
    routes,
  }))
  virtualHosts.push({
    name: 'block_all',
    domains: ['*'],
    routes: [{ name: 'block_all', match: { prefix: '/' }, direct_response: { status: 502 } }],
  })
  return {
    name: outboundHttpListener,
    address: localAddress(0),
    traffic_direction: 'OUTBOUND',
    access_log: [listenerLog(sidecar.format)],
    filter_chains: [
      {
        filters: [
          httpConnectionManager(sidecar.format, 'outbound_0.0.0.0_8080', {
            http_filters: [router],
            route_config: {
              name: '8080',
              ignore_port_in_host_matching: true,
              virtual_hosts: virtualHosts,
            },
          }),
        ],
      },
    ],
  }
}

function outboundTcp(sidecar: Sidecar, target: Outbound): JsonObject {
  return {
    name: outboundTcpListener(target),
    address: localAddress(0),
    traffic_direction: 'OUTBOUND',
    access_log: [listenerLog(sidecar.format)],
    filter_chains: [{ filters: [tcpProxy(sidecar.format, outboundClusterName(target))] }],
  }
}

function httpConnectionManager(
  format: LogFormat,
  statPrefix: string,
  rest: JsonObject,
): JsonObject {
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': type('extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
      stat_prefix: statPrefix,
      server_name: 'istio-envoy',
      use_remote_address: false,
      normalize_path: true,
      access_log: [accessLog(format)],
      ...rest,
    },
  }
}

const router: JsonObject = {
  name: 'envoy.filters.http.router',
  typed_config: { '@type': type('extensions.filters.http.router.v3.Router') },
}

function tcpProxy(format: LogFormat, cluster: string): JsonObject {
  return {
    name: 'envoy.filters.network.tcp_proxy',
    typed_config: {
      '@type': type('extensions.filters.network.tcp_proxy.v3.TcpProxy'),
      stat_prefix: cluster,
      cluster,
      access_log: [accessLog(format)],
    },
  }
}

function httpRbac(authorization: Authorization): JsonObject[] {
  const filter = (rules: JsonObject, prefix: string, shadow?: JsonObject): JsonObject => ({
    name: 'envoy.filters.http.rbac',
    typed_config: {
      '@type': type('extensions.filters.http.rbac.v3.RBAC'),
      rules,
      shadow_rules_stat_prefix: prefix,
      ...(shadow === undefined ? {} : { shadow_rules: shadow }),
    },
  })
  const { deny, allow, dryRunDeny } = authorization
  return [
    filter(
      rbac('DENY', deny),
      'istio_dry_run_deny_',
      dryRunDeny.length === 0 ? undefined : rbac('DENY', dryRunDeny),
    ),
    filter(rbac('ALLOW', allow), 'istio_dry_run_allow_'),
  ]
}

function networkRbac(authorization: Authorization): JsonObject[] {
  const filter = (rules: JsonObject): JsonObject => ({
    name: 'envoy.filters.network.rbac',
    typed_config: {
      '@type': type('extensions.filters.network.rbac.v3.RBAC'),
      stat_prefix: 'tcp.',
      rules,
    },
  })
  return [filter(rbac('DENY', authorization.deny)), filter(rbac('ALLOW', authorization.allow))]
}

function rbac(action: 'ALLOW' | 'DENY', rules: readonly PolicyRule[]): JsonObject {
  const policies: Record<string, Json> = {}
  for (const rule of rules) {
    policies[`ns[${rule.namespace}]-policy[${rule.policy}]-rule[${rule.rule}]`] = {
      permissions: [permission(rule)],
      principals: [
        rule.principal === undefined
          ? { any: true }
          : { authenticated: { principal_name: { exact: rule.principal } } },
      ],
    }
  }
  return { action, policies }
}

function permission(rule: PolicyRule): JsonObject {
  if (rule.method !== undefined) {
    return { header: { name: ':method', string_match: { exact: rule.method } } }
  }
  if (rule.pathPrefix !== undefined) return { url_path: { path: { prefix: rule.pathPrefix } } }
  return { any: true }
}

function inboundClusterName(inbound: Inbound): string {
  return `inbound|${inbound.servicePort}||`
}
function outboundClusterName(target: Outbound): string {
  return `outbound|${target.servicePort}|${target.subset}|${target.service}`
}

function inboundCluster(inbound: Inbound): JsonObject {
  return staticCluster(inboundClusterName(inbound), inbound.applicationPort)
}

function outboundCluster(sidecar: Sidecar, target: Outbound): JsonObject {
  const cluster = staticCluster(outboundClusterName(target), target.upstreamPort)
  if (target.expectedServer === undefined) return cluster
  return {
    ...cluster,
    transport_socket: {
      name: 'tls',
      typed_config: {
        '@type': type('extensions.transport_sockets.tls.v3.UpstreamTlsContext'),
        sni: `outbound_.${target.servicePort}_.${target.subset}_.${target.service}`,
        common_tls_context: tlsContext(sidecar, target.expectedServer),
      },
    },
  }
}

function staticCluster(name: string, port: number): JsonObject {
  return {
    name,
    type: 'STATIC',
    connect_timeout: '2s',
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [{ endpoint: { address: localAddress(port) } }] }],
    },
  }
}

/** @param peer the SPIFFE ID the other side must have, or its prefix when it ends in a slash */
function tlsContext(sidecar: Sidecar, peer: string): JsonObject {
  return {
    tls_params: {
      tls_minimum_protocol_version: 'TLSv1_2',
      tls_maximum_protocol_version: 'TLSv1_3',
    },
    tls_certificates: [
      {
        certificate_chain: { filename: `certificates/${sidecar.workload}.crt` },
        private_key: { filename: `certificates/${sidecar.workload}.key` },
      },
    ],
    validation_context: {
      trusted_ca: { filename: 'certificates/trust-bundle.crt' },
      match_typed_subject_alt_names: [
        { san_type: 'URI', matcher: peer.endsWith('/') ? { prefix: peer } : { exact: peer } },
      ],
    },
  }
}

function localAddress(port: number): JsonObject {
  return { socket_address: { address: '127.0.0.1', port_value: port } }
}

function type(name: string): string {
  return `type.googleapis.com/envoy.${name}`
}
