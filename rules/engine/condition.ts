/**
 * The condition of a rule: `not`, `and`, `or`, parentheses, `1 of`, `any of`, `all of`, `them` and
 * patterns. A pattern is resolved while reading; one that names nothing is an error, because every
 * other reading of it makes a rule that is silently dead or silently always true.
 */

import { type Refusal, refuse } from './problem.ts'
import type { Condition } from './rule.ts'

const tokensMax = 2000
const depthMax = 100

type Token = { readonly text: string; readonly offset: number }

class ConditionError {
  readonly refusal: Refusal
  constructor(message: string, hint: string) {
    this.refusal = refuse('condition', message, hint)
  }
}

/**
 * @param text the condition as written
 * @param names the search identifiers of the rule, in order
 */
export function parseCondition(
  text: string,
  names: readonly string[],
): { condition: Condition } | { refusal: Refusal } {
  const tokens = tokenise(text)
  if ('refusal' in tokens) return tokens
  const parser = new Parser(tokens.tokens, names)
  const parsed = parser.parse()
  return parsed instanceof ConditionError ? { refusal: parsed.refusal } : { condition: parsed }
}

function tokenise(text: string): { tokens: Token[] } | { refusal: Refusal } {
  const tokens: Token[] = []
  const scanner = /\s+|[()]|[A-Za-z0-9_*-]+|([\s\S])/gy
  for (const found of text.matchAll(scanner)) {
    if (found[1] !== undefined) return { refusal: strayCharacter(found[1], found.index) }
    if (found[0].trim() !== '') tokens.push({ text: found[0], offset: found.index })
    if (tokens.length > tokensMax) {
      return {
        refusal: refuse(
          'limit',
          `condition has more than ${tokensMax} words`,
          'name the selections alike and use "1 of prefix_*"',
        ),
      }
    }
  }
  return { tokens }
}

function strayCharacter(char: string, offset: number): Refusal {
  const hints: Record<string, string> = {
    '|': 'aggregations after a pipe are Sigma version 1: write a correlation rule instead',
    '&': 'write "and"',
    '!': 'write "not"',
    '=': 'compare in a selection: the condition only combines selections',
    '<': 'compare in a selection with the modifier lt or lte',
    '>': 'compare in a selection with the modifier gt or gte',
    '"': 'the condition names selections, without quotes',
    "'": 'the condition names selections, without quotes',
    '?': 'only * is a wildcard in a pattern of selections',
  }
  return refuse(
    'condition',
    `unexpected ${JSON.stringify(char)} at character ${offset + 1} of the condition`,
    hints[char] ??
      'a condition holds names of selections, and, or, not, 1 of, all of, them, ( and )',
  )
}

class Parser {
  readonly #tokens: readonly Token[]
  readonly #names: readonly string[]
  #next = 0
  #depth = 0

  constructor(tokens: readonly Token[], names: readonly string[]) {
    this.#tokens = tokens
    this.#names = names
  }

  parse(): Condition | ConditionError {
    if (this.#tokens.length === 0) {
      return new ConditionError('condition is empty', 'name a selection, such as "selection"')
    }
    const condition = this.#chain('or')
    if (condition instanceof ConditionError) return condition
    const left = this.#tokens[this.#next]
    return left === undefined ? condition : this.#unexpected(left)
  }

  /** `a or b or c`, each side of which is `a and b and c`. */
  #chain(operator: 'or' | 'and'): Condition | ConditionError {
    const sides: Condition[] = []
    do {
      const side = operator === 'or' ? this.#chain('and') : this.#not()
      if (side instanceof ConditionError) return side
      sides.push(side)
    } while (this.#take(operator))
    const [only] = sides
    return sides.length === 1 && only !== undefined ? only : { kind: operator, of: sides }
  }

  #not(): Condition | ConditionError {
    let count = 0
    while (this.#take('not')) count++
    if (count > depthMax) return new ConditionError(`"not" ${count} times`, 'write it once')
    let condition = this.#atom()
    for (; count > 0 && !(condition instanceof ConditionError); count--) {
      condition = { kind: 'not', of: condition }
    }
    return condition
  }

