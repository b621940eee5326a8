/** The typed form of a Sigma rule: what the loader promises and the compiler relies on. */

import type { Network } from './cidr.ts'
import type { Position } from './problem.ts'
import type { Part } from './value.ts'

export const levels = ['informational', 'low', 'medium', 'high', 'critical'] as const
export type Level = (typeof levels)[number]

export const statuses = ['stable', 'test', 'experimental', 'deprecated', 'unsupported'] as const
export type Status = (typeof statuses)[number]

export type Logsource = {
  readonly category: string | undefined
  readonly product: string | undefined
  readonly service: string | undefined
}

export type Comparison = 'lt' | 'lte' | 'gt' | 'gte'

/** One test of one value of a field. New modifiers add kinds here. */
export type Match =
  | {
      readonly kind: 'string'
      /** As written in the rule, for `re` and the like, which do their own reading. */
      readonly source: string
      readonly parts: readonly Part[]
      readonly cased: boolean
    }
  | { readonly kind: 'number'; readonly value: number; readonly text: string }
  | { readonly kind: 'boolean'; readonly value: boolean }
  | { readonly kind: 'null' }
  | { readonly kind: 'regex'; readonly pattern: string; readonly flags: string }
  | { readonly kind: 'compare'; readonly op: Comparison; readonly value: number }
  | { readonly kind: 'cidr'; readonly source: string; readonly network: Network }
  | { readonly kind: 'exists'; readonly value: boolean }

/** `field|modifiers: values`; `field` null is a keyword search. */
export type Item = {
  readonly at: Position
  readonly field: string | null
  readonly linking: 'or' | 'and'
  readonly negated: boolean
  readonly matches: readonly Match[]
}

/** One search identifier, as a tree. */
export type Detection =
  | { readonly kind: 'item'; readonly item: Item }
  | { readonly kind: 'and' | 'or'; readonly of: readonly Detection[] }

/** A condition whose patterns are resolved: it names only identifiers that exist. */
export type Condition =
  | { readonly kind: 'identifier'; readonly name: string }
  | { readonly kind: 'not'; readonly of: Condition }
  | { readonly kind: 'and' | 'or'; readonly of: readonly Condition[] }

export type Rule = {
  readonly at: Position
  readonly title: string
  readonly id: string | undefined
  readonly name: string | undefined
  readonly status: Status | undefined
  readonly level: Level | undefined
  readonly description: string | undefined
  readonly author: string | undefined
  readonly tags: readonly string[]
  readonly falsepositives: readonly string[]
  readonly fields: readonly string[]
  readonly references: readonly string[]
  readonly logsource: Logsource
  readonly detections: ReadonlyMap<string, Detection>
  readonly condition: Condition
  /** Every top-level field without a meaning in Sigma, as plain JSON. */
  readonly custom: Readonly<Record<string, unknown>>
}

/** What a rule is called in findings: its id, else its name, else its title. */
export function ruleKey(rule: Rule): string {
  return rule.id ?? rule.name ?? rule.title
}
