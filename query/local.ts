/**
 * Queries over this node's files, each in a child process that costs only itself.
 *
 *   wait for a slot -> take the spare child (or start one) -> send the job -> read frames
 *
 * Invariant: a slot is held exactly as long as its child lives, and every child ends: by itself after its
 * last frame, or killed at its deadline, above its memory, when the client has gone, or when it says
 * something that is no frame. The parent never parses SQL and never loads DuckDB.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { type Clock, systemClock } from '../agent/clock.ts'
import { messageOf, OpsError } from '../agent/errors.ts'
import {
  type AnswerEnd,
  type Frame,
  type Job,
  type LogFiles,
  type Params,
  parseFrame,
  type ResultColumn,
  type Row,
} from './frames.ts'
import {
  frameBytesMax,
  memoryMbDefault,
  resultBytesMax,
  rowsDefault,
  rowsMax,
  runningMax,
  spareIdleMs,
  sqlBytesMax,
  timeoutMsDefault,
  timeoutMsMax,
  waitingMax,
  watchdogMs,
} from './limits.ts'

export type RunnerOptions = {
  /**
   * What starts this program, before `__query`: `[process.execPath]` for the binary,
   * `[process.execPath, '/absolute/agent/main.ts']` from source. Absolute, as the child runs in `/`.
   */
  readonly command: readonly string[]
  /** Environment of the child; empty unless the binary needs a folder to unpack to. Never secrets. */
  readonly env?: Readonly<Record<string, string>>
  /** Private memory a child may have, MB. */
  readonly memoryMb?: number
  /** DuckDB threads of one query. */
  readonly threads?: number
  readonly runningMax?: number
  readonly waitingMax?: number
  readonly resultBytesMax?: number
  /** How long an unused spare child is kept; 0 keeps none. */
  readonly spareIdleMs?: number
  readonly clock?: Clock
}

export type LocalQuery = {
  readonly sql: string
  readonly params?: Params
  /** Rows of the answer; `rowsDefault` when absent. */
  readonly limit?: number
  /** From the job to the last row read; waiting for a slot may take as long again. */
  readonly timeoutMs?: number
  readonly files: LogFiles
  readonly origin: string
}

/**
 * Rows that are still coming. Read `batches` to its end, then `end`; leaving the loop early, or disposing,
 * kills the child. Not reading holds the slot until the deadline.
 */
export type Answer = AsyncDisposable & {
  readonly columns: readonly ResultColumn[]
  readonly batches: AsyncIterable<readonly Row[]>
  /** @throws {Error} `BUG:` before `batches` has been read to its end */
  end(): AnswerEnd
}

type Settings = Required<Omit<RunnerOptions, 'env'>> & { readonly env: Record<string, string> }

/** Runs queries; one per agent. Dispose it to kill what still runs. */
export class QueryRunner implements AsyncDisposable {
  readonly #settings: Settings
  readonly #children = new Set<QueryChild>()
  #spare: QueryChild | undefined
  #spareTimer: Timer | undefined
  #running = 0
  readonly #waiting: (() => void)[] = []
  #closed = false

