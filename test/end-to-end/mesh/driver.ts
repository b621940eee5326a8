/**
 * Drives every case of `cases.ts` through the mesh, as often as asked and in a shuffled but repeatable
 * order, and says exactly what the logs must then hold.
 *
 * It reads no log: a reply other than the case's own is its only complaint.
 */
import { createHash } from 'node:crypto'
import { type Case, cases, type ExpectedLine } from './cases.ts'
import { type Mesh, pods, type Workload } from './mesh.ts'
import type { Outcome } from './outcomes.ts'

export type DriveOptions = {
  /** How often the whole table is driven. */
  readonly rounds?: number
  /** Cases a second, at most; unlimited when absent. */
  readonly rate?: number
  /** Connections at a time. */
  readonly parallel?: number
  /** Request ids and order come from it alone. */
  readonly seed?: number
}

/** So many events of one reporter have this outcome. */
export type ExpectedRow = {
  readonly namespace: string
  readonly workload: Workload
  readonly pod: string
} & Outcome & { readonly count: number }

export type Driven = {
  readonly rounds: number
  /** Connections made. */
  readonly sent: number
  readonly perCase: readonly { readonly case: string; readonly count: number }[]
  /** Access-log lines each sidecar writes for it. */
  readonly lines: Readonly<Record<Workload, number>>
  /** What meshtrail must report, one row per reporter and outcome. */
  readonly rows: readonly ExpectedRow[]
  /** Which raw lines there must be, and how often. */
  readonly evidence: readonly {
    readonly case: string
    readonly line: ExpectedLine
    readonly count: number
  }[]
}

/**
 * @returns when every reply has been read; the log lines follow within a flush (`mesh.settle`)
 * @throws {Error} when a reply's status is not the one its case states
 */
export async function drive(mesh: Mesh, options: DriveOptions = {}): Promise<Driven> {
  const { rounds = 1, rate, parallel = 1, seed = 1 } = options
  const schedule = shuffled(repeated(rounds), seed)
  const startMs = performance.now()
  const wrong: string[] = []
  let next = 0

  async function work(): Promise<void> {
    for (let index = next++; index < schedule.length; index = next++) {
      const step = schedule[index]
      if (step === undefined || wrong.length >= wrongMax) return
      if (rate !== undefined) {
        const waitMs = startMs + (index * 1000) / rate - performance.now()
        if (waitMs > 0) await Bun.sleep(waitMs)
      }
      const reply = await step.send(mesh, requestId(seed, index))
      if (reply.status !== step.status || reply.failure === 'TIMEOUT') {
        wrong.push(`${step.name}: status ${reply.status}, not ${step.status} (${reply.failure})`)
      }
    }
  }
  await Promise.all(Array.from({ length: parallel }, work))
  if (wrong.length > 0) throw new Error(`the mesh answered otherwise:\n${wrong.join('\n')}`)
  return expected(rounds)
}

/** What so many rounds leave in the logs. */
export function expected(rounds: number): Driven {
  const lines: Record<Workload, number> = { frontend: 0, batch: 0, payments: 0, ledger: 0 }
  const rows = new Map<string, ExpectedRow>()
  const evidence: Driven['evidence'][number][] = []
  let sent = 0
  for (const each of cases) {
    const count = each.count * rounds
    sent += count
    for (const line of each.lines) {
      lines[line.reporter] += count
      evidence.push({ case: each.name, line, count })
      const pod = pods[line.reporter]
      const who = { namespace: pod.namespace, workload: pod.workload, pod: pod.name }
      const key = JSON.stringify([who, sortedEntries(line.outcome)])
      const before = rows.get(key)?.count ?? 0
      rows.set(key, { ...who, ...line.outcome, count: before + count })
    }
  }
  const perCase = cases.map(({ name, count }) => ({ case: name, count: count * rounds }))
  return { rounds, sent, perCase, lines, rows: [...rows.values()], evidence }
}

const wrongMax = 10

function sortedEntries(outcome: Outcome): [string, unknown][] {
  return Object.entries(outcome).toSorted(([a], [b]) => (a < b ? -1 : 1))
}

function repeated(rounds: number): Case[] {
  const round = cases.flatMap((each) => Array.from({ length: each.count }, () => each))
  return Array.from({ length: rounds }, () => round).flat()
}

/** Fisher and Yates, with a linear congruential generator: the same seed, the same order. */
function shuffled(steps: Case[], seed: number): Case[] {
  const result = [...steps]
  let state = seed >>> 0
  for (let last = result.length - 1; last > 0; last--) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    const other = Math.floor((state / 2 ** 32) * (last + 1))
    const [a, b] = [result[last], result[other]]
    if (a !== undefined && b !== undefined) [result[last], result[other]] = [b, a]
  }
  return result
}

/** A version-4 UUID that depends on nothing but the seed and the position. */
function requestId(seed: number, index: number): string {
  const hex = createHash('sha256').update(`${seed}/${index}`).digest('hex')
  const parts = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `4${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
  ]
  return [...parts, hex.slice(20, 32)].join('-')
}
