/**
 * Many compiled rules over one relation, in one scan: a boolean column for each rule, then only the
 * rows where one is true, with the numbers of the rules. Says nothing of what a match means.
 */

import {
  type CompiledRule,
  compileRule,
  type Field,
  type Target,
  type Text,
} from '../../rules/engine/compile.ts'
import { type Problem, problemAt, refuse } from '../../rules/engine/problem.ts'
import type { Rule } from '../../rules/engine/rule.ts'
import { quoteName } from '../../rules/engine/sql.ts'

/** More rows than any relation here has: the limit is there for its place in the plan. */
const rowsMax = 2 ** 40

/** Runs SQL and returns its rows by column name. */
export type Query = (sql: string) => Promise<readonly Readonly<Record<string, unknown>>[]>

export type ActiveRule = { readonly rule: Rule; readonly compiled: CompiledRule }

/** Rules ready to run together. */
export type RuleSet = {
  readonly active: readonly ActiveRule[]
  /** What several tests read, computed once for each row, by column name. */
  readonly shared: readonly SharedColumn[]
  /** Texts and lower-case texts made from columns, the shared ones included. */
  readonly derived: readonly SharedColumn[]
  readonly problems: readonly Problem[]
}
export type SharedColumn = { readonly name: string; readonly sql: string }

/**
 * Compiles rules that will run in one scan, and tries their regular expressions: DuckDB refuses a
 * pattern only when it runs, and would then refuse the whole scan. A rule that cannot run is left
 * out and named in `problems`.
 */
export async function compileRuleSet(
  rules: readonly Rule[],
  target: Target,
  query: Query,
): Promise<RuleSet> {
  const sharing = new Sharing(target)
  const problems: Problem[] = []
  const compiled: ActiveRule[] = []
  for (const rule of rules) {
    const result = compileRule(rule, sharing.targetFor(rule))
    problems.push(...result.problems)
    if (result.sql !== undefined) compiled.push({ rule, compiled: result })
  }
  const complaints = await tryRegexes(
    query,
    compiled.map((entry) => entry.compiled),
  )
  const active = compiled.filter(({ rule }, index) => {
    const complaint = complaints[index]
    if (complaint === undefined) return true
    problems.push(problemAt(rule.at, refuse('value', complaint, 'use only what RE2 knows')))
    return false
  })
  return { active, shared: sharing.shared.all(), derived: sharing.derived.all(), problems }
}

/**
 * DuckDB computes again what stands twice inside AND, OR and CASE. So what tests read becomes columns
 * of subqueries: fields inside JSON first, only on rows of the rule's log source; then texts and
 * lower-case texts.
 */
class Sharing {
  readonly shared = new NamedColumns('shared_')
  readonly derived = new NamedColumns('derived_')
  readonly #target: Target

  constructor(target: Target) {
    this.#target = target
  }

  targetFor(rule: Rule): Target {
    const { fields, logsources } = this.#target
    const rows = logsources(rule.logsource)
    const logsourceSql = rows.kind === 'rows' ? rows.sql : 'false'
    return {
      logsources,
      fields: {
        keywords: fields.keywords && this.#share(fields.keywords, logsourceSql),
        resolve: (name) => {
          const resolution = fields.resolve(name)
          if (resolution.kind === 'unknown') return resolution
          return { ...resolution, field: this.#share(resolution.field, logsourceSql) }
        },
      },
    }
  }

  /** Columns are made when a rule reads them, so that nothing is computed for nobody. */
  #share(field: Field, logsourceSql: string): Field {
    const { derived, shared } = this
    if (field.type === 'integer' || field.type === 'boolean') return field
    if (field.type === 'text') return { ...field, text: derivedText(derived, () => field.sql) }
    const column = (sql: string): string =>
      shared.nameOf(`CASE WHEN ${logsourceSql} THEN ${sql} END`)
    return {
      type: 'list',
      get sql() {
        return column(field.sql)
      },
      get existsSql() {
        return field.existsSql === undefined
          ? `${column(field.sql)} IS NOT NULL`
          : column(field.existsSql)
      },
      text: derivedText(derived, () => `${column(field.sql)}[1]`),
    }
  }
}

function derivedText(derived: NamedColumns, source: () => string): Text {
  return {
    get sql() {
      return derived.nameOf(source())
    },
    get lowerSql() {
      return derived.nameOf(`lower(${source()})`)
    },
  }
}

/** Expressions, each under one name. */
class NamedColumns {
  readonly #names = new Map<string, string>()
  readonly #prefix: string

  constructor(prefix: string) {
    this.#prefix = prefix
  }

  nameOf(sql: string): string {
    const name = this.#names.get(sql) ?? quoteName(`${this.#prefix}${this.#names.size}`)
    this.#names.set(sql, name)
    return name
  }

