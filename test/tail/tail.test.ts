import { describe, expect, test } from 'bun:test'
import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { systemClock } from '../../agent/clock.ts'
import { cursorsToKeep } from '../../agent/tail/cursors.ts'
import { defaultFollowConfig } from '../../agent/tail/discover.ts'
import { Tail } from '../../agent/tail/tail.ts'
import { never, TestNode } from './node.ts'

function podPath(node: TestNode, index: number): string {
  return node.log('0.log', 'istio-proxy', `shop_web-${index}_uid`)
}

describe('turns', () => {
  test('300 files at once: a busy one delays the others by one chunk each at most', async () => {
    using node = new TestNode()
    const busy = podPath(node, 0)
    writeFileSync(busy, 'a busy line\n'.repeat(500_000))
    for (let i = 1; i < 300; i++) writeFileSync(podPath(node, i), `line of ${i}\n`)
    await using tail = node.tail()
    const seen = new Map<string, number>()
    let chunks = 0
    while (seen.size < 300) {
      const chunk = await tail.next(never)
      chunks++
      const pod = chunk.generation?.provenance.pod ?? ''
      seen.set(pod, (seen.get(pod) ?? 0) + 1)
    }
    expect(chunks).toBeLessThanOrEqual(301)
    expect(seen.get('web-0')).toBeLessThanOrEqual(2)

    // All have something again, while the busy one still has: everybody's turn comes once.
    for (let i = 1; i < 300; i++) appendFileSync(podPath(node, i), `more of ${i}\n`)
    node.clock.ms += 100
    const order: string[] = []
    while (new Set(order).size < 300) {
      order.push((await tail.next(never)).generation?.provenance.pod ?? '')
    }
    expect(order.length).toBeLessThanOrEqual(302)
  })

  test('two busy files alternate', async () => {
    using node = new TestNode()
    const text = 'a busy line\n'.repeat(100_000)
    writeFileSync(podPath(node, 1), text)
    writeFileSync(podPath(node, 2), text)
    await using tail = node.tail()
    const order: (string | null | undefined)[] = []
    for (let i = 0; i < 6; i++) order.push((await tail.next(never)).generation?.provenance.pod)
    expect(order).toEqual(['web-1', 'web-2', 'web-1', 'web-2', 'web-1', 'web-2'])
  })

  test('polling 300 quiet files takes less than 2 ms a poll', async () => {
    using node = new TestNode()
    for (let i = 0; i < 300; i++) writeFileSync(podPath(node, i), `line of ${i}\n`)
    await using tail = node.tail({ rescanMs: 1_000_000_000, idleMs: 2500, pollMs: 25 })
    await node.drain(tail, 1000)
    const start = performance.now()
    // 100 polls of 25 ms each, in the test's time.
    await tail.next(never)
    expect(performance.now() - start).toBeLessThan(200)
  })

  test('nothing to read: an idle chunk after the idle time', async () => {
    using node = new TestNode()
    writeFileSync(node.log(), 'one\n')
    await using tail = node.tail({ idleMs: 100 })
    await node.drain(tail)
    const before = node.clock.ms
    const chunk = await tail.next(never)
    expect(chunk).toEqual({ generation: null, lines: [], gaps: [], cursor: null })
    expect(node.clock.ms - before).toBeGreaterThanOrEqual(100)
    expect(node.clock.ms - before).toBeLessThan(200)
  })

  test('an aborted wait ends at once, without a chunk lost', async () => {
    using node = new TestNode()
    writeFileSync(node.log(), 'one\n')
    const forever = new Promise<void>(() => {})
    await using tail = node.tail({ idleMs: 1_000_000, sleep: async () => forever })
    node.ledger.take(await tail.next(never))
    const abort = new AbortController()
    const waiting = tail.next(abort.signal)
    abort.abort()
    expect((await waiting).cursor).toBeNull()
    appendFileSync(node.log(), 'two\n')
    tail.kick()
    node.ledger.take(await tail.next(never))
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'two'])
  })

  test('a kick wakes a waiting call', async () => {
    using node = new TestNode()
    writeFileSync(node.log(), 'one\n')
    const forever = new Promise<void>(() => {})
    await using tail = node.tail({ idleMs: 1_000_000, sleep: async () => forever })
    await tail.next(never)
    const waiting = tail.next(never)
    await Bun.sleep(5)
    appendFileSync(node.log(), 'two\n')
    tail.kick()
    expect((await waiting).lines.map((line) => line.content)).toEqual(['two'])
  })

  test('closing ends a waiting call and those who wait to catch up', async () => {
    using node = new TestNode()
    const forever = new Promise<void>(() => {})
    const tail = node.tail({ idleMs: 1_000_000, sleep: async () => forever })
    const waiting = tail.next(never)
    const caughtUp = tail.catchUp(60_000)
    await tail[Symbol.asyncDispose]()
    await waiting
    await caughtUp
    expect(tail.openFiles).toBe(0)
    expect(await tail.catchUp()).toEqual({ lagging: true })
  })
})

