/**
 * The tail of every followed file, and whose turn it is.
 *
 * Files are found by scanning (`discover.ts`), told apart by content (`identity.ts`) and read in fair
 * turns of one chunk each. A generation is followed by its open descriptor: through renames, until it
 * is final. It is final when it is deleted, or when a newer file has taken its place, and it has then
 * been quiet for two polls and `finishQuietMs`. If it grows all the same while it can still be found,
 * it is taken up again.
 *
 * Invariant: nothing is lost in silence. What was followed and cannot be read any more becomes a gap.
 *
 * What it cannot see: bytes written after the last poll to a file that is then truncated or deleted and
 * closed by its writer before the next; files that come and go between two scans; and a file rewritten
 * between two polls with the same first line and the same 64 bytes before the cursor. What
 * `copytruncate` loses between its copy and its truncation, nobody sees.
 */

import { closeSync, fstatSync } from 'node:fs'
import { basename } from 'node:path'
import type { Clock } from '../clock.ts'
import type { Decoded } from '../decode/decoder.ts'
import { errnoOf, messageOf } from '../errors.ts'
import { catchUpMs, fingerprintBytesMax, forgetFinishedMs, gzipOpenMax } from '../limits.ts'
import {
  type Chunk,
  type Cursor,
  type Gap,
  type GapCause,
  type Generation,
  idleChunk,
} from './chunk.ts'
import { gzipLength, isPrefix, isPrefixStream } from './copy.ts'
import { freshCursor, KnownCursors } from './cursors.ts'
import { type FollowConfig, follows, type FoundFile, type Listing, listFiles } from './discover.ts'
import { defaultReadLimits, FileReader, type ReadLimits } from './file-reader.ts'
import {
  familyOf,
  familyOfCursor,
  fingerprintLength,
  Head,
  identityOf,
  isFullFingerprint,
  sha256Hex,
} from './identity.ts'
import { readLogName } from './log-name.ts'
import { isBelow, type OpenFile, openLogFile, readRange } from './open-file.ts'
import type { OnProblem, TailProblem } from './problem.ts'
import { gunzipFile, gzipHead, StreamReader } from './stream-reader.ts'
import { watchPods } from './watch.ts'

export type TailOptions = {
  readonly follow: FollowConfig
  /** The committed cursors, finished ones included: where to go on. */
  readonly cursors: readonly Cursor[]
  /**
   * Where to begin in files that no cursor knows. `now` applies only to what is there when a tail
   * without any cursors starts, and declares a gap `skipped`; an agent that has run before reads all
   * it does not know.
   */
  readonly from: 'beginning' | 'now'
  readonly clock: Clock
  readonly onProblem: OnProblem
  /** How often open files are looked at, ms; default 50. 300 files take 0.7 ms. */
  readonly pollMs?: number
  /** How often directories are listed, ms; default 1000. 300 pods with 600 files take 6 ms. */
  readonly rescanMs?: number
  /** How long `next` waits before it brings an idle chunk, ms; default 100. */
  readonly idleMs?: number
  /** How long a file that was replaced or deleted must be quiet to be final, ms; default 1000. */
  readonly finishQuietMs?: number
  /** Whether to have new pods announced by the system; default true. */
  readonly watch?: boolean
  /** Waits; tests give one that moves their clock. */
  readonly sleep?: (ms: number) => Promise<void>
  readonly limits?: ReadLimits
}

/** An open file that is being followed. */
type Followed = {
  readonly key: string
  readonly file: OpenFile
  readonly gzip: boolean
  readonly provenance: Cursor['provenance']
  path: string
  livePath: string
  run: FoundFile['run']
  rotated: boolean
  /** Null while the content is too short to be identified, or a compressed file waits for its turn. */
  reader: FileReader | StreamReader | null
  /** What was seen of content too short to be identified. */
  head: Buffer
  generation: Generation | null
  size: number
  mtimeMs: number
  linkCount: number
  scannedTo: number
  /** A newer file has its place. */
  isSuperseded: boolean
  /** Its cursor said finished and nothing came since: no need to say so again. */
  wasFinished: boolean
  quietPolls: number
  changedMs: number
  isQueued: boolean
  isClosed: boolean
  failures: number
  retryMs: number
}

/** A file that need not be opened again while it does not change. */
type Settled = { readonly size: number; readonly mtimeMs: number; readonly gen: string | null }

/** Content that is not where it was; the next scan may find it elsewhere. */
type Missing = {
  readonly cause: GapCause | null
  readonly family: string | null
  /** Holds unjoined parts, if it was being read. */
  readonly reader: FileReader | null
  /** What had been seen of a file too short to be identified. */
  readonly head: Followed | null
  readonly cursor: Cursor | null
  /** Scans that did not find it. */
  misses: number
}

type Waiter = {
  targets: Map<Followed, number> | null
  readonly resolve: (result: { lagging: boolean }) => void
  readonly timer: ReturnType<typeof setTimeout>
}

/** A generation that cannot be read is given up when it is final and failed this often. */
const readFailuresMax = 5
/** A file that is renamed while its directory is listed may not be in the list: one look is not enough. */
const missesMax = 2
const problemRepeatMs = 5 * 60_000
/** After a directory changed, files appear in it within moments: look more often for a while. */
const eagerMs = 2000
const eagerRescanMs = 200
/** The event loop gets a turn at least this often, however much there is to read. */
const yieldMs = 10

