/** `meshtrail run`: the agent, until SIGTERM or Ctrl-C; then commit, seal, say so, exit. */
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { systemClock } from '../clock.ts'
import { type Config, defaultConfig, followConfig, loadConfig } from '../config.ts'
import { openNode } from '../node.ts'
import { runPipeline } from '../pipeline.ts'
import { buildInfo } from '../runtime/build-info.ts'
import { Tail } from '../tail/tail.ts'
import { formatCount } from '../terminal/units.ts'
import { tell } from './output.ts'
import { serve } from './serve.ts'

export type RunOptions = { readonly config: string | null; readonly data: string | null }

/** How often a quiet tail lets the pipeline look whether a commit is due, ms; it polls as often. */
const idleMs = 50

export async function run(options: RunOptions): Promise<void> {
  const config = configFor(options)
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      tell(`${signal}: committing and sealing`)
      stop.abort()
    })
  }
  // The tail starts from the cursors of the store, so the store is opened before there is a tail.
  let following: Tail | null = null
  await using node = await openNode({
    config,
    onProblem: tell,
    onDisk: () => following?.onDisk ?? null,
  })
  for (const repair of node.store.repairs) tell(`recovered: ${repair}`)
  for (const problem of node.ruleProblems) tell(problem)
  await using tail = new Tail({
    follow: followConfig(config),
    cursors: node.store.cursors,
    from: config.logs.from,
    clock: systemClock,
    idleMs,
    onProblem: (problem) => tell(`${problem.path}: ${problem.message}`),
  })
  following = tail
  await using served = await serve(config, node, tail)
  tell(
    `meshtrail ${node.store.identity.origin}: ${formatCount(node.store.size)} events, ${node.ruleCount} rules, ${served.url}`,
  )
  tell(`public key: ${node.store.identity.vkey}`)
  const { version, commit } = buildInfo()
  node.agent.say('lifecycle', { what: 'started', version, commit, rule_set: node.ruleSet })
  await runPipeline(node.agent, tail, systemClock, stop.signal)
  await node.agent.close('signal')
}

function configFor({ config: path, data }: RunOptions): Config {
  const config = path === null ? defaultConfig(hostname()) : loadConfig(path, hostname())
  return {
    ...config,
    data: { ...config.data, path: resolve(data ?? config.data.path) },
  }
}
