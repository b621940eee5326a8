/** `meshtrail import`: log files read once, to their ends, through the same pipeline as the agent. */
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { systemClock } from '../clock.ts'
import { type Config, defaultConfig, followConfig, loadConfig } from '../config.ts'
import { exitStatus, OpsError } from '../errors.ts'
import { openNode } from '../node.ts'
import { runPipeline, sourceOf } from '../pipeline.ts'
import type { Provenance } from '../tail/chunk.ts'
import { provenanceOf } from '../tail/provenance.ts'
import { type Progress as ReadProgress, readToEnd } from '../tail/read-to-end.ts'
import { startProgress } from '../terminal/progress.ts'
import { formatBytes, formatCount, formatDuration } from '../terminal/units.ts'
import { facts, tell, writeJson, writeOut } from './output.ts'

export type ImportOptions = {
  readonly data: string
  readonly config: string | null
  readonly trust: string | null
  readonly json: boolean
}

/** @throws {OpsError} for files, data directory, configuration or a full disk */
export async function importFiles(paths: readonly string[], options: ImportOptions): Promise<void> {
  const config = configFor(options)
  const interrupted = interruptSignal()
  const progress = startProgress({ label: 'import', unit: 'bytes' })
  const startedMs = systemClock.monotonicMs()
  await using node = await openNode({ config, onProblem: tell })
  const { agent, store } = node
  const rules = followConfig(config)
  const trust = trustOf(options.trust)
  const files = paths.map((path) => ({ path, provenance: provenanceOf(path, rules, trust) }))
  const chunks = readToEnd(files, {
    cursors: store.cursors,
    clock: systemClock,
    onProblem: (problem) => tell(`${problem.path}: ${problem.message}`),
    onProgress: (read: ReadProgress) => progress.update(read.bytes, read.path),
  })
  const before = store.size
  await runPipeline(agent, sourceOf(chunks), systemClock, interrupted)
  progress.finish()
  const seconds = (systemClock.monotonicMs() - startedMs) / 1000
  // The same files again add nothing at all, not even a word about it.
  if (store.size > before) await agent.close('import')

  const { counters } = agent
  const stuck = agent.stuck
  if (stuck !== null) throw stuck
  const summary = {
    origin: store.identity.origin,
    lines: counters.lines,
    events: store.size - before,
    unparsed: counters.unparsed,
    untrusted: counters.untrusted,
    gaps: counters.gaps,
    findings: counters.findings,
    verdicts: counters.verdicts,
    bytes: counters.rawBytes,
    seconds: Math.round(seconds * 1000) / 1000,
    lines_per_second: Math.round(counters.lines / Math.max(seconds, 0.001)),
    size: store.size,
    data: config.data.path,
    vkey: store.identity.vkey,
    interrupted: interrupted.aborted,
  }
  if (options.json) writeJson(summary)
  else {
    writeOut(
      facts([
        ['lines', `${formatCount(summary.lines)} (${formatBytes(summary.bytes)})`],
        ['verdicts', verdictsText(counters.verdicts)],
        ['unparsed', formatCount(summary.unparsed)],
        ['untrusted', formatCount(summary.untrusted)],
        ['gaps', formatCount(summary.gaps)],
        ['findings', formatCount(summary.findings)],
        [
          'took',
          `${formatDuration(seconds * 1000)}, ${formatCount(summary.lines_per_second)} lines/s`,
        ],
        ['log', `${formatCount(summary.size)} events in ${config.data.path}`],
        ['key', summary.vkey],
      ]),
    )
  }
  if (counters.untrusted > 0 && !options.json) {
    tell('some lines claim more than their path allows: state what the files are with --trust')
  }
  for (const problem of node.ruleProblems) tell(problem)
  if (interrupted.aborted) process.exitCode = exitStatus.interrupted
}

function configFor(options: ImportOptions): Config {
  const config =
    options.config === null ? defaultConfig(hostname()) : loadConfig(options.config, hostname())
  return { ...config, data: { ...config.data, path: resolve(options.data) } }
}

function trustOf(name: string | null): Provenance['trust'] | undefined {
  const trusts = ['proxy', 'control_plane', 'api_server', 'none'] as const
  if (name === null) return undefined
  const found = trusts.find((known) => known === name)
  if (found !== undefined) return found
  throw new OpsError('usage', `--trust is ${name}`, { hint: `use one of ${trusts.join(', ')}` })
}

function verdictsText(verdicts: Readonly<Record<string, number>>): string {
  return Object.entries(verdicts)
    .map(([verdict, count]) => `${formatCount(count)} ${verdict.replace('_', ' ')}`)
    .join(', ')
}

/** Ctrl-C and SIGTERM end the reading; what was read is committed and sealed. */
function interruptSignal(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => controller.abort())
  }
  return controller.signal
}
