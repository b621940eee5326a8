/**
 * A progress line for long work: how much, how fast, how long still. Only where stderr is a terminal
 * that can rewrite a line; anywhere else it prints nothing at all, so that a pipe stays clean.
 *
 * It draws at most ten times a second and only when told of progress: work that stands still shows the
 * last line. It leaves no trace when it ends, however it ends.
 */

import { writeSync } from 'node:fs'
import { type Clock, systemClock } from '../clock.ts'
import { escapeForTerminal, fitColumns } from './escape.ts'
import { formatBytes, formatCount, formatDuration } from './units.ts'

const redrawMs = 100
/** The rate is that of the last seconds, not since the start: caches warm up and disks slow down. */
const rateWindowMs = 5000
/** Before this much time has passed, a rate is noise. */
const rateAfterMs = 500
const barColumns = 20
const clearLine = '\r\x1b[2K'

/** What is written to: standard error, or what a test keeps. */
export type ProgressStream = {
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
  write(text: string): unknown
}

export type ProgressOptions = {
  readonly label: string
  /** Leave out when it cannot be known: then there is no bar and no ETA. */
  readonly total?: number
  /** `bytes`, or the plural of what is counted. */
  readonly unit: string
  readonly stream?: ProgressStream
  readonly clock?: Clock
  readonly environment?: Readonly<Record<string, string | undefined>>
}

/** Written to at once: what a stream still holds is lost when a signal ends the process. */
const standardError: ProgressStream = {
  get isTTY() {
    return process.stderr.isTTY
  },
  get columns() {
    return process.stderr.columns
  },
  write(text) {
    try {
      writeSync(2, text)
    } catch {
      // A terminal that is gone or busy misses a redraw; the work goes on.
    }
  },
}

/** Work under way. `using progress = startProgress(…)` ends it with the block. */
export class Progress {
  readonly #label: string
  readonly #unit: string
  readonly #stream: ProgressStream
  readonly #clock: Clock
  readonly #samples: { atMs: number; done: number }[] = []
  #total: number | undefined
  #done = 0
  #note = ''
  #drawnAtMs = Number.NEGATIVE_INFINITY
  #visible = false
  #active: boolean

  constructor(options: ProgressOptions) {
    this.#label = escapeForTerminal(options.label)
    this.#unit = options.unit
    this.#total = options.total
    this.#stream = options.stream ?? standardError
    this.#clock = options.clock ?? systemClock
    const environment = options.environment ?? process.env
    this.#active = this.#stream.isTTY === true && environment['TERM'] !== 'dumb'
    if (!this.#active) return
    this.#samples.push({ atMs: this.#clock.monotonicMs(), done: 0 })
    process.on('exit', this.#clear)
    process.on('SIGINT', this.#interrupted)
  }

  /** Says that `amount` more is done, and optionally what else to show: `1,204 events`. */
  advance(amount: number, note?: string): void {
    this.update(this.#done + amount, note)
  }

  /** Says how much is done in all. */
  update(done: number, note?: string): void {
    this.#done = done
    if (!this.#active) return
    if (note !== undefined) this.#note = escapeForTerminal(note)
    const nowMs = this.#clock.monotonicMs()
    if (nowMs - this.#drawnAtMs < redrawMs) return
    this.#drawnAtMs = nowMs
    this.#draw(nowMs)
  }

  /** A total that was found out, or that grew. */
  setTotal(total: number): void {
    this.#total = total
  }

  /** Prints a line above the progress line, or nothing where there is no terminal. */
  print(line: string): void {
    if (!this.#active) return
    this.#clear()
    this.#stream.write(`${escapeForTerminal(line)}\n`)
    this.#drawnAtMs = Number.NEGATIVE_INFINITY
  }

  /** Takes the line away. May be called twice. */
  finish(): void {
    if (!this.#active) return
    this.#clear()
    this.#active = false
    process.off('exit', this.#clear)
    process.off('SIGINT', this.#interrupted)
  }

  [Symbol.dispose](): void {
    this.finish()
  }

  readonly #clear = (): void => {
    if (this.#visible) this.#stream.write(clearLine)
    this.#visible = false
  }

  /** A program with its own handler decides what Ctrl-C means; without one, it still ends the process. */
  readonly #interrupted = (): void => {
    this.finish()
    if (process.listenerCount('SIGINT') === 0) process.kill(process.pid, 'SIGINT')
  }

  #draw(nowMs: number): void {
    const rate = this.#rate(nowMs)
    const parts = [this.#label]
    const total = this.#total
    if (total === undefined || total <= 0) {
      parts.push(this.#amount(this.#done))
    } else {
      const fraction = Math.min(1, Math.max(0, this.#done / total))
      const filled = Math.round(fraction * barColumns)
      parts.push(`[${'#'.repeat(filled)}${'-'.repeat(barColumns - filled)}]`)
      parts.push(`${String(Math.floor(fraction * 100)).padStart(3)} %`)
      parts.push(`${this.#amount(this.#done)} of ${this.#amount(total)}`)
    }
    if (rate > 0) {
      parts.push(`${this.#amount(rate)}/s`)
      if (total !== undefined && total > this.#done) {
        parts.push(`ETA ${formatDuration(Math.ceil((total - this.#done) / rate) * 1000)}`)
      }
    }
    if (this.#note !== '') parts.push(this.#note)
    // One column stays free: a full line makes some terminals wrap, and then it cannot be cleared.
    const columnsMax = (this.#stream.columns ?? 80) - 1
    this.#stream.write(clearLine + fitColumns(parts.join('  '), columnsMax))
    this.#visible = true
  }

  /** Units per second over the window. */
  #rate(nowMs: number): number {
    const samples = this.#samples
    samples.push({ atMs: nowMs, done: this.#done })
    while (samples.length > 2 && nowMs - (samples[1]?.atMs ?? nowMs) >= rateWindowMs)
      samples.shift()
    const first = samples[0]
    if (first === undefined || nowMs - first.atMs < rateAfterMs) return 0
    return ((this.#done - first.done) * 1000) / (nowMs - first.atMs)
  }

  #amount(value: number): string {
    if (this.#unit === 'bytes') return formatBytes(value)
    return `${formatCount(value)} ${this.#unit}`
  }
}

export function startProgress(options: ProgressOptions): Progress {
  return new Progress(options)
}
