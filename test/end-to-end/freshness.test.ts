/**
 * How soon a line counts: 50 ms after it was written a question finds it, and one second after it was
 * written it is durable although nobody asked. Measured figures are printed; only the promises are asserted.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { appendFileSync, fsyncSync, openSync, readdirSync, renameSync, closeSync } from 'node:fs'
import { join } from 'node:path'
import { diskFile, openParquet, readEvents } from '../../agent/store/read.ts'
import { criLine } from '../faults/lines.ts'
import { randomFrom, seedFrom } from '../faults/random.ts'
import { NodeFolder, type RunningNode, startNode } from './node.ts'

let folder: NodeFolder
let node: RunningNode
let next = 0

beforeAll(async () => {
  folder = new NodeFolder('freshness')
  node = await startNode(folder)
}, 60_000)
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

/** Appends a line of its own. @returns its number */
function append(path: string): number {
  const number = next++
  appendFileSync(path, criLine(number))
  return number
}

/** Waits 50 ms, asks, and has the answer hold each line once. @returns how long the answer took, ms */
async function expectFresh(numbers: readonly number[]): Promise<number> {
  await Bun.sleep(50)
  const list = numbers.map((number) => `'line-${number}'`).join(', ')
  const askedMs = performance.now()
  const { rows, coverage } = await node.query(
    `SELECT request_id, count(*) FROM events WHERE request_id IN (${list}) GROUP BY 1 ORDER BY 1`,
  )
  const tookMs = performance.now() - askedMs
  const expected = numbers.map((number) => [`line-${number}`, 1])
  expect(rows).toEqual(expected.toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1)))
  expect(coverage).toMatchObject({ complete: true, agents: [{ status: 'answered', gaps: 0 }] })
  return tookMs
}

function print(what: string, figures: readonly number[]): void {
  const sorted = figures.toSorted((a, b) => a - b)
  const at = (share: number): string =>
    (sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0).toFixed(0)
  console.log(`${what}: median ${at(0.5)} ms, worst ${at(1)} ms of ${sorted.length}`)
}

describe('a question sent 50 ms after a line was written finds it', () => {
  test('in a file that is followed', async () => {
    const path = folder.podLog('payments-1')
    const figures: number[] = []
    for (let i = 0; i < 20; i++) figures.push(await expectFresh([append(path)]))
    print('answered', figures)
  }, 60_000)

  test('in the directory of a pod that did not exist', async () => {
    const figures: number[] = []
    for (let i = 0; i < 10; i++) {
      figures.push(await expectFresh([append(folder.podLog(`new-${i}`))]))
    }
    print('answered', figures)
  }, 60_000)

  test('right after a rotation: the last line of the old file and the first of the new one', async () => {
    const path = folder.podLog('payments-1')
    const figures: number[] = []
    for (let i = 0; i < 10; i++) {
      const before = append(path)
      renameSync(path, `${path}.20260101-0000${String(i).padStart(2, '0')}`)
      figures.push(await expectFresh([before, append(path)]))
    }
    print('answered', figures)
  }, 60_000)

  test('in a renamed file that its writer has not let go of yet', async () => {
    const path = folder.podLog('ledger-1')
    await expectFresh([append(path)])
    const renamed = `${path}.20260101-000000`
    renameSync(path, renamed)
    await expectFresh([append(renamed)])
    await expectFresh([append(renamed), append(path)])
  })

  test('when several ask at once', async () => {
    const number = append(folder.podLog('payments-1'))
    await Promise.all([expectFresh([number]), expectFresh([number]), expectFresh([number])])
  })
})

describe('without a question', () => {
  const seed = seedFrom(process.env['MESHTRAIL_SEED'])

  test(`a line is durable one second after it was written (MESHTRAIL_SEED=${seed})`, async () => {
    const random = randomFrom(seed)
    const path = folder.podLog('payments-1')
    const figures: number[] = []
    const late: string[] = []
    for (let i = 0; i < 12; i++) {
      // At every phase of the agent's polls and commits.
      await Bun.sleep(random() * 300)
      const known = new Set(parts())
      const stall = watchStall()
      const writtenMs = performance.now()
      const number = append(path)
      while (!(await isDurable(number, known)) && performance.now() - writtenMs < 10_000) {
        await Bun.sleep(5)
      }
      const tookMs = performance.now() - writtenMs
      // A machine that held up this process held up the agent as well.
      const allowedMs = 1000 + stall.stop()
      figures.push(tookMs)
      if (tookMs > allowedMs) late.push(`${tookMs.toFixed(0)} ms, allowed ${allowedMs.toFixed(0)}`)
    }
    print('durable', figures)
    expect(late).toEqual([])
  }, 60_000)
})

function parts(): string[] {
  return readdirSync(join(folder.data, 'parts')).filter((name) => name.endsWith('.parquet'))
}

/** Whether a part that was not there before holds the line: read from its file, not through the agent. */
async function isDurable(number: number, known: Set<string>): Promise<boolean> {
  for (const name of parts()) {
    if (known.has(name)) continue
    known.add(name)
    const opened = await openParquet(diskFile(join(folder.data, 'parts', name)))
    if (!opened.ok) throw new Error(opened.problem)
    const events = await readEvents(opened)
    if (events.some((event) => event.request_id === `line-${number}`)) return true
  }
  return false
}

/** How long this process was kept from its turn, and an fsync of nothing took, at worst. */
function watchStall(): { stop: () => number } {
  let dueMs = performance.now() + 10
  let worstMs = 0
  const timer = setInterval(() => {
    const nowMs = performance.now()
    worstMs = Math.max(worstMs, nowMs - dueMs)
    dueMs = nowMs + 10
  }, 10)
  return {
    stop: () => {
      clearInterval(timer)
      const startedMs = performance.now()
      const fd = openSync(folder.data, 'r')
      fsyncSync(fd)
      closeSync(fd)
      return Math.max(0, worstMs) + performance.now() - startedMs
    },
  }
}