  constructor(options: RunnerOptions) {
    this.#settings = {
      command: options.command,
      env: { ...options.env },
      memoryMb: options.memoryMb ?? memoryMbDefault,
      threads: options.threads ?? Math.min(2, availableParallelism()),
      runningMax: options.runningMax ?? runningMax,
      waitingMax: options.waitingMax ?? waitingMax,
      resultBytesMax: options.resultBytesMax ?? resultBytesMax,
      spareIdleMs: options.spareIdleMs ?? spareIdleMs,
      clock: options.clock ?? systemClock,
    }
  }

  /** Children at work, and queries waiting for one: for metrics. */
  get load(): { readonly running: number; readonly waiting: number } {
    return { running: this.#running, waiting: this.#waiting.length }
  }

  /** Process ids of all children, the spare included: for metrics and tests. */
  get pids(): readonly number[] {
    return [...this.#children].map((child) => child.pid)
  }

  /** Starts the spare child, so that the first query is as fast as the next. Resolves when it is warm. */
  async prewarm(): Promise<void> {
    this.#refill()
    await this.#spare?.ready()
  }

  /**
   * Runs one statement. Resolves when its columns are known.
   *
   * @throws {OpsError} `bad_query`, `query_refused`, `query_limit`, `query_failed`, `busy`; the same may be
   *   thrown while the batches are read
   */
  async run(query: LocalQuery, signal?: AbortSignal): Promise<Answer> {
    const job = this.#jobOf(query)
    throwIfCancelled(signal)
    await this.#slot(job.timeoutMs, signal)

    let child: QueryChild
    try {
      child = this.#takeChild()
    } catch (thrown) {
      this.#release()
      throw thrown
    }
    child.exited.finally(() => this.#release()).catch(() => undefined)
    const cancel = (): void => child.kill('cancelled')
    signal?.addEventListener('abort', cancel, { once: true })
    child.exited.finally(() => signal?.removeEventListener('abort', cancel)).catch(() => undefined)
    if (signal?.aborted === true) cancel()

    await child.start(job, this.#settings.memoryMb)
    return open(child, job)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearTimeout(this.#spareTimer)
    const children = [...this.#children]
    for (const child of children) child.kill('cancelled')
    await Promise.all(children.map((child) => child.exited))
  }

  #jobOf(query: LocalQuery): Job {
    const sqlBytes = Buffer.byteLength(query.sql)
    if (sqlBytes > sqlBytesMax) {
      throw new OpsError(
        'query_refused',
        `the statement has ${sqlBytes} bytes, allowed are ${sqlBytesMax}`,
        { hint: 'pass long lists as a parameter: WHERE principal IN (SELECT unnest($1))' },
      )
    }
    if (query.sql.includes('\0')) {
      throw new OpsError('bad_query', 'the statement has a NUL character', { hint: 'remove it' })
    }
    return {
      sql: query.sql,
      params: query.params ?? [],
      limit: within(query.limit ?? rowsDefault, rowsMax),
      files: query.files,
      origin: query.origin,
      // Below the watchdog's limit, so that DuckDB mostly says so itself, in words.
      memoryMb: Math.max(32, Math.floor(this.#settings.memoryMb * 0.6)),
      threads: this.#settings.threads,
      timeoutMs: within(query.timeoutMs ?? timeoutMsDefault, timeoutMsMax),
      resultBytesMax: this.#settings.resultBytesMax,
    }
  }

  async #slot(waitMs: number, signal: AbortSignal | undefined): Promise<void> {
    if (this.#closed) throw busy('the agent is stopping')
    if (this.#running < this.#settings.runningMax) {
      this.#running += 1
      return
    }
    if (this.#waiting.length >= this.#settings.waitingMax) {
      throw busy(`${this.#running} queries run and ${this.#waiting.length} wait`)
    }
    const turn = Promise.withResolvers<void>()
    this.#waiting.push(turn.resolve)
    const timer = setTimeout(() => turn.reject(busy(`waited ${waitMs} ms for a turn`)), waitMs)
    const cancel = (): void => turn.reject(cancelled())
    signal?.addEventListener('abort', cancel, { once: true })
    try {
      // The slot is handed over, not freed and taken: `#running` stays as it is.
      await turn.promise
    } catch (thrown) {
      const index = this.#waiting.indexOf(turn.resolve)
      // Not in the queue any more: the slot was handed over in the moment of giving up.
      if (index < 0) this.#release()
      else this.#waiting.splice(index, 1)
      throw thrown
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', cancel)
    }
  }

  #release(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#running -= 1
    else next()
    // A new spare now, and not while the query ran: it would have taken the query's core.
    if (this.#running < this.#settings.runningMax) this.#refill()
  }

  #takeChild(): QueryChild {
    const spare = this.#spare
    this.#spare = undefined
    clearTimeout(this.#spareTimer)
    return spare !== undefined && spare.alive ? spare : this.#spawn()
  }

  #refill(): void {
    if (this.#closed || this.#settings.spareIdleMs === 0) return
    try {
      if (this.#spare === undefined || !this.#spare.alive) this.#spare = this.#spawn()
    } catch {
      // A spare only saves time: the next query starts its own child, and says why it cannot.
      return
    }
    void this.#giveUpWhenIdle(this.#spare)
  }

  /** Idle time counts from when the child is ready: a slow machine would else kill it while it starts. */
  async #giveUpWhenIdle(spare: QueryChild): Promise<void> {
    try {
      await spare.ready()
    } catch {
      return
    }
    if (spare !== this.#spare || this.#closed) return
    clearTimeout(this.#spareTimer)
    this.#spareTimer = setTimeout(() => {
      if (spare !== this.#spare) return
      spare.kill('cancelled')
      this.#spare = undefined
    }, this.#settings.spareIdleMs)
    this.#spareTimer.unref()
  }

  #spawn(): QueryChild {
    const child = new QueryChild(this.#settings.command, this.#settings.env)
    this.#children.add(child)
    child.exited.finally(() => this.#children.delete(child)).catch(() => undefined)
    return child
  }
}

async function open(child: QueryChild, job: Job): Promise<Answer> {
  const first = await child.next(undefined)
  if (first.kind === 'error') throw errorOf(first)
  if (first.kind !== 'columns') throw child.broken(`${first.kind} before columns`)
  const { columns } = first
  let end: AnswerEnd | undefined

  async function* batches(): AsyncGenerator<readonly Row[]> {
    let rowCount = 0
    try {
      for (;;) {
        const frame = await child.next(columns.length)
        switch (frame.kind) {
          case 'rows':
            rowCount += frame.rows.length
            if (rowCount > job.limit) throw child.broken('more rows than asked for')
            yield frame.rows
            break
          case 'end':
            if (frame.end.rowCount !== rowCount) throw child.broken('a wrong row count')
            end = frame.end
            return
          case 'error':
            throw errorOf(frame)
          case 'ready':
          case 'columns':
            throw child.broken(`${frame.kind} among the rows`)
        }
      }
    } finally {
      // After the end the child is about to exit; before it, nobody wants the rest.
      child.kill('cancelled')
    }
  }

  return {
    columns,
    batches: batches(),
    end: () => {
      if (end === undefined) throw new Error('BUG: end() before the batches were read')
      return end
    },
    [Symbol.asyncDispose]: async () => {
      child.kill('cancelled')
      await child.exited
    },
  }
}

type KillReason = 'deadline' | 'memory' | 'cancelled' | 'broken'

type FrameReader = { read(): Promise<{ done: boolean; value?: Uint8Array | undefined }> }

/** One child process: its pipe, its deadline and its watchdog. */
class QueryChild {
  readonly #process: Bun.Subprocess<'pipe', 'pipe', 'pipe'>
  readonly #reader: FrameReader
  readonly exited: Promise<void>
  /** Read and without a newline; then `#rest`, not looked at yet. */
  #head: Uint8Array[] = []
  #headBytes = 0
  #rest: Uint8Array = new Uint8Array(0)
  #warm: Promise<void> | undefined
  #reason: KillReason | undefined
  #timeoutMs = 0
  #memoryMb = 0
  #stderr = ''

  constructor(command: readonly string[], env: Record<string, string>) {
    try {
      this.#process = Bun.spawn([...command, '__query'], {
        cwd: '/',
        env,
        stdin: 'pipe',
        stdout: 'pipe',
        stderr: 'pipe',
      })
    } catch (thrown) {
      throw new OpsError('query_failed', `cannot start the query process: ${messageOf(thrown)}`, {
        hint: 'check that the program may start itself: noexec mounts and seccomp profiles forbid it',
        cause: thrown,
      })
    }
    this.#reader = this.#process.stdout.getReader()
    // Started by this line even when nobody waits, so that a crash is never an unhandled rejection.
    this.exited = this.#process.exited.then(() => undefined)
    this.#keepStderr().catch(() => undefined)
  }

  get pid(): number {
    return this.#process.pid
  }

  get alive(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null
  }

  /** Resolves when DuckDB is loaded. */
  async ready(): Promise<void> {
    this.#warm ??= this.#firstFrame()
    await this.#warm
  }

  async #firstFrame(): Promise<void> {
    const frame = await this.next(undefined, true)
    if (frame.kind !== 'ready') throw this.broken(`${frame.kind} before ready`)
  }

  /** Sends the job and starts the clock. */
  async start(job: Job, memoryMb: number): Promise<void> {
    this.#timeoutMs = job.timeoutMs
    this.#memoryMb = memoryMb
    const deadline = setTimeout(() => this.kill('deadline'), job.timeoutMs)
    const watchdog = setInterval(() => {
      const bytes = privateBytes(this.pid)
      if (bytes !== undefined && bytes > memoryMb * 1024 * 1024) this.kill('memory')
    }, watchdogMs)
    const stop = (): void => {
      clearTimeout(deadline)
      clearInterval(watchdog)
    }
    this.exited.finally(stop).catch(() => undefined)

    await this.ready()
    try {
      await this.#process.stdin.write(`${JSON.stringify(job)}\n`)
      await this.#process.stdin.flush()
    } catch {
      // The child is gone: reading its frames says why.
    }
  }

  /** Only the first reason counts: what follows is its consequence. */
  kill(reason: KillReason): void {
    this.#reason ??= reason
    this.#process.kill('SIGKILL')
  }

  /** Kills a child that broke the protocol; returns the error to throw. */
  broken(what: string): OpsError {
    this.kill('broken')
    return new OpsError('query_failed', `the query process sent ${what}`, {
      hint: 'report this as a bug with the statement',
    })
  }

  /**
   * The next frame.
   *
   * @param width columns of the answer, once they are known
   * @throws {OpsError} when the child ends without one: why it did
   */
  async next(width: number | undefined, starting = false): Promise<Frame> {
    const line = await this.#line()
    if (line === undefined) throw await this.#death(starting)
    const frame = parseFrame(line, width)
    if (frame === undefined) throw this.broken('what is no frame')
    return frame
  }

  async #line(): Promise<string | undefined> {
    for (;;) {
      const newline = this.#rest.indexOf(10)
      if (newline >= 0) {
        const line = Buffer.concat([...this.#head, this.#rest.subarray(0, newline)]).toString()
        this.#head = []
        this.#headBytes = 0
        this.#rest = this.#rest.subarray(newline + 1)
        return line
      }
      this.#head.push(this.#rest)
      this.#headBytes += this.#rest.length
      if (this.#headBytes > frameBytesMax) throw this.broken('a frame without end')
      const { done, value } = await this.#reader.read()
      if (done || value === undefined) return undefined
      this.#rest = value
    }
  }

  async #death(starting: boolean): Promise<OpsError> {
    await this.exited
    switch (this.#reason) {
      case 'deadline':
        return new OpsError('query_limit', `the query took longer than ${this.#timeoutMs} ms`, {
          hint: 'narrow it by time, or ask for a longer timeout',
        })
      case 'memory':
        return new OpsError('query_limit', `the query took more than ${this.#memoryMb} MB`, {
          hint: 'narrow it by time, select fewer columns, or aggregate before sorting or joining',
        })
      case 'cancelled':
        return cancelled()
      case 'broken':
      case undefined:
        break
    }
    const how = this.#process.signalCode ?? `status ${this.#process.exitCode}`
    if (!starting && how === 'SIGKILL') {
      return new OpsError('query_limit', 'the system killed the query process: out of memory', {
        hint: 'narrow the query, or give the agent more memory',
      })
    }
    return new OpsError('query_failed', `the query process ended early (${how})`, {
      hint: starting
        ? 'check that the program can start itself and load DuckDB: meshtrail doctor'
        : 'write the statement flatter or smaller; report it as a bug if it is neither deep nor large',
      detail: { stderr: this.#stderr.slice(-1000) },
    })
  }

  /** The end of what the child says on stderr: for the error, never for the client. */
  async #keepStderr(): Promise<void> {
    const decoder = new TextDecoder()
    for await (const chunk of this.#process.stderr) {
      this.#stderr = (this.#stderr + decoder.decode(chunk, { stream: true })).slice(-4000)
    }
  }
}

/** Private memory of a process in bytes; undefined where the system does not tell or it has ended. */
function privateBytes(pid: number): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    // Without the shared program text, which all children have in common.
    const anonymous = /^RssAnon:\s+(\d+) kB/m.exec(status) ?? /^VmRSS:\s+(\d+) kB/m.exec(status)
    return anonymous?.[1] === undefined ? undefined : Number(anonymous[1]) * 1024
  } catch {
    return undefined
  }
}

function within(value: number, max: number): number {
  if (!Number.isFinite(value)) return max
  return Math.min(Math.max(1, Math.floor(value)), max)
}

function errorOf(frame: Extract<Frame, { kind: 'error' }>): OpsError {
  return new OpsError(frame.code, frame.message, { hint: frame.hint })
}

function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelled()
}

function cancelled(): OpsError {
  return new OpsError('query_failed', 'the query was cancelled', { hint: 'ask again' })
}

function busy(why: string): OpsError {
  return new OpsError('busy', `no query process is free: ${why}`, {
    hint: 'ask again in a moment, or narrow the running queries',
  })
}
