/**
 * A rule to one DuckDB boolean expression, the only meaning the rule has: live detection and
 * hunting both run it.
 *
 * Invariant: the expression is never NULL. Each test of a field is two-valued on its own, so that
 * `not` of a test on an absent field is true and not unknown.
 * Invariant: no value of any row makes it throw, for one row would stop the rules of all others.
 */

import { networkTest } from './cidr.ts'
import { type Leaf, leafCount, type Predicate, predicateOf } from './predicate.ts'
import { type Problem, problemAt, type Refusal, refuse } from './problem.ts'
import type { Logsource, Match, Rule } from './rule.ts'
import { quoteText } from './sql.ts'
import { literalOf, type Part, widen } from './value.ts'

const leavesMax = 50_000
const sqlLengthMax = 8 << 20
/** From this many equal tests of one field on, a list is looked up instead of a chain of ORs. */
const lookupMin = 4

/**
 * How one field is read. `list` is VARCHAR[]: NULL where the field is absent, else its values, of
 * which any may match; the other types are one value. `integer` has no fraction.
 */
export type Field = {
  readonly sql: string
  readonly type: 'text' | 'integer' | 'boolean' | 'list'
  /** True where the field is present, be it null; `sql IS NOT NULL` where the store cannot tell. */
  readonly existsSql?: string
  /** The value as text, and that in lower case, where they need not be computed again. */
  readonly text?: Text
}

/** For a list these are of its first value; they count where it has no second. */
export type Text = { readonly sql: string; readonly lowerSql: string }

export type FieldResolution =
  | { readonly kind: 'known'; readonly field: Field }
  /** Readable, but the name may as well be a mistake: the author is told of the nearest names. */
  | { readonly kind: 'assumed'; readonly field: Field; readonly nearest: readonly string[] }
  | { readonly kind: 'unknown'; readonly nearest: readonly string[] }

/** What the rules' field names mean in a relation. */
export type FieldMap = {
  resolve(name: string): FieldResolution
  /** Where keywords are looked for; undefined where the relation has no such thing. */
  readonly keywords: Field | undefined
}

/** Which rows a log source names; `absent` says why none can be. */
export type LogsourceMap = (
  logsource: Logsource,
) =>
  | { readonly kind: 'rows'; readonly sql: string }
  | { readonly kind: 'absent'; readonly hint: string }

export type Target = { readonly fields: FieldMap; readonly logsources: LogsourceMap }

export type CompiledRule = {
  /** Undefined when the rule was refused, or its log source is not captured here. */
  readonly sql: string | undefined
  /** The part of `sql` that picks rows by log source. */
  readonly logsourceSql: string | undefined
  /** The part of `sql` that is the detection. */
  readonly detectionSql: string | undefined
  /** Regular expressions, as SQL literals: to be tried once before the rule is run. */
  readonly regexes: readonly string[]
  readonly problems: readonly Problem[]
}

export function compileRule(rule: Rule, target: Target): CompiledRule {
  const compiler = new Compiler(rule, target)
  return compiler.compile()
}

class Compiler {
  readonly #rule: Rule
  readonly #target: Target
  readonly #problems: Problem[] = []
  readonly #regexes = new Set<string>()
  readonly #fields = new Map<string, Field | undefined>()

  constructor(rule: Rule, target: Target) {
    this.#rule = rule
    this.#target = target
  }

  compile(): CompiledRule {
    const rows = this.#target.logsources(this.#rule.logsource)
    if (rows.kind === 'absent') {
      const { category, product, service } = this.#rule.logsource
      const named = Object.entries({ product, service, category })
        .filter(([, value]) => value !== undefined)
        .map(([key, value]) => `${key} ${value}`)
      const message = `the log source (${named.join(', ')}) is not captured here: the rule does not run`
      this.#warn(refuse('logsource', message, rows.hint))
      return this.#result(undefined, undefined)
    }
    const predicate = predicateOf(this.#rule)
    const leaves = leafCount(predicate)
    if (leaves > leavesMax) {
      this.#error(refuse('limit', `${leaves} tests, at most ${leavesMax}`, 'split the rule'))
      return this.#result(undefined, undefined)
    }
    const detection = this.#predicate(predicate)
    if (detection.length > sqlLengthMax) {
      this.#error(refuse('limit', `${detection.length} characters of SQL`, 'split the rule'))
    }
    return this.#result(rows.sql, detection)
  }

  #result(logsourceSql: string | undefined, detectionSql: string | undefined): CompiledRule {
    const failed = this.#problems.some((problem) => problem.severity === 'error')
    const isWhole = !failed && logsourceSql !== undefined && detectionSql !== undefined
    return {
      // CASE, not AND: the tests are then run only on rows of the log source.
      sql: isWhole ? `(CASE WHEN ${logsourceSql} THEN ${detectionSql} ELSE false END)` : undefined,
      logsourceSql: isWhole ? logsourceSql : undefined,
      detectionSql: isWhole ? detectionSql : undefined,
      regexes: [...this.#regexes],
      problems: this.#problems,
    }
  }

  #predicate(predicate: Predicate): string {
    switch (predicate.kind) {
      case 'leaf':
        return this.#leaf(predicate)
      case 'not':
        return `(NOT ${this.#predicate(predicate.of)})`
      case 'and':
        return `(${predicate.of.map((part) => this.#predicate(part)).join(' AND ')})`
      case 'or':
        return this.#choice(predicate.of)
    }
  }

