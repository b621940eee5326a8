/**
 * An API server's audit log around the mesh's traffic, composed from the schema `audit.k8s.io/v1` because
 * no API server runs here: the keys, their order and the escaping are those of kube-apiserver, the events
 * are invented. Each event comes with what meshtrail must report for it.
 *
 * @see kubernetes, staging/src/k8s.io/apiserver/pkg/apis/audit/v1/types.go
 */
import { createHash } from 'node:crypto'
import type { AuditEvent } from '../../../agent/event.ts'
import { pods } from './mesh.ts'
import type { Json, JsonObject } from './sidecar.ts'

export type ExpectedAuditRow = Pick<
  AuditEvent,
  'kind' | 'verdict' | 'decided_by' | 'reason' | 'principal' | 'method' | 'resource' | 'status'
> & { readonly auditID: string; readonly stage: string }

export type AuditLog = { readonly text: string; readonly expected: readonly ExpectedAuditRow[] }

/** @param startMs the events lie in the quarter of an hour before it and the seconds after */
export function composeAuditLog(startMs: number): AuditLog {
  const steps = [...configuration(), ...intrusion(), ...controllers()].toSorted(
    (a, b) => a.atSeconds - b.atSeconds,
  )
  const lines: string[] = []
  const expected: ExpectedAuditRow[] = []
  for (const [index, step] of steps.entries()) {
    const auditId = uuid(`event ${index}`)
    for (const stage of step.stages ?? ['ResponseComplete']) {
      lines.push(goJson(auditEvent(step, auditId, stage, startMs)))
      expected.push({
        auditID: auditId,
        stage,
        kind: step.kind,
        verdict: step.reason === null ? 'allowed' : 'denied',
        decided_by: 'api_server',
        reason: step.reason,
        principal: step.user.username ?? null,
        method: step.verb,
        resource: step.object === undefined ? null : step.object.resource,
        status: step.code,
      })
    }
  }
  return { text: `${lines.join('\n')}\n`, expected }
}

type Stage = 'ResponseStarted' | 'ResponseComplete'

type ObjectRef = {
  readonly resource: string
  readonly namespace?: string
  readonly name?: string
  readonly apiGroup?: string
  readonly apiVersion: string
  readonly subresource?: string
}

type User = JsonObject & { readonly username?: string }

type Step = {
  /** Seconds after the traffic starts. */
  readonly atSeconds: number
  readonly kind: 'policy_change' | 'config_change' | 'api_call'
  readonly reason: 'forbidden' | 'admission_rejected' | 'unauthenticated' | null
  readonly user: User
  readonly impersonated?: JsonObject
  readonly verb: string
  readonly sourceIp: string
  readonly userAgent: string
  readonly object?: ObjectRef
  readonly uri?: string
  readonly code: number
  /** Of a failure: what `responseStatus` adds. */
  readonly failure?: JsonObject
  readonly request?: Json
  readonly response?: JsonObject
  /** The role binding that allowed it. */
  readonly allowedBy?: string
  readonly stages?: readonly Stage[]
}

const jane: User = {
  username: 'jane@example.com',
  groups: ['platform-admins', 'system:authenticated'],
  extra: { 'authentication.kubernetes.io/credential-id': ['X509SHA256=5f1c0d1e'] },
}
const argocd = serviceAccount('argocd', 'argocd-application-controller')
const istiod = serviceAccount('istio-system', 'istiod')
const debugShell = serviceAccount('dev', 'debug-shell')
const kubectl = 'kubectl/v1.34.1 (linux/amd64) kubernetes/93248f9'
const security = { apiGroup: 'security.istio.io', apiVersion: 'v1' }
const byPlatformAdmins =
  'RBAC: allowed by ClusterRoleBinding "platform-admins" of ClusterRole "cluster-admin" to Group "platform-admins"'

function prodPolicy(name: string): ObjectRef {
  return { resource: 'authorizationpolicies', namespace: 'prod', name, ...security }
}

