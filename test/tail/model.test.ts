/**
 * Random sequences of what happens to log files, against a model of what was written. `TAIL_MODEL_RUNS`
 * and `TAIL_MODEL_SEED` choose how many and which; a failure names the seed that repeats it.
 */

import { expect, test } from 'bun:test'
import { createHash } from 'node:crypto'
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  readFileSync,
  renameSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { gzipSync } from 'node:zlib'
import type { Cursor } from '../../agent/tail/chunk.ts'
import type { Tail } from '../../agent/tail/tail.ts'
import { never, TestNode } from './node.ts'

const runs = Number(process.env['TAIL_MODEL_RUNS'] ?? 300)
const firstSeed = Number(process.env['TAIL_MODEL_SEED'] ?? 1)

const limits = { chunkBytesMax: 256, lineBytesMax: 600, partsPerLineMax: 8 }

/** What one file content is, or was, wherever its bytes lie. */
type Content = {
  readonly bytes: Buffer[]
  /** Where its bytes can be found now: one path, or none. */
  path: string | null
  /** It was truncated in place: bytes may have gone that no copy has. */
  isTruncated: boolean
  /** Which tail had it open when it went. */
  heldBy: number | null
  readonly seenBy: Set<number>
}

class World {
  readonly node = new TestNode()
  readonly contents: Content[] = []
  readonly #random: () => number
  readonly #isCri: boolean
  live: Content | null = null
  restart = 0
  rotations = 0
  lines = 0
  tail: Tail | null = null
  tails = 0
  readonly steps: string[] = []

  constructor(seed: number) {
    this.#random = mulberry32(seed)
    this.#isCri = this.#random() < 0.5
    this.tail = this.start()
  }

  start(): Tail {
    this.tails++
    return this.node.tail({ limits, finishQuietMs: 100, rescanMs: 200 })
  }

