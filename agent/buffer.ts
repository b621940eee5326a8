/**
 * Events waiting for their commit, and the cursors that become durable with them.
 *
 * Bounded by rows and bytes; it never spans two UTC days of observation, so that neither does a part.
 */
import type { Clock } from './clock.ts'
import type { AuditEvent } from './event.ts'
import { batchBytesMax, batchRowsMax, commitAgeMs } from './limits.ts'
import type { Cursor } from './tail/chunk.ts'

export type Batch = {
  readonly events: readonly AuditEvent[]
  /** Every cursor that moved, by generation. */
  readonly cursors: ReadonlyMap<string, Cursor>
}

const dayUs = 86_400_000_000

export class EventBuffer {
  readonly #clock: Clock
  readonly #ageMs: number
  #events: AuditEvent[] = []
  #cursors = new Map<string, Cursor>()
  #bytes = 0
  #oldestMs = 0
  #day = 0
  /** Own events of the day after the buffered ones: they wait for the next batch. */
  #nextDay: AuditEvent[] = []

  constructor(clock: Clock, ageMs: number = commitAgeMs) {
    this.#clock = clock
    this.#ageMs = ageMs
  }

  get rows(): number {
    return this.#events.length
  }

  /** Lines read on another UTC day than the buffered ones must wait until those are committed. */
  accepts(observedUs: number): boolean {
    return this.#events.length === 0 || Math.floor(observedUs / dayUs) === this.#day
  }

  add(event: AuditEvent): void {
    if (!this.accepts(event.observed_ts)) {
      // Its cursor would become durable with the batch before it.
      if (event.gen !== '') throw new Error('BUG: a line of another day than the buffered ones')
      this.#nextDay.push(event)
      return
    }
    if (this.#events.length === 0) {
      this.#oldestMs = this.#clock.monotonicMs()
      this.#day = Math.floor(event.observed_ts / dayUs)
    }
    this.#events.push(event)
    this.#bytes += event.rawEnd - event.rawStart
  }

  moveCursor(cursor: Cursor): void {
    this.#cursors.set(cursor.gen, cursor)
  }

  get full(): boolean {
    return this.#events.length >= batchRowsMax || this.#bytes >= batchBytesMax
  }

  get due(): boolean {
    if (this.#events.length === 0) return false
    return this.full || this.#clock.monotonicMs() - this.#oldestMs >= this.#ageMs
  }

  /** Everything that waits. The caller either commits it or puts it back whole. */
  take(): Batch {
    const batch = { events: this.#events, cursors: this.#cursors }
    this.#events = []
    this.#cursors = new Map()
    this.#bytes = 0
    const later = this.#nextDay
    this.#nextDay = []
    for (const event of later) this.add(event)
    return batch
  }
}
