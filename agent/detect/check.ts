/** `meshtrail rules check` and `explain`: what is wrong with rules, and what SQL they become. */

import { type CompiledRule, compileRule } from '../../rules/engine/compile.ts'
import { type Problem, problemAt, refuse } from '../../rules/engine/problem.ts'
import { type Rule, ruleKey } from '../../rules/engine/rule.ts'
import { eventTarget } from './fields.ts'
import { openMemory, queryOf, rawTarget } from './match.ts'
import { readRules } from './read-rules.ts'
import { tryRegexes } from './scan.ts'

export type CheckReport = {
  readonly documents: number
  /** Rules that run here. */
  readonly active: number
  /** Right rules whose log source is not captured here. */
  readonly elsewhere: number
  /** Documents refused. */
  readonly refused: number
  /** By place: file, line, column. */
  readonly problems: readonly Problem[]
  /** How often each feature of Sigma was refused because it is not supported. */
  readonly unsupported: Readonly<Record<string, number>>
}

/** @throws {OpsError} for a path that cannot be read */
export async function checkRules(paths: readonly string[]): Promise<CheckReport> {
  const loaded = await readRules(paths)
  const problems = [...loaded.problems]
  const compiled = loaded.rules.map((rule) => ({ rule, result: compileRule(rule, eventTarget) }))
  const complaints = await complaintsOf(compiled.map(({ result }) => result))
  let active = 0
  let elsewhere = 0
  for (const [index, { rule, result }] of compiled.entries()) {
    problems.push(...result.problems)
    const complaint = complaints[index]
    if (complaint !== undefined) {
      problems.push(problemAt(rule.at, refuse('value', complaint, 'use only what RE2 knows')))
    } else if (result.sql !== undefined) active++
    else if (!result.problems.some((problem) => problem.severity === 'error')) elsewhere++
  }
  const unsupported: Record<string, number> = {}
  for (const { feature } of problems) {
    if (feature !== undefined) unsupported[feature] = (unsupported[feature] ?? 0) + 1
  }
  const documents = loaded.documentCount
  return {
    documents,
    active,
    elsewhere,
    refused: documents - active - elsewhere,
    problems: problems.toSorted(byPlace),
    unsupported,
  }
}

export type Explanation = {
  readonly rule: string
  readonly title: string
  /** A whole statement that lists the rule's matches, or undefined when the rule does not run. */
  readonly sql: string | undefined
  readonly problems: readonly Problem[]
}

/**
 * The SQL of each rule, and the problems of files that hold none.
 *
 * @throws {OpsError} for a path that cannot be read
 */
export async function explainRules(
  paths: readonly string[],
  options: { readonly raw?: boolean } = {},
): Promise<{
  readonly explanations: readonly Explanation[]
  readonly problems: readonly Problem[]
}> {
  const loaded = await readRules(paths)
  const explanations = loaded.rules.map((rule) => explainRule(rule, options))
  return { explanations, problems: loaded.problems }
}

export function explainRule(rule: Rule, options: { readonly raw?: boolean } = {}): Explanation {
  const compiled = compileRule(rule, options.raw === true ? rawTarget : eventTarget)
  const { logsourceSql, detectionSql } = compiled
  const sql =
    logsourceSql === undefined || detectionSql === undefined
      ? undefined
      : `SELECT * FROM events\nWHERE ${logsourceSql}\n  AND ${detectionSql}`
  return { rule: ruleKey(rule), title: rule.title, sql, problems: compiled.problems }
}

async function complaintsOf(
  compiled: readonly CompiledRule[],
): Promise<readonly (string | undefined)[]> {
  const instance = await openMemory()
  const connection = await instance.connect()
  try {
    return await tryRegexes(queryOf(connection), compiled)
  } finally {
    connection.closeSync()
    instance.closeSync()
  }
}

function byPlace(a: Problem, b: Problem): number {
  if (a.at.file !== b.at.file) return a.at.file < b.at.file ? -1 : 1
  return a.at.line - b.at.line || a.at.column - b.at.column
}