describe('catching up', () => {
  test('is done when all that was there was taken, files not known yet included', async () => {
    using node = new TestNode()
    writeFileSync(podPath(node, 1), 'one\n')
    await using tail = node.tail({ rescanMs: 1_000_000 })
    await node.drain(tail)
    appendFileSync(podPath(node, 1), 'x'.repeat(99).concat('\n').repeat(10_000))
    writeFileSync(podPath(node, 2), 'new file\n')
    const state = { isDone: false }
    const caughtUp = tail.catchUp(60_000).then((result) => {
      state.isDone = true
      return result
    })
    const taken: string[] = []
    while (!state.isDone) {
      const chunk = await tail.next(never)
      // Whoever waits must not be told before the chunk in hand was taken in.
      await Bun.sleep(0)
      expect(state.isDone && chunk.cursor !== null).toBeFalse()
      for (const line of chunk.lines) taken.push(line.content)
    }
    expect(await caughtUp).toEqual({ lagging: false })
    expect(taken).toHaveLength(10_001)
    expect(taken).toContain('new file')
  })

  test('is done even while files grow without end', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\n')
    await using tail = node.tail({ pollMs: 1 })
    await node.drain(tail)
    const state = { isDone: false }
    const caughtUp = tail.catchUp(60_000).then((done) => {
      state.isDone = true
      return done
    })
    let turns = 0
    for (; !state.isDone && turns < 50; turns++) {
      appendFileSync(path, 'more\n')
      node.clock.ms += 10
      await tail.next(never)
    }
    expect(turns).toBeLessThan(10)
    expect(await caughtUp).toEqual({ lagging: false })
  })

  test('an unterminated line does not hold it up', async () => {
    using node = new TestNode()
    writeFileSync(node.log(), 'one\ntw')
    await using tail = node.tail()
    await node.drain(tail)
    const caughtUp = tail.catchUp(60_000)
    await tail.next(never)
    expect(await caughtUp).toEqual({ lagging: false })
    expect(tail.lagBytes()).toBe(0)
    expect(tail.atEnd()).toBeTrue()
  })

  test('says lagging when the time is over', async () => {
    using node = new TestNode()
    writeFileSync(node.log(), 'one\n'.repeat(200_000))
    await using tail = node.tail()
    await tail.next(never)
    expect(tail.lagBytes()).toBeGreaterThan(0)
    expect(tail.atEnd()).toBeFalse()
    expect(await tail.catchUp(20)).toEqual({ lagging: true })
  })
})

describe('crashes', () => {
  test('a tail from older cursors hands out exactly what they do not cover', async () => {
    using node = new TestNode()
    const text = Array.from({ length: 5000 }, (_, i) => `line ${i} ${'x'.repeat(i % 200)}\n`).join(
      '',
    )
    const path = node.log()
    writeFileSync(path, text)
    const limits = { chunkBytesMax: 4096, lineBytesMax: 65_536, partsPerLineMax: 100 }
    for (let crash = 0; node.ledger.lines.length < 5000; crash++) {
      await using tail = node.tail({ limits })
      for (let i = 0; i < 12; i++) {
        node.ledger.take(await tail.next(never))
        if (i % 5 === 3) node.ledger.commit()
      }
      node.ledger.crash()
      if (crash > 1000) throw new Error('no progress')
    }
    expect(node.ledger.contents().join('\n')).toBe(text.trimEnd())
    node.ledger.checkConservation(() => readFileSync(path))
  })

  test('parts that wait to be joined are joined after a restart', async () => {
    using node = new TestNode()
    const path = node.log()
    const at = '2026-01-01T00:00:00Z'
    writeFileSync(path, `${at} stdout P a\n${at} stderr F x\n`)
    await node.readAll()
    expect(node.cursorOf(path).pending).toHaveLength(1)
    node.ledger.checkConservation(() => readFileSync(path))
    appendFileSync(path, `${at} stdout F b\n`)
    await node.readAll()
    expect(node.ledger.contents()).toEqual(['x', 'ab'])
    node.ledger.checkConservation(() => readFileSync(path))
  })

  test('a finished generation is not read again, and its cursor is kept while it is on disk', async () => {
    using node = new TestNode()
    const path = node.log()
    const rotated = `${path}.20260101-120000`
    writeFileSync(path, 'one\n')
    await node.readAll()
    renameSync(path, rotated)
    writeFileSync(path, 'two\n')
    await node.readAll()
    await using tail = node.tail()
    const chunks = await node.drain(tail)
    expect(chunks).toEqual([])
    const { gen } = node.cursorOf(rotated)
    expect(tail.onDisk?.has(gen)).toBeTrue()

    const dayUs = 24 * 3600 * 1_000_000
    const cursors = [...node.ledger.cursors.values()]
    const laterUs = node.clock.nowUs() + 2 * dayUs
    expect(cursorsToKeep(cursors, tail.onDisk, laterUs)).toHaveLength(2)
    expect(cursorsToKeep(cursors, new Set(), laterUs).map((cursor) => cursor.finished)).toEqual([
      false,
    ])
    expect(cursorsToKeep(cursors, null, laterUs)).toHaveLength(2)
    expect(cursorsToKeep(cursors, new Set(), node.clock.nowUs() + dayUs / 2)).toHaveLength(2)
  })
})

