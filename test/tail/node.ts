/** A node's log directory in a temporary folder, a clock that tests move, and a tail on both. */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Clock } from '../../agent/clock.ts'
import type { Chunk, Cursor } from '../../agent/tail/chunk.ts'
import { defaultFollowConfig, type FollowConfig } from '../../agent/tail/discover.ts'
import type { TailProblem } from '../../agent/tail/problem.ts'
import { Tail, type TailOptions } from '../../agent/tail/tail.ts'
import { Ledger } from './ledger.ts'

export const never = new AbortController().signal

export class TestClock implements Clock {
  ms = 1_000_000

  nowUs(): number {
    return this.ms * 1000
  }

  monotonicMs(): number {
    return this.ms
  }

  /** Waiting takes no time, and moves the clock. */
  readonly sleep = async (ms: number): Promise<void> => {
    this.ms += ms
    await new Promise<void>((resolve) => {
      setImmediate(resolve)
    })
  }
}

export type TestOptions = Partial<Omit<TailOptions, 'follow'>> & {
  readonly follow?: Partial<FollowConfig>
}

export class TestNode implements Disposable {
  readonly root = mkdtempSync(join(tmpdir(), 'meshtrail-tail-'))
  readonly pods = join(this.root, 'var/log/pods')
  readonly clock = new TestClock()
  readonly problems: TailProblem[] = []
  readonly ledger = new Ledger()

  constructor() {
    mkdirSync(this.pods, { recursive: true })
  }

  /** A container's log file; its directory is made. */
  log(name = '0.log', container = 'istio-proxy', pod = 'shop_web-7d9c5b8f6-x2k4p_1-2'): string {
    const path = join(this.pods, pod, container, name)
    mkdirSync(dirname(path), { recursive: true })
    return path
  }

  /** Any other file below the root. */
  path(name: string): string {
    const path = join(this.root, name)
    mkdirSync(dirname(path), { recursive: true })
    return path
  }

  tail(options: TestOptions = {}): Tail {
    const { follow, ...rest } = options
    return new Tail({
      cursors: [...this.ledger.cursors.values()],
      from: 'beginning',
      clock: this.clock,
      sleep: this.clock.sleep,
      onProblem: (problem) => this.problems.push(problem),
      watch: false,
      ...rest,
      follow: {
        ...defaultFollowConfig,
        podRoots: [this.pods],
        auditPaths: [],
        symlinkRoots: [],
        ...follow,
      },
    })
  }

  /** Takes chunks until nothing has come for `idleMs` of the node's time; long enough to finish files. */
  async drain(tail: Tail, idleMs = 2500): Promise<Chunk[]> {
    const chunks: Chunk[] = []
    let quietSinceMs = this.clock.ms
    while (this.clock.ms - quietSinceMs < idleMs) {
      const chunk = await tail.next(never)
      if (chunk.cursor === null) continue
      quietSinceMs = this.clock.ms
      chunks.push(chunk)
      this.ledger.take(chunk)
    }
    return chunks
  }

  /** A fresh tail from the committed cursors, drained, committed and closed. */
  async readAll(options: TestOptions = {}): Promise<Chunk[]> {
    await using tail = this.tail(options)
    const chunks = await this.drain(tail)
    this.ledger.commit()
    return chunks
  }

  cursorOf(path: string): Cursor {
    const cursor = [...this.ledger.cursors.values()].find((each) => each.path === path)
    if (cursor === undefined) throw new Error(`no cursor for ${path}`)
    return cursor
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true, force: true })
  }
}