  /**
   * Tests of one field are made together: the field is then read once, and any of its values may
   * pass any of the tests. Plain texts among them are looked up in a list.
   */
  #choice(parts: readonly Predicate[]): string {
    const groups = new Map<Field, Match[]>()
    const tests: (string | Field)[] = []
    for (const part of parts) {
      const field = part.kind === 'leaf' ? this.#field(part) : undefined
      if (part.kind !== 'leaf' || field === undefined || !isValueTest(part.match)) {
        tests.push(this.#predicate(part))
        continue
      }
      const match = part.field === null ? keywordMatch(part.match) : part.match
      const group = groups.get(field)
      if (group === undefined) {
        groups.set(field, [match])
        tests.push(field)
      } else group.push(match)
    }
    const sql = tests.map((test) =>
      typeof test === 'string' ? test : this.#values(test, groups.get(test) ?? []),
    )
    return `(${sql.join(' OR ')})`
  }

  #leaf(leaf: Leaf): string {
    const match = leaf.field === null ? keywordMatch(leaf.match) : leaf.match
    const field = this.#field(leaf)
    if (field === undefined) return absentResult(match)
    switch (match.kind) {
      case 'null':
        return field.type === 'list'
          ? `(${field.sql} IS NULL OR coalesce(${anyMember(field.sql, (x) => `${x.sql} IS NULL`)}, false))`
          : `(${field.sql} IS NULL)`
      case 'exists': {
        const present = `(${field.existsSql ?? `${field.sql} IS NOT NULL`})`
        return match.value ? present : `(NOT ${present})`
      }
      case 'string':
      case 'number':
      case 'boolean':
      case 'regex':
      case 'compare':
      case 'cidr':
        return this.#values(field, [match])
    }
  }

  /** Does any value of the field pass any of the tests? */
  #values(field: Field, matches: readonly Match[]): string {
    const literals =
      field.type === 'integer' ? [] : matches.map(plainLiteral).filter((l) => l !== undefined)
    const isLookup = literals.length >= lookupMin
    const singles = isLookup
      ? matches.filter((match) => plainLiteral(match) === undefined)
      : matches
    return onValues(field, (x) => {
      const tests = singles.map((match) => this.#valueTest(field, x, match))
      if (isLookup)
        tests.push(`list_contains([${literals.map(loweredText).join(', ')}], ${x.lowerSql})`)
      return tests.length === 1 ? (tests[0] ?? 'false') : `(${tests.join(' OR ')})`
    })
  }

  /** One test of one value; NULL at most where the value is. */
  #valueTest(field: Field, x: Text, match: Match): string {
    switch (match.kind) {
      case 'string':
        return stringTest(x, match.parts, match.cased)
      case 'number':
        if (field.type === 'integer') return `${field.sql} = ${match.text}`
        if (field.type === 'boolean') return 'false'
        return numberTest(x.sql, match, field.type === 'list')
      case 'boolean':
        return `${x.lowerSql} = '${match.value}'`
      case 'regex': {
        const pattern = quoteText((match.flags === '' ? '' : `(?${match.flags})`) + match.pattern)
        this.#regexes.add(pattern)
        return `regexp_matches(${x.sql}, ${pattern})`
      }
      case 'compare': {
        const number = field.type === 'integer' ? field.sql : numberOf(x.sql)
        return `${number} ${comparisonSql[match.op]} ${match.value}`
      }
      case 'cidr':
        return networkTest(x.sql, match.network)
      case 'null':
      case 'exists':
        throw new Error(`BUG: ${match.kind} is no test of a value`)
    }
  }

  #field(leaf: Leaf): Field | undefined {
    if (leaf.field === null) {
      const field = this.#target.fields.keywords
      if (field === undefined && !this.#fields.has('')) {
        const hint = 'name the field to look in'
        this.#error(refuse('field', 'keywords cannot be searched for here', hint), leaf)
      }
      this.#fields.set('', field)
      return field
    }
    if (this.#fields.has(leaf.field)) return this.#fields.get(leaf.field)
    const resolution = this.#target.fields.resolve(leaf.field)
    const field = resolution.kind === 'unknown' ? undefined : resolution.field
    this.#fields.set(leaf.field, field)
    if (resolution.kind === 'known') return field
    const nearest =
      resolution.nearest.length > 0
        ? `did you mean ${resolution.nearest.join(' or ')}?`
        : 'see the list of columns for the names known here'
    const treated =
      resolution.kind === 'unknown'
        ? 'taken as always absent'
        : 'looked for by that name in the rest'
    this.#warn(refuse('field', `field ${leaf.field} is no known name: ${treated}`, nearest), leaf)
    return field
  }

  #warn(refusal: Refusal, leaf?: Leaf): void {
    this.#problems.push(problemAt(leaf?.item.at ?? this.#rule.at, refusal, 'warning'))
  }

  #error(refusal: Refusal, leaf?: Leaf): void {
    this.#problems.push(problemAt(leaf?.item.at ?? this.#rule.at, refusal))
  }
}