  below(bound: number): number {
    return Math.floor(this.#random() * bound)
  }

  chance(probability: number): boolean {
    return this.#random() < probability
  }

  get livePath(): string {
    return this.node.log(`${this.restart}.log`)
  }

  /** A line that nothing else holds, so that bytes say where they belong. */
  line(fixed?: string): string {
    const id = `line ${this.lines++} `
    const size = this.chance(0.05) ? 500 + this.below(1500) : this.below(80)
    const body = id.padEnd(id.length + size, this.chance(0.1) ? 'ä' : 'x')
    if (!this.#isCri) return body
    const stream = this.chance(0.5) ? 'stdout' : 'stderr'
    const tag = this.chance(0.3) ? 'P' : 'F'
    const wrapper = fixed ?? `${stream} ${tag}`
    return `2026-01-01T00:00:00.${String(this.lines).padStart(6, '0')}Z ${wrapper} ${body}`
  }

  write(): void {
    const content = this.live ?? this.create()
    let text = ''
    for (let count = this.below(4); count >= 0; count--) text += `${this.line()}\n`
    if (this.chance(0.3)) text += this.line()
    this.append(content, text)
  }

  append(content: Content, text: string): void {
    if (content.path === null) throw new Error('the writer has no file')
    const bytes = Buffer.from(text)
    content.bytes.push(bytes)
    appendFileSync(content.path, bytes)
  }

  create(): Content {
    const content: Content = {
      bytes: [],
      path: this.livePath,
      isTruncated: false,
      heldBy: null,
      seenBy: new Set(),
    }
    writeFileSync(this.livePath, '')
    this.contents.push(content)
    this.live = content
    return content
  }

  nextRotatedPath(): string {
    return `${this.livePath}.20260101-${String(100_000 + this.rotations++)}`
  }

  rotate(): void {
    const { live } = this
    if (live?.path !== this.livePath) return
    const rotated = this.nextRotatedPath()
    renameSync(this.livePath, rotated)
    live.path = rotated
    // The runtime may write to the old file for a while, until it opens the new one.
    if (this.chance(0.5)) this.append(live, `${this.line()}\n`)
    if (this.chance(0.7)) this.create()
  }

  compress(): void {
    const old = this.contents.find(
      (each) => each.path !== null && each !== this.live && !each.path.endsWith('.gz'),
    )
    if (old === undefined || old.path === null || !/\.2026/.test(old.path)) return
    writeFileSync(`${old.path}.gz.tmp`, gzipSync(readFileSync(old.path)))
    renameSync(`${old.path}.gz.tmp`, `${old.path}.gz`)
    unlinkSync(old.path)
    old.path = `${old.path}.gz`
  }

  remove(content: Content | undefined): void {
    if (content === undefined || content.path === null) return
    unlinkSync(content.path)
    content.path = null
    content.heldBy = this.tail !== null && content.seenBy.has(this.tails) ? this.tails : null
    if (content === this.live) this.live = null
  }

  removeOldest(): void {
    const onDisk = this.contents.filter((each) => each.path !== null && each !== this.live)
    if (onDisk.length > 3) this.remove(onDisk[0])
  }

  copyTruncate(): void {
    const { live } = this
    if (live?.path !== this.livePath) return
    const copy = this.nextRotatedPath()
    copyFileSync(this.livePath, copy)
    truncateSync(this.livePath, 0)
    live.path = copy
    live.isTruncated = true
    this.live = null
    this.reuse()
  }

  truncate(): void {
    const { live } = this
    if (live?.path !== this.livePath) return
    truncateSync(this.livePath, 0)
    live.path = null
    live.isTruncated = true
    this.reuse()
    if (this.chance(0.5)) this.append(this.live ?? this.create(), `${this.line()}\n`.repeat(1))
  }

  /** The file goes on, with other content. */
  reuse(): void {
    const content: Content = {
      bytes: [],
      path: this.livePath,
      isTruncated: false,
      heldBy: null,
      seenBy: new Set(),
    }
    this.contents.push(content)
    this.live = content
  }

  restartContainer(): void {
    this.restart++
    this.live = null
    this.create()
  }

  async read(turns: number): Promise<void> {
    if (this.tail === null) return
    for (let turn = 0; turn < turns; turn++) this.node.ledger.take(await this.tail.next(never))
  }

  async drain(): Promise<void> {
    if (this.tail === null) return
    await this.node.drain(this.tail, 800)
    for (const content of this.contents) if (content.path !== null) content.seenBy.add(this.tails)
  }

  async stop(isCrash: boolean): Promise<void> {
    await this.tail?.[Symbol.asyncDispose]()
    this.tail = null
    if (isCrash) this.node.ledger.crash()
    else this.node.ledger.commit()
  }

  async step(): Promise<void> {
    const actions: [string, number, () => void | Promise<void>][] = [
      ['write', 30, () => this.write()],
      ['rotate', 8, () => this.rotate()],
      ['compress', 8, () => this.compress()],
      ['remove oldest', 3, () => this.removeOldest()],
      ['copytruncate', 4, () => this.copyTruncate()],
      ['truncate', 2, () => this.truncate()],
      ['delete', 2, () => this.remove(this.live ?? undefined)],
      ['restart container', 2, () => this.restartContainer()],
      ['read', 20, () => this.read(1 + this.below(6))],
      ['drain', 6, () => this.drain()],
      ['commit', 10, () => this.node.ledger.commit()],
      ['crash', 4, () => this.stop(true)],
      ['stop', 3, () => this.stop(false)],
      [
        'start',
        8,
        () => {
          this.tail ??= this.start()
        },
      ],
    ]
    const total = actions.reduce((sum, [, weight]) => sum + weight, 0)
    let pick = this.below(total)
    for (const [name, weight, act] of actions) {
      pick -= weight
      if (pick >= 0) continue
      this.steps.push(name)
      await act()
      return
    }
  }

  async end(): Promise<void> {
    this.steps.push('end')
    // Something new, so that a rewrite within one tick of the file's clock is noticed; and the final
    // parts of both streams, so that nothing waits to be joined.
    const live = this.live?.path === this.livePath ? this.live : this.create()
    for (const wrapper of ['stdout F', 'stderr F', 'stdout F']) {
      this.append(live, `${this.line(wrapper)}\n`)
    }
    this.tail ??= this.start()
    await this.drain()
    this.node.ledger.commit()
    this.check()
    // A restart finds nothing more to read, and nothing more to declare.
    const before = this.node.ledger.lines.length + this.node.ledger.gaps.length
    await this.stop(false)
    for (const content of this.contents) {
      if (content.path !== null && !existsSync(content.path)) throw new Error('the model is wrong')
    }
    this.tail = this.start()
    await this.drain()
    await this.stop(false)
    const after = this.node.ledger.lines.length + this.node.ledger.gaps.length
    expect(after).toBe(before)
    this.check()
  }

  contentOf(cursor: Cursor): Content | undefined {
    return this.contents.find((content) => {
      const head = Buffer.concat(content.bytes).subarray(0, cursor.fingerprintBytes)
      return createHash('sha256').update(head).digest('hex') === cursor.fingerprint
    })
  }

  check(): void {
    const { ledger } = this.node
    ledger.checkConservation((cursor) => {
      const content = this.contentOf(cursor)
      if (content === undefined) throw new Error(`${cursor.path}: nobody wrote this`)
      return Buffer.concat(content.bytes)
    })
    const cursorsOf = new Map<Content, Cursor>()
    for (const cursor of ledger.cursors.values()) {
      const content = this.contentOf(cursor)
      if (content === undefined) throw new Error(`${cursor.path}: nobody wrote this`)
      if (cursorsOf.has(content)) throw new Error(`${cursor.path}: read as two generations`)
      cursorsOf.set(content, cursor)
    }
    for (const [index, content] of this.contents.entries())
      this.#checkContent(index, content, cursorsOf)
  }

  #checkContent(index: number, content: Content, cursorsOf: ReadonlyMap<Content, Cursor>): void {
    const { ledger } = this.node
    const size = Buffer.concat(content.bytes).length
    const name = `content ${index} (${size} bytes, ${content.path ?? 'gone'})`
    const cursor = cursorsOf.get(content)
    const lost = ledger.gaps.filter(
      (gap) => gap.gen === cursor?.gen && gap.cause !== 'line_too_long',
    )
    const isOnDisk = content.path !== null
    const wasHeld = content.heldBy === this.tails && !content.isTruncated
    if (isOnDisk || wasHeld) {
      if (lost.length > 0) throw new Error(`${name}: a false gap ${JSON.stringify(lost)}`)
      const isLive = content === this.live
      const text = Buffer.concat(content.bytes)
      const due = isLive ? text.lastIndexOf('\n') + 1 : size
      if ((cursor?.offset ?? 0) !== due) {
        const rest = text.subarray(cursor?.offset ?? 0, due).toString()
        const how = isLive ? 'live' : 'rotated'
        throw new Error(
          `${name}, ${how}: read up to ${cursor?.offset ?? 0} of ${due}, not ${JSON.stringify(rest.slice(0, 200))}, ${JSON.stringify(cursor)}`,
        )
      }
    } else if (cursor !== undefined && cursor.offset !== size && lost.length === 0) {
      throw new Error(`${name}: lost in silence after ${cursor.offset}`)
    }
    for (const gap of ledger.gaps) {
      if (gap.gen !== cursor?.gen || gap.cause !== 'line_too_long' || gap.to === null) continue
      if (gap.to > size) throw new Error(`${name}: a gap beyond its end`)
    }
  }
}

/** A small, seeded generator, so that a failure can be repeated. */
function mulberry32(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

async function runOne(seed: number): Promise<void> {
  const world = new World(seed)
  using node = world.node
  try {
    for (let step = 10 + world.below(50); step > 0; step--) await world.step()
    await world.end()
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    throw new Error(
      `TAIL_MODEL_SEED=${seed}: ${message}\nin ${node.root} after: ${world.steps.join(', ')}`,
      {
        cause: error,
      },
    )
  } finally {
    await world.tail?.[Symbol.asyncDispose]()
  }
}

test(
  `${runs} random histories of log files lose nothing, repeat nothing and declare no false gap`,
  async () => {
    for (let seed = firstSeed; seed < firstSeed + runs; seed++) await runOne(seed)
  },
  { timeout: 600_000 },
)
