/** Events and cursors made up for tests of the store: no tail, no parser, every byte accounted for. */
import type { Batch } from '../../agent/buffer.ts'
import type { AuditEvent } from '../../agent/event.ts'
import { newEvent } from '../../agent/event.ts'
import type { Store, StoreOptions } from '../../agent/store/store.ts'
import { Store as OpenStore } from '../../agent/store/store.ts'
import type { Cursor, Provenance } from '../../agent/tail/chunk.ts'

export const provenance: Provenance = {
  trust: 'proxy',
  namespace: 'prod',
  pod: 'payments-1',
  podUid: 'uid',
  container: 'istio-proxy',
  workload: 'payments',
}

export const gen = '00112233445566778899aabbccddeeff'
export const dayUs = 86_400_000_000
/** 2026-01-02T00:00:00Z */
export const midnightUs = 1_767_312_000_000_000

/** Writes lines `from`, `from + 1`, … of one generation; hands out batches as the pipeline would. */
export class SampleSource {
  #line = 0
  #offset = 0
  observedUs = midnightUs

  batch(count: number): Batch {
    const events: AuditEvent[] = []
    for (let i = 0; i < count; i++) events.push(this.#next())
    return { events, cursors: new Map([[gen, this.#cursor()]]) }
  }

  #next(): AuditEvent {
    const number = this.#line++
    const event = newEvent((this.observedUs += 10))
    const raw = Buffer.from(`{"line":${number},"path":"/items/${number % 7}"}\n`)
    event.rawBuffer = raw
    event.rawEnd = raw.length
    event.gen = gen
    event.ranges = [this.#offset, raw.length]
    this.#offset += raw.length
    event.ts = event.observed_ts - 5
    event.source = 'istio.access'
    event.kind = 'request'
    event.verdict = number % 5 === 0 ? 'denied' : 'allowed'
    event.policy = number % 5 === 0 ? 'prod/deny' : null
    event.path = `/items/${number % 7}`
    event.request_id = `request-${number}`
    event.status = number % 5 === 0 ? 403 : 200
    event.bytes_out = number * 3
    return event
  }

  #cursor(): Cursor {
    return {
      gen,
      path: '/var/log/pods/prod_payments-1_uid/istio-proxy/0.log',
      dev: 1,
      ino: 2,
      offset: this.#offset,
      fingerprint: '',
      fingerprintBytes: 0,
      before: '',
      pending: [],
      provenance,
      finished: false,
      seenUs: this.observedUs,
    }
  }
}

/** A store on `root` with a clock and randomness of the test's own. */
export function openStore(root: string, options: Partial<StoreOptions> = {}): Promise<Store> {
  let monotonic = 0
  return OpenStore.open({
    root,
    cluster: 'test',
    node: 'node-1',
    bytesMax: 1 << 30,
    agentVersion: 'test',
    rederive: () => null,
    clock: { nowUs: () => midnightUs, monotonicMs: () => (monotonic += 1) },
    random: (bytes) => bytes.fill(7),
    readersMs: 0,
    ...options,
  })
}

/** What the agent does after each commit when no rule matches. */
export function ranRules(store: Store): void {
  store.rulesRan({ leaf: store.size, ruleSet: 'none' })
}
