/**
 * Which Kubernetes resources belong to a mesh, and what writing one of them means.
 *
 * `policy`: it decides who may talk to whom, or how a peer must prove itself; writing it is a
 * `policy_change`. Network policies count, whoever enforces them.
 * `config`: it changes routes, proxies, what is logged, who may change policies (RBAC), or which code
 * sees every write (webhooks, CRDs); writing it is a `config_change`.
 *
 * @see the CRDs of istio, linkerd, consul-k8s, gateway-api, cilium and calico
 */

export type ResourceMeaning = {
  readonly mesh: 'istio' | 'linkerd' | 'consul' | 'cilium' | null
  readonly effect: 'policy' | 'config'
  /** Singular, as in the object; null where only its plural is known here. */
  readonly kind: string | null
}

type Group = {
  readonly mesh: ResourceMeaning['mesh']
  /** plural: Kind */
  readonly policies: Readonly<Record<string, string>>
  /** Other resources of the group: everything, or only those named. */
  readonly config: 'all' | readonly string[]
}

const groups: Readonly<Record<string, Group>> = {
  'security.istio.io': {
    mesh: 'istio',
    policies: {
      authorizationpolicies: 'AuthorizationPolicy',
      peerauthentications: 'PeerAuthentication',
      requestauthentications: 'RequestAuthentication',
    },
    config: 'all',
  },
  'networking.istio.io': { mesh: 'istio', policies: {}, config: 'all' },
  'telemetry.istio.io': { mesh: 'istio', policies: {}, config: 'all' },
  'extensions.istio.io': { mesh: 'istio', policies: {}, config: 'all' },
  'install.istio.io': { mesh: 'istio', policies: {}, config: 'all' },
  'policy.linkerd.io': {
    mesh: 'linkerd',
    policies: {
      authorizationpolicies: 'AuthorizationPolicy',
      servers: 'Server',
      serverauthorizations: 'ServerAuthorization',
      meshtlsauthentications: 'MeshTLSAuthentication',
      networkauthentications: 'NetworkAuthentication',
      egressnetworks: 'EgressNetwork',
      httplocalratelimitpolicies: 'HTTPLocalRateLimitPolicy',
    },
    config: 'all',
  },
  'linkerd.io': { mesh: 'linkerd', policies: {}, config: 'all' },
  'workload.linkerd.io': { mesh: 'linkerd', policies: {}, config: 'all' },
  'multicluster.linkerd.io': { mesh: 'linkerd', policies: {}, config: 'all' },
  'consul.hashicorp.com': {
    mesh: 'consul',
    policies: {
      serviceintentions: 'ServiceIntentions',
      jwtproviders: 'JWTProvider',
      exportedservices: 'ExportedServices',
      gatewaypolicies: 'GatewayPolicy',
      controlplanerequestlimits: 'ControlPlaneRequestLimit',
    },
    config: 'all',
  },
  'auth.consul.hashicorp.com': {
    mesh: 'consul',
    policies: { trafficpermissions: 'TrafficPermissions' },
    config: 'all',
  },
  'mesh.consul.hashicorp.com': { mesh: 'consul', policies: {}, config: 'all' },
  'multicluster.consul.hashicorp.com': {
    mesh: 'consul',
    policies: { exportedservices: 'ExportedServices' },
    config: 'all',
  },
  'gateway.networking.k8s.io': {
    mesh: null,
    policies: { referencegrants: 'ReferenceGrant', backendtlspolicies: 'BackendTLSPolicy' },
    config: 'all',
  },
  'gateway.networking.x-k8s.io': { mesh: null, policies: {}, config: 'all' },
  'gateway.envoyproxy.io': {
    mesh: null,
    policies: { securitypolicies: 'SecurityPolicy' },
    config: 'all',
  },
  'networking.k8s.io': {
    mesh: null,
    policies: { networkpolicies: 'NetworkPolicy' },
    config: ['ingresses', 'ingressclasses'],
  },
  'policy.networking.k8s.io': {
    mesh: null,
    policies: {
      adminnetworkpolicies: 'AdminNetworkPolicy',
      baselineadminnetworkpolicies: 'BaselineAdminNetworkPolicy',
      clusternetworkpolicies: 'ClusterNetworkPolicy',
    },
    config: 'all',
  },
  'cilium.io': {
    mesh: 'cilium',
    policies: {
      ciliumnetworkpolicies: 'CiliumNetworkPolicy',
      ciliumclusterwidenetworkpolicies: 'CiliumClusterwideNetworkPolicy',
    },
    // Endpoints, identities and nodes are state that agents write all day.
    config: [
      'ciliumenvoyconfigs',
      'ciliumclusterwideenvoyconfigs',
      'ciliumlocalredirectpolicies',
      'ciliumegressgatewaypolicies',
      'ciliumcidrgroups',
    ],
  },
  'projectcalico.org': {
    mesh: null,
    policies: {
      networkpolicies: 'NetworkPolicy',
      globalnetworkpolicies: 'GlobalNetworkPolicy',
      stagednetworkpolicies: 'StagedNetworkPolicy',
    },
    config: ['felixconfigurations', 'tiers', 'globalnetworksets', 'networksets'],
  },
  'crd.projectcalico.org': {
    mesh: null,
    policies: { networkpolicies: 'NetworkPolicy', globalnetworkpolicies: 'GlobalNetworkPolicy' },
    config: ['felixconfigurations', 'tiers', 'globalnetworksets', 'networksets'],
  },
  'admissionregistration.k8s.io': { mesh: null, policies: {}, config: 'all' },
  'apiextensions.k8s.io': { mesh: null, policies: {}, config: ['customresourcedefinitions'] },
  'rbac.authorization.k8s.io': { mesh: null, policies: {}, config: 'all' },
}

