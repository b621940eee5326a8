/** Rules from a few lines, and what they match on a real DuckDB. */

import { expect } from 'bun:test'
import { matchLoadedRules, type MatchOptions } from '../../agent/detect/match.ts'
import { loadRules } from '../../rules/engine/load.ts'
import type { Rule } from '../../rules/engine/rule.ts'

/** A rule whose detection is given; fails the test when it does not load. */
export function ruleOf(detection: unknown, title = 'T'): Rule {
  const rule = { title, logsource: { category: 'webserver' }, detection }
  const loaded = loadRules([{ path: `${title}.yml`, text: JSON.stringify(rule) }])
  const [only] = loaded.rules
  expect(loaded.problems.filter((problem) => problem.severity === 'error')).toEqual([])
  if (only === undefined) throw new Error('the rule did not load')
  return only
}

/** For each rule, by title, the numbers of the events it matches. */
export async function matchesOf(
  rules: readonly Rule[],
  events: readonly unknown[],
  options: MatchOptions = { raw: true },
): Promise<Map<string, readonly number[]>> {
  const lines = events.map((event) => JSON.stringify(event))
  const { matches } = await matchLoadedRules(rules, lines, options)
  const found = new Map<string, readonly number[]>(rules.map((rule) => [rule.title, []]))
  const titles = new Map(rules.map((rule) => [rule.id ?? rule.name ?? rule.title, rule.title]))
  for await (const match of matches) {
    const title = titles.get(match.rule) ?? match.rule
    found.set(title, [...(found.get(title) ?? []), match.event])
  }
  return found
}

/** The numbers of the events that one selection matches. */
export async function selects(
  selection: unknown,
  events: readonly unknown[],
  options?: MatchOptions,
): Promise<readonly number[]> {
  const rule = ruleOf({ sel: selection, condition: 'sel' })
  return (await matchesOf([rule], events, options)).get('T') ?? []
}
