/**
 * Reads Kubernetes audit events, one JSON object in a line, as the API server's log backend writes them.
 *
 * Decided here:
 * - `ts` is the stage's time; `duration_us` runs from the receipt of the request to it.
 * - Only an API server's own audit file may make a statement. The same line from anywhere
 *   else keeps its description, as an `api_call` without verdict, identity, policy or change.
 * - A write to a mesh policy is a `policy_change` also when it was refused: `verdict` tells. Dry runs,
 *   subresources such as `status`, and the stages RequestReceived and ResponseStarted change nothing
 *   and are `api_call`.
 * - RequestReceived has no verdict: nothing is decided yet.
 * - 403 with the authorizer's consent (`decision` allow) came from admission: quota, pod security, a
 *   webhook. Without the annotation it is taken for the authorizer's.
 * - Values of Secrets and tokens are kept out of `change` and `attributes` (not out of the raw line).
 *
 * Not read: EventLists (the webhook backend splits them), and the wrappers of managed clusters.
 *
 * @see kubernetes staging/src/k8s.io/apiserver/pkg/apis/audit/v1/types.go
 */
import type { AuditEvent, DecidedBy, Reason, Verdict } from '../event.ts'
import { principalOfUser } from '../normalise/principal.ts'
import { fixedWidthUs, parseTimestamp } from '../normalise/time.ts'
import { isObject, type JsonObject, ObjectWriter, property, stringOf } from './json.ts'
import { isMeshLabel, meaningOfResource, type ResourceMeaning } from './mesh-resources.ts'

const writeVerbs: ReadonlySet<string> = new Set([
  'create',
  'update',
  'patch',
  'delete',
  'deletecollection',
])
const stages: ReadonlySet<string> = new Set([
  'RequestReceived',
  'ResponseStarted',
  'ResponseComplete',
  'Panic',
])
const decision = 'authorization.k8s.io/decision'

/** Whether an object is an audit event. Old dumps lack `apiVersion`, list items also `kind`. */
export function isK8sAudit(object: JsonObject): boolean {
  const kind = object['kind']
  const version = object['apiVersion']
  return (
    typeof object['auditID'] === 'string' &&
    typeof object['verb'] === 'string' &&
    typeof object['stage'] === 'string' &&
    stages.has(object['stage']) &&
    (kind === undefined || kind === 'Event') &&
    (version === undefined || (typeof version === 'string' && version.startsWith('audit.k8s.io/')))
  )
}

export function readK8sAudit(object: JsonObject, event: AuditEvent, trusted: boolean): void {
  const rest = new Remainder(object)
  event.source = 'k8s.audit'
  event.plane = 'control'
  event.kind = 'api_call'
  rest.drop('kind')
  if (object['apiVersion'] === 'audit.k8s.io/v1') rest.drop('apiVersion')

  fillTimes(object, event, rest)
  fillRequest(object, event, rest)
  const resource = event.resource ?? ''
  const group = event.api_group ?? ''
  const meaning = meaningOfResource(group, resource, event.object_name)
  event.mesh = meaning?.mesh ?? null

  if (trusted) {
    fillIdentity(object, event, rest)
    const stage = object['stage']
    const final = stage === 'ResponseComplete' || stage === 'Panic'
    if (stage !== 'RequestReceived') decide(object, event)
    if (writeVerbs.has(event.method ?? '')) {
      const effect = final ? effectOf(object, event, meaning) : null
      if (effect !== null) event.kind = effect === 'policy' ? 'policy_change' : 'config_change'
      if (meaning?.effect === 'policy' && event.policy === null && event.object_name !== null) {
        event.policy =
          event.object_namespace === null
            ? event.object_name
            : `${event.object_namespace}/${event.object_name}`
        event.policy_kind = meaning.kind
      }
      if (final) fillChange(object, event, rest)
    }
  } else {
    event.reason = 'untrusted_source'
  }
  event.attributes = rest.finish(event)
}

