/**
 * Is this regular expression one that RE2 runs? DuckDB would say so only when the rule runs, and
 * one bad pattern would stop the scan that all rules share, so constructs RE2 lacks are found here.
 * Not a full parser: what passes here is still tried on DuckDB before a rule set is used.
 */

import { type Refusal, refuse } from './problem.ts'

const repetitionMax = 1000
const patternLengthMax = 10_000

const hintLook =
  'RE2 has no look-around: put what must not match into a second selection with "not"'
const hintBack = 'RE2 has no back references: write the text out'
const hintGreedy = 'RE2 has no possessive or atomic groups and needs none: use the plain quantifier'

function bad(message: string, hint: string): Refusal {
  return refuse('value', `regular expression: ${message}`, hint)
}

/** Why RE2 would refuse the pattern, or undefined. */
export function checkRegex(pattern: string): Refusal | undefined {
  if (pattern.length > patternLengthMax) {
    return bad(`${pattern.length} characters, at most ${patternLengthMax}`, 'split it into values')
  }
  let depth = 0
  let repeatable = false
  let quantified = false
  let index = 0
  while (index < pattern.length) {
    const char = pattern.charAt(index)
    const rest = pattern.slice(index)
    if (char === '\\') {
      const escape = checkEscape(rest)
      if (escape.refusal !== undefined) return escape.refusal
      index += escape.length
      repeatable = true
      quantified = false
    } else if (char === '[') {
      const length = classLength(rest)
      if (length === undefined) return bad('[ without ]', 'close the class, or write \\[')
      for (const escape of rest.slice(0, length).matchAll(/\\[\s\S]/g)) {
        const refusal = checkEscape(rest.slice(escape.index)).refusal
        if (refusal !== undefined) return refusal
      }
      index += length
      repeatable = true
      quantified = false
    } else if (char === '(') {
      const group = checkGroup(rest)
      if (group.refusal !== undefined) return group.refusal
      index += group.length
      // `(?i)` sets flags and opens nothing.
      if (!group.closed) depth++
      repeatable = false
      quantified = false
    } else if (char === ')') {
      if (depth === 0) return bad(') without (', 'remove it, or write \\)')
      depth--
      index++
      repeatable = true
      quantified = false
    } else if (char === '*' || char === '+' || char === '?' || /^\{\d+(,\d*)?\}/.test(rest)) {
      if (quantified && char === '+') return bad('possessive quantifier', hintGreedy)
      if (quantified && char !== '?') return bad(`${char} after a quantifier`, 'use one quantifier')
      if (!quantified && !repeatable)
        return bad(`nothing to repeat before ${char}`, `write \\${char}`)
      const counted = /^\{(\d+)(?:,(\d*))?\}/.exec(rest)
      const least = Number(counted?.[1] ?? 0)
      const most = counted?.[2] === undefined || counted[2] === '' ? least : Number(counted[2])
      if (Math.max(least, most) > repetitionMax || least > most) {
        return bad(`repetition ${counted?.[0] ?? ''}`, `RE2 repeats at most ${repetitionMax} times`)
      }
      // The `?` of a lazy quantifier ends it: nothing may follow that repeats again.
      repeatable = false
      quantified = !quantified
      index += counted?.[0].length ?? 1
      if (!quantified) repeatable = false
    } else {
      repeatable = char !== '|'
      quantified = false
      index++
    }
  }
  return depth === 0 ? undefined : bad('( without )', 'close the group, or write \\(')
}

function checkEscape(rest: string): { length: number; refusal?: Refusal } {
  const next = rest.charAt(1)
  if (next === '') {
    return { length: 1, refusal: bad('it ends in a backslash', 'write \\\\ for a backslash') }
  }
  if (/^\\[1-9](?![0-7])/.test(rest) || /^\\[89]/.test(rest) || next === 'k' || next === 'g') {
    return { length: 2, refusal: bad(`back reference \\${next}`, hintBack) }
  }
  if (next === 'Q') {
    const end = rest.indexOf('\\E')
    return { length: end < 0 ? rest.length : end + 2 }
  }
  if (next === 'x') {
    const hex = /^\\x(?:[0-9A-Fa-f]{2}|\{[0-9A-Fa-f]{1,6}\})/.exec(rest)
    if (hex === null) return { length: 2, refusal: bad('\\x without two digits', 'write \\x41') }
    return { length: hex[0].length }
  }
  if (next === 'p' || next === 'P') {
    const property = /^\\[pP](?:[A-Z]|\{\^?[A-Za-z_]+\})/.exec(rest)
    if (property === null) return { length: 2, refusal: bad('\\p without a class', 'write \\p{L}') }
    return { length: property[0].length }
  }
  if (/[0-7]/.test(next)) return { length: (/^\\[0-7]{1,3}/.exec(rest)?.[0] ?? '\\0').length }
  if (/[A-Za-z]/.test(next) && !'aftnrvdDsSwWbBAzC'.includes(next)) {
    return {
      length: 2,
      refusal: bad(`\\${next} is unknown to RE2`, 'use a class such as [...] that RE2 has'),
    }
  }
  return { length: next.codePointAt(0) === undefined ? 1 : 2 }
}

/** Length of the class that starts `rest`, or undefined when it never ends. */
function classLength(rest: string): number | undefined {
  let index = rest.startsWith('[^') ? 2 : 1
  if (rest.charAt(index) === ']') index++
  while (index < rest.length) {
    if (rest.startsWith('[:', index)) {
      const end = rest.indexOf(':]', index + 2)
      if (end >= 0) {
        index = end + 2
        continue
      }
    }
    if (rest.charAt(index) === '\\') index++
    else if (rest.charAt(index) === ']') return index + 1
    index++
  }
  return undefined
}

function checkGroup(rest: string): { length: number; closed: boolean; refusal?: Refusal } {
  if (!rest.startsWith('(?')) return { length: 1, closed: false }
  if (/^\(\?<?[=!]/.test(rest)) {
    return { length: 1, closed: false, refusal: bad('look-around', hintLook) }
  }
  if (rest.startsWith('(?>')) {
    return { length: 1, closed: false, refusal: bad('atomic group', hintGreedy) }
  }
  if (rest.startsWith('(?P=')) {
    return { length: 1, closed: false, refusal: bad('back reference (?P=', hintBack) }
  }
  const named = /^\(\?P?<\w+>/.exec(rest)
  if (named !== null) return { length: named[0].length, closed: false }
  const flags = /^\(\?[imsU]*(?:-[imsU]+)?([:)])/.exec(rest)
  if (flags !== null) return { length: flags[0].length, closed: flags[1] === ')' }
  return {
    length: 1,
    closed: false,
    refusal: bad(`group ${rest.slice(0, 4)}`, 'RE2 knows (?:…), (?i) and (?P<name>…)'),
  }
}
