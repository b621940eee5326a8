/**
 * One log on one disk: opens it, commits batches, seals in the background, says which files to read.
 *
 * Holds the lock of the data directory until it is disposed. Everything that changes the log goes
 * through here, one commit or seal step at a time.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Batch } from '../buffer.ts'
import type { Clock } from '../clock.ts'
import { messageOf, OpsError } from '../errors.ts'
import { sealAgeMs, sealAgeRowsMin, sealBytesMax, sealPartsMax } from '../limits.ts'
import type { Cursor } from '../tail/chunk.ts'
import { commit } from './commit.ts'
import { type LogIdentity, openIdentity } from './keys.ts'
import { lockDataDirectory } from './lock.ts'
import type { LogState, PartRef, StepHook } from './log-state.ts'
import { ParquetEncoder } from './parquet.ts'
import type { RulesThrough, Totals } from './part.ts'
import { recover, type Rederive } from './recover.ts'
import { seal } from './seal.ts'
import type { Manifest } from './statement.ts'

export type StoreOptions = {
  readonly root: string
  readonly cluster: string
  readonly node: string
  /** Bound of the data directory, bytes. */
  readonly bytesMax: number
  readonly agentVersion: string
  readonly rederive: Rederive
  readonly clock: Clock
  readonly random: (bytes: Uint8Array) => void
  readonly step?: StepHook
  /** How long a sealed part may still be read by a query, milliseconds. */
  readonly readersMs: number
}

/** The files that together hold the log, each row once. Absolute paths. */
export type LogFiles = { readonly segments: readonly string[]; readonly parts: readonly string[] }

export class Store implements AsyncDisposable {
  readonly repairs: readonly string[]
  readonly bytesMax: number
  readonly #options: StoreOptions
  readonly #log: LogState
  readonly #lock: Disposable
  readonly #encoder = new ParquetEncoder()
  readonly #sealEncoder = new ParquetEncoder()
  readonly #step: StepHook
  #sealing: Promise<Manifest> | null = null
  #oldestMs = 0

  private constructor(
    options: StoreOptions,
    log: LogState,
    repairs: readonly string[],
    lock: Disposable,
  ) {
    this.#options = options
    this.#log = log
    this.#lock = lock
    this.repairs = repairs
    this.#step = options.step ?? noStep
    this.#oldestMs = options.clock.monotonicMs()
    this.bytesMax = options.bytesMax
    if (!log.listAllCursors) this.#deleteRetired()
  }

  /** @throws {OpsError} `in_use`, `permission`, or `corrupt_input` when signed data is damaged */
  static async open(options: StoreOptions): Promise<Store> {
    makeRoot(options.root)
    const lock = lockDataDirectory(options.root)
    try {
      const identity = openIdentity(options.root, options.cluster, options.node, options.random)
      const { log, repairs } = await recover(
        options.root,
        identity,
        options.rederive,
        options.random,
        options.clock,
        options.step ?? noStep,
      )
      return new Store(options, log, repairs, lock)
    } catch (thrown) {
      lock[Symbol.dispose]()
      throw thrown
    }
  }

  get identity(): LogIdentity {
    return this.#log.identity
  }

  /** Committed events. */
  get size(): number {
    return this.#log.tree.size
  }

  get rootHash(): Uint8Array {
    return this.#log.tree.root()
  }

  /** Newest signed checkpoint, a C2SP note; '' before the first commit. */
  get checkpoint(): string {
    return this.#log.checkpoint
  }