function fillTimes(object: JsonObject, event: AuditEvent, rest: Remainder): void {
  const stageTime = stringOf(object['stageTimestamp'])
  if (stageTime !== null) {
    const fixed = fixedWidthUs(stageTime)
    event.ts = fixed >= 0 ? fixed : (parseTimestamp(stageTime)?.us ?? null)
    if (fixed >= 0 && stageTime.length === 27) rest.drop('stageTimestamp')
  }
  const receivedText = stringOf(object['requestReceivedTimestamp']) ?? stringOf(object['timestamp'])
  const received = receivedText === null ? null : (parseTimestamp(receivedText)?.us ?? null)
  if (event.ts === null) event.ts = received
  else if (received !== null && object['stage'] !== 'RequestReceived' && event.ts >= received) {
    event.duration_us = event.ts - received
  }
}

function fillRequest(object: JsonObject, event: AuditEvent, rest: Remainder): void {
  event.method = rest.take('verb')
  event.request_id = rest.take('auditID')
  event.user_agent = rest.take('userAgent')

  const uri = rest.take('requestURI')
  if (uri !== null) {
    const mark = uri.indexOf('?')
    event.path = mark < 0 ? uri : mark === 0 ? null : uri.slice(0, mark)
    event.query = mark < 0 || mark === uri.length - 1 ? null : uri.slice(mark + 1)
    if (mark === 0 || mark === uri.length - 1) rest.keep('requestURI')
  }

  // Everything before the last may have been sent by the client as X-Forwarded-For.
  const addresses = object['sourceIPs']
  if (Array.isArray(addresses)) {
    const last: unknown = addresses.at(-1)
    event.client_ip = wellFormed(stringOf(last))
    if (addresses.length === 1 && event.client_ip === last) rest.drop('sourceIPs')
  }

  const code = property(object['responseStatus'], 'code')
  if (typeof code === 'number' && Number.isInteger(code) && code > 0 && code <= 0xffff_ffff) {
    event.status = code
    rest.without('responseStatus', ['code'])
  }

  const reference = object['objectRef']
  event.api_group = wellFormed(stringOf(property(reference, 'apiGroup')))
  event.resource = wellFormed(stringOf(property(reference, 'resource')))
  event.subresource = wellFormed(stringOf(property(reference, 'subresource')))
  event.object_namespace = wellFormed(stringOf(property(reference, 'namespace')))
  // A name the server generated is only in what it answered.
  const answered = property(property(object['responseObject'], 'metadata'), 'name')
  event.object_name = wellFormed(
    stringOf(property(reference, 'name')) ??
      (event.method === 'create' && event.subresource === null ? stringOf(answered) : null),
  )
  rest.without('objectRef', ['apiGroup', 'resource', 'subresource', 'namespace', 'name'])
}

function fillIdentity(object: JsonObject, event: AuditEvent, rest: Remainder): void {
  const username = wellFormed(stringOf(property(object['user'], 'username')))
  if (username !== null) {
    const principal = principalOfUser(username)
    event.principal = principal.id
    event.principal_kind = principal.kind
    event.principal_namespace = principal.namespace
    event.principal_name = principal.name
    event.src_namespace = principal.namespace
    rest.without('user', ['username'])
  }
  event.on_behalf_of = wellFormed(stringOf(property(object['impersonatedUser'], 'username')))
  if (event.on_behalf_of !== null) rest.without('impersonatedUser', ['username'])
}

function decide(object: JsonObject, event: AuditEvent): void {
  const authorized = property(object['annotations'], decision)
  const status = event.status
  const message = wellFormed(stringOf(property(object['responseStatus'], 'message'))) ?? ''
  if (authorized === 'forbid') return set(event, 'denied', 'forbidden')
  if (status === 401) return set(event, 'denied', 'unauthenticated')
  if (status !== null && status >= 400) {
    const rejection = admissionRejection(message)
    if (rejection !== null || (status === 403 && authorized === 'allow')) {
      event.policy = rejection?.policy ?? null
      event.policy_kind = rejection?.kind ?? null
      return set(event, 'denied', 'admission_rejected')
    }
    if (status === 403) return set(event, 'denied', 'forbidden')
    return set(event, 'errored', null)
  }
  if (object['stage'] === 'Panic') return set(event, 'errored', null)
  if (status !== null) set(event, 'allowed', null)
}

