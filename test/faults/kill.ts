/**
 * `kill -9` at random moments under load with rotation, and the account afterwards.
 *
 *   bun test/faults/kill.ts --kills 200 --seed 1
 *
 * Pods write numbered lines all the time. The agent is started, killed while it starts, while it runs or
 * while it stops, and started again. Whatever the kills left must never look forged; in the end every line
 * is in exactly one event, every refused line has exactly one finding, and the log verifies with its key.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { meshtrail } from '../commands/command.ts'
import { launch, NodeFolder, type RunningNode, until } from '../end-to-end/node.ts'
import { type Account, accountOf, verifyDirectory } from './account.ts'
import { randomFrom, seedFrom } from './random.ts'
import { RotatingPods } from './rotating-pods.ts'

export type KillOptions = {
  readonly kills: number
  readonly seed: number
  readonly linesPerSecond?: number
  readonly onProgress?: (text: string) => void
}

export type KillResult = {
  readonly seed: number
  readonly kills: Readonly<Record<Moment, number>>
  /** Lines written. */
  readonly lines: number
  readonly rotations: number
  readonly account: Account
  /** Declared by the agent: there must be none. */
  readonly gaps: readonly string[]
  /** Events of the log, the agent's own included. */
  readonly size: number
  readonly segments: number
  /** Starts that found something to repair. */
  readonly recoveries: number
  /** What a directory looked like between kill and start, where it looked forged. */
  readonly forgedBetween: readonly string[]
  /** Of `meshtrail verify --key` on the stopped directory. */
  readonly verify: { readonly status: number; readonly output: string }
  readonly seconds: number
}

type Moment = 'starting' | 'running' | 'stopping'

/** A start takes 1.5 s: a kill within this is in it, or just after. */
const startMsMax = 1600
/** Rotated files kept: more than are made while several starts in a row are killed. */
const generations = 30

export async function killRepeatedly(options: KillOptions): Promise<KillResult> {
  const startedMs = performance.now()
  const random = randomFrom(options.seed)
  const between = (from: number, to: number): number => from + random() * (to - from)
  const kills: Record<Moment, number> = { starting: 0, running: 0, stopping: 0 }
  const forgedBetween: string[] = []
  let recoveries = 0

  using folder = new NodeFolder('kill')
  using pods = new RotatingPods({
    paths: ['payments-1', 'ledger-1', 'frontend-1'].map((pod) => folder.podLog(pod)),
    linesPerSecond: options.linesPerSecond ?? 450,
    rotateMs: 2000,
    generations,
    random: randomFrom(options.seed + 1),
  })

  for (let kill = 0; kill < options.kills; kill++) {
    // From commits all the time to the default: moments within a commit are what is looked for.
    const commitAge = `${Math.round(random() < 0.7 ? between(5, 60) : between(60, 900))}ms`
    await using node = await launch(folder, { commitAge })
    const dice = random()
    const moment: Moment = dice < 0.25 ? 'starting' : dice < 0.8 ? 'running' : 'stopping'
    // Now and then a life long enough to catch up, so that no file is deleted before its turn came.
    const isLong = kill % 5 === 4
    kills[isLong && moment === 'starting' ? 'running' : moment]++
    await killAt(moment, node, between, isLong)
    if (node.stderr.includes('recovered: ')) recoveries++

    if (kill % Math.ceil(options.kills / 20) === 0) {
      for (const complaint of (await verifyDirectory(folder.data)).complaints) {
        if (complaint.severity !== 'forged') continue
        forgedBetween.push(`kill ${kill} (${moment}): ${complaint.path}: ${complaint.problem}`)
      }
      options.onProgress?.(`${kill + 1} kills, ${pods.written} lines, ${pods.rotations} rotations`)
    }
  }

  pods.stop()
  await using last = await (await launch(folder)).ready()
  await drained(last)
  const gaps = await last.rows('SELECT cause, path, from_offset, to_offset, detail, time FROM gaps')
  const { size } = await last.status()
  await last.stop()

  const key = join(folder.path, 'node.vkey')
  writeFileSync(key, readFileSync(join(folder.data, 'log/vkey')))
  const { status, stdout, stderr } = await meshtrail(['verify', folder.data, '--key', key])
  const result: KillResult = {
    seed: options.seed,
    kills,
    lines: pods.written,
    rotations: pods.rotations,
    account: await accountOf(folder.data, pods.written),
    gaps: gaps.map((row) => row.map(String).join(' ')),
    size,
    segments: (await verifyDirectory(folder.data)).segments,
    recoveries,
    forgedBetween,
    verify: { status, output: stdout + stderr },
    seconds: (performance.now() - startedMs) / 1000,
  }
  if (problemsOf(result).length > 0) {
    folder.keep()
    console.error(`kept for a look: ${folder.path}`)
  }
  return result
}

