/**
 * Field modifiers, applied in the order written. Each is one entry of a table: what it does to a
 * value, or to the item as a whole. A modifier that Sigma has and this engine has not is in
 * `laterModifiers` and refused; an unknown one is refused with the nearest name.
 */

import { parseNetwork } from './cidr.ts'
import { nearestNames } from './nearest.ts'
import { type Refusal, refuse, unsupported } from './problem.ts'
import { checkRegex } from './regex.ts'
import type { Comparison, Match } from './rule.ts'
import { widen } from './value.ts'

/** An item while its modifiers are being applied. */
export type Draft = {
  readonly field: string | null
  readonly matches: readonly Match[]
  readonly linking: 'or' | 'and'
  readonly negated: boolean
}

type Applied = { readonly draft: Draft } | { readonly refusal: Refusal }
type Modifier = (draft: Draft, index: number, before: readonly string[]) => Applied

/** Applies one modifier to every value. */
function perValue(change: (match: Match) => Match | Refusal): Modifier {
  return (draft) => {
    const matches: Match[] = []
    for (const match of draft.matches) {
      const changed = change(match)
      if ('message' in changed) return { refusal: changed }
      matches.push(changed)
    }
    return { draft: { ...draft, matches } }
  }
}

function wrongType(name: string, match: Match, wanted: string): Refusal {
  const given =
    match.kind === 'regex' || match.kind === 'compare' ? 'the result of a modifier' : match.kind
  return refuse(
    'modifier',
    `modifier ${name} takes ${wanted}, not ${given}`,
    hintFor(match, wanted),
  )
}

function hintFor(match: Match, wanted: string): string {
  if (match.kind === 'number' && wanted === 'a string') return `quote the value: '${match.text}'`
  if (match.kind === 'string' && wanted === 'a number') return 'write the number without quotes'
  return `give ${wanted}, or leave the modifier out`
}

function widening(name: string, where: { before: boolean; after: boolean }): Modifier {
  return perValue((match) => {
    if (match.kind === 'regex') {
      return unsupported(
        `re|${name}`,
        `modifier ${name} after re is not supported`,
        'a regular expression is searched for anywhere: anchor it with ^ or $ instead',
      )
    }
    if (match.kind !== 'string') return wrongType(name, match, 'a string')
    return { ...match, parts: widen(match.parts, where) }
  })
}

function comparing(op: Comparison): Modifier {
  return perValue((match) =>
    match.kind === 'number'
      ? { kind: 'compare', op, value: match.value }
      : wrongType(op, match, 'a number'),
  )
}

function flag(name: string, letter: string): Modifier {
  return perValue((match) => {
    if (match.kind !== 'regex') {
      return refuse('modifier', `modifier ${name} without re`, `write re|${name}`)
    }
    return match.flags.includes(letter) ? match : { ...match, flags: match.flags + letter }
  })
}

/** `re`, `cidr` and `exists` read the value as written, so no other value modifier may come before. */
function first(name: string, modifier: Modifier): Modifier {
  return (draft, index, before) =>
    before.every((earlier) => earlier === 'all' || earlier === 'neq')
      ? modifier(draft, index, before)
      : {
          refusal: refuse(
            'modifier',
            `modifier ${name} must come first`,
            `write ${[name, ...before.filter((earlier) => earlier !== name)].join('|')}, or drop one`,
          ),
        }
}

const regex = perValue((match) => {
  if (match.kind !== 'string') return wrongType('re', match, 'a string')
  return checkRegex(match.source) ?? { kind: 'regex', pattern: match.source, flags: '' }
})

const cidr = perValue((match) => {
  if (match.kind !== 'string') return wrongType('cidr', match, 'a string')
  const network = parseNetwork(match.source)
  if (typeof network !== 'string') return { kind: 'cidr', source: match.source, network }
  return refuse('value', `"${match.source}" ${network}`, 'write a network such as 10.0.0.0/8')
})

const exists: Modifier = (draft) => {
  const [match] = draft.matches
  if (draft.field === null) {
    return {
      refusal: refuse('modifier', 'modifier exists without a field', 'put a field before it'),
    }
  }
  if (draft.matches.length !== 1 || match?.kind !== 'boolean') {
    return {
      refusal: refuse(
        'modifier',
        'modifier exists takes true or false',
        'write true without quotes',
      ),
    }
  }
  return { draft: { ...draft, matches: [{ kind: 'exists', value: match.value }] } }
}

