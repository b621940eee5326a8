/**
 * Rules over a range of committed events, and their matches as findings. A finding is an event of
 * the same log: `findingEvent` makes it; adding it to the log, and remembering up to which leaf the
 * rules have run, is the caller's.
 *
 * Invariant: the same rules over the same rows give the same findings in the same order.
 */

import { createHash } from 'node:crypto'
import type { Problem } from '../../rules/engine/problem.ts'
import { type Level, type Rule, ruleKey } from '../../rules/engine/rule.ts'
import { quoteName } from '../../rules/engine/sql.ts'
import canonicalize from 'canonicalize'
import type { AuditEvent } from '../event.ts'
import { ownEvent } from '../own-events.ts'
import { eventTarget } from './fields.ts'
import { compileRuleSet, type Query, type RuleSet, scan } from './scan.ts'

/** Columns of the matched event that its finding quotes, so that findings can be read alone. */
const textColumns = [
  'cluster',
  'node',
  'namespace',
  'pod',
  'container',
  'workload',
  'mesh',
  'plane',
  'direction',
  'verdict',
  'decided_by',
  'reason',
  'policy',
  'policy_kind',
  'policy_rule',
  'tls_failure',
  'principal',
  'principal_kind',
  'principal_namespace',
  'principal_name',
  'end_user',
  'on_behalf_of',
  'src_namespace',
  'src_workload',
  'client_ip',
  'dst_principal',
  'dst_namespace',
  'dst_workload',
  'dst_service',
  'server_ip',
  'sni',
  'method',
  'host',
  'path',
  'response_flags',
  'request_id',
  'trace_id',
  'api_group',
  'resource',
  'subresource',
  'object_namespace',
  'object_name',
] as const satisfies readonly (keyof AuditEvent)[]
const numberColumns = [
  'server_port',
  'status',
  'grpc_status',
] as const satisfies readonly (keyof AuditEvent)[]

type SummaryText = (typeof textColumns)[number]
type SummaryNumber = (typeof numberColumns)[number]

/** The matched event's own columns, absent ones left out. */
export type FindingSummary = {
  readonly source?: string
  readonly kind?: string
} & { readonly [name in SummaryText]?: string } & { readonly [name in SummaryNumber]?: number }

export type Finding = {
  readonly ruleId: string
  readonly ruleTitle: string
  readonly level: Level
  readonly tags: readonly string[]
  /** The matched event's place in the log. */
  readonly leafIndex: number
  /** The matched event's `time`: microseconds since the epoch. */
  readonly time: number
  readonly summary: FindingSummary
  /** Hash of the rule set that found it. */
  readonly ruleSet: string
}

export class Detector {
  /** SHA-256 over the rules in force, in hexadecimal: the same rules in any order have the same. */
  readonly hash: string
  /** What was wrong with rules given, and which of them are not in force. */
  readonly problems: readonly Problem[]
  readonly #set: RuleSet

  private constructor(set: RuleSet) {
    this.#set = set
    this.problems = set.problems
    this.hash = ruleSetHash(set)
  }

  /**
   * Compiles the rules and tries them on DuckDB. A rule that does not compile is left out and
   * named in `problems`; the others run.
   */
  static async create(rules: readonly Rule[], query: Query): Promise<Detector> {
    return new Detector(await compileRuleSet(rules.toSorted(byKey), eventTarget, query))
  }

  get ruleCount(): number {
    return this.#set.active.length
  }

  /** The rules in force, in the order in which their findings come. */
  get rules(): readonly Rule[] {
    return this.#set.active.map((entry) => entry.rule)
  }

  /**
   * Tests the rows `firstLeaf` to `lastLeaf`, both inclusive.
   *
   * @param relation a view or table with the columns of `events`, as it stands in FROM
   * @returns findings by leaf, then by rule
   */
  async detect(
    query: Query,
    relation: string,
    firstLeaf: number,
    lastLeaf: number,
  ): Promise<readonly Finding[]> {
    const hits = await scan(query, this.#set, {
      relation,
      indexColumn: 'leaf_index',
      range: { first: firstLeaf, last: lastLeaf },
      columns: summaryColumns,
    })
    const findings: Finding[] = []
    for (const hit of hits) {
      const summary = summaryOf(hit.columns)
      for (const number of hit.rules) {
        const entry = this.#set.active[number]
        if (entry === undefined) throw new Error('BUG: a hit of an unknown rule')
        findings.push({
          ruleId: ruleKey(entry.rule),
          ruleTitle: entry.rule.title,
          level: entry.rule.level ?? 'medium',
          tags: entry.rule.tags,
          leafIndex: hit.index,
          time: Number(hit.columns['hit_time_us']),
          summary,
          ruleSet: this.hash,
        })
      }
    }
    return findings
  }
}

/** Numbers travel as text, so that no driver's idea of an integer matters. */
const summaryColumns = [
  { name: 'hit_time_us', sql: 'CAST(epoch_us("time") AS VARCHAR)' },
  ...['source', 'kind', ...textColumns, ...numberColumns].map((name) => ({
    name,
    sql: `CAST(${quoteName(name)} AS VARCHAR)`,
  })),
]

function summaryOf(row: Readonly<Record<string, unknown>>): FindingSummary {
  const numeric: ReadonlySet<string> = new Set(numberColumns)
  const entries: [string, string | number][] = []
  for (const name of ['source', 'kind', ...textColumns, ...numberColumns]) {
    const value = row[name]
    if (typeof value === 'string') entries.push([name, numeric.has(name) ? Number(value) : value])
  }
  return Object.fromEntries(entries)
}

/**
 * The finding as an event of the log `origin`, complete but for its leaf. Its own columns say whose
 * log the match was in and nothing more: a verdict here would be counted as a second denial. What
 * the match said is quoted under `matched`.
 */
export function findingEvent(finding: Finding, origin: string, observedUs: number): AuditEvent {
  const event = `${origin}@${finding.leafIndex}`
  const { source, kind, ...matched } = finding.summary
  const { cluster = null, node = null, namespace = null } = finding.summary
  const { pod = null, container = null, workload = null } = finding.summary
  const reporter = { cluster, node, namespace, pod, container, workload }
  const about = {
    rule_id: finding.ruleId,
    rule_title: finding.ruleTitle,
    level: finding.level,
    tags: [...finding.tags],
    event,
    event_time_us: finding.time,
    event_source: source ?? null,
    event_kind: kind ?? null,
    rule_set: finding.ruleSet,
    matched,
  }
  return Object.assign(ownEvent('finding', about, reporter, observedUs), reporter)
}

function byKey(a: Rule, b: Rule): number {
  return ruleKey(a) < ruleKey(b) ? -1 : ruleKey(a) > ruleKey(b) ? 1 : 0
}

/**
 * What a rule set finds depends on what its rules say of themselves and on their SQL, so that is
 * what is hashed: neither file names nor comments, but every change of meaning, also by the compiler.
 */
function ruleSetHash({ active, shared, derived }: RuleSet): string {
  const rules = active.map(({ rule, compiled }) => ({
    key: ruleKey(rule),
    title: rule.title,
    level: rule.level ?? 'medium',
    tags: rule.tags,
    sql: compiled.sql,
  }))
  return createHash('sha256')
    .update(canonicalize({ rules, shared, derived }) ?? '')
    .digest('hex')
}