export class Tail implements AsyncDisposable {
  readonly #options: Required<Omit<TailOptions, 'cursors' | 'sleep'>>
  readonly #known: KnownCursors
  readonly #isFirstStart: boolean
  readonly #open = new Set<Followed>()
  readonly #byKey = new Map<string, Followed>()
  readonly #byGen = new Map<string, Followed>()
  readonly #settled = new Map<string, Settled>()
  readonly #sleepFor: (ms: number) => Promise<void>
  readonly #reported = new Map<string, number>()
  /** Identities of files that the newest scan found and could not open. */
  readonly #unopened = new Set<string>()
  #missing: Missing[] = []
  #ready: Followed[] = []
  #outbox: Chunk[] = []
  #waiters: Waiter[] = []
  #watcher: AsyncDisposable | null = null
  #onDisk: ReadonlySet<string> | null = null
  #scanCount = 0
  #activeStreams = 0
  #nextScanMs = 0
  #nextPollMs = 0
  #eagerUntilMs = 0
  #yieldAtMs = 0
  #isKicked = false
  #wake: (() => void) | null = null
  #isClosed = false
  #current: Promise<Chunk> | null = null

  constructor(options: TailOptions) {
    const { cursors, sleep, ...rest } = options
    this.#options = {
      pollMs: 50,
      idleMs: 100,
      finishQuietMs: 1000,
      watch: true,
      limits: defaultReadLimits,
      ...rest,
      rescanMs: Math.max(1, rest.rescanMs ?? 1000),
    }
    this.#sleepFor = sleep ?? Bun.sleep
    this.#known = new KnownCursors(cursors)
    this.#isFirstStart = cursors.length === 0
    for (const cursor of cursors) {
      if (cursor.finished || !follows(options.follow, cursor.path)) continue
      this.#missing.push({
        cause: null,
        family: familyOfCursor(cursor),
        reader: null,
        head: null,
        cursor,
        misses: 0,
      })
    }
  }

  /**
   * The next chunk, or an idle one when nothing came for `idleMs` or `signal` is aborted.
   *
   * A chunk without lines and gaps says that a generation was found, or is finished. Whoever commits a chunk's lines
   * and gaps commits its cursor with them, and only then; a tail made from older cursors hands out
   * again exactly what those do not cover. One call at a time.
   */
  async next(signal: AbortSignal): Promise<Chunk> {
    if (this.#current !== null)
      throw new Error('BUG: next() was called before the last one returned')
    this.#current = this.#next(signal)
    try {
      return await this.#current
    } finally {
      this.#current = null
    }
  }

  /**
   * Has `next` look at all files at once, and return, with an idle chunk if there is nothing: so that
   * whoever calls it can do what somebody waits for.
   */
  kick(): void {
    this.#isKicked = true
    this.#wake?.()
  }

  /**
   * Waits until everything written before this call was handed out by `next` and, by calling it again,
   * taken in. Directories are scanned for it, so
   * files not known yet count; compressed ones count to their end.
   *
   * @param timeoutMs after this, `lagging`
   */
  catchUp(timeoutMs: number = catchUpMs): Promise<{ lagging: boolean }> {
    if (this.#isClosed) return Promise.resolve({ lagging: true })
    const { promise, resolve } = Promise.withResolvers<{ lagging: boolean }>()
    const timer = setTimeout(() => {
      this.#waiters = this.#waiters.filter((other) => other !== waiter)
      resolve({ lagging: true })
    }, timeoutMs)
    const waiter: Waiter = { targets: null, resolve, timer }
    this.#waiters.push(waiter)
    this.kick()
    return promise
  }

  /** Bytes known to be there and not yet handed out, an unterminated last line excepted. */
  lagBytes(): number {
    let bytes = 0
    for (const followed of this.#open) bytes += lagOf(followed)
    return bytes
  }

  /** Whether everything seen at the last poll was handed out. */
  atEnd(): boolean {
    if (this.#scanCount === 0 || this.#outbox.length > 0 || this.#missing.length > 0) return false
    for (const followed of this.#open) if (!hasReached(followed, followed.size)) return false
    return true
  }

  /** Generations that the newest complete scan found on disk; see `cursorsToKeep`. */
  get onDisk(): ReadonlySet<string> | null {
    return this.#onDisk
  }

  get openFiles(): number {
    return this.#open.size
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true
    this.kick()
    await this.#current?.catch(() => {})
    for (const waiter of this.#waiters) {
      clearTimeout(waiter.timer)
      waiter.resolve({ lagging: true })
    }
    this.#waiters = []
    await this.#watcher?.[Symbol.asyncDispose]()
    for (const followed of this.#open) await this.#close(followed)
  }

  async #next(signal: AbortSignal): Promise<Chunk> {
    const { clock, idleMs, pollMs } = this.#options
    await this.#yield()
    let isServed = this.#serveWaiters()
    const idleAtMs = clock.monotonicMs() + idleMs
    for (;;) {
      if (signal.aborted || this.#isClosed) return idleChunk
      const isKicked = this.#isKicked
      this.#isKicked = false
      const isAsked = this.#waiters.some((waiter) => waiter.targets === null)
      if (isAsked || clock.monotonicMs() >= this.#nextScanMs) await this.#scan()
      if (isAsked || isKicked || clock.monotonicMs() >= this.#nextPollMs) this.#poll()
      if (isAsked) this.#setTargets()

      const chunk = this.#outbox.shift() ?? (await this.#takeTurn())
      if (chunk !== null) return chunk
      // Something turned up while reading: a truncated file, whose rest may be in a copy.
      if (clock.monotonicMs() >= this.#nextScanMs) continue
      isServed = this.#serveWaiters() || isServed

      const nowMs = clock.monotonicMs()
      if (isKicked || isServed || nowMs >= idleAtMs) return idleChunk
      const untilMs = Math.min(idleAtMs, this.#nextPollMs, this.#nextScanMs, nowMs + pollMs)
      await this.#wait(Math.max(1, untilMs - nowMs), signal)
    }
  }

  async #wait(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#isKicked) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    signal.addEventListener('abort', this.#stopWaiting, { once: true })
    await Promise.race([promise, this.#sleepFor(ms)])
    signal.removeEventListener('abort', this.#stopWaiting)
    this.#wake = null
  }

  readonly #stopWaiting = (): void => this.#wake?.()

  /** Chunk after chunk without waiting would leave timers and sockets without a turn. */
  async #yield(): Promise<void> {
    const nowMs = performance.now()
    if (nowMs < this.#yieldAtMs) return
    await new Promise<void>((resolve) => {
      setImmediate(resolve)
    })
    this.#yieldAtMs = performance.now() + yieldMs
  }

  // ---- whose turn ----

  /** One chunk of the first file that has one; files that have more go to the end of the queue. */
  async #takeTurn(): Promise<Chunk | null> {
    for (;;) {
      const followed = this.#ready.shift()
      if (followed === undefined) return null
      followed.isQueued = false
      if (followed.isClosed) continue
      const chunk = await this.#turn(followed)
      if (chunk !== null) return chunk
      if (this.#outbox.length > 0) return this.#outbox.shift() ?? null
    }
  }

  async #turn(followed: Followed): Promise<Chunk | null> {
    try {
      if (followed.gzip) return await this.#turnOfStream(followed)
      return await this.#turnOfFile(followed)
    } catch (error) {
      // EIO and the like: nothing was handed out, so the bytes are still owed.
      if (errnoOf(error) === undefined) throw error
      followed.failures++
      followed.retryMs =
        this.#options.clock.monotonicMs() + Math.min(60_000, 100 * 2 ** followed.failures)
      this.#report('unreadable', followed.path, messageOf(error))
      const isFinal = followed.isSuperseded || followed.linkCount === 0
      if (!isFinal || followed.failures < readFailuresMax) return null
      return this.#giveUp(followed, messageOf(error))
    }
  }

  async #turnOfFile(followed: Followed): Promise<Chunk | null> {
    if (followed.reader === null && !this.#identify(followed)) {
      return this.#isFinal(followed) ? this.#finish(followed) : null
    }
    const { reader } = followed
    if (!(reader instanceof FileReader)) return null

    const out: Decoded = { lines: [], gaps: [] }
    const scannedBefore = reader.scannedTo
    const outcome = reader.read(out)
    followed.failures = 0
    if (outcome === 'replaced') {
      this.#replace(followed)
      return null
    }
    followed.scannedTo = reader.scannedTo
    const isProgress = outcome === 'read' || reader.scannedTo !== scannedBefore
    if (isProgress && reader.scannedTo < reader.size) this.#enqueue(followed)
    if (out.lines.length > 0 || out.gaps.length > 0) return this.#chunk(followed, out, false)
    return this.#isFinal(followed) ? this.#finish(followed) : null
  }

  async #turnOfStream(followed: Followed): Promise<Chunk | null> {
    if (followed.reader === null) {
      const { generation, file, head } = followed
      if (generation === null)
        throw new Error('BUG: a compressed file was queued before it had a name')
      const digest = { digest: sha256Hex(head), bytes: head.length }
      const stream = gunzipFile(file.fd)
      followed.reader = new StreamReader(stream, generation, digest, file, this.#options.limits)
    }
    const { reader } = followed
    if (!(reader instanceof StreamReader)) throw new Error('BUG: a compressed file needs a stream')

    const out: Decoded = { lines: [], gaps: [] }
    let hasMore: boolean
    try {
      hasMore = await reader.read(out)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      this.#report('corrupt_gzip', followed.path, messageOf(error))
      reader.abandon(out)
      // Said already, when its cursor is finished.
      if (!followed.wasFinished) {
        out.gaps.push(this.#gapAfter(reader, 'read_error', messageOf(error)))
      }
      hasMore = false
    }
    if (hasMore) {
      this.#enqueue(followed)
      return out.lines.length > 0 || out.gaps.length > 0 ? this.#chunk(followed, out, false) : null
    }
    const isNews = out.lines.length > 0 || out.gaps.length > 0 || !followed.wasFinished
    const chunk = isNews ? this.#chunk(followed, out, true) : null
    await this.#settle(followed)
    return chunk
  }

  #chunk(followed: Followed, out: Decoded, isFinished: boolean): Chunk {
    const { reader } = followed
    if (reader === null) throw new Error('BUG: a chunk of a file without a reader')
    followed.wasFinished = isFinished
    return this.#chunkOf(reader, out, isFinished)
  }

  #chunkOf(reader: FileReader | StreamReader, out: Decoded, isFinished: boolean): Chunk {
    const cursor = reader.cursor(this.#options.clock.nowUs(), isFinished)
    this.#known.set(cursor)
    return { generation: reader.generation, lines: out.lines, gaps: out.gaps, cursor }
  }

  #gapAfter(reader: FileReader | StreamReader, cause: GapCause, detail: string): Gap {
    const { id, path } = reader.generation
    return { gen: id, path, cause, from: reader.offset, to: null, detail }
  }

  #enqueue(followed: Followed): void {
    if (followed.isQueued || followed.isClosed) return
    followed.isQueued = true
    this.#ready.push(followed)
  }

  // ---- looking at open files ----

  #poll(): void {
    const nowMs = this.#options.clock.monotonicMs()
    // A poll out of turn, because somebody asked, must not count as time passed in quiet.
    const isInTurn = nowMs >= this.#nextPollMs
    if (isInTurn) this.#nextPollMs = nowMs + this.#options.pollMs
    for (const followed of this.#open) {
      if (followed.gzip) {
        this.#activate(followed)
        continue
      }
      if (nowMs < followed.retryMs) continue
      if (this.#look(followed) !== 'quiet') continue
      if (isInTurn) followed.quietPolls++
      if (followed.failures > 0 || this.#isFinal(followed)) this.#enqueue(followed)
    }
  }

  /** Brings what is known of an open plain file up to date, and acts on it. */
  #look(followed: Followed): 'quiet' | 'changed' | 'replaced' {
    const state = pollOne(followed)
    if (state === 'replaced') {
      this.#replace(followed)
    } else if (state === 'changed') {
      followed.quietPolls = 0
      followed.changedMs = this.#options.clock.monotonicMs()
      this.#enqueue(followed)
    }
    return state
  }

  #activate(followed: Followed): void {
    if (followed.reader !== null) {
      this.#enqueue(followed)
    } else if (!followed.isQueued && this.#activeStreams < gzipOpenMax) {
      this.#activeStreams++
      this.#enqueue(followed)
    }
  }

  #isFinal(followed: Followed): boolean {
    return (
      (followed.isSuperseded || followed.linkCount === 0) &&
      followed.quietPolls >= 2 &&
      this.#options.clock.monotonicMs() - followed.changedMs >= this.#options.finishQuietMs &&
      followed.scannedTo >= followed.size
    )
  }

  /** Hands out what waits for its end; the file may have grown since the last poll, then it waits on. */
  async #finish(followed: Followed): Promise<Chunk | null> {
    if (this.#look(followed) !== 'quiet') return null
    if (followed.reader === null && !this.#identifyAtEnd(followed)) {
      await this.#settle(followed)
      return null
    }
    const { reader } = followed
    if (!(reader instanceof FileReader)) return null
    const out: Decoded = { lines: [], gaps: [] }
    reader.finish(out)
    const isNews = out.lines.length > 0 || out.gaps.length > 0 || !followed.wasFinished
    const chunk = isNews ? this.#chunk(followed, out, true) : null
    await this.#settle(followed)
    return chunk
  }

  async #giveUp(followed: Followed, detail: string): Promise<Chunk | null> {
    const { reader } = followed
    const out: Decoded = { lines: [], gaps: [] }
    let chunk: Chunk | null = null
    if (reader !== null) {
      reader.abandon(out)
      out.gaps.push(this.#gapAfter(reader, 'read_error', detail))
      chunk = this.#chunk(followed, out, true)
    }
    await this.#settle(followed)
    return chunk
  }

  /** The descriptor holds other content now. What was unread of the old may be in a copy. */
  #replace(followed: Followed): void {
    const { reader, generation } = followed
    this.#forget(followed)
    const family = familyOf(followed.provenance, followed.livePath)
    if (reader instanceof FileReader) {
      const cursor = reader.cursor(this.#options.clock.nowUs(), false)
      this.#known.set(cursor)
      this.#missing.push({ cause: 'truncated', family, reader, head: null, cursor, misses: 0 })
    } else if (followed.head.length > 0) {
      this.#missing.push({
        cause: 'truncated',
        family,
        reader: null,
        head: followed,
        cursor: null,
        misses: 0,
      })
    }
    for (const [key, settled] of this.#settled) {
      if (generation !== null && settled.gen === generation.id) this.#settled.delete(key)
    }
    const successor = newFollowed(followed, followed.file, this.#options.clock.monotonicMs())
    this.#follow(successor)
    this.#enqueue(successor)
    this.#nextScanMs = 0
    this.#nextPollMs = 0
  }

  // ---- which files ----

  async #scan(): Promise<void> {
    const { clock, follow, rescanMs } = this.#options
    const isFirst = this.#scanCount++ === 0
    if (isFirst && this.#options.watch) {
      this.#watcher = watchPods(follow.podRoots, () => this.#expectFiles(), this.#onProblem)
    }
    // What is missing already can be declared lost after this scan; what goes missing during it, not.
    const missing = this.#missing
    this.#unopened.clear()
    const listing = listFiles(follow, this.#onProblem)
    const seen = new Map<string, FoundFile>()
    const liveKeys = new Map<string, string>()
    const newestRun = new Map<string, number>()
    const unknown: FoundFile[] = []
    for (const found of listing.files) {
      const key = keyOf(found)
      if (!found.rotated) liveKeys.set(found.livePath, key)
      if (found.run !== null && !found.rotated) {
        const { directory, restart } = found.run
        newestRun.set(directory, Math.max(restart, newestRun.get(directory) ?? 0))
      }
      if (seen.has(key)) continue
      seen.set(key, found)
      const followed = this.#byKey.get(key)
      if (followed !== undefined) rename(followed, found)
      else if (!isUnchanged(this.#settled.get(key), found)) unknown.push(found)
    }

    // A new file may be a copy of an open one, as that is now: it may have been truncated and written
    // anew, or have been too short to have a name when last looked at. Successors are looked at, too.
    if (unknown.length > 0) {
      for (const followed of this.#open) {
        if (followed.gzip || this.#look(followed) !== 'changed') continue
        if (followed.reader === null) this.#identify(followed)
      }
    }

    const wanted = new Set<string>()
    for (const { cursor } of missing) if (cursor !== null) wanted.add(keyOf(cursor))
    // Inode numbers first, for a copy must not take the original's cursor; compressed files last, and
    // of these the oldest first, whosever they are: they are the next to be deleted.
    const rank = (found: FoundFile): number => (found.gzip ? 2 : wanted.has(keyOf(found)) ? 0 : 1)
    for (const found of unknown.toSorted((a, b) => rank(a) - rank(b) || ageOf(a) - ageOf(b))) {
      await this.#admit(found, listing.roots, isFirst)
    }

    for (const followed of this.#open) {
      const successor = liveKeys.get(followed.livePath)
      const { run } = followed
      const isOldRun = run !== null && (newestRun.get(run.directory) ?? 0) > run.restart
      followed.isSuperseded = isOldRun || (successor !== undefined && successor !== followed.key)
    }
    this.#declareLost(missing, listing, liveKeys, newestRun)
    this.#takeStock(seen, listing)
    const nowMs = clock.monotonicMs()
    const isEager = nowMs < this.#eagerUntilMs
    this.#nextScanMs = nowMs + (isEager ? Math.min(eagerRescanMs, rescanMs) : rescanMs)
    // Something was truncated while the scan ran, or renamed so that the scan missed it.
    if (this.#missing.some((entry) => entry.misses < missesMax)) this.#nextScanMs = 0
  }

  #expectFiles(): void {
    const nowMs = this.#options.clock.monotonicMs()
    this.#eagerUntilMs = nowMs + eagerMs
    this.#nextScanMs = Math.min(this.#nextScanMs, nowMs)
    this.kick()
  }

  async #admit(found: FoundFile, roots: readonly string[], isFirst: boolean): Promise<void> {
    let file: ReturnType<typeof openLogFile>
    try {
      file = openLogFile(found.target, roots)
    } catch (error) {
      // Gone, or a link by now: the next scan sees what it is. Anything else is tried then, too.
      const errno = errnoOf(error)
      if (errno === undefined) throw error
      this.#unopened.add(identityOf(found.provenance))
      if (errno !== 'ENOENT' && errno !== 'ELOOP') {
        this.#report('unreadable', found.path, messageOf(error))
      }
      return
    }
    if (typeof file === 'string') {
      this.#report(file, found.path, `${found.path} was not opened`)
      return
    }
    // Rotated between listing and opening: the descriptor is another file, perhaps one that is open.
    if (this.#byKey.has(keyOf(file))) {
      closeSync(file.fd)
      return
    }
    const followed = newFollowed(found, file, this.#options.clock.monotonicMs())
    const isSkipped = isFirst && this.#isFirstStart && this.#options.from === 'now'
    try {
      const isAdmitted = found.gzip
        ? await this.#admitStream(followed, isSkipped)
        : this.#admitFile(followed, isSkipped)
      if (!isAdmitted) closeSync(file.fd)
    } catch (error) {
      closeSync(file.fd)
      this.#forget(followed)
      if (errnoOf(error) === undefined) throw error
      this.#unopened.add(identityOf(found.provenance))
      this.#report('unreadable', found.path, messageOf(error))
    }
  }

  /** @returns false when there is nothing to follow, and the descriptor is to be closed */
  #admitFile(followed: Followed, isSkipped: boolean): boolean {
    const head = readRange(followed.file.fd, 0, fingerprintBytesMax)
    const outcome = this.#match(followed, head)
    if (outcome === 'settled') return false
    if (outcome === 'new') {
      const length = fingerprintLength(head)
      if (length === null) {
        followed.head = head
        followed.scannedTo = head.length
      } else {
        const reader = this.#begin(followed, head.subarray(0, length))
        if (isSkipped) this.#skip(followed, reader, reader.skip(followed.rotated))
        else if (followed.rotated) {
          this.#announce(reader.generation, reader.cursor(this.#options.clock.nowUs(), false))
        }
      }
    }
    this.#follow(followed)
    this.#enqueue(followed)
    return true
  }

  /**
   * Looks for what a plain file continues.
   *
   * @returns `settled` when it holds nothing that was not read, or is a copy of an open file;
   *   `resumed` when it got a reader
   */
  #match(followed: Followed, bytes: Buffer): 'settled' | 'resumed' | 'new' {
    const { file } = followed
    const head = new Head(bytes)
    for (const cursor of this.#candidates(followed, head)) {
      // "{" identifies nothing: such a beginning counts only for the same file.
      const isFull = isFullFingerprint(bytes.subarray(0, cursor.fingerprintBytes))
      if (!isFull && keyOf(cursor) !== followed.key && cursor.path !== followed.path) continue

      const { size } = fstatSync(file.fd)
      const open = this.#openWith(cursor)
      if (open !== undefined) {
        if (open.gzip || size > open.size || !isPrefix(file.fd, size, open.file.fd)) continue
        this.#markSettled(followed, cursor.gen)
        return 'settled'
      }
      if (size < cursor.offset) continue
      const generation = { id: cursor.gen, path: followed.path, provenance: followed.provenance }
      const fingerprint = bytes.subarray(0, cursor.fingerprintBytes)
      const reader = new FileReader(file, generation, fingerprint, this.#options.limits)
      if (!reader.resume(cursor)) continue
      if (cursor.finished && followed.rotated && size === cursor.offset) {
        this.#markSettled(followed, cursor.gen)
        return 'settled'
      }
      this.#attach(followed, generation, reader)
      followed.wasFinished = cursor.finished
      return 'resumed'
    }
    return 'new'
  }

  /** The file a cursor is read from now; none, if just now it turns out to hold something else. */
  #openWith(cursor: Cursor): Followed | undefined {
    const open = this.#byGen.get(cursor.gen)
    const isGone = open !== undefined && !open.gzip && this.#look(open) === 'replaced'
    return isGone ? undefined : open
  }

  /** Cursors whose content may be in this file: its own inode's first, then those read furthest. */
  #candidates(followed: Followed, head: Head): Cursor[] {
    const family = familyOf(followed.provenance, followed.livePath)
    const isOwn = (cursor: Cursor): boolean => keyOf(cursor) === followed.key
    return this.#known
      .of(followed.provenance)
      .filter((cursor) => {
        // First what rules out nearly all of them: a start asks for every file and every cursor.
        if (!head.matches(cursor)) return false
        const other = familyOfCursor(cursor)
        return other === null || other === family || isOwn(cursor)
      })
      .toSorted((a, b) => Number(isOwn(b)) - Number(isOwn(a)) || b.offset - a.offset)
  }

  /** A generation that was never seen before, from its beginning. */
  #begin(followed: Followed, fingerprint: Buffer): FileReader {
    const { provenance, path, file } = followed
    const id = this.#known.newId(provenance, sha256Hex(fingerprint))
    const generation: Generation = { id, path, provenance }
    const reader = new FileReader(file, generation, fingerprint, this.#options.limits)
    this.#attach(followed, generation, reader)
    this.#known.set(reader.cursor(this.#options.clock.nowUs(), false))
    return reader
  }

  #attach(
    followed: Followed,
    generation: Generation,
    reader: FileReader | StreamReader | null,
  ): void {
    followed.generation = generation
    followed.reader = reader
    followed.scannedTo = reader instanceof FileReader ? reader.scannedTo : 0
    this.#byGen.set(generation.id, followed)
    // Replaced in this moment: the next poll must look again.
    if (reader instanceof FileReader && pollOne(followed) === 'replaced') reader.mtimeMs = -1
  }

  /** Tries again to identify a file that was too short. @returns whether it has a reader now */
  #identify(followed: Followed): boolean {
    const head = readRange(followed.file.fd, 0, fingerprintBytesMax)
    if (!head.subarray(0, followed.head.length).equals(followed.head)) {
      this.#replace(followed)
      return false
    }
    followed.head = head
    followed.scannedTo = head.length
    const outcome = this.#match(followed, head)
    if (outcome === 'resumed') return true
    if (outcome === 'settled') {
      this.#forget(followed)
      closeSync(followed.file.fd)
      return false
    }
    const length = fingerprintLength(head)
    if (length === null) return false
    this.#begin(followed, head.subarray(0, length))
    return true
  }

  /** All a final file has is its fingerprint. @returns false when there is nothing in it, or nothing new */
  #identifyAtEnd(followed: Followed): boolean {
    if (followed.head.length === 0) return false
    const outcome = this.#match(followed, followed.head)
    if (outcome === 'settled') return false
    if (outcome === 'new') this.#begin(followed, followed.head)
    return true
  }

  async #admitStream(followed: Followed, isSkipped: boolean): Promise<boolean> {
    const { file, path, provenance } = followed
    try {
      const bytes = gzipHead(file.fd, fingerprintBytesMax) ?? (await peekStream(file.fd))
      followed.head = bytes.subarray(0, fingerprintLength(bytes) ?? bytes.length)
      const isDone = bytes.length === 0 || (await this.#matchStream(followed, new Head(bytes)))
      if (isDone) {
        if (followed.reader === null) return false
        this.#follow(followed)
        return true
      }
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      // Damaged before its first line: there is no content to give a name to.
      this.#report('corrupt_gzip', path, messageOf(error))
      this.#markSettled(followed, null)
      return false
    }

    const digest = sha256Hex(followed.head)
    const fingerprint = { digest, bytes: followed.head.length }
    const id = this.#known.newId(provenance, digest)
    const generation: Generation = { id, path, provenance }
    if (isSkipped) {
      const stream = gunzipFile(file.fd)
      await using reader = new StreamReader(stream, generation, fingerprint, file)
      this.#skip(followed, reader, await reader.skip())
      this.#markSettled(followed, id)
      return false
    }
    this.#attach(followed, generation, null)
    const cursor = freshCursor(generation, fingerprint, file, this.#options.clock.nowUs())
    this.#known.set(cursor)
    this.#announce(generation, cursor)
    this.#follow(followed)
    return true
  }

  /** Like `#match`. @returns whether it is decided; `followed` has a reader if there is more to read */
  async #matchStream(followed: Followed, head: Head): Promise<boolean> {
    const { file } = followed
    for (const cursor of this.#candidates(followed, head)) {
      const open = this.#openWith(cursor)
      if (open !== undefined) {
        if (open.gzip) continue
        await using stream = gunzipFile(file.fd)
        if (!(await isPrefixStream(stream, open.file.fd))) continue
        this.#markSettled(followed, cursor.gen)
        return true
      }
      if (cursor.finished && gzipLength(file.fd, file.size) === cursor.offset) {
        this.#markSettled(followed, cursor.gen)
        return true
      }
      const generation = {
        id: cursor.gen,
        path: followed.path,
        provenance: followed.provenance,
      }
      const digest = { digest: cursor.fingerprint, bytes: cursor.fingerprintBytes }
      const { limits } = this.#options
      const reader = new StreamReader(gunzipFile(file.fd), generation, digest, file, limits)
      if (!(await reader.resume(cursor))) {
        await reader[Symbol.asyncDispose]()
        continue
      }
      this.#attach(followed, generation, reader)
      this.#activeStreams++
      followed.wasFinished = cursor.finished
      return true
    }
    return false
  }

  /**
   * Has a rotated file known from the moment it is found: should it be deleted before it had its turn,
   * through however many crashes, then it is missed and becomes a gap.
   */
  #announce(generation: Generation, cursor: Cursor): void {
    this.#outbox.push({ generation, lines: [], gaps: [], cursor })
  }

  #skip(followed: Followed, reader: FileReader | StreamReader, to: number): void {
    followed.scannedTo = to
    const { id, path } = reader.generation
    const detail = 'there before the agent first ran, which was told to begin at the end'
    const gap: Gap = { gen: id, path, cause: 'skipped', from: 0, to, detail }
    const gaps = to > 0 ? [gap] : []
    this.#outbox.push(this.#chunkOf(reader, { lines: [], gaps }, followed.gzip))
  }

  /** Turns what no scan can find any more into gaps. */
  #declareLost(
    missing: readonly Missing[],
    listing: Listing,
    liveKeys: ReadonlyMap<string, string>,
    newestRun: ReadonlyMap<string, number>,
  ): void {
    const looked = new Set(missing)
    this.#missing = this.#missing.filter((entry) => !looked.has(entry))
    for (const entry of missing) {
      const { cursor, reader, head } = entry
      if (cursor !== null && this.#byGen.has(cursor.gen)) continue
      entry.misses++
      const place = cursor ?? head
      const isUncertain = place !== null && this.#mayBeThere(place, listing)
      if (isUncertain || entry.misses < missesMax) {
        this.#missing.push(entry)
        continue
      }
      if (head !== null) {
        this.#declareHead(head, entry.family)
      } else if (reader !== null) {
        const out: Decoded = { lines: [], gaps: [] }
        reader.abandon(out)
        const detail = `truncated at ${reader.offset} bytes read, ${reader.size} bytes last seen`
        out.gaps.push(this.#gapAfter(reader, 'truncated', detail))
        this.#outbox.push(this.#chunkOf(reader, out, true))
      } else if (cursor !== null) {
        const known = this.#known.get(cursor.gen)
        if (known === undefined || known.finished) continue
        const name = basename(cursor.path)
        const directory = cursor.path.slice(0, -name.length - 1)
        const isReplaced = liveKeys.has(livePathOf(cursor.path)) || newestRun.has(directory)
        this.#outbox.push(this.#lostChunk(known, isReplaced ? 'rotated_unread' : 'deleted_unread'))
      }
    }
  }

  /** Whether content may be on disk although the scan did not find it. */
  #mayBeThere(
    place: { readonly path: string; readonly provenance: Cursor['provenance'] },
    { unlistable }: Listing,
  ): boolean {
    if (this.#unopened.has(identityOf(place.provenance))) return true
    if (unlistable.length === 0) return false
    const { podRoots } = this.#options.follow
    const isPods = podRoots.some((root) => unlistable.includes(root))
    return (place.provenance.pod !== null && isPods) || isBelow(place.path, unlistable)
  }

  #lostChunk(cursor: Cursor, cause: GapCause): Chunk {
    const { gen, path, provenance, offset } = cursor
    const detail = 'gone while no agent was reading'
    const gaps: Gap[] = cursor.pending
      .filter((range) => range.length > 0)
      .map((range) => ({
        gen,
        path,
        cause,
        from: range.offset,
        to: range.offset + range.length,
        detail,
      }))
    gaps.push({ gen, path, cause, from: offset, to: null, detail })
    const last: Cursor = {
      ...cursor,
      pending: [],
      finished: true,
      seenUs: this.#options.clock.nowUs(),
    }
    this.#known.set(last)
    return { generation: { id: gen, path, provenance }, lines: [], gaps, cursor: last }
  }

  /** A file too short to be identified was overwritten: what was seen of it is all there is of it. */
  #declareHead(lost: Followed, family: string | null): void {
    for (const other of this.#open) {
      if (familyOf(other.provenance, other.livePath) !== family || other.key === lost.key) continue
      const bytes = readRange(other.file.fd, 0, lost.head.length)
      // A copy was made before: it brings the same bytes, and what came after them.
      if (bytes.equals(lost.head)) return
    }
    const id = this.#known.newId(lost.provenance, sha256Hex(lost.head))
    const generation: Generation = { id, path: lost.path, provenance: lost.provenance }
    const reader = new FileReader(lost.file, generation, lost.head, this.#options.limits)
    const out: Decoded = { lines: [], gaps: [] }
    reader.finishWith(lost.head, out)
    out.gaps.push(
      this.#gapAfter(reader, 'truncated', `truncated at ${lost.head.length} bytes seen`),
    )
    this.#outbox.push(this.#chunkOf(reader, out, true))
  }

  /** Forgets what is no longer there. */
  #takeStock(seen: ReadonlyMap<string, FoundFile>, listing: Listing): void {
    const onDisk = new Set<string>(this.#byGen.keys())
    for (const [key, settled] of this.#settled) {
      if (!seen.has(key)) this.#settled.delete(key)
      else if (settled.gen !== null) onDisk.add(settled.gen)
    }
    this.#onDisk = onDisk

    const nowUs = this.#options.clock.nowUs()
    for (const cursor of this.#known.values()) {
      if (!cursor.finished) continue
      if (this.#mayBeThere(cursor, listing)) onDisk.add(cursor.gen)
      const unseenMs = (nowUs - cursor.seenUs) / 1000
      if (onDisk.has(cursor.gen)) {
        if (unseenMs > forgetFinishedMs / 24) this.#known.set({ ...cursor, seenUs: nowUs })
      } else if (unseenMs > forgetFinishedMs) {
        this.#known.delete(cursor)
      }
    }
  }

  #follow(followed: Followed): void {
    this.#open.add(followed)
    this.#byKey.set(followed.key, followed)
  }

  #forget(followed: Followed): void {
    followed.isClosed = true
    this.#open.delete(followed)
    if (this.#byKey.get(followed.key) === followed) this.#byKey.delete(followed.key)
    const gen = followed.generation?.id
    if (gen !== undefined && this.#byGen.get(gen) === followed) this.#byGen.delete(gen)
  }

  async #close(followed: Followed): Promise<void> {
    this.#forget(followed)
    if (followed.gzip && (followed.reader !== null || followed.isQueued)) this.#activeStreams--
    if (followed.reader instanceof StreamReader) await followed.reader[Symbol.asyncDispose]()
    closeSync(followed.file.fd)
  }

  /** Done with it, until it changes. */
  async #settle(followed: Followed): Promise<void> {
    this.#markSettled(followed, followed.generation?.id ?? null)
    await this.#close(followed)
  }

  #markSettled(followed: Followed, gen: string | null): void {
    const { file } = followed
    const { size, mtimeMs } = followed.mtimeMs === 0 ? file : followed
    this.#settled.set(followed.key, { size, mtimeMs, gen })
  }

  // ---- who waits ----

  #setTargets(): void {
    for (const waiter of this.#waiters) {
      if (waiter.targets !== null) continue
      waiter.targets = new Map()
      for (const followed of this.#open) {
        waiter.targets.set(followed, followed.gzip ? Number.POSITIVE_INFINITY : followed.size)
      }
    }
  }

  /** @returns whether somebody was told: they will want the caller of `next` to do something */
  #serveWaiters(): boolean {
    if (this.#waiters.length === 0 || this.#outbox.length > 0) return false
    const countBefore = this.#waiters.length
    this.#waiters = this.#waiters.filter((waiter) => {
      if (waiter.targets === null) return true
      for (const [followed, target] of waiter.targets) {
        if (!hasReached(followed, target)) return true
        waiter.targets.delete(followed)
      }
      clearTimeout(waiter.timer)
      waiter.resolve({ lagging: false })
      return false
    })
    return this.#waiters.length < countBefore
  }

  /** Repeats itself only after a while. */
  readonly #onProblem = (problem: TailProblem): void => {
    const key = `${problem.code}\0${problem.path}`
    const nowMs = this.#options.clock.monotonicMs()
    const reportedMs = this.#reported.get(key)
    if (reportedMs !== undefined && nowMs - reportedMs < problemRepeatMs) return
    if (this.#reported.size > 10_000) this.#reported.clear()
    this.#reported.set(key, nowMs)
    this.#options.onProblem(problem)
  }

  #report(code: TailProblem['code'], path: string, message: string): void {
    this.#onProblem({ code, path, message })
  }
}