const comparisonSql = { lt: '<', lte: '<=', gt: '>', gte: '>=' } as const

/** Tests of a value, as against tests of whether there is one. */
function isValueTest(match: Match): boolean {
  return match.kind !== 'null' && match.kind !== 'exists'
}

/** The text of a match that is plain equality without regard to case, else undefined. */
function plainLiteral(match: Match): string | undefined {
  return match.kind === 'string' && !match.cased ? literalOf(match.parts) : undefined
}

/** A keyword matches anywhere inside the text it is looked for in. */
function keywordMatch(match: Match): Match {
  const around = { before: true, after: true }
  switch (match.kind) {
    case 'string':
      return { ...match, parts: widen(match.parts, around) }
    case 'number':
    case 'boolean': {
      const source = match.kind === 'number' ? match.text : String(match.value)
      const parts: Part[] = [{ kind: 'literal', text: source }]
      return { kind: 'string', source, parts: widen(parts, around), cased: false }
    }
    case 'null':
    case 'regex':
    case 'compare':
    case 'cidr':
    case 'exists':
      return match
  }
}

/** What a test says of a field that no row has. */
function absentResult(match: Match): string {
  if (match.kind === 'null') return 'true'
  if (match.kind === 'exists') return String(!match.value)
  return 'false'
}

/** Runs a test on the text of the field's value, or on any of its values. */
function onValues(field: Field, test: (x: Text) => string): string {
  if (field.type !== 'list') return `coalesce(${test(field.text ?? textOf(textSql(field)))}, false)`
  const first = field.text ?? textOf(`(${field.sql})[1]`)
  // Nearly every list has one value, and a lambda costs far more than a plain test.
  return (
    `coalesce(CASE WHEN len(${field.sql}) > 1 THEN ${anyMember(field.sql, test)} ` +
    `ELSE ${test(first)} END, false)`
  )
}

function textSql(field: Field): string {
  return field.type === 'text' ? field.sql : `CAST(${field.sql} AS VARCHAR)`
}

function textOf(sql: string): Text {
  return { sql, lowerSql: `lower(${sql})` }
}

function anyMember(list: string, test: (x: Text) => string): string {
  return `len(list_filter(${list}, lambda x: coalesce(${test(textOf('x'))}, false))) > 0`
}

/**
 * The literal in lower case, by DuckDB's own rules: what `lower` does outside ASCII differs from
 * JavaScript, so such literals are lowered where the column is.
 */
function loweredText(literal: string): string {
  const isAscii = /^[\0-\x7f]*$/.test(literal)
  return isAscii ? quoteText(literal.toLowerCase()) : `lower(${quoteText(literal)})`
}

function stringTest(value: Text, parts: readonly Part[], cased: boolean): string {
  const x = cased ? value.sql : value.lowerSql
  const text = cased ? quoteText : loweredText
  const exact = literalOf(parts)
  if (exact !== undefined) return `${x} = ${text(exact)}`
  // `*` alone asks only whether there is a value.
  if (parts.every((part) => part.kind === 'any')) return `${value.sql} IS NOT NULL`
  const before = parts[0]?.kind === 'any'
  const after = parts.at(-1)?.kind === 'any'
  const inner = literalOf(parts.slice(before ? 1 : 0, after ? -1 : undefined))
  if (inner !== undefined) {
    if (before && after) return `contains(${x}, ${text(inner)})`
    return before ? `suffix(${x}, ${text(inner)})` : `starts_with(${x}, ${text(inner)})`
  }
  const pattern = parts.map((part) => likePart(part)).join('')
  return `${x} LIKE ${text(pattern)} ESCAPE '\\'`
}

function likePart(part: Part): string {
  switch (part.kind) {
    case 'literal':
      return part.text.replaceAll(/[\\%_]/g, '\\$&')
    case 'any':
      return '%'
    case 'one':
      return '_'
  }
}

/** Text that is a number, as DOUBLE; else NULL. DuckDB's own cast also takes `nan`, ` 5 ` and `1_000`. */
function numberOf(x: string): string {
  const pattern = '[+-]?(?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?'
  return `CASE WHEN regexp_full_match(${x}, '${pattern}') THEN TRY_CAST(${x} AS DOUBLE) END`
}

/** Text columns compare by text; values of JSON also as numbers, so that 5 finds 5.0. */
function numberTest(
  x: string,
  match: { readonly value: number; readonly text: string },
  isUntyped: boolean,
): string {
  const equal = `${x} = ${quoteText(match.text)}`
  const isExact = Math.abs(match.value) <= Number.MAX_SAFE_INTEGER
  return isUntyped && isExact
    ? `(${equal} OR coalesce(${numberOf(x)} = ${match.value}, false))`
    : equal
}