  #atom(): Condition | ConditionError {
    const token = this.#tokens[this.#next]
    if (token === undefined) {
      return new ConditionError(
        'condition ends too early',
        'put a selection after the last "and", "or" or "not"',
      )
    }
    if (token.text === '(') return this.#group()
    const following = this.#tokens[this.#next + 1]?.text
    const isQuantifier = token.text === '1' || token.text === 'any' || token.text === 'all'
    if (isQuantifier && following === 'of') return this.#quantifier(token.text)
    if (/^\d+$/.test(token.text) && following === 'of') {
      return new ConditionError(
        `"${token.text} of" is not Sigma`,
        'only "1 of", "any of" and "all of" exist',
      )
    }
    if (this.#names.includes(token.text)) {
      this.#next++
      return { kind: 'identifier', name: token.text }
    }
    return this.#unexpected(token)
  }

  #group(): Condition | ConditionError {
    if (++this.#depth > depthMax) {
      return new ConditionError(`more than ${depthMax} parentheses open`, 'simplify the condition')
    }
    this.#next++
    const inner = this.#chain('or')
    if (inner instanceof ConditionError) return inner
    if (!this.#take(')')) return new ConditionError('( without )', 'close the parenthesis')
    this.#depth--
    return inner
  }

  #quantifier(word: string): Condition | ConditionError {
    const pattern = this.#tokens[this.#next + 2]
    if (pattern === undefined || pattern.text === '(' || pattern.text === ')') {
      return new ConditionError(
        `"${word} of" names nothing`,
        'put "them" or a pattern such as "selection_*" after it',
      )
    }
    this.#next += 3
    const names = this.#names.filter((name) => isNamed(name, pattern.text))
    const [first] = names
    if (first === undefined) {
      return new ConditionError(
        `"${word} of ${pattern.text}" names no selection`,
        `the rule has ${this.#names.join(', ')}`,
      )
    }
    if (names.length === 1) return { kind: 'identifier', name: first }
    const of = names.map((name): Condition => ({ kind: 'identifier', name }))
    return { kind: word === 'all' ? 'and' : 'or', of }
  }

  #take(text: string): boolean {
    if (this.#tokens[this.#next]?.text !== text) return false
    this.#next++
    return true
  }

  #unexpected(token: Token): ConditionError {
    const lower = token.text.toLowerCase()
    const previous = this.#tokens[this.#next - 1]?.text.toLowerCase() ?? ''
    const keywords = ['and', 'or', 'not', 'of', 'them', 'all', 'any']
    const place = `"${token.text}" at character ${token.offset + 1} of the condition`
    if (token.text !== lower && keywords.includes(lower)) {
      return new ConditionError(`unexpected ${place}`, `keywords are lower case: write "${lower}"`)
    }
    if (previous !== '' && keywords.includes(previous) && this.#next > 0) {
      const written = this.#tokens[this.#next - 1]?.text ?? ''
      if (written !== previous) {
        return new ConditionError(
          `unexpected "${written}" in the condition`,
          `keywords are lower case: write "${previous}"`,
        )
      }
    }
    if (token.text === ')') return new ConditionError(') without (', 'remove the parenthesis')
    if (token.text === 'near') {
      return new ConditionError(
        '"near" is Sigma version 1',
        'write a correlation rule of type temporal instead',
      )
    }
    if (keywords.includes(token.text)) {
      return new ConditionError(`unexpected ${place}`, 'a selection is expected here')
    }
    if (token.text.includes('*')) {
      return new ConditionError(`unexpected ${place}`, `write "1 of ${token.text}"`)
    }
    if (this.#names.includes(token.text)) {
      return new ConditionError(`unexpected ${place}`, 'put "and" or "or" between two selections')
    }
    return new ConditionError(
      `the condition names ${place}, which is no selection`,
      `the rule has ${this.#names.join(', ')}`,
    )
  }
}

/** Identifiers that start with `_` are hidden from `them`, and from patterns that do not. */
function isNamed(name: string, pattern: string): boolean {
  if (pattern === 'them') return !name.startsWith('_')
  if (name.startsWith('_') && !pattern.startsWith('_')) return false
  const source = pattern
    .split('*')
    .map((piece) => piece.replaceAll(/[^A-Za-z0-9_]/g, '\\$&'))
    .join('.*')
  return new RegExp(`^${source}$`, 's').test(name)
}
