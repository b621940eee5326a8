/** A running node in numbers: for `status`, `GET /v1/status` and `/metrics`. */
import type { Node } from '../node.ts'
import { buildInfo } from '../runtime/build-info.ts'
import type { Tail } from '../tail/tail.ts'

export type NodeStatus = {
  readonly origin: string
  readonly version: string
  readonly size: number
  readonly buffered: number
  readonly lag_bytes: number
  readonly open_files: number
  readonly segments: number
  readonly parts: number
  readonly bytes_used: number
  readonly bytes_max: number
  readonly gaps: number
  readonly lines: number
  readonly unparsed: number
  readonly findings: number
  readonly rules: number
  /** Why nothing is committed; null when all is well. */
  readonly stuck: string | null
  readonly seal_failure: string | null
}

export function nodeStatus(node: Node, tail: Tail | null): NodeStatus {
  const { agent, store } = node
  return {
    origin: store.identity.origin,
    version: buildInfo().version,
    size: store.size,
    buffered: agent.bufferedRows,
    lag_bytes: tail?.lagBytes() ?? 0,
    open_files: tail?.openFiles ?? 0,
    segments: store.segments.length,
    parts: store.parts.length,
    bytes_used: store.bytesUsed,
    bytes_max: store.bytesMax,
    gaps: store.totals?.gaps ?? 0,
    lines: agent.counters.lines,
    unparsed: agent.counters.unparsed,
    findings: agent.counters.findings,
    rules: node.ruleCount,
    stuck: agent.stuck?.message ?? null,
    seal_failure: agent.sealFailure,
  }
}

type Metric = readonly [name: string, type: 'counter' | 'gauge', help: string, value: number]

/** Prometheus text exposition format. */
export function metricsText(node: Node, tail: Tail | null): string {
  const status = nodeStatus(node, tail)
  const { counters } = node.agent
  const metrics: readonly Metric[] = [
    ['meshtrail_lines_total', 'counter', 'Lines read since the start.', status.lines],
    ['meshtrail_raw_bytes_total', 'counter', 'Bytes of those lines.', counters.rawBytes],
    ['meshtrail_unparsed_lines_total', 'counter', 'Lines no parser knew.', status.unparsed],
    ['meshtrail_gaps_total', 'counter', 'Declared gaps in the log.', status.gaps],
    ['meshtrail_findings_total', 'counter', 'Findings since the start.', status.findings],
    ['meshtrail_commits_total', 'counter', 'Commits since the start.', counters.commits],
    ['meshtrail_log_events', 'gauge', 'Committed events.', status.size],
    ['meshtrail_buffered_events', 'gauge', 'Events waiting for their commit.', status.buffered],
    ['meshtrail_lag_bytes', 'gauge', 'Bytes in followed files not read yet.', status.lag_bytes],
    ['meshtrail_open_files', 'gauge', 'Files being followed.', status.open_files],
    ['meshtrail_data_bytes', 'gauge', 'Bytes of the data directory in use.', status.bytes_used],
    ['meshtrail_data_bytes_max', 'gauge', 'Bound of the data directory.', status.bytes_max],
    [
      'meshtrail_commit_stuck',
      'gauge',
      '1 while nothing can be committed.',
      Number(status.stuck !== null),
    ],
  ]
  return metrics
    .map(
      ([name, type, help, value]) =>
        `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${name} ${value}\n`,
    )
    .join('')
}
