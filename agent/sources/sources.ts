/**
 * One line in, exactly one event out: recognises the format of each line by its content, and asks the
 * line's provenance what it may claim.
 *
 * Content picks the format, so files may mix formats and change them in the middle. What a line means
 * depends on nothing but the line and its provenance: the key plans remembered here make the next line
 * faster, never different. A line of no known format is an event too (`unparsed`).
 */
import { type AuditEvent, newEvent } from '../event.ts'
import type { Line, Provenance } from '../tail/chunk.ts'
import { EnvoyJsonReader, type KeyPlan, planKeys } from './envoy-json.ts'
import { EnvoyTextReader } from './envoy-text.ts'
import { type JsonObject, parseObject } from './json.ts'
import { isK8sAudit, readK8sAudit } from './k8s-audit.ts'

type Format = 'envoy' | 'k8s-audit'

/**
 * Whose word counts for a format. A gateway runs in the control plane's namespace, so
 * an Envoy line from there is believed like any proxy's.
 */
const believed: Readonly<Record<Format, readonly Provenance['trust'][]>> = {
  envoy: ['proxy', 'control_plane'],
  'k8s-audit': ['api_server'],
}

/** A node sees few key shapes; more than this is somebody inventing them. */
const plansMax = 256
/** An object with more keys is planned each time it comes. */
const planKeysMax = 128

export class LineParser {
  private readonly cluster: string | null
  private readonly node: string | null
  private readonly envoyJson = new EnvoyJsonReader()
  private readonly envoyText = new EnvoyTextReader()
  private readonly plans = new Map<string, KeyPlan>()
  /** The plan of the line before: lines come file by file, and a file rarely changes its shape. */
  private lastPlan: KeyPlan = planKeys([])

  constructor(options: { cluster: string | null; node: string | null }) {
    this.cluster = options.cluster
    this.node = options.node
  }

  /**
   * @param gen the file generation, 32 hex digits
   * @param observedUs when the line was read, µs
   * @returns the line's event; its raw bytes stay borrowed from the line. Never throws.
   */
  parse(line: Line, provenance: Provenance, gen: string, observedUs: number): AuditEvent {
    const event = this.begin(line, provenance, gen, observedUs)
    try {
      // Whoever wrote the middle of a line chose where its rest begins: that is no line to believe.
      const whole = !line.truncated && line.continuation !== true
      if (whole && this.read(line, event, provenance)) {
        // The source printed no time of its own: the runtime's, taken at the same write, is nearest.
        event.ts ??= line.wrapperUs
        return event
      }
    } catch {
      // Stack depth is the one limit a line can reach here; half-filled columns must not survive it.
    }
    const unparsed = this.begin(line, provenance, gen, observedUs)
    unparsed.ts = line.wrapperUs
    unparsed.reason = 'unparsed'
    return unparsed
  }

  private begin(line: Line, provenance: Provenance, gen: string, observedUs: number): AuditEvent {
    const event = newEvent(observedUs)
    event.cluster = this.cluster
    event.node = this.node
    event.namespace = provenance.namespace
    event.pod = provenance.pod
    event.container = provenance.container
    event.workload = provenance.workload
    event.rawBuffer = line.rawBuffer
    event.rawStart = line.rawStart
    event.rawEnd = line.rawEnd
    event.gen = gen
    event.ranges = line.ranges
    event.stream = line.stream
    return event
  }

  private read(line: Line, event: AuditEvent, provenance: Provenance): boolean {
    const content = line.content
    switch (content.charCodeAt(0)) {
      case 0x7b: // {
        return this.readJson(content, event, provenance)
      case 0x5b: // [
        return this.envoyText.read(
          content,
          line.unterminated,
          event,
          provenance,
          believed.envoy.includes(provenance.trust),
        )
      default:
        return false
    }
  }

  private readJson(content: string, event: AuditEvent, provenance: Provenance): boolean {
    const object = parseObject(content)
    if (object === null) return false
    if (isK8sAudit(object)) {
      readK8sAudit(object, event, believed['k8s-audit'].includes(provenance.trust))
      return true
    }
    return this.envoyJson.read(
      object,
      this.planFor(object),
      content.includes('\\u'),
      event,
      provenance,
      believed.envoy.includes(provenance.trust),
    )
  }

  private planFor(object: JsonObject): KeyPlan {
    const last = this.lastPlan.keys
    let index = 0
    let same = true
    for (const key in object) {
      if (last[index] !== key) {
        same = false
        break
      }
      index += 1
    }
    if (same && index === last.length) return this.lastPlan
    const keys = Object.keys(object)
    if (keys.length > planKeysMax) return planKeys(keys)
    const shape = JSON.stringify(keys)
    let plan = this.plans.get(shape)
    if (plan === undefined) {
      plan = planKeys(keys)
      if (this.plans.size >= plansMax) this.plans.clear()
      this.plans.set(shape, plan)
    }
    this.lastPlan = plan
    return plan
  }
}