  all(): readonly SharedColumn[] {
    return [...this.#names].map(([sql, name]) => ({ name, sql }))
  }
}

export type ScanHit = {
  readonly index: number
  /** Positions in the rules given, ascending. */
  readonly rules: readonly number[]
  readonly columns: Readonly<Record<string, unknown>>
}

export type ScanOptions = {
  /** A relation as it stands in FROM; the caller's own text, never a user's. */
  readonly relation: string
  /** The integer column that numbers the rows. */
  readonly indexColumn: string
  /** Inclusive; absent for the whole relation. */
  readonly range?: { readonly first: number; readonly last: number }
  /** Columns returned with each hit: names, or SQL under a name. */
  readonly columns: readonly { readonly name: string; readonly sql: string }[]
}

/**
 * One scan with the rules whose log source has rows here: for a part of proxy lines, rules over audit
 * logs are not even planned. The columns of the hits, which are few, are read afterwards.
 *
 * @returns hits in the order of the index column
 */
export async function scan(
  query: Query,
  rules: RuleSet,
  options: ScanOptions,
): Promise<readonly ScanHit[]> {
  const present = await rulesWithRows(query, rules, options)
  if (present.length === 0) return []
  const hits = (await query(scanSql(rules, present, options)))
    .map((row) => ({
      index: Number(row['hit_index']),
      rules: String(row['hit_rules']).split(',').map(Number),
    }))
    .toSorted((a, b) => a.index - b.index)
  const columns = new Map<number, Readonly<Record<string, unknown>>>()
  for (let from = 0; from < hits.length; from += fetchedMax) {
    const wanted = hits.slice(from, from + fetchedMax).map((hit) => hit.index)
    for (const row of await query(hitsSql(wanted, options))) {
      columns.set(Number(row['hit_index']), row)
    }
  }
  return hits.map((hit) => ({ ...hit, columns: columns.get(hit.index) ?? {} }))
}

/** Hits whose columns are read at once. */
const fetchedMax = 2000

/** Positions of the rules whose log source has at least one row, ascending. */
async function rulesWithRows(
  query: Query,
  { active }: RuleSet,
  options: ScanOptions,
): Promise<readonly number[]> {
  if (active.length === 0) return []
  const logsources = [...new Set(active.map(({ compiled }) => compiled.logsourceSql ?? 'false'))]
  const tests = logsources.map((sql, number) => `bool_or(${sql}) AS l${number}`)
  const [row] = await query(`SELECT ${tests.join(', ')} FROM ${rowsOf(options)}`)
  const present = new Set(logsources.filter((_, number) => row?.[`l${number}`] === true))
  return active.flatMap(({ compiled }, number) =>
    present.has(compiled.logsourceSql ?? 'false') ? [number] : [],
  )
}

/**
 * The text of the scan. Indexes and rules come as text, whatever the driver makes of numbers.
 *
 * @param numbers positions of the rules to test
 */
export function scanSql(
  { active, shared, derived }: RuleSet,
  numbers: readonly number[],
  options: ScanOptions,
): string {
  const index = quoteName(options.indexColumn)
  const rules = numbers.flatMap((number) => active[number] ?? [])
  const tests = rules.map(({ compiled }, at) => `${compiled.sql ?? 'false'} AS r${numbers[at]}`)
  const marks = numbers.map((number) => `r${number}`)
  const logsources = new Set(rules.map(({ compiled }) => compiled.logsourceSql ?? 'false'))
  const text = tests.join(', ')
  const texts = derived.filter(({ name }) => text.includes(name))
  const read = `${text} ${texts.map(({ sql }) => sql).join(' ')}`
  const fields = shared.filter(({ name }) => read.includes(name))
  const rows = `SELECT *${listed(fields)} FROM ${rowsOf(options)} AND (${[...logsources].join(' OR ')})`
  // DuckDB would push the filter on the tests down to the table, past MATERIALIZED as well, and run
  // every test twice, with nothing shared. A LIMIT stops it.
  return (
    `WITH tested AS (SELECT ${index} AS tested_index, ${text} ` +
    `FROM (SELECT *${listed(texts)} FROM (${rows})) LIMIT ${rowsMax}) ` +
    `SELECT CAST(tested_index AS VARCHAR) AS hit_index, ` +
    `array_to_string(list_where([${numbers.join(', ')}], [${marks.join(', ')}]), ',') AS hit_rules ` +
    `FROM tested WHERE ${marks.join(' OR ')}`
  )
}

function rowsOf({ relation, range, indexColumn }: ScanOptions): string {
  if (range === undefined) return `${relation} WHERE true`
  return `${relation} WHERE ${quoteName(indexColumn)} BETWEEN ${range.first} AND ${range.last}`
}

function hitsSql(indexes: readonly number[], options: ScanOptions): string {
  const index = quoteName(options.indexColumn)
  const columns = options.columns.map(({ name, sql }) => `, ${sql} AS ${quoteName(name)}`).join('')
  return (
    `SELECT CAST(${index} AS VARCHAR) AS hit_index${columns} FROM ${options.relation} ` +
    `WHERE ${index} IN (${indexes.join(', ')})`
  )
}

function listed(columns: readonly SharedColumn[]): string {
  return columns.map(({ name, sql }) => `, ${sql} AS ${name}`).join('')
}

/**
 * Tries every regular expression of each rule once.
 *
 * @returns for each rule DuckDB's complaint, or undefined
 */
export async function tryRegexes(
  query: Query,
  rules: readonly CompiledRule[],
): Promise<readonly (string | undefined)[]> {
  const patterns = [...new Set(rules.flatMap((rule) => rule.regexes))]
  const complaints = new Map<string, string>()
  await halve(query, patterns, complaints)
  return rules.map((rule) => {
    const bad = rule.regexes.find((pattern) => complaints.has(pattern))
    return bad === undefined ? undefined : complaints.get(bad)
  })
}

async function halve(
  query: Query,
  patterns: readonly string[],
  complaints: Map<string, string>,
): Promise<void> {
  if (patterns.length === 0) return
  try {
    await query(`SELECT ${patterns.map((p) => `regexp_matches('', ${p})`).join(', ')}`)
  } catch (thrown) {
    const [only] = patterns
    if (patterns.length === 1 && only !== undefined) {
      complaints.set(only, thrown instanceof Error ? thrown.message : String(thrown))
      return
    }
    const middle = Math.ceil(patterns.length / 2)
    await halve(query, patterns.slice(0, middle), complaints)
    await halve(query, patterns.slice(middle), complaints)
  }
}