/** What people and their pipeline do to the mesh. */
function configuration(): Step[] {
  const freezeExports = {
    rules: [{ to: [{ operation: { paths: ['/v1/export*'] } }] }],
    action: 'DENY',
    selector: { matchLabels: { app: 'payments' } },
  }
  const byJane = { user: jane, sourceIp: '192.0.2.17', userAgent: kubectl }
  const byPipeline = { user: argocd, sourceIp: '10.0.3.21', userAgent: 'argocd-controller/v3.1.0' }
  return [
    {
      atSeconds: -840.4,
      kind: 'policy_change',
      reason: null,
      ...byPipeline,
      verb: 'create',
      object: prodPolicy('freeze-exports'),
      code: 201,
      request: policyObject('freeze-exports', freezeExports),
      response: policyObject('freeze-exports', freezeExports, { generation: 1 }),
      allowedBy:
        'RBAC: allowed by ClusterRoleBinding "argocd" of ClusterRole "argocd" to ServiceAccount "argocd-application-controller/argocd"',
    },
    {
      atSeconds: -312.8,
      kind: 'policy_change',
      reason: null,
      ...byJane,
      verb: 'patch',
      object: prodPolicy('freeze-exports'),
      code: 200,
      request: { metadata: { annotations: { 'istio.io/dry-run': 'true' } } },
      response: policyObject('freeze-exports', freezeExports, {
        generation: 1,
        annotations: { 'istio.io/dry-run': 'true' },
      }),
      allowedBy: byPlatformAdmins,
    },
    {
      atSeconds: -295.1,
      kind: 'policy_change',
      reason: null,
      ...byJane,
      verb: 'delete',
      object: prodPolicy('payments-egress'),
      code: 200,
      request: { kind: 'DeleteOptions', apiVersion: 'v1', propagationPolicy: 'Background' },
      response: {
        kind: 'Status',
        apiVersion: 'v1',
        metadata: {},
        status: 'Success',
        details: {
          name: 'payments-egress',
          group: 'security.istio.io',
          kind: 'authorizationpolicies',
          uid: uuid('payments-egress'),
        },
      },
      allowedBy: byPlatformAdmins,
    },
    {
      atSeconds: -270.6,
      kind: 'policy_change',
      reason: 'admission_rejected',
      ...byJane,
      verb: 'create',
      object: prodPolicy('payments-allow-v2'),
      code: 400,
      failure: {
        status: 'Failure',
        message:
          'admission webhook "validation.istio.io" denied the request: configuration is invalid: ' +
          '`from.source` must not be empty',
      },
      request: policyObject('payments-allow-v2', { action: 'ALLOW', rules: [{ from: [{}] }] }),
      allowedBy: byPlatformAdmins,
    },
    {
      atSeconds: -120.9,
      kind: 'config_change',
      reason: null,
      ...byPipeline,
      verb: 'update',
      object: {
        resource: 'telemetries',
        namespace: 'istio-system',
        name: 'mesh-audit',
        apiGroup: 'telemetry.istio.io',
        apiVersion: 'v1',
      },
      code: 200,
      request: telemetryObject(),
      response: telemetryObject(),
    },
    {
      atSeconds: -64.2,
      kind: 'api_call',
      reason: null,
      ...byJane,
      verb: 'create',
      object: {
        resource: 'pods',
        namespace: 'prod',
        name: pods.payments.name,
        apiVersion: 'v1',
        subresource: 'exec',
      },
      uri:
        `/api/v1/namespaces/prod/pods/${pods.payments.name}/exec` +
        '?command=sh&container=istio-proxy&stdin=true&stdout=true&tty=true',
      code: 101,
      allowedBy: byPlatformAdmins,
      stages: ['ResponseStarted', 'ResponseComplete'],
    },
    {
      atSeconds: -41.7,
      kind: 'api_call',
      reason: null,
      ...byJane,
      impersonated: {
        username: 'system:serviceaccount:prod:deployer',
        groups: ['system:serviceaccounts', 'system:serviceaccounts:prod', 'system:authenticated'],
      },
      verb: 'patch',
      object: {
        resource: 'deployments',
        namespace: 'prod',
        name: 'payments',
        apiGroup: 'apps',
        apiVersion: 'v1',
        subresource: 'scale',
      },
      code: 200,
      request: [{ op: 'replace', path: '/spec/replicas', value: 3 }],
      response: scaleObject(),
    },
    {
      atSeconds: -33.3,
      kind: 'api_call',
      reason: null,
      ...byJane,
      verb: 'get',
      object: prodPolicy('deny-admin'),
      code: 200,
      response: policyObject('deny-admin', {
        action: 'DENY',
        rules: [
          { to: [{ operation: { paths: ['/admin*'] } }] },
          { to: [{ operation: { methods: ['DELETE'] } }] },
        ],
      }),
      allowedBy: byPlatformAdmins,
    },
  ]
}

