/**
 * Rules over JSON lines from outside the log: `meshtrail rules match`. The lines go through the same
 * predicate on DuckDB that live detection runs; only the relation differs.
 *
 * An event without `source` is held against every rule, whatever its log source.
 */

import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api'
import type { FieldMap, Target } from '../../rules/engine/compile.ts'
import type { Problem } from '../../rules/engine/problem.ts'
import { type Rule, ruleKey } from '../../rules/engine/rule.ts'
import { quoteName, quoteText } from '../../rules/engine/sql.ts'
import { OpsError } from '../errors.ts'
import { type Column, columns } from '../event.ts'
import { eventLogsources, eventFields } from './fields.ts'
import { jsonField } from './json-field.ts'
import { readRules } from './read-rules.ts'
import { compileRuleSet, type Query, scan } from './scan.ts'

/** Lines tested together: enough to amortise the planning of the scan, few enough for memory. */
const batchLines = 4096

export type MatchOptions = {
  /** Take each JSON object as it is: no field names of ours, no log sources. */
  readonly raw?: boolean
  /** Turns a line into columns first, for lines that are a proxy's own; undefined leaves it as it is. */
  readonly toColumns?: (line: string) => Readonly<Record<string, unknown>> | undefined
}

export type RuleMatch = {
  readonly rule: string
  /** Number of the line, from 0; empty lines count, though they hold no event. */
  readonly event: number
}

export type Matching = {
  readonly problems: readonly Problem[]
  /** By event, then in the order of the rules. */
  readonly matches: AsyncIterable<RuleMatch>
}

/**
 * @param paths rule files and folders
 * @param input NDJSON, cut anywhere
 * @throws {OpsError} `corrupt_input` while iterating, for a line that is no JSON object
 */
export async function matchRules(
  paths: readonly string[],
  input: AsyncIterable<Uint8Array | string>,
  options: MatchOptions = {},
): Promise<Matching> {
  const { rules, problems } = await readRules(paths)
  const matching = await matchLoadedRules(rules, linesOf(input), options)
  return { problems: [...problems, ...matching.problems], matches: matching.matches }
}

/** As `matchRules`, with the rules and the lines at hand. */
export async function matchLoadedRules(
  rules: readonly Rule[],
  lines: AsyncIterable<string> | Iterable<string>,
  options: MatchOptions = {},
): Promise<Matching> {
  const target = options.raw === true ? rawTarget : matchTarget
  const instance = await openMemory()
  const connection = await instance.connect()
  const query = queryOf(connection)
  const set = await compileRuleSet(rules, target, query)
  async function* matches(): AsyncGenerator<RuleMatch> {
    try {
      for await (const batch of batchesOf(lines, options)) {
        await fill(connection, batch, options.raw === true)
        const hits = await scan(query, set, {
          relation: 'batch',
          indexColumn: 'leaf_index',
          columns: [],
        })
        for (const hit of hits) {
          for (const number of hit.rules) {
            const entry = set.active[number]
            if (entry === undefined) throw new Error('BUG: a hit of an unknown rule')
            yield { rule: ruleKey(entry.rule), event: hit.index }
          }
        }
      }
    } finally {
      connection.closeSync()
      instance.closeSync()
    }
  }
  return { problems: set.problems, matches: matches() }
}

const rawFields: FieldMap = {
  resolve: (name) => ({ kind: 'known', field: jsonField('event', name) }),
  keywords: { sql: `from_json(scalars, '["VARCHAR"]')`, type: 'list' },
}

/** Rules over JSON as it is: a field is looked for under its own name, and log sources do not count. */
export const rawTarget: Target = {
  fields: rawFields,
  logsources: () => ({ kind: 'rows', sql: 'true' }),
}

const matchTarget: Target = {
  fields: eventFields,
  logsources: (logsource) => {
    const rows = eventLogsources(logsource)
    return rows.kind === 'rows' ? { kind: 'rows', sql: `(source IS NULL OR ${rows.sql})` } : rows
  },
}

/** A database of its own, that reaches nothing outside of memory. */
export async function openMemory(): Promise<DuckDBInstance> {
  return DuckDBInstance.create(':memory:', { threads: '1', enable_external_access: 'false' })
}

export function queryOf(connection: DuckDBConnection): Query {
  return async (sql) => {
    const reader = await connection.runAndReadAll(sql)
    return reader.getRowObjects()
  }
}

type Incoming = {
  readonly index: number
  readonly event: string
  readonly attributes: string
  readonly scalars: string
}

async function* batchesOf(
  lines: AsyncIterable<string> | Iterable<string>,
  options: MatchOptions,
): AsyncGenerator<readonly Incoming[]> {
  let batch: Incoming[] = []
  let index = 0
  for await (const line of lines) {
    if (line.trim() !== '') batch.push(incoming(line, index, options))
    index++
    if (batch.length >= batchLines) {
      yield batch
      batch = []
    }
  }
  if (batch.length > 0) yield batch
}