/** @see k8s.io/apiserver pkg/admission/plugin: the messages of webhooks, policies and pod security */
function admissionRejection(message: string): { policy: string; kind: string } | null {
  const webhook = /^admission webhook "([^"]{1,253})" denied the request/.exec(message)
  if (webhook?.[1] !== undefined) return { policy: webhook[1], kind: 'AdmissionWebhook' }
  const policy =
    /ValidatingAdmissionPolicy '([^']{1,253})' with binding '[^']{0,253}' denied request/.exec(
      message,
    )
  if (policy?.[1] !== undefined) return { policy: policy[1], kind: 'ValidatingAdmissionPolicy' }
  const podSecurity = /violates PodSecurity "([^"]{1,63})"/.exec(message)
  if (podSecurity?.[1] !== undefined) return { policy: podSecurity[1], kind: 'PodSecurity' }
  return null
}

function effectOf(
  object: JsonObject,
  event: AuditEvent,
  meaning: ResourceMeaning | null,
): 'policy' | 'config' | null {
  if (event.subresource !== null || isDryRun(object, event)) return null
  if (meaning !== null) return meaning.effect
  // A namespace decides by its labels whether its pods are in the mesh at all.
  if (event.resource === 'namespaces' && event.api_group === null) {
    const touches = [object['requestObject'], object['responseObject']].some((body) => {
      const metadata = property(body, 'metadata')
      return [property(metadata, 'labels'), property(metadata, 'annotations')].some(
        (labels) => isObject(labels) && Object.keys(labels).some(isMeshLabel),
      )
    })
    if (touches) return 'config'
  }
  return null
}

function isDryRun(object: JsonObject, event: AuditEvent): boolean {
  if (event.query !== null && /(?:^|&)dryRun=[^&]/.test(event.query)) return true
  // DELETE may say so in its DeleteOptions.
  const body = object['requestObject']
  const options = property(body, 'kind') === 'DeleteOptions' ? property(body, 'dryRun') : undefined
  return Array.isArray(options) && options.length > 0
}

/**
 * `{verb, after}`, `{verb, patch, after}` or, when nothing was applied, `{verb, requested}`. What was
 * there before is not in the audit event.
 */
function fillChange(object: JsonObject, event: AuditEvent, rest: Remainder): void {
  const request = object['requestObject']
  const response = object['responseObject']
  const applied = event.verdict === 'allowed' && !isDryRun(object, event)
  const writer = new ObjectWriter()
  writer.add('verb', event.method)
  let filled = event.kind !== 'api_call'

  if (event.method === 'delete' || event.method === 'deletecollection') {
    // The body is DeleteOptions, the answer a Status or what was deleted: neither is an "after".
  } else if (event.method === 'patch' && request !== undefined && request !== null) {
    writer.add('patch', presentable(request, event))
    rest.drop('requestObject')
    filled = true
    if (applied && isResult(response)) {
      writer.add('after', presentable(response, event))
      rest.drop('responseObject')
    }
  } else if (applied && isResult(response)) {
    writer.add('after', presentable(response, event))
    rest.drop('responseObject')
    filled = true
  } else if (request !== undefined && request !== null) {
    writer.add(applied ? 'after' : 'requested', presentable(request, event))
    rest.drop('requestObject')
    filled = true
  }
  if (filled) event.change = writer.finish()
}

function isResult(value: unknown): boolean {
  return isObject(value) && value['kind'] !== 'Status'
}

/** A request or response body as it may be shown: without managedFields, without secrets. */
function presentable(body: unknown, event: AuditEvent): unknown {
  const core = event.api_group === null
  if (core && event.resource === 'secrets') return withoutSecretValues(body)
  const kind = property(body, 'kind')
  if (kind === 'Secret' || kind === 'SecretList') return withoutSecretValues(body)
  const isToken =
    (core && event.resource === 'serviceaccounts' && event.subresource === 'token') ||
    event.resource === 'tokenreviews' ||
    kind === 'TokenRequest' ||
    kind === 'TokenReview'
  return withoutManagedFields(isToken ? withoutToken(body) : body)
}

/**
 * What may be known of a Secret: an allow list, because values also hide in the last-applied
 * annotation, in table rows, and in the values of a JSON patch.
 */
function withoutSecretValues(body: unknown): unknown {
  if (Array.isArray(body)) {
    return body.map((operation: unknown) => pick(operation, ['op', 'path', 'from']))
  }
  if (!isObject(body)) return null
  if (body['kind'] === 'Status' || body['kind'] === 'DeleteOptions') return body
  const shown: Record<string, unknown> = {
    ...pick(body, ['kind', 'apiVersion', 'type', 'immutable']),
  }
  const metadata = body['metadata']
  if (isObject(metadata)) {
    shown['metadata'] = pick(metadata, [
      'name',
      'generateName',
      'namespace',
      'uid',
      'resourceVersion',
      'creationTimestamp',
      'deletionTimestamp',
      'labels',
      'ownerReferences',
    ])
  }
  return shown
}

