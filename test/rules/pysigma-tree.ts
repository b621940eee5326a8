/** Our predicates in the notation of the pySigma vectors, for comparison. */

import type { Predicate } from '../../rules/engine/predicate.ts'
import type { Match } from '../../rules/engine/rule.ts'

const flagNames: Readonly<Record<string, string>> = { i: 'ignorecase', m: 'multiline', s: 'dotall' }

export function pysigmaTree(predicate: Predicate): unknown {
  switch (predicate.kind) {
    case 'leaf':
      return predicate.field === null
        ? ['kw', pysigmaValue(predicate.match)]
        : ['eq', predicate.field, pysigmaValue(predicate.match)]
    case 'not':
      return ['not', pysigmaTree(predicate.of)]
    case 'and':
    case 'or':
      return [predicate.kind, ...predicate.of.map(pysigmaTree)]
  }
}

export function pysigmaValue(match: Match): unknown {
  switch (match.kind) {
    case 'string': {
      const parts = match.parts.map((part) => {
        if (part.kind === 'literal') return part.text
        return { w: part.kind === 'any' ? '*' : '?' }
      })
      return { t: match.cased ? 'cased' : 'str', parts }
    }
    case 'number':
      return { t: 'num', v: match.value }
    case 'boolean':
      return { t: 'bool', v: match.value }
    case 'null':
      return { t: 'null' }
    case 'regex': {
      const flags = match.flags.split('').map((flag) => flagNames[flag] ?? flag)
      return { t: 're', v: match.pattern, flags: flags.toSorted() }
    }
    case 'cidr':
      return { t: 'cidr', v: match.source }
    case 'exists':
      return { t: 'exists', v: match.value }
    case 'compare':
      return { t: 'cmp', op: match.op, v: match.value }
  }
}
