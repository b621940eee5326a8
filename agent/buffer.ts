/**
 * Events waiting for their commit, and the cursors that become durable with them.
 *
 * Bounded by rows and bytes; it never spans two UTC days of observation, so that neither does a part.
 * Raw bytes are copied into one arena that is used again after the commit: were the events to hold on
 * to the chunks they came in, every chunk would need fresh memory, and a page fault every 4 KiB.
 */
import type { Clock } from './clock.ts'
import type { AuditEvent } from './event.ts'
import { batchBytesMax, batchRowsMax, chunkBytesMax, commitAgeMs } from './limits.ts'
import type { Cursor } from './tail/chunk.ts'

export type Batch = {
  readonly events: readonly AuditEvent[]
  /** Every cursor that moved, by generation. */
  readonly cursors: ReadonlyMap<string, Cursor>
  /** Holds the raw bytes of its lines; absent where events keep their own. */
  readonly arena?: Buffer
}

const dayUs = 86_400_000_000

export class EventBuffer {
  readonly #clock: Clock
  readonly #ageMs: number
  #events: AuditEvent[] = []
  #cursors = new Map<string, Cursor>()
  #bytes = 0
  #arena: Buffer | null = null
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
    if (event.gen !== '') this.#keepRaw(event)
    this.#events.push(event)
    this.#bytes += event.rawEnd - event.rawStart
  }

  #keepRaw(event: AuditEvent): void {
    this.#arena ??= Buffer.allocUnsafeSlow(batchBytesMax + chunkBytesMax)
    const length = event.rawEnd - event.rawStart
    const start = this.#bytes
    const { rawBuffer } = event
    // A chunk of joined or overlong lines may go beyond the arena: those bring buffers of their own.
    if (start + length > this.#arena.length) {
      event.rawBuffer = rawBuffer.slice(event.rawStart, event.rawEnd)
      event.rawStart = 0
      event.rawEnd = length
      return
    }
    if (rawBuffer instanceof Buffer)
      rawBuffer.copy(this.#arena, start, event.rawStart, event.rawEnd)
    else this.#arena.set(rawBuffer.subarray(event.rawStart, event.rawEnd), start)
    event.rawBuffer = this.#arena
    event.rawStart = start
    event.rawEnd = start + length
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

  /** Everything that waits. The caller keeps it until it is committed, and then recycles it. */
  take(): Batch {
    const arena = this.#arena
    const batch = {
      events: this.#events,
      cursors: this.#cursors,
      ...(arena === null ? {} : { arena }),
    }
    this.#arena = null
    this.#events = []
    this.#cursors = new Map()
    this.#bytes = 0
    const later = this.#nextDay
    this.#nextDay = []
    for (const event of later) this.add(event)
    return batch
  }

  /** After its commit: its events may not be looked at any more. */
  recycle(batch: Batch): void {
    this.#arena ??= batch.arena ?? null
  }
}