describe('a file that cannot be read', () => {
  test('a very long line is passed over while other files have their turns', async () => {
    using node = new TestNode()
    const long = podPath(node, 1)
    writeFileSync(long, `${'x'.repeat(40 << 20)}\nafter\n`)
    writeFileSync(podPath(node, 2), 'short\n')
    await using tail = node.tail()
    const first = await tail.next(never)
    expect(first.lines.map((line) => line.content)).toEqual(['short'])
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.lines.map(({ line }) => [line.content.length, line.truncated])).toEqual([
      [1 << 20, true],
      [5, false],
    ])
    expect(node.ledger.gaps).toMatchObject([
      { cause: 'line_too_long', from: 1 << 20, to: (40 << 20) + 1 },
    ])
  })

  test('a long line that is still being written waits, and is looked through once', async () => {
    using node = new TestNode()
    const path = node.log()
    const limits = { chunkBytesMax: 1024, lineBytesMax: 4096, partsPerLineMax: 10 }
    writeFileSync(path, 'one\n')
    await using tail = node.tail({ limits })
    for (let i = 0; i < 20; i++) {
      appendFileSync(path, 'x'.repeat(1000))
      await node.drain(tail, 200)
    }
    appendFileSync(path, '\ntwo\n')
    await node.drain(tail, 200)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'x'.repeat(4096), 'two'])
    expect(node.ledger.gaps).toMatchObject([{ from: 4 + 4096, to: 4 + 20_001 }])
    node.ledger.checkConservation(() => readFileSync(path))
  })

  test('a sparse file, truncated under a writer that goes on where it was, is read from its hole', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\n'.repeat(1000))
    await using tail = node.tail()
    await node.drain(tail)
    const { size } = statSync(path)
    truncateSync(path, 0)
    truncateSync(path, size)
    appendFileSync(path, 'two\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.lines).toHaveLength(1001)
    expect(node.ledger.contents().at(-1)).toBe(`${'\0'.repeat(4000)}two`)
    node.ledger.checkConservation()
  })
})

describe('real time', () => {
  test('new pods are found by the watch before the next scan', async () => {
    using node = new TestNode()
    const problems: unknown[] = []
    await using tail = new Tail({
      follow: { ...defaultFollowConfig, podRoots: [node.pods], auditPaths: [] },
      cursors: [],
      from: 'beginning',
      clock: systemClock,
      onProblem: (problem) => problems.push(problem),
      rescanMs: 60_000,
    })
    await tail.next(never)
    await Bun.sleep(300)
    const path = node.log()
    writeFileSync(path, 'one\n')
    const deadline = performance.now() + 5000
    while (node.ledger.lines.length === 0 && performance.now() < deadline) {
      node.ledger.take(await tail.next(never))
      node.ledger.commit()
    }
    expect(node.ledger.contents()).toEqual(['one'])
    expect(problems).toEqual([])
  })

  test('a new 0.log after rename and create is found by the scan', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\n')
    await using tail = new Tail({
      follow: { ...defaultFollowConfig, podRoots: [node.pods], auditPaths: [] },
      cursors: [],
      from: 'beginning',
      clock: systemClock,
      onProblem: () => {},
      rescanMs: 100,
      watch: false,
    })
    node.ledger.take(await tail.next(never))
    renameSync(path, `${path}.20260101-120000`)
    writeFileSync(path, 'two\n')
    const deadline = performance.now() + 3000
    while (node.ledger.lines.length < 2 && performance.now() < deadline) {
      node.ledger.take(await tail.next(never))
      node.ledger.commit()
    }
    expect(node.ledger.contents()).toEqual(['one', 'two'])
  })

  test('without anything to watch the tail goes on by scanning', async () => {
    using node = new TestNode()
    rmSync(node.pods, { recursive: true })
    await using tail = node.tail({ watch: true })
    await node.drain(tail, 300)
    mkdirSync(dirname(node.log()), { recursive: true })
    writeFileSync(node.log(), 'one\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one'])
  })
})