/** Core objects that configure a mesh, by name. */
const coreConfig: readonly {
  readonly resource: string
  readonly name: RegExp
  readonly mesh: ResourceMeaning['mesh']
}[] = [
  { resource: 'configmaps', name: /^istio(?:$|-)/, mesh: 'istio' },
  { resource: 'configmaps', name: /^linkerd-(?:config|identity-trust-roots)/, mesh: 'linkerd' },
  { resource: 'configmaps', name: /^consul-/, mesh: 'consul' },
  { resource: 'configmaps', name: /^cilium-config$/, mesh: 'cilium' },
  { resource: 'secrets', name: /^(?:cacerts|istio-ca-secret)$/, mesh: 'istio' },
  { resource: 'secrets', name: /^linkerd-(?:identity-issuer|trust-anchor)/, mesh: 'linkerd' },
  { resource: 'secrets', name: /^consul-(?:ca|server)/, mesh: 'consul' },
]

/** Null for a resource with no say in a mesh. The core group is `''`. */
export function meaningOfResource(
  group: string,
  resource: string,
  name: string | null,
): ResourceMeaning | null {
  if (group === '') {
    const core = coreConfig.find((row) => row.resource === resource && row.name.test(name ?? ''))
    return core === undefined ? null : { mesh: core.mesh, effect: 'config', kind: null }
  }
  const known = Object.hasOwn(groups, group) ? groups[group] : undefined
  if (known === undefined) return null
  if (Object.hasOwn(known.policies, resource)) {
    return { mesh: known.mesh, effect: 'policy', kind: known.policies[resource] ?? null }
  }
  if (known.config === 'all' || known.config.includes(resource)) {
    return { mesh: known.mesh, effect: 'config', kind: null }
  }
  return null
}

/** Labels and annotations that take a workload into a mesh, out of it, or past its proxy. */
export function isMeshLabel(key: string): boolean {
  return (
    key === 'istio-injection' ||
    key.startsWith('istio.io/') ||
    key.includes('.istio.io/') ||
    key.startsWith('linkerd.io/') ||
    key.includes('.linkerd.io/') ||
    key.startsWith('consul.hashicorp.com/')
  )
}