function forbidden(object: string, attempt: string, namespace: string): JsonObject {
  const message =
    `${object} is forbidden: User "system:serviceaccount:dev:debug-shell" cannot ${attempt} ` +
    `in the namespace "${namespace}"`
  return { status: 'Failure', message, reason: 'Forbidden' }
}

/** A service account that tries what it may not, and one caller nobody knows. */
function intrusion(): Step[] {
  const byShell = { user: debugShell, sourceIp: '10.0.7.66', userAgent: 'curl/8.9.1' }
  return [
    {
      atSeconds: 1.2,
      kind: 'policy_change',
      reason: 'forbidden',
      ...byShell,
      verb: 'patch',
      object: {
        resource: 'peerauthentications',
        namespace: 'prod',
        name: 'default',
        ...security,
      },
      code: 403,
      failure: forbidden(
        'peerauthentications.security.istio.io "default"',
        'patch resource "peerauthentications" in API group "security.istio.io"',
        'prod',
      ),
      request: { spec: { mtls: { mode: 'PERMISSIVE' } } },
    },
    {
      atSeconds: 2.6,
      kind: 'api_call',
      reason: 'forbidden',
      ...byShell,
      verb: 'get',
      object: {
        resource: 'secrets',
        namespace: 'istio-system',
        name: 'istio-ca-secret',
        apiVersion: 'v1',
      },
      code: 403,
      failure: forbidden(
        'secrets "istio-ca-secret"',
        'get resource "secrets" in API group ""',
        'istio-system',
      ),
    },
    {
      atSeconds: 3.1,
      kind: 'api_call',
      reason: null,
      ...byShell,
      verb: 'list',
      object: { resource: 'pods', namespace: 'dev', apiVersion: 'v1' },
      uri: '/api/v1/namespaces/dev/pods?limit=500',
      code: 200,
      response: {
        kind: 'PodList',
        apiVersion: 'v1',
        metadata: { resourceVersion: '81237' },
        items: [],
      },
    },
    {
      atSeconds: 4.4,
      kind: 'api_call',
      reason: 'unauthenticated',
      user: {},
      sourceIp: '203.0.113.90',
      userAgent: 'python-requests/2.32.3',
      verb: 'list',
      object: { resource: 'namespaces', apiVersion: 'v1' },
      code: 401,
      failure: { status: 'Failure', message: 'Unauthorized', reason: 'Unauthorized' },
    },
    {
      atSeconds: 4.9,
      kind: 'api_call',
      reason: null,
      user: { username: 'system:anonymous', groups: ['system:unauthenticated'] },
      sourceIp: '203.0.113.90',
      userAgent: 'python-requests/2.32.3',
      verb: 'get',
      uri: '/version',
      code: 200,
      allowedBy:
        'RBAC: allowed by ClusterRoleBinding "system:public-info-viewer" of ClusterRole "system:public-info-viewer" to Group "system:unauthenticated"',
    },
  ]
}