function incoming(line: string, index: number, options: MatchOptions): Incoming {
  const event = options.toColumns?.(line) ?? parseObject(line, index)
  const scalars = options.raw === true ? JSON.stringify(scalarsOf(event)) : '[]'
  const attributes = options.raw === true ? '{}' : JSON.stringify(attributesOf(event))
  return { index, event: JSON.stringify(event), attributes, scalars }
}

function parseObject(line: string, index: number): Readonly<Record<string, unknown>> {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    value = undefined
  }
  if (!isObject(value)) {
    throw new OpsError('corrupt_input', `event ${index} is no JSON object`, {
      hint: 'give one JSON object a line',
      detail: { event: index },
    })
  }
  // DuckDB refuses half a surrogate pair, which JavaScript lets pass.
  const whole = /\\ud[89a-f]/i.test(line) ? repaired(value) : value
  return isObject(whole) ? whole : {}
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function repaired(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed()
  if (Array.isArray(value)) return value.map(repaired)
  if (!isObject(value)) return value
  const entries = Object.entries(value)
  return Object.fromEntries(entries.map(([key, member]) => [key.toWellFormed(), repaired(member)]))
}

/** Every scalar value of the event, as text: where keywords are looked for. */
function scalarsOf(value: unknown): readonly string[] {
  if (Array.isArray(value)) return value.flatMap(scalarsOf)
  if (isObject(value)) return Object.values(value).flatMap(scalarsOf)
  const isScalar =
    typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
  return isScalar ? [String(value)] : []
}

const columnNames: ReadonlySet<string> = new Set(columns.map((column) => column.name))

/** `attributes`, and beside it every member of the event that is no column. */
function attributesOf(event: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const given = event['attributes']
  const rest = Object.entries(event).filter(([name]) => !columnNames.has(name))
  const inner: unknown = typeof given === 'string' ? parseOrNothing(given) : given
  return { ...Object.fromEntries(rest), ...(isObject(inner) ? inner : {}) }
}

function parseOrNothing(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

async function fill(
  connection: DuckDBConnection,
  batch: readonly Incoming[],
  isRaw: boolean,
): Promise<void> {
  await connection.run(
    'CREATE OR REPLACE TEMP TABLE incoming (leaf_index BIGINT, event VARCHAR, attributes VARCHAR, scalars VARCHAR)',
  )
  const appender = await connection.createAppender('incoming')
  for (const row of batch) {
    appender.appendBigInt(BigInt(row.index))
    appender.appendVarchar(row.event)
    appender.appendVarchar(row.attributes)
    appender.appendVarchar(row.scalars)
    appender.endRow()
  }
  appender.closeSync()
  const selected = isRaw
    ? 'leaf_index, event, scalars'
    : columns
        .filter((column) => !column.hidden)
        .map(columnSql)
        .join(', ')
  await connection.run(`CREATE OR REPLACE TEMP TABLE batch AS SELECT ${selected} FROM incoming`)
}

/** One column of `events`, read from the JSON of an event; what does not fit its type is absent. */
function columnSql(column: Column): string {
  const name = quoteName(column.name)
  const text = memberSql(column.name)
  if (column.name === 'leaf_index') return 'leaf_index'
  if (column.name === 'attributes') return 'attributes'
  if (column.name === 'time') return `${timeSql('time')} AS ${name}`
  switch (column.type) {
    case 'utf8':
    case 'json':
      return `${text} AS ${name}`
    case 'u32':
    case 'u64':
    case 'i64':
      return `TRY_CAST(${text} AS BIGINT) AS ${name}`
    case 'time':
      return `${castTime(text)} AS ${name}`
    case 'bytes':
      return `encode(coalesce(${text}, event)) AS ${name}`
  }
}

function memberSql(key: string): string {
  return `json_extract_string(event, ${quoteText(`$.${quoteName(key)}`)})`
}

function castTime(text: string): string {
  return `coalesce(TRY_CAST(${text} AS TIMESTAMPTZ), make_timestamptz(TRY_CAST(${text} AS BIGINT)))`
}

function timeSql(name: string): string {
  const times = [name, 'ts', 'observed_ts'].map((key) => castTime(memberSql(key)))
  return `coalesce(${times.join(', ')})`
}

/** Lines of a byte stream, without their terminators. */
async function* linesOf(input: AsyncIterable<Uint8Array | string>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of input) {
    rest += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true })
    let start = 0
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n', start)) {
      yield rest.slice(start, end)
      start = end + 1
    }
    rest = rest.slice(start)
  }
  rest += decoder.decode()
  if (rest !== '') yield rest
}
