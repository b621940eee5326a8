/** Puts an agent together from a configuration: store, rules, and what it says when it starts. */
import { randomFillSync } from 'node:crypto'
import { statfsSync } from 'node:fs'
import { loadRules } from '../rules/engine/load.ts'
import { formatProblem } from '../rules/engine/problem.ts'
import { shippedRules } from '../rules/shipped.ts'
import { Agent } from './agent.ts'
import { type Clock, systemClock } from './clock.ts'
import type { Config } from './config.ts'
import { Detector } from './detect/detect.ts'
import { openRuleEngine } from './detect/engine.ts'
import { readRules } from './detect/read-rules.ts'
import { ColumnComparer } from './rederive.ts'
import { buildInfo } from './runtime/build-info.ts'
import { setNativeCacheDirectory } from './runtime/native-library.ts'
import { names } from './store/filenames.ts'
import type { StepHook } from './store/log-state.ts'
import { Store } from './store/store.ts'

export type NodeOptions = {
  readonly config: Config
  readonly onProblem: (message: string) => void
  readonly clock?: Clock
  /** What the tail sees, once there is one; see `AgentOptions`. */
  readonly onDisk?: () => ReadonlySet<string> | null
  /** Tests interrupt the commit with it. */
  readonly step?: StepHook
}

export type Node = AsyncDisposable & {
  readonly agent: Agent
  readonly store: Store
  /** Rules in force, and what was wrong with others. */
  readonly ruleCount: number
  readonly ruleProblems: readonly string[]
  readonly ruleSet: string
}

/** @throws {OpsError} when the data directory, a rule file or the configuration does not allow it */
export async function openNode({
  config,
  onProblem,
  clock,
  onDisk,
  step,
}: NodeOptions): Promise<Node> {
  setNativeCacheDirectory(`${config.data.path}/${names.cache}`)
  const time = clock ?? systemClock
  const { version, commit } = buildInfo()
  const comparer = new ColumnComparer()
  const store = await Store.open({
    root: config.data.path,
    cluster: config.cluster,
    node: config.node,
    bytesMax: bytesMaxOf(config),
    agentVersion: `${version} ${commit}`,
    rederive: (event, cursors) => comparer.compare(event, cursors.get(event.gen)?.provenance),
    clock: time,
    random: (bytes) => randomFillSync(bytes),
    readersMs: config.query.timeout + readersGraceMs,
    ...(step === undefined ? {} : { step }),
  })
  try {
    const engine = await openRuleEngine()
    const shipped = config.rules.shipped ? loadRules(shippedRules) : { rules: [], problems: [] }
    const own = await readRules(config.rules.paths)
    const detector = await Detector.create([...shipped.rules, ...own.rules], engine.query)
    const problems = [...shipped.problems, ...own.problems, ...detector.problems]
    const agent = new Agent({
      store,
      reporter: { cluster: config.cluster, node: config.node },
      clock: time,
      commitAgeMs: config.commitAge,
      rules: { detector, engine },
      onDisk: onDisk ?? (() => null),
      onProblem,
    })
    // After a crash, rules first look at what was committed just before it.
    await agent.commit()
    if (store.repairs.length > 0)
      agent.say('lifecycle', { what: 'recovered', repairs: [...store.repairs] })
    return {
      agent,
      store,
      ruleCount: detector.ruleCount,
      ruleSet: detector.hash,
      ruleProblems: problems.map(formatProblem),
      [Symbol.asyncDispose]: async () => {
        engine.close()
        await store[Symbol.asyncDispose]()
      },
    }
  } catch (thrown) {
    await store[Symbol.asyncDispose]()
    throw thrown
  }
}

/** A query may start at the last moment before its files are replaced. */
const readersGraceMs = 30_000

function bytesMaxOf(config: Config): number {
  const { bytesMax, path } = config.data
  if (bytesMax.kind === 'bytes') return bytesMax.bytes
  const { blocks, bsize } = statfsSync(existingParent(path))
  return Math.floor(blocks * bsize * bytesMax.fraction)
}

function existingParent(path: string): string {
  for (let at = path; ; at = at.slice(0, Math.max(at.lastIndexOf('/'), 1))) {
    try {
      statfsSync(at)
      return at
    } catch {
      if (at === '/' || !at.includes('/')) return '.'
    }
  }
}
