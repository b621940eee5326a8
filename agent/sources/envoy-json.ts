/**
 * Reads Envoy access log lines in JSON: Istio's, Envoy Gateway's, and an operator's own key set.
 *
 * Keys are resolved once for each key shape (the same keys in the same order), not for each line. What
 * a format means is decided by its keys alone, so that a line reads the same whatever came before it.
 *
 * @see istio pilot/pkg/model/telemetry_logging.go; envoy gateway's proxy access log documentation
 */
import type { AuditEvent } from '../event.ts'
import { normaliseEnvoy } from '../normalise/envoy.ts'
import { EnvoyRecord, isAbsent } from '../normalise/envoy-record.ts'
import type { Provenance } from '../tail/chunk.ts'
import { envoyOnly, istioKeys, meaningOfKey, outcomeFields } from './envoy-keys.ts'
import { encode, isObject, type JsonObject } from './json.ts'

/** What the keys of a line mean. */
export type KeyPlan = {
  readonly keys: readonly string[]
  /** For each key: its encoded form with the colon. */
  readonly prefixes: readonly string[]
  /** Indices of keys that fill a field, first choices before others. */
  readonly order: readonly number[]
  /** For each key: the field it fills, or -1. */
  readonly places: readonly number[]
  readonly envoy: boolean
  readonly istio: boolean
}

/** Nested objects are searched this deep for known names. */
const nestingMax = 4

export function planKeys(keys: readonly string[]): KeyPlan {
  const meanings = keys.map((key) => meaningOfKey.get(key))
  const order = keys
    .map((_, index) => index)
    .filter((index) => meanings[index] !== undefined)
    .toSorted((a, b) => (meanings[a]?.rank ?? 0) - (meanings[b]?.rank ?? 0))
  const places = meanings.map((meaning) => meaning?.place ?? -1)
  return {
    keys,
    prefixes: keys.map((key) => `${encode(key)}:`),
    order,
    places,
    envoy: isEnvoy(new Set(places)),
    istio: keys.some((key) => istioKeys.has(key)),
  }
}

export class EnvoyJsonReader {
  private readonly record = new EnvoyRecord()
  private readonly values: unknown[] = []

  /**
   * @param escapes whether the line has `\u` escapes
   * @returns false when the line is no Envoy access log line; the event is then unchanged
   */
  read(
    object: JsonObject,
    plan: KeyPlan,
    escapes: boolean,
    event: AuditEvent,
    provenance: Provenance,
    trusted: boolean,
  ): boolean {
    const { record, values } = this
    const { keys, order, places } = plan
    record.reset()
    record.escapes = escapes
    record.istioLayout = plan.istio

    let nested = false
    for (let index = 0; index < keys.length; index += 1) {
      const value = object[keys[index] ?? '']
      values[index] = value
      if (typeof value === 'object' && value !== null) nested = true
    }
    // A field goes to the first of its keys that has a value; -1 marks the keys that went without.
    const filled = record.values
    for (const index of order) {
      const place = places[index] ?? -1
      const value = values[index]
      if (isAbsent(filled[place]) && !isAbsent(value) && typeof value !== 'object') {
        filled[place] = value
      }
    }
    if (nested) {
      for (let index = 0; index < keys.length; index += 1) {
        this.fillNested(keys[index] ?? '', values[index], 1)
      }
    }
    if (!plan.envoy && !(nested && isEnvoy(filledPlaces(filled)))) return false

    normaliseEnvoy(record, event, provenance, trusted)
    event.attributes = this.attributes(plan)
    return true
  }

  private fillNested(prefix: string, value: unknown, depth: number): void {
    if (!isObject(value) || depth > nestingMax) return
    for (const [key, inner] of Object.entries(value)) {
      const name = `${prefix}.${key}`
      if (isObject(inner)) this.fillNested(name, inner, depth + 1)
      else {
        const place = meaningOfKey.get(name)?.place ?? envoyPlace(key)
        if (place !== undefined && isAbsent(this.record.values[place]) && !isAbsent(inner)) {
          this.record.values[place] = inner
        }
      }
    }
  }

  /** Nested objects are kept whole, also where parts of them fill columns. */
  private attributes(plan: KeyPlan): string | null {
    const { record, values } = this
    const { places, prefixes } = plan
    let text = ''
    for (let index = 0; index < places.length; index += 1) {
      const value = values[index]
      if (isAbsent(value)) continue
      const place = places[index] ?? -1
      // The column holds this key's value, not that of another key of the same field.
      if (place >= 0 && record.held[place] === 1 && record.values[place] === value) continue
      text += `${text === '' ? '{' : ','}${prefixes[index] ?? ''}${encode(value)}`
    }
    return text === '' ? null : `${text}}`
  }
}

/** Below an unknown parent only unmistakable names count: `kubernetes.host` is no authority. */
function envoyPlace(key: string): number | undefined {
  const place = meaningOfKey.get(key)?.place
  return place !== undefined && envoyOnly.has(place) ? place : undefined
}

function isEnvoy(places: ReadonlySet<number>): boolean {
  let only = 0
  let outcome = false
  for (const place of places) {
    if (envoyOnly.has(place)) only += 1
    if (outcomeFields.has(place)) outcome = true
  }
  return outcome && only >= 2
}

function filledPlaces(values: readonly unknown[]): ReadonlySet<number> {
  const places = new Set<number>()
  for (let place = 0; place < values.length; place += 1) {
    if (!isAbsent(values[place])) places.add(place)
  }
  return places
}