/** Of plain files none is in a hurry. */
function ageOf(found: FoundFile): number {
  return found.gzip ? found.mtimeMs : 0
}

async function peekStream(fd: number): Promise<Buffer> {
  await using stream = gunzipFile(fd)
  return Buffer.from(await stream.peek(fingerprintBytesMax))
}

function keyOf(file: { readonly dev: number; readonly ino: number }): string {
  return `${file.dev}:${file.ino}`
}

function livePathOf(path: string): string {
  const name = basename(path)
  return path.slice(0, -name.length) + readLogName(name).live
}

function isUnchanged(settled: Settled | undefined, found: FoundFile): boolean {
  return settled?.size === found.size && settled.mtimeMs === found.mtimeMs
}

function rename(followed: Followed, found: FoundFile): void {
  followed.path = found.path
  followed.livePath = found.livePath
  followed.run = found.run
  followed.rotated = found.rotated
  if (followed.generation !== null) followed.generation.path = found.path
}

function newFollowed(
  found: Pick<FoundFile, 'path' | 'livePath' | 'run' | 'rotated' | 'gzip' | 'provenance'>,
  file: OpenFile,
  nowMs: number,
): Followed {
  return {
    key: keyOf(file),
    file,
    gzip: found.gzip,
    provenance: found.provenance,
    path: found.path,
    livePath: found.livePath,
    run: found.run,
    rotated: found.rotated,
    reader: null,
    head: Buffer.alloc(0),
    generation: null,
    size: 0,
    mtimeMs: 0,
    linkCount: 1,
    scannedTo: 0,
    isSuperseded: false,
    wasFinished: false,
    quietPolls: 0,
    changedMs: nowMs,
    isQueued: false,
    isClosed: false,
    failures: 0,
    retryMs: 0,
  }
}

/** Brings size, time and links up to date. @throws the system's error */
function pollOne(followed: Followed): 'quiet' | 'changed' | 'replaced' {
  const { reader } = followed
  if (reader instanceof FileReader) {
    const state = reader.poll()
    followed.size = reader.size
    followed.mtimeMs = reader.mtimeMs
    followed.linkCount = reader.linkCount
    followed.scannedTo = reader.scannedTo
    return state
  }
  const { size, mtimeMs, nlink } = fstatSync(followed.file.fd)
  followed.linkCount = nlink
  if (size === followed.size && mtimeMs === followed.mtimeMs) return 'quiet'
  followed.size = size
  followed.mtimeMs = mtimeMs
  return size < followed.head.length ? 'replaced' : 'changed'
}

function lagOf(followed: Followed): number {
  return followed.gzip ? followed.file.size : Math.max(0, followed.size - followed.scannedTo)
}

function hasReached(followed: Followed, target: number): boolean {
  return followed.isClosed || followed.scannedTo >= target
}