const cased = perValue((match) =>
  match.kind === 'string' ? { ...match, cased: true } : wrongType('cased', match, 'a string'),
)

const modifiers: ReadonlyMap<string, Modifier> = new Map<string, Modifier>([
  ['contains', widening('contains', { before: true, after: true })],
  ['startswith', widening('startswith', { before: false, after: true })],
  ['endswith', widening('endswith', { before: true, after: false })],
  ['cased', cased],
  ['all', (draft) => ({ draft: { ...draft, linking: 'and' } })],
  ['neq', (draft) => ({ draft: { ...draft, negated: true } })],
  ['exists', first('exists', exists)],
  ['re', first('re', regex)],
  ['i', flag('i', 'i')],
  ['ignorecase', flag('ignorecase', 'i')],
  ['m', flag('m', 'm')],
  ['multiline', flag('multiline', 'm')],
  ['s', flag('s', 's')],
  ['dotall', flag('dotall', 's')],
  ['cidr', first('cidr', cidr)],
  ['lt', comparing('lt')],
  ['lte', comparing('lte')],
  ['gt', comparing('gt')],
  ['gte', comparing('gte')],
])

/** Modifiers of Sigma 2.1 that this engine refuses so far. */
const laterModifiers: ReadonlyMap<string, string> = new Map([
  ['fieldref', 'compare with a value, or keep the rule for a later version'],
  ['base64', 'write the encoded text as the value'],
  ['base64offset', 'write the three encoded texts with contains'],
  ['wide', 'write the encoded text as the value'],
  ['utf16le', 'write the encoded text as the value'],
  ['utf16be', 'write the encoded text as the value'],
  ['utf16', 'write the encoded text as the value'],
  ['windash', 'write one value for each kind of dash'],
  ['expand', 'write the values out instead of a placeholder'],
  ['minute', 'compare the time column in SQL instead'],
  ['hour', 'compare the time column in SQL instead'],
  ['day', 'compare the time column in SQL instead'],
  ['week', 'compare the time column in SQL instead'],
  ['month', 'compare the time column in SQL instead'],
  ['year', 'compare the time column in SQL instead'],
])

/**
 * Applies the modifiers of one item.
 *
 * @returns the item and what to warn of, or why it was refused
 */
export function applyModifiers(
  draft: Draft,
  names: readonly string[],
): { draft: Draft; warnings: readonly Refusal[] } | { refusal: Refusal } {
  let current = draft
  for (const [index, name] of names.entries()) {
    const modifier = modifiers.get(name)
    if (modifier === undefined) return { refusal: unknownModifier(name) }
    const applied = modifier(current, index, names.slice(0, index))
    if ('refusal' in applied) return applied
    current = applied.draft
  }
  return { draft: current, warnings: lint(current, names) }
}

function unknownModifier(name: string): Refusal {
  const later = laterModifiers.get(name)
  if (later !== undefined) {
    return unsupported(`modifier ${name}`, `modifier ${name} is not supported yet`, later)
  }
  const known = [...modifiers.keys(), ...laterModifiers.keys()]
  const nearest = nearestNames(name, known)
  const hint =
    name === ''
      ? 'remove the | at the end, or the doubled one'
      : nearest.length > 0
        ? `did you mean ${nearest.join(' or ')}?`
        : `known are ${[...modifiers.keys()].join(', ')}`
  return refuse('modifier', `unknown modifier "${name}"`, hint)
}

function lint(draft: Draft, names: readonly string[]): readonly Refusal[] {
  const warnings: Refusal[] = []
  if (names.includes('all') && draft.matches.length === 1) {
    warnings.push(
      refuse(
        'modifier',
        'modifier all on a single value',
        'give a list, or leave the modifier out',
      ),
    )
  }
  if (names.includes('startswith') && names.includes('endswith')) {
    warnings.push(
      refuse('modifier', 'startswith and endswith together mean contains', 'write contains'),
    )
  }
  return warnings
}