function withoutToken(body: unknown): unknown {
  if (!isObject(body)) return null
  const copy: Record<string, unknown> = { ...body }
  for (const part of ['spec', 'status']) {
    const inner = copy[part]
    if (isObject(inner)) copy[part] = omit(inner, ['token'])
  }
  return copy
}

function withoutManagedFields(body: unknown): unknown {
  const metadata = property(body, 'metadata')
  if (!isObject(body) || !isObject(metadata) || !Object.hasOwn(metadata, 'managedFields')) {
    return body
  }
  return { ...body, metadata: omit(metadata, ['managedFields']) }
}

/** The source's fields that no column holds. */
class Remainder {
  private readonly object: JsonObject
  private readonly dropped = new Set<string>()
  private readonly partly = new Map<string, readonly string[]>()

  constructor(object: JsonObject) {
    this.object = object
  }

  drop(key: string): void {
    this.dropped.add(key)
  }

  keep(key: string): void {
    this.dropped.delete(key)
  }

  /** The string at `key`, which the caller's column holds from now on. */
  take(key: string): string | null {
    const value = stringOf(this.object[key])
    const text = wellFormed(value)
    if (text !== null && text === value) this.dropped.add(key)
    return text
  }

  /** Columns hold these members of the object at `key`. */
  without(key: string, members: readonly string[]): void {
    this.partly.set(key, members)
  }

  finish(event: AuditEvent): string | null {
    const writer = new ObjectWriter()
    const secret = event.resource === 'secrets' && event.api_group === null
    for (const key of Object.keys(this.object)) {
      const value = this.object[key]
      if (this.dropped.has(key) || value === null || value === '') continue
      let shown: unknown = value
      if (key === 'requestObject' || key === 'responseObject') shown = presentable(value, event)
      // A mutating webhook's patch repeats the values it changed.
      else if (secret && key === 'annotations' && isObject(value)) {
        shown = Object.fromEntries(
          Object.entries(value).filter(([name]) => !name.startsWith('patch.webhook.admission')),
        )
      }
      const members = this.partly.get(key)
      if (members !== undefined && isObject(shown)) {
        shown = omit(
          shown,
          members.filter((member) => isHeld(shown, member)),
        )
      }
      if (isObject(shown) && isEmpty(shown)) continue
      writer.add(key, shown)
    }
    return writer.finish()
  }
}

/** A column holds non-empty strings and numbers; a member of another type it could not take stays. */
function isHeld(object: unknown, member: string): boolean {
  const value = property(object, member)
  return (
    (typeof value === 'string' && value.isWellFormed()) ||
    typeof value === 'number' ||
    value === null
  )
}

/** `{}` and `{"metadata":{}}`, which every responseStatus has. */
function isEmpty(object: JsonObject, depth = 2): boolean {
  for (const key in object) {
    const value = object[key]
    if (depth === 0 || !isObject(value) || !isEmpty(value, depth - 1)) return false
  }
  return true
}

function pick(value: unknown, keys: readonly string[]): Record<string, unknown> {
  if (!isObject(value)) return {}
  return Object.fromEntries(Object.entries(value).filter(([key]) => keys.includes(key)))
}

function omit(value: JsonObject, keys: readonly string[]): Record<string, unknown> {
  const rest: Record<string, unknown> = {}
  for (const key of Object.keys(value)) if (!keys.includes(key)) define(rest, key, value[key])
  return rest
}

/** Assignment would take `__proto__` for the prototype. */
function define(target: Record<string, unknown>, key: string, value: unknown): void {
  if (key !== '__proto__') target[key] = value
  else Object.defineProperty(target, key, { value, enumerable: true, configurable: true })
}

function wellFormed(text: string | null): string | null {
  return text === null ? null : text.toWellFormed()
}

function set(event: AuditEvent, verdict: Verdict, reason: Reason | null): void {
  const by: DecidedBy = 'api_server'
  event.verdict = verdict
  event.decided_by = by
  event.reason = reason
}
