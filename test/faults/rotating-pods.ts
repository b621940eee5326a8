/**
 * Pods that log at a steady rate into files that are rotated as kubelet does it: `0.log` is renamed to
 * `0.log.<time>`, the container's writer goes on into the renamed file until it opens a new `0.log`,
 * and the rotated files but the newest are compressed and, beyond `generations`, deleted.
 *
 * Lines are numbered across all pods. Some come in two pieces, and some are written in two halves.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { criLine, criLineInPieces } from './lines.ts'

export type PodsOptions = {
  /** `0.log` of each pod. */
  readonly paths: readonly string[]
  readonly linesPerSecond: number
  /** How long a file is written to before it is rotated. Names have seconds: at least 1100. */
  readonly rotateMs: number
  /** Rotated files kept of each pod. */
  readonly generations: number
  readonly random: () => number
}

const tickMs = 20
/** How long a container goes on writing into the renamed file. */
const reopenMsMax = 60

type Pod = {
  readonly path: string
  fd: number
  /** The rest of a line whose first half is written. */
  rest: string
  rotatedMs: number
  /** When the container opens its new file; null when it has it. */
  reopenMs: number | null
}

export class RotatingPods implements Disposable {
  readonly #options: PodsOptions
  readonly #pods: Pod[]
  readonly #startMs = performance.now()
  readonly #timer: ReturnType<typeof setInterval>
  #rotations = 0
  #written = 0
  #failure: Error | null = null

  constructor(options: PodsOptions) {
    this.#options = options
    this.#pods = options.paths.map((path, index) => {
      mkdirSync(dirname(path), { recursive: true })
      // Not all at the same moment.
      const rotatedMs = this.#startMs - (index * options.rotateMs) / options.paths.length
      return { path, fd: openSync(path, 'a'), rest: '', rotatedMs, reopenMs: null }
    })
    this.#timer = setInterval(() => {
      try {
        this.#tick()
      } catch (error) {
        this.#failure ??= error instanceof Error ? error : new Error(String(error))
        clearInterval(this.#timer)
      }
    }, tickMs)
  }

  /** Lines that are in the files, or begun: numbered from 0. */
  get written(): number {
    return this.#written
  }

  get rotations(): number {
    return this.#rotations
  }

  #tick(): void {
    const nowMs = performance.now()
    const due = Math.floor(((nowMs - this.#startMs) * this.#options.linesPerSecond) / 1000)
    // Ended lines first: a writer that was held up catches up, but not all in one tick.
    const until = Math.min(due, this.#written + this.#options.linesPerSecond)
    for (const pod of this.#pods) this.#write(pod, '')
    for (; this.#written < until; this.#written++) {
      const pod = this.#pods[this.#written % this.#pods.length]
      if (pod === undefined) throw new Error('BUG: no pods')
      const number = this.#written
      this.#write(pod, number % 37 === 5 ? criLineInPieces(number) : criLine(number))
    }
    for (const pod of this.#pods) this.#rotate(pod, nowMs)
  }

  #write(pod: Pod, line: string): void {
    const text = pod.rest + line
    pod.rest = ''
    if (text === '') return
    const isHalved = line !== '' && this.#options.random() < 0.02
    const at = isHalved ? text.length - 1 - Math.floor(this.#options.random() * 200) : text.length
    pod.rest = text.slice(at)
    writeSync(pod.fd, text.slice(0, at))
  }

  #rotate(pod: Pod, nowMs: number): void {
    // A container writes a line into one file: it opens the next when the line has ended.
    if (pod.reopenMs !== null && nowMs >= pod.reopenMs && pod.rest === '') {
      closeSync(pod.fd)
      pod.fd = openSync(pod.path, 'a')
      pod.reopenMs = null
    }
    if (pod.reopenMs !== null || nowMs - pod.rotatedMs < this.#options.rotateMs) return
    const time = new Date().toISOString().replaceAll(/[-:]/g, '').replace('T', '-').slice(0, 15)
    tidy(pod.path, this.#options.generations)
    renameSync(pod.path, `${pod.path}.${time}`)
    pod.rotatedMs = nowMs
    pod.reopenMs = nowMs + this.#options.random() * reopenMsMax
    this.#rotations++
  }

  /** Ends every line that was begun, and stops writing. @throws what stopped it before */
  stop(): void {
    clearInterval(this.#timer)
    if (this.#failure !== null) throw this.#failure
    for (const pod of this.#pods) this.#write(pod, '')
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    for (const pod of this.#pods) closeSync(pod.fd)
  }
}

/** As kubelet before it rotates: compresses what is rotated already, deletes what is too old. */
function tidy(path: string, generations: number): void {
  const folder = dirname(path)
  const rotated = readdirSync(folder)
    .filter((name) => /^0\.log\.\d{8}-\d{6}(\.gz)?$/.test(name))
    .toSorted()
  for (const name of rotated.splice(0, Math.max(0, rotated.length - generations + 1))) {
    rmSync(join(folder, name))
  }
  for (const name of rotated.filter((each) => !each.endsWith('.gz'))) {
    const file = join(folder, name)
    writeFileSync(`${file}.tmp`, Bun.gzipSync(readFileSync(file)))
    renameSync(`${file}.tmp`, `${file}.gz`)
    rmSync(file)
  }
}
