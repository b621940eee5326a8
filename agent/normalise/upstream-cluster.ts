/**
 * Reads the names Istio gives to Envoy clusters: which way a request went and to which service.
 *
 * Names of other origins (`httproute/…`, an operator's own) say neither, and are not Istio's.
 */
import { remember } from './memo.ts'

export type UpstreamCluster = {
  readonly istio: boolean
  readonly direction: 'inbound' | 'outbound' | null
  /** `inbound-vip|…`: the proxy stands before the service, not in its pod. */
  readonly waypoint: boolean
  /** REGISTRY_ONLY: traffic to nowhere. */
  readonly blackHole: boolean
  /** Host of an outbound or waypoint cluster. */
  readonly service: string | null
  readonly namespace: string | null
}

const none: UpstreamCluster = {
  istio: false,
  direction: null,
  waypoint: false,
  blackHole: false,
  service: null,
  namespace: null,
}

/** A trailing `;` comes from alt_stat_name in Istio 1.23 and 1.24. */
export const parseUpstreamCluster: (text: string) => UpstreamCluster = remember(8192, (raw) => {
  const text = raw.endsWith(';') ? raw.slice(0, -1) : raw
  if (text === 'BlackHoleCluster') {
    return { ...none, istio: true, direction: 'outbound', blackHole: true }
  }
  if (text === 'PassthroughCluster' || text === 'connect_originate') {
    return { ...none, istio: true, direction: 'outbound' }
  }
  if (text.startsWith('InboundPassthroughCluster')) {
    return { ...none, istio: true, direction: 'inbound' }
  }
  const parts = text.split('|')
  if (parts.length !== 4 || !/^\d{1,5}$/.test(parts[1] ?? '')) return none
  const service = parts[3] === undefined || parts[3] === '' ? null : parts[3]
  const namespace = service === null ? null : namespaceOfHost(service)
  switch (parts[0] ?? '') {
    case 'inbound':
      return { ...none, istio: true, direction: 'inbound', service, namespace }
    case 'outbound':
      return { ...none, istio: true, direction: 'outbound', service, namespace }
    case 'inbound-vip':
      return { ...none, istio: true, direction: 'inbound', waypoint: true, service, namespace }
    default:
      return none
  }
})

/** `reviews.default.svc.cluster.local` → `default`; null for hosts outside the cluster. */
export function namespaceOfHost(host: string): string | null {
  return /^[^.\s]+\.([^.\s]+)\.svc(?:\.|$)/.exec(host)?.[1] ?? null
}

/** The service in the SNI one sidecar sends another: `outbound_.9080_._.reviews.default.svc.cluster.local`. */
export const serviceOfMeshSni: (
  sni: string,
) => { readonly host: string; readonly namespace: string | null } | null = remember(4096, (sni) => {
  const host = /^outbound_\.\d{1,5}_\.[^\s"]*?_\.([^\s"]+)$/.exec(sni)?.[1]
  return host === undefined ? null : { host, namespace: namespaceOfHost(host) }
})
