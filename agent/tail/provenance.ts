/**
 * Whose log a file is, read from its path.
 *
 * Invariant: a path inside a pod's log directory never becomes an API server's, and a container is
 * control plane only in the namespaces the configuration names. What a line says about itself plays
 * no part here.
 */

import { basename } from 'node:path'
import type { Provenance } from './chunk.ts'

export type ControlPlaneContainer = {
  readonly namespace: string
  readonly container: string
  /** Only pods whose name starts so; absent: every pod of the namespace. */
  readonly podPrefix?: string
}

export type ProvenanceRules = {
  /** Containers that are a data-plane proxy in whatever namespace they run. */
  readonly proxyContainers: readonly string[]
  readonly controlPlane: readonly ControlPlaneContainer[]
}

export const defaultProvenanceRules: ProvenanceRules = {
  proxyContainers: ['istio-proxy', 'envoy', 'consul-dataplane', 'linkerd-proxy'],
  controlPlane: [
    { namespace: 'istio-system', container: 'discovery' },
    // ztunnel's container has a sidecar's name, but speaks for every pod of its node.
    { namespace: 'istio-system', container: 'istio-proxy', podPrefix: 'ztunnel-' },
    { namespace: 'linkerd', container: 'identity' },
    { namespace: 'linkerd', container: 'destination' },
    { namespace: 'linkerd', container: 'policy' },
    { namespace: 'linkerd', container: 'sp-validator' },
  ],
}

/** Where API servers conventionally write their audit log: kubeadm, OpenShift, k3s and RKE2. */
export const defaultAuditPaths: readonly string[] = [
  '/var/log/kubernetes/audit/audit.log',
  '/var/log/kubernetes/audit.log',
  '/var/log/kube-apiserver/audit.log',
  '/var/lib/rancher/k3s/server/logs/audit.log',
  '/var/lib/rancher/rke2/server/logs/audit.log',
]

export type PodLog = {
  readonly namespace: string
  readonly pod: string
  readonly podUid: string
  readonly container: string
  /** How often the container had been restarted. */
  readonly restart: number
}

// Names of namespaces and pods cannot contain `_`. A static pod's uid is a hash without hyphens.
const podDirectory = /^([a-z0-9-]+)_([a-z0-9.-]+)_([a-zA-Z0-9-]+)$/
const podLogName = /^(\d+)\.log(?:\.\d{8}-\d{6})?(?:\.gz)?$/

/** Reads `…/<namespace>_<pod>_<uid>/<container>/<n>.log[.<time>][.gz]`, at any depth. */
export function podLogOf(path: string): PodLog | null {
  const segments = path.split('/')
  const restart = podLogName.exec(segments.at(-1) ?? '')?.[1]
  const container = segments.at(-2)
  const owner = readPodDirectory(segments.at(-3) ?? '')
  if (restart === undefined || container === undefined || container === '' || owner === null) {
    return null
  }
  return { ...owner, container, restart: Number(restart) }
}

/** @param name `<namespace>_<pod>_<uid>` */
export function readPodDirectory(
  name: string,
): Pick<PodLog, 'namespace' | 'pod' | 'podUid'> | null {
  const match = podDirectory.exec(name)
  if (match === null) return null
  const [, namespace = '', pod = '', podUid = ''] = match
  return { namespace, pod, podUid }
}

export function trustOfContainer(
  namespace: string,
  pod: string,
  container: string,
  rules: ProvenanceRules,
): Provenance['trust'] {
  for (const entry of rules.controlPlane) {
    if (
      entry.namespace === namespace &&
      entry.container === container &&
      pod.startsWith(entry.podPrefix ?? '')
    ) {
      return 'control_plane'
    }
  }
  return rules.proxyContainers.includes(container) ? 'proxy' : 'none'
}

const auditName = /^audit(?:\.log|-\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d{3})?\.log)/
const auditDirectory =
  /(?:^|\/)(?:kubernetes(?:\/audit)?|kube-apiserver|(?:k3s|rke2)\/server\/logs)$/

/**
 * Whether a path follows the conventions for API server audit logs, rotated ones included. Never below
 * a pod's directory: what lies there, the pod may have written.
 */
export function isAuditPath(path: string): boolean {
  if (path.split('/').some((segment) => podDirectory.test(segment))) return false
  const name = basename(path)
  return auditName.test(name) && auditDirectory.test(path.slice(0, -name.length - 1))
}

/**
 * @param stated what the operator says about files whose path says nothing; it wins over the path's
 *   own trust, but the pod still comes from the path
 */
export function provenanceOf(
  path: string,
  rules: ProvenanceRules = defaultProvenanceRules,
  stated?: Provenance['trust'],
): Provenance {
  const log = podLogOf(path)
  if (log !== null) {
    const { namespace, pod, podUid, container } = log
    const trust = stated ?? trustOfContainer(namespace, pod, container, rules)
    return { trust, namespace, pod, podUid, container, workload: workloadOf(pod) }
  }
  const trust = stated ?? (isAuditPath(path) ? 'api_server' : 'none')
  return { trust, namespace: null, pod: null, podUid: null, container: null, workload: null }
}

// The alphabet Kubernetes draws hashes from: no vowels, so that they spell nothing.
const deploymentPod = /^(.+)-[bcdfghjklmnpqrstvwxz2456789]{6,10}-[bcdfghjklmnpqrstvwxz2456789]{5}$/
const statefulSetPod = /^(.+)-\d+$/
const daemonSetPod = /^(.+)-[bcdfghjklmnpqrstvwxz2456789]{5}$/

/**
 * The name of what owns a pod, as far as the pod's name tells: a pod named like one with a hash
 * cannot be told from it.
 */
export function workloadOf(pod: string): string {
  for (const shape of [deploymentPod, statefulSetPod, daemonSetPod]) {
    const name = shape.exec(pod)?.[1]
    if (name !== undefined) return name
  }
  return pod
}
