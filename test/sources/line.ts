/** Lines and provenances for tests, as the tail would hand them over. */
import type { AuditEvent } from '../../agent/event.ts'
import { type JsonObject, parseObject } from '../../agent/sources/json.ts'
import type { LineParser } from '../../agent/sources/sources.ts'
import type { Line, Provenance } from '../../agent/tail/chunk.ts'

export const gen = '0123456789abcdef0123456789abcdef'
export const observedUs = 1_800_000_000_000_000

export const sidecar: Provenance = {
  trust: 'proxy',
  namespace: 'shop',
  pod: 'cart-7d4f8b9c5-x2x7k',
  podUid: '00000000-0000-4000-8000-000000000000',
  container: 'istio-proxy',
  workload: 'cart',
}

export const gateway: Provenance = {
  ...sidecar,
  namespace: 'envoy-gateway-system',
  pod: 'envoy-eg-5b7d9c4f6-k2x8z',
  container: 'envoy',
  workload: 'envoy-eg',
}

export const apiServer: Provenance = {
  trust: 'api_server',
  namespace: null,
  pod: null,
  podUid: null,
  container: null,
  workload: null,
}

export const anyPod: Provenance = { ...sidecar, trust: 'none', container: 'app' }

export function lineOf(content: string, changes: Partial<Line> = {}): Line {
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
    ...changes,
  }
}

export function parse(parser: LineParser, content: string, from: Provenance): AuditEvent {
  return parser.parse(lineOf(content), from, gen, observedUs)
}

const hidden: ReadonlySet<string> = new Set([
  'observed_ts',
  'cluster',
  'node',
  'namespace',
  'pod',
  'container',
  'workload',
  'rawBuffer',
  'rawStart',
  'rawEnd',
  'gen',
  'ranges',
  'stream',
])

/** What the line said: columns that are not null, JSON columns as values. */
export function columnsOf(event: AuditEvent): Record<string, unknown> {
  const shown: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(event)) {
    if (hidden.has(key) || value === null) continue
    const json = (key === 'attributes' || key === 'change') && typeof value === 'string'
    shown[key] = json ? objectOf(value) : value
  }
  return shown
}

export function attributesOf(event: AuditEvent): JsonObject {
  return objectOf(event.attributes ?? '{}')
}

export function objectOf(text: string): JsonObject {
  const object = parseObject(text)
  if (object === null) throw new Error(`no JSON object: ${text}`)
  return object
}