  get cursors(): readonly Cursor[] {
    return [...this.#log.cursors.values()]
  }

  get bytesUsed(): number {
    return this.#log.bytes
  }

  get rulesThrough(): RulesThrough {
    return this.#log.rulesThrough
  }

  /** Null for an empty log. */
  get totals(): Totals | null {
    return this.#log.totals
  }

  get parts(): readonly PartRef[] {
    return this.#log.parts
  }

  get segments(): readonly Manifest[] {
    return this.#log.segments.map((segment) => segment.manifest)
  }

  /** Every leaf below `leaf` has been looked at by the rule set; durable with the next commit. */
  rulesRan(through: RulesThrough): void {
    this.#log.rulesThrough = through
  }

  /** Replaces the set of cursors, the others are forgotten; durable with the next commit after a seal. */
  keepCursors(cursors: readonly Cursor[]): void {
    this.#log.cursors = new Map(cursors.map((cursor) => [cursor.gen, cursor]))
  }

  absolute(path: string): string {
    return join(this.#options.root, path)
  }

  files(): LogFiles {
    return {
      segments: this.#log.segments.map((segment) => this.absolute(segment.manifest.file.path)),
      parts: this.#log.parts.map((part) => this.absolute(part.path)),
    }
  }

  /** @throws {OpsError} `disk_full`: nothing changed, try the same batch again later */
  commit(batch: Batch): PartRef {
    if (this.#log.parts.length === 0) this.#oldestMs = this.#options.clock.monotonicMs()
    const part = commit(this.#log, batch, this.#encoder, this.bytesMax, this.#step)
    if (!this.#log.listAllCursors) this.#deleteRetired()
    return part
  }

  /**
   * Starts sealing in the background if parts are due, or `all` asks for it.
   *
   * @returns null when nothing is due; else the seal that was started, or that still runs
   */
  sealIfDue(all = false): Promise<Manifest> | null {
    if (this.#sealing !== null) return this.#sealing
    const parts = this.#partsToSeal(all)
    if (parts.length === 0) return null
    this.#sealing = this.#seal(parts).finally(() => {
      this.#sealing = null
    })
    return this.#sealing
  }

  /** Seals until no part is left that may be sealed. For a clean stop. */
  async sealAll(): Promise<readonly Manifest[]> {
    const manifests: Manifest[] = []
    await this.#sealing
    for (;;) {
      const next = this.sealIfDue(true)
      if (next === null) return manifests
      manifests.push(await next)
    }
  }

  async #seal(parts: readonly PartRef[]): Promise<Manifest> {
    // Parts committed from now on belong to the next sealing range, which has a salt key of its own.
    const saltKey = new Uint8Array(32)
    this.#options.random(saltKey)
    this.#log.saltKey = Buffer.from(saltKey).toString('hex')
    const { clock, agentVersion } = this.#options
    const manifest = await seal(
      this.#log,
      parts,
      this.#sealEncoder,
      agentVersion,
      clock.monotonicMs(),
      this.#step,
    )
    this.#oldestMs = clock.monotonicMs()
    return manifest
  }

  /** The oldest parts of one day, up to where rules have run; none while a commit is unsigned. */
  #partsToSeal(all: boolean): PartRef[] {
    const { parts, rulesThrough, unsigned } = this.#log
    const [oldest] = parts
    if (oldest === undefined || unsigned) return []
    const sameDay: PartRef[] = []
    let bytes = 0
    let rows = 0
    for (const part of parts) {
      if (part.date !== oldest.date || part.first + part.count > rulesThrough.leaf) break
      if (sameDay.length === sealPartsMax || (bytes >= sealBytesMax && sameDay.length > 0)) break
      sameDay.push(part)
      bytes += part.bytes
      rows += part.count
    }
    const dayIsOver = parts.some((part) => part.date !== oldest.date)
    const due =
      all ||
      dayIsOver ||
      sameDay.length >= sealPartsMax ||
      bytes >= sealBytesMax ||
      (rows > sealAgeRowsMin && this.#options.clock.monotonicMs() - this.#oldestMs >= sealAgeMs)
    return due ? sameDay : []
  }

  /** Sealed parts that no query can still be reading, once a part that lists all cursors is durable. */
  #deleteRetired(): void {
    const now = this.#options.clock.monotonicMs()
    const keep: LogState['retired'] = []
    for (const part of this.#log.retired) {
      if (now - part.sinceMs < this.#options.readersMs) {
        keep.push(part)
        continue
      }
      rmSync(join(this.#options.root, part.path), { force: true })
      this.#log.bytes -= part.bytes
    }
    this.#log.retired = keep
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#sealing
    } catch {
      // Whoever started the seal heard of it; the lock must go all the same.
    }
    this.#lock[Symbol.dispose]()
  }
}

function noStep(): void {}

function makeRoot(root: string): void {
  try {
    mkdirSync(root, { recursive: true, mode: 0o750 })
  } catch (cause) {
    throw new OpsError(
      'permission',
      `cannot make the data directory ${root}: ${messageOf(cause)}`,
      {
        hint: 'give a directory that this user may write with --data',
        cause,
      },
    )
  }
}
