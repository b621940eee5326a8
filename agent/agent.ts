/**
 * One node's agent: takes chunks in, commits them, runs rules over each part, seals in the background,
 * and hands queries the files to read.
 *
 * Invariant: events and the cursor after them enter the buffer together and leave it together.
 */
import { type Batch, EventBuffer } from './buffer.ts'
import type { Clock } from './clock.ts'
import { type Detector, findingEvent } from './detect/detect.ts'
import type { RuleEngine } from './detect/engine.ts'
import { messageOf, OpsError } from './errors.ts'
import type { AuditEvent } from './event.ts'
import { Counters } from './counters.ts'
import { gapEvent, type OwnBody, ownEvent, type Reporter } from './own-events.ts'
import { LineParser } from './sources/sources.ts'
import { rulesRowsMax, sweepRows } from './limits.ts'
import type { PartRef } from './store/log-state.ts'
import type { Manifest } from './store/statement.ts'
import type { Store } from './store/store.ts'
import type { Chunk } from './tail/chunk.ts'
import { cursorsToKeep } from './tail/cursors.ts'

export type AgentOptions = {
  readonly store: Store
  readonly reporter: Reporter
  readonly clock: Clock
  readonly commitAgeMs?: number
  /** Null runs no rules. */
  readonly rules: { readonly detector: Detector; readonly engine: RuleEngine } | null
  /** Which generations the tail found on disk; null while it does not know, or where there is no tail. */
  readonly onDisk: () => ReadonlySet<string> | null
  readonly onProblem: (message: string) => void
}

export class Agent {
  readonly store: Store
  readonly counters = new Counters()
  readonly #options: AgentOptions
  readonly #buffer: EventBuffer
  readonly #parser: LineParser
  /** After this nothing can be promised: every further call throws it again, until the process stops. */
  #fatal: Error | null = null
  /** A batch that the disk had no room for; nothing is read while it waits. */
  #stuck: { readonly batch: Batch; readonly problem: OpsError } | null = null
  #commits: Promise<void> = Promise.resolve()
  #sealing = false
  #rowsSinceSweep = 0
  #sealFailure: string | null = null

  constructor(options: AgentOptions) {
    this.#options = options
    this.store = options.store
    this.#buffer = new EventBuffer(options.clock, options.commitAgeMs)
    this.#parser = new LineParser(options.reporter)
  }

  /** Why nothing is being committed, or null. */
  get stuck(): OpsError | null {
    return this.#stuck?.problem ?? null
  }

  /** Why the newest seal failed, or null. */
  get sealFailure(): string | null {
    return this.#sealFailure
  }

  get bufferedRows(): number {
    return this.#buffer.rows
  }

  get commitDue(): boolean {
    const rulesOnly = this.#buffer.rows === 0 && this.#rulesPending
    return this.#buffer.due || this.#stuck !== null || rulesOnly || this.#fatal !== null
  }

  /** False: commit first. Lines of one batch are read on one UTC day, and within its bounds. */
  accepts(observedUs: number): boolean {
    return this.#stuck === null && !this.#buffer.full && this.#buffer.accepts(observedUs)
  }

  /**
   * Parses a chunk's lines into the buffer, with its gaps and its cursor.
   *
   * @param observedUs when it was read; `accepts` must have said yes to it
   */
  take(chunk: Chunk, observedUs: number): void {
    const { generation, cursor } = chunk
    if (cursor === null) return
    for (const line of chunk.lines) {
      if (generation === null) throw new Error('BUG: lines without a generation')
      this.#add(this.#parser.parse(line, generation.provenance, generation.id, observedUs))
    }
    for (const gap of chunk.gaps) {
      this.counters.gaps++
      this.#add(gapEvent(gap, this.#options.reporter, observedUs))
    }
    this.#buffer.moveCursor(cursor)
  }

  /** Something the agent itself has to say. */
  say(kind: 'lifecycle' | 'access', body: OwnBody): void {
    const observedUs = this.#options.clock.nowUs()
    this.#add(ownEvent(kind, body, this.#options.reporter, observedUs))
  }

