import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Agent } from '../../agent/agent.ts'
import { EventBuffer } from '../../agent/buffer.ts'
import { messageOf, OpsError } from '../../agent/errors.ts'
import { newEvent } from '../../agent/event.ts'
import { ColumnComparer } from '../../agent/rederive.ts'
import type { Store } from '../../agent/store/store.ts'
import type { Chunk, Line } from '../../agent/tail/chunk.ts'
import { evidenceIn } from '../../agent/verify/evidence.ts'
import { verifyLog } from '../../agent/verify/verify.ts'
import { criLine } from '../faults/lines.ts'
import { dayUs, gen, midnightUs, openStore, provenance } from '../store/sample.ts'

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'meshtrail-agent-'))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const clock = { nowUs: () => midnightUs, monotonicMs: () => 0 }

/** Chunks of one line each, as a tail would cut them out of one file. */
class Lines {
  #offset = 0
  #number = 0

  next(): Chunk {
    const raw = Buffer.from(criLine(this.#number++))
    const wrapper = raw.indexOf('{')
    const line: Line = {
      rawBuffer: raw,
      rawStart: 0,
      rawEnd: raw.length,
      ranges: [this.#offset, raw.length],
      content: raw.toString('utf8', wrapper, raw.length - 1),
      stream: 'stdout',
      wrapperUs: midnightUs,
      lossy: false,
      truncated: false,
      unterminated: false,
    }
    this.#offset += raw.length
    return {
      generation: { id: gen, path: '/p/0.log', provenance },
      lines: [line],
      gaps: [],
      cursor: {
        gen,
        path: '/p/0.log',
        dev: 1,
        ino: 1,
        offset: this.#offset,
        fingerprint: '',
        fingerprintBytes: 0,
        before: '',
        pending: [],
        provenance,
        finished: false,
        seenUs: midnightUs,
      },
    }
  }
}

function agentOn(store: Store, told: string[] = []): Agent {
  return new Agent({
    store,
    reporter: { cluster: 'c', node: 'n' },
    clock,
    rules: null,
    onDisk: () => null,
    onProblem: (problem) => told.push(problem),
  })
}

async function complaintsOf(vkey: string): Promise<readonly unknown[]> {
  const comparer = new ColumnComparer()
  const verification = await verifyLog(evidenceIn(root), {
    vkey,
    expectHead: null,
    deep: true,
    compare: (event, from) => comparer.compare(event, from),
  })
  return verification.complaints
}

function full(): OpsError {
  return new OpsError('disk_full', 'no space left', { hint: 'free some' })
}

describe('agent', () => {
  test('a full disk keeps the batch, takes no more, says so once, and commits it when there is room', async () => {
    let isFull = true
    const step = (name: string): void => {
      if (isFull && name === 'part-synced') throw full()
    }
    await using store = await openStore(root, { step })
    const told: string[] = []
    const agent = agentOn(store, told)
    const lines = new Lines()
    agent.take(lines.next(), midnightUs)
    agent.take(lines.next(), midnightUs)
    expect(await agent.commit()).toBe(false)
    expect(await agent.commit()).toBe(false)
    expect([agent.accepts(midnightUs), store.size, told.length]).toEqual([false, 0, 1])
    isFull = false
    expect(await agent.commit()).toBe(true)
    expect([agent.accepts(midnightUs), store.size, told.length]).toEqual([true, 2, 2])
    agent.take(lines.next(), midnightUs)
    await agent.close('test')
    expect(await complaintsOf(store.identity.vkey)).toEqual([])
  })

  test('a disk that fills up between commit and signature writes nothing twice', async () => {
    let isFull = true
    const step = (name: string): void => {
      if (isFull && name === 'tiles-written') throw full()
    }
    await using store = await openStore(root, { step })
    const agent = agentOn(store)
    const lines = new Lines()
    agent.take(lines.next(), midnightUs)
    // The rows are durable, only their signature is missing.
    expect(await agent.commit()).toBe(true)
    agent.take(lines.next(), midnightUs)
    expect(await agent.commit()).toBe(false)
    isFull = false
    expect(await agent.commit()).toBe(true)
    expect(store.size).toBe(2)
    await agent.close('test')
    expect(await complaintsOf(store.identity.vkey)).toEqual([])
  })

  test('after a failed fsync nothing is ever committed again', async () => {
    let fails = true
    const step = (name: string): void => {
      if (fails && name === 'part-synced') throw new OpsError('disk', 'fsync failed', { hint: '' })
    }
    await using store = await openStore(root, { step })
    const agent = agentOn(store)
    const lines = new Lines()
    agent.take(lines.next(), midnightUs)
    expect(await agent.commit().catch(messageOf)).toBe('fsync failed')
    fails = false
    expect(agent.commitDue).toBe(true)
    expect(await agent.commit().catch(messageOf)).toBe('fsync failed')
    expect(store.size).toBe(0)
  })

  test('commits that overlap take turns and lose nothing', async () => {
    await using store = await openStore(root)
    const agent = agentOn(store)
    const lines = new Lines()
    const commits: Promise<boolean>[] = []
    for (let i = 0; i < 20; i++) {
      agent.take(lines.next(), midnightUs)
      commits.push(agent.commit())
    }
    expect(await Promise.all(commits)).not.toContain(false)
    expect(store.size).toBe(20)
    await agent.close('test')
    expect(await complaintsOf(store.identity.vkey)).toEqual([])
  })
})

describe('buffer', () => {
  test('lines of the next day wait until today is committed, own events wait inside', () => {
    const buffer = new EventBuffer(clock)
    buffer.add(newEvent(midnightUs))
    expect(buffer.accepts(midnightUs + dayUs - 1)).toBe(true)
    expect(buffer.accepts(midnightUs + dayUs)).toBe(false)
    buffer.add(newEvent(midnightUs + dayUs))
    const today = buffer.take()
    expect(today.events.map((event) => event.observed_ts)).toEqual([midnightUs])
    expect(buffer.take().events.map((event) => event.observed_ts)).toEqual([midnightUs + dayUs])
  })

  test('raw bytes survive their chunk, and an arena is not used again before its commit', () => {
    const buffer = new EventBuffer(clock)
    const chunk = Buffer.from('one line\n')
    const event = { ...newEvent(midnightUs), gen, rawBuffer: chunk, rawEnd: chunk.length }
    buffer.add(event)
    chunk.fill(0)
    const first = buffer.take()
    const other = Buffer.from('two line\n')
    buffer.add({ ...newEvent(midnightUs), gen, rawBuffer: other, rawEnd: other.length })
    const [kept] = first.events
    expect(kept?.rawBuffer.subarray(kept.rawStart, kept.rawEnd).toString()).toBe('one line\n')
    buffer.recycle(first)
  })
})