/** What goes on in every cluster all the time. */
function controllers(): Step[] {
  const byIstiod = { user: istiod, sourceIp: '10.0.3.11', userAgent: 'pilot-discovery/v0.0.0' }
  const leader = { resource: 'leases', namespace: 'istio-system', name: 'istio-leader' }
  const lease = { ...leader, apiGroup: 'coordination.k8s.io', apiVersion: 'v1' }
  const steps: Step[] = []
  for (const atSeconds of [-600.5, -300.5, 0.5]) {
    steps.push({
      atSeconds,
      kind: 'api_call',
      reason: null,
      ...byIstiod,
      verb: 'update',
      object: lease,
      code: 200,
      request: leaseObject(),
      response: leaseObject(),
    })
  }
  for (const [namespace, atSeconds] of [
    ['shop', -598.2],
    ['prod', -598.1],
  ] as const) {
    const object = {
      kind: 'ConfigMap',
      apiVersion: 'v1',
      metadata: { name: 'istio-ca-root-cert', namespace },
      data: { 'root-cert.pem': '(left out)' },
    }
    steps.push({
      atSeconds,
      kind: 'config_change',
      reason: null,
      ...byIstiod,
      verb: 'update',
      object: { resource: 'configmaps', namespace, name: 'istio-ca-root-cert', apiVersion: 'v1' },
      code: 200,
      request: object,
      response: object,
    })
  }
  steps.push(
    {
      atSeconds: -597.4,
      kind: 'api_call',
      reason: null,
      ...byIstiod,
      verb: 'watch',
      object: { resource: 'authorizationpolicies', ...security },
      uri: '/apis/security.istio.io/v1/authorizationpolicies?allowWatchBookmarks=true&watch=true',
      code: 200,
      stages: ['ResponseStarted', 'ResponseComplete'],
    },
    {
      atSeconds: -40.9,
      kind: 'api_call',
      reason: null,
      user: serviceAccount('kube-system', 'replicaset-controller'),
      sourceIp: '10.0.0.2',
      userAgent: 'kube-controller-manager/v1.34.1 (linux/amd64) kubernetes/93248f9',
      verb: 'create',
      object: { resource: 'pods', namespace: 'prod', apiVersion: 'v1' },
      uri: '/api/v1/namespaces/prod/pods',
      code: 201,
      request: {
        kind: 'Pod',
        apiVersion: 'v1',
        metadata: { generateName: 'payments-6f5b9c7d88-', labels: { app: 'payments' } },
      },
    },
    {
      atSeconds: -39.8,
      kind: 'api_call',
      reason: null,
      user: {
        username: 'system:node:worker-1',
        groups: ['system:nodes', 'system:authenticated'],
      },
      sourceIp: '10.0.0.11',
      userAgent: 'kubelet/v1.34.1 (linux/amd64) kubernetes/93248f9',
      verb: 'create',
      object: {
        resource: 'serviceaccounts',
        namespace: 'prod',
        name: 'payments',
        apiVersion: 'v1',
        subresource: 'token',
      },
      code: 201,
      request: {
        kind: 'TokenRequest',
        apiVersion: 'authentication.k8s.io/v1',
        metadata: { name: 'payments', namespace: 'prod' },
        spec: { audiences: ['istio-ca'], expirationSeconds: 43_200 },
      },
    },
  )
  return steps
}

