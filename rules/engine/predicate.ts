/**
 * What a rule asks of one event, as a tree of single tests: the condition with its selections
 * filled in. Nothing here knows SQL, columns or log sources.
 */

import type { Condition, Detection, Item, Match, Rule } from './rule.ts'

/** `field` null is a keyword: the match is looked for anywhere in the event. */
export type Leaf = {
  readonly kind: 'leaf'
  readonly field: string | null
  readonly match: Match
  readonly item: Item
}
export type Predicate =
  | Leaf
  | { readonly kind: 'not'; readonly of: Predicate }
  | { readonly kind: 'and' | 'or'; readonly of: readonly Predicate[] }

export function predicateOf(rule: Rule): Predicate {
  const selections = new Map<string, Predicate>()
  for (const [name, detection] of rule.detections)
    selections.set(name, detectionPredicate(detection))
  return conditionPredicate(rule.condition, selections)
}

function conditionPredicate(
  condition: Condition,
  selections: ReadonlyMap<string, Predicate>,
): Predicate {
  switch (condition.kind) {
    case 'identifier': {
      const selection = selections.get(condition.name)
      if (selection === undefined) throw new Error('BUG: condition names an unknown selection')
      return selection
    }
    case 'not':
      return { kind: 'not', of: conditionPredicate(condition.of, selections) }
    case 'and':
    case 'or':
      return join(
        condition.kind,
        condition.of.map((part) => conditionPredicate(part, selections)),
      )
  }
}

function detectionPredicate(detection: Detection): Predicate {
  if (detection.kind === 'item') return itemPredicate(detection.item)
  return join(detection.kind, detection.of.map(detectionPredicate))
}

function itemPredicate(item: Item): Predicate {
  const leaves = item.matches.map(
    (match): Leaf => ({ kind: 'leaf', field: item.field, match, item }),
  )
  const linked = join(item.linking, leaves)
  return item.negated ? { kind: 'not', of: linked } : linked
}

function join(kind: 'and' | 'or', of: readonly Predicate[]): Predicate {
  const [only] = of
  if (only === undefined) throw new Error('BUG: a predicate of nothing')
  return of.length === 1 ? only : { kind, of }
}

/** How many single tests the tree holds; shared selections count each time they are used. */
export function leafCount(predicate: Predicate): number {
  if (predicate.kind === 'leaf') return 1
  if (predicate.kind === 'not') return leafCount(predicate.of)
  return predicate.of.reduce((sum, part) => sum + leafCount(part), 0)
}