async function killAt(
  moment: Moment,
  node: RunningNode,
  between: (from: number, to: number) => number,
  isLong: boolean,
): Promise<void> {
  if (moment === 'starting' && !isLong) {
    await Bun.sleep(between(0, startMsMax))
  } else {
    await node.ready()
    if (isLong) await drained(node)
    // A question commits out of turn; nobody waits for its answer.
    if (between(0, 1) < 0.5) node.ask('SELECT count(*) FROM events').catch(() => {})
    await Bun.sleep(between(10, 600))
    if (moment === 'stopping') {
      node.signal('SIGTERM')
      await Bun.sleep(between(0, 300))
    }
  }
  await node.kill()
}

/** Everything written is read, committed, and looked at by the rules. */
async function drained(node: RunningNode): Promise<void> {
  await until(
    'the agent has read everything',
    async () => {
      const { coverage } = await node.query('SELECT 1')
      return coverage.agents[0]?.status === 'answered'
    },
    60_000,
  )
}

/** What is not as promised, in words. */
export function problemsOf(result: KillResult): string[] {
  const { account, gaps, forgedBetween, verify } = result
  const problems = [...forgedBetween, ...gaps.map((gap) => `gap: ${gap}`)]
  const list = (name: string, numbers: readonly number[]): void => {
    if (numbers.length > 0)
      problems.push(`${numbers.length} ${name}: ${numbers.slice(0, 20).join(',')}`)
  }
  list('lines lost', account.lost)
  list('lines duplicated', account.duplicated)
  list('findings missing', account.findingsMissing)
  list('findings repeated', account.findingsRepeated)
  if (verify.status !== 0) problems.push(`verify ended with ${verify.status}:\n${verify.output}`)
  return problems
}

export function describeResult(result: KillResult): string {
  const { kills, lines, rotations, account, gaps, size, segments, recoveries } = result
  const total = kills.starting + kills.running + kills.stopping
  return [
    `seed ${result.seed}: ${total} kill -9 (${kills.starting} starting, ${kills.running} running, ${kills.stopping} stopping) in ${result.seconds.toFixed(0)} s`,
    `${lines} lines in ${rotations + 3} files: ${account.lost.length} lost, ${account.duplicated.length} duplicated, ${gaps.length} gaps`,
    `findings: ${account.findingsMissing.length} missing, ${account.findingsRepeated.length} repeated`,
    `${size} events, ${segments} segments, ${recoveries} starts repaired something, verify --key: ${result.verify.status}`,
  ].join('\n')
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '200' },
      seed: { type: 'string' },
      rate: { type: 'string', default: '450' },
    },
  })
  const seed = seedFrom(values.seed)
  console.log(`seed ${seed}`)
  const result = await killRepeatedly({
    kills: Number(values.kills),
    seed,
    linesPerSecond: Number(values.rate),
    onProgress: console.log,
  })
  console.log(describeResult(result))
  const problems = problemsOf(result)
  for (const problem of problems) console.error(problem)
  process.exit(problems.length === 0 ? 0 : 1)
}