function auditEvent(step: Step, auditId: string, stage: Stage, startMs: number): JsonObject {
  const receivedUs = Math.round((startMs + step.atSeconds * 1000) * 1000)
  const tookUs = stage === 'ResponseStarted' ? 3_100 : 5_742
  const isForbidden = step.reason === 'forbidden'
  const decided: JsonObject =
    step.reason === 'unauthenticated'
      ? {}
      : {
          annotations: {
            'authorization.k8s.io/decision': isForbidden ? 'forbid' : 'allow',
            'authorization.k8s.io/reason': isForbidden ? '' : (step.allowedBy ?? ''),
          },
        }
  const complete = stage === 'ResponseComplete'
  return {
    kind: 'Event',
    apiVersion: 'audit.k8s.io/v1',
    level: 'RequestResponse',
    auditID: auditId,
    stage,
    requestURI: step.uri ?? uriOf(step),
    verb: step.verb,
    user: step.user,
    ...(step.impersonated === undefined ? {} : { impersonatedUser: step.impersonated }),
    sourceIPs: [step.sourceIp],
    userAgent: step.userAgent,
    ...(step.object === undefined ? {} : { objectRef: step.object }),
    responseStatus: { metadata: {}, ...step.failure, code: step.code },
    ...(step.request === undefined ? {} : { requestObject: step.request }),
    ...(complete && step.response !== undefined ? { responseObject: step.response } : {}),
    ...(complete && step.failure !== undefined
      ? {
          responseObject: {
            kind: 'Status',
            apiVersion: 'v1',
            metadata: {},
            ...step.failure,
            code: step.code,
          },
        }
      : {}),
    requestReceivedTimestamp: microTime(receivedUs),
    stageTimestamp: microTime(receivedUs + tookUs),
    ...decided,
  }
}

function uriOf(step: Step): string {
  const { object } = step
  if (object === undefined) throw new Error('BUG: an event without an object states its URI')
  const group = object.apiGroup === undefined ? '/api' : `/apis/${object.apiGroup}`
  const namespace = object.namespace === undefined ? '' : `/namespaces/${object.namespace}`
  // A create posts to the collection, unless it is a subresource that is created.
  const named = step.verb !== 'create' || object.subresource !== undefined
  const name = object.name !== undefined && named ? `/${object.name}` : ''
  const subresource = object.subresource === undefined ? '' : `/${object.subresource}`
  return `${group}/${object.apiVersion}${namespace}/${object.resource}${name}${subresource}`
}

function serviceAccount(namespace: string, name: string): User {
  return {
    username: `system:serviceaccount:${namespace}:${name}`,
    uid: uuid(`${namespace}/${name}`),
    groups: [
      'system:serviceaccounts',
      `system:serviceaccounts:${namespace}`,
      'system:authenticated',
    ],
  }
}

function policyObject(name: string, spec: JsonObject, metadata: JsonObject = {}): JsonObject {
  return {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name, namespace: 'prod', ...metadata },
    spec,
  }
}

function telemetryObject(): JsonObject {
  return {
    apiVersion: 'telemetry.istio.io/v1',
    kind: 'Telemetry',
    metadata: { name: 'mesh-audit', namespace: 'istio-system' },
    spec: { accessLogging: [{ providers: [{ name: 'audit-json' }] }] },
  }
}

function scaleObject(): JsonObject {
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata: { name: 'payments', namespace: 'prod' },
    spec: { replicas: 3 },
    status: { replicas: 2 },
  }
}

function leaseObject(): JsonObject {
  return {
    kind: 'Lease',
    apiVersion: 'coordination.k8s.io/v1',
    metadata: { name: 'istio-leader', namespace: 'istio-system' },
    spec: { holderIdentity: 'istiod-7c8d9f5b6-zk4mp', leaseDurationSeconds: 30 },
  }
}

/** As Go's `encoding/json` writes it: `&`, `<` and `>` escaped. */
function goJson(value: JsonObject): string {
  return JSON.stringify(value).replace(
    /[&<>]/g,
    (character) => `\\u00${character.charCodeAt(0).toString(16)}`,
  )
}

function microTime(us: number): string {
  const whole = new Date(Math.floor(us / 1_000_000) * 1000).toISOString().slice(0, 19)
  return `${whole}.${String(us % 1_000_000).padStart(6, '0')}Z`
}

function uuid(of: string): string {
  const hex = createHash('sha256').update(of).digest('hex')
  const parts = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `4${hex.slice(13, 16)}`,
    `a${hex.slice(17, 20)}`,
  ]
  return [...parts, hex.slice(20, 32)].join('-')
}