  #add(event: AuditEvent): void {
    this.counters.event(event)
    this.#buffer.add(event)
  }

  /**
   * Commits everything buffered, findings included. Calls that overlap take turns; the later one
   * mostly finds nothing left to do.
   *
   * @returns false while the disk is full
   * @throws {OpsError} `disk`: stop the process
   */
  async commit(): Promise<boolean> {
    const before = this.#commits
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#commits = promise
    await before
    try {
      for (;;) {
        if (this.#fatal !== null) throw this.#fatal
        const backlog = this.#buffer.full
        const rows = this.#buffer.rows
        if (this.#stuck === null && rows === 0 && !this.#rulesPending) return true
        if ((this.#stuck !== null || rows > 0) && !this.#commitOnce()) return false
        this.#sweep(rows)
        // While lines come faster than one commit a moment, rules look at several parts at once:
        // planning costs the same for each look.
        const waiting = this.store.size - this.store.rulesThrough.leaf
        if (backlog && waiting < rulesRowsMax) return true
        await this.#runRules()
        void this.#sealInBackground()
      }
    } finally {
      resolve()
    }
  }

  /** Left to itself the heap grows to several times what batches need before it is swept. */
  #sweep(committedRows: number): void {
    this.#rowsSinceSweep += committedRows
    if (this.#rowsSinceSweep < sweepRows) return
    this.#rowsSinceSweep = 0
    Bun.gc(true)
  }

  get #rulesPending(): boolean {
    return this.store.rulesThrough.leaf < this.store.size
  }

  #commitOnce(): boolean {
    const batch = this.#stuck?.batch ?? this.#buffer.take()
    try {
      this.store.commit(batch)
    } catch (thrown) {
      if (!(thrown instanceof OpsError) || thrown.code !== 'disk_full') {
        // The batch may be on disk or not: only a restart, which reads the disk, can tell.
        this.#fatal = thrown instanceof Error ? thrown : new Error(messageOf(thrown))
        throw this.#fatal
      }
      if (this.#stuck === null) this.#options.onProblem(`${thrown.message}; ${thrown.hint}`)
      this.#stuck = { batch, problem: thrown }
      return false
    }
    if (this.#stuck !== null) {
      this.#stuck = null
      this.#options.onProblem('there is room again: committing goes on')
    }
    this.#buffer.recycle(batch)
    this.counters.commits++
    return true
  }

  /** Runs the rules over what they have not seen: also, after a crash, parts committed just before it. */
  async #runRules(): Promise<void> {
    const { rules } = this.#options
    const { leaf } = this.store.rulesThrough
    const parts = this.#partsWithoutRules()
    const last = parts.at(-1)
    if (last === undefined) return
    const end = last.first + last.count
    if (rules !== null && rules.detector.ruleCount > 0) {
      const { engine, detector } = rules
      const relation = await engine.open(parts.map((part) => this.store.absolute(part.path)))
      const findings = await detector.detect(engine.query, relation, leaf, end - 1)
      const observedUs = this.#options.clock.nowUs()
      // Lines of yesterday first, as they are: how far rules have run must not become durable with them,
      // before the findings of today.
      if (!this.#buffer.accepts(observedUs) && !this.#commitOnce()) return
      for (const finding of findings) {
        this.counters.findings++
        this.#add(findingEvent(finding, this.store.identity.origin, observedUs))
      }
    }
    this.store.rulesRan({ leaf: end, ruleSet: rules?.detector.hash ?? '' })
  }

  #partsWithoutRules(): readonly PartRef[] {
    const { leaf } = this.store.rulesThrough
    return this.store.parts.filter((part) => part.first + part.count > leaf)
  }

  /** Never rejects: a seal that failed is tried again after the next commit, and `status` says why. */
  async #sealInBackground(): Promise<void> {
    if (this.#sealing) return
    this.#sealing = true
    try {
      const manifest = await this.store.sealIfDue()
      if (manifest !== null) this.#sealed(manifest)
      this.#sealFailure = null
    } catch (thrown) {
      const problem = messageOf(thrown)
      if (this.#sealFailure !== problem) this.#options.onProblem(`sealing failed: ${problem}`)
      this.#sealFailure = problem
    } finally {
      this.#sealing = false
    }
  }

  #sealed(manifest: Manifest): void {
    this.counters.seals++
    const now = this.#options.clock.nowUs()
    this.store.keepCursors(cursorsToKeep(this.store.cursors, this.#options.onDisk(), now))
    const { seq, first, count, file } = manifest
    this.say('lifecycle', {
      what: 'sealed',
      seq,
      first,
      count,
      path: file.path,
      sha256: file.sha256,
    })
  }

  /** Commits and seals everything and says so: the end of a clean stop or of an import. */
  async close(why: string): Promise<void> {
    if (!(await this.commit())) return
    for (const manifest of await this.store.sealAll()) this.#sealed(manifest)
    this.say('lifecycle', { what: 'closed', why })
    await this.commit()
  }
}
