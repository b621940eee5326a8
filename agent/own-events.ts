/**
 * What the agent itself has to say, as events of the same log: gaps, findings, accesses, lifecycle.
 * Their raw bytes are RFC 8785 JSON, so that they can be checked without a parser of ours.
 */
import canonicalize from 'canonicalize'
import type { AuditEvent, Kind } from './event.ts'
import { newEvent } from './event.ts'
import type { Gap } from './tail/chunk.ts'

export type Reporter = { readonly cluster: string | null; readonly node: string | null }

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }
export type OwnBody = { readonly [key: string]: Json }

/** @param body the whole statement; keys of its own choice, values as JSON has them */
export function ownEvent(
  kind: Kind,
  body: OwnBody,
  reporter: Reporter,
  observedUs: number,
): AuditEvent {
  const text = canonicalize(wellFormed({ kind, ...body }))
  if (text === undefined) throw new Error(`BUG: ${kind} event without a body`)
  const event = newEvent(observedUs)
  event.source = 'meshtrail'
  event.plane = 'control'
  event.kind = kind
  event.cluster = reporter.cluster
  event.node = reporter.node
  event.attributes = text
  const raw = Buffer.from(text)
  event.rawBuffer = raw
  event.rawEnd = raw.length
  return event
}

/** Half a character, as a query or a driver may hand over, has no canonical form: it is replaced. */
function wellFormed(value: Json): Json {
  if (typeof value === 'string') return value.toWellFormed()
  if (Array.isArray(value)) return value.map(wellFormed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, wellFormed(member)]))
}

/** The signed statement that bytes of a generation will never be events. */
export function gapEvent(gap: Gap, reporter: Reporter, observedUs: number): AuditEvent {
  return ownEvent('gap', { ...gap }, reporter, observedUs)
}
