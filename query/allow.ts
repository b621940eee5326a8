/**
 * Decides whether a statement may run: exactly one SELECT, over the relations and functions on the lists
 * and nothing else. Works on the tree DuckDB's own parser made (`json_serialize_sql`), so that what is
 * checked and what runs are read by the same grammar.
 *
 * Every node is visited. A kind of node this file does not know is refused, so that a new DuckDB can
 * only be too strict. Not decided here: how long a statement runs and how much memory it takes; that is
 * bounded by the child's death (`local.ts`).
 */
import { OpsError } from '../agent/errors.ts'
import { isRecord } from './frames.ts'
import { allowedFunctions, allowedTableFunctions } from './functions.ts'
import { treeDepthMax } from './limits.ts'
import { type RelationName, relationNames } from './views.ts'

const relations: ReadonlySet<string> = new Set(relationNames)

/** The one statement, allowed. */
export type Allowed = {
  /** The query node at the top, as DuckDB serialised it. */
  readonly node: Readonly<Record<string, unknown>>
  /** The relations it reads: no other needs to be made. */
  readonly reads: ReadonlySet<RelationName>
}

/**
 * Checks the answer of `json_serialize_sql`.
 *
 * @param serialized the JSON value DuckDB returned for the statement
 * @throws {OpsError} `bad_query` when it does not parse, `query_refused` when it may not run
 */
export function allow(serialized: unknown): Allowed {
  if (!isRecord(serialized)) throw new Error('BUG: json_serialize_sql gave no object')
  if (serialized['error'] === true) throw parseFailure(serialized)

  const statements = serialized['statements']
  if (!Array.isArray(statements)) throw new Error('BUG: json_serialize_sql gave no statements')
  if (statements.length === 0) {
    throw new OpsError('bad_query', 'the statement is empty', {
      hint: 'write one SELECT, for example: SELECT count(*) FROM events',
    })
  }
  if (statements.length > 1) {
    throw refuse(`${statements.length} statements at once`, 'send one SELECT per request')
  }
  const statement: unknown = statements[0]
  const node = isRecord(statement) ? statement['node'] : undefined
  if (!isRecord(node)) throw refuse('a statement that is no SELECT', selectHint)
  const reads = new Set<RelationName>()
  visit(node, { ctes: noNames, reads }, 0)
  return { node, reads }
}

const selectHint = 'write one SELECT; events and its views are read-only'
const noNames: ReadonlySet<string> = new Set()

function parseFailure(serialized: Readonly<Record<string, unknown>>): OpsError {
  const text = serialized['error_message']
  const message = typeof text === 'string' ? text : 'the statement does not parse'
  // DuckDB serialises SELECT only: COPY, SET, ATTACH, PRAGMA, EXPLAIN, PIVOT … all end here.
  if (serialized['error_type'] === 'not implemented') {
    return refuse(
      'a statement that is no SELECT',
      'write one SELECT; instead of PIVOT use FROM events PIVOT (count(*) FOR verdict IN (…)), instead of EXPLAIN run the query',
    )
  }
  if (/CTE needs a SELECT/i.test(message)) return refuse('a CTE that changes data', selectHint)
  const position = Number(serialized['position'])
  const where = Number.isInteger(position) && position >= 0 ? ` (at character ${position + 1})` : ''
  return new OpsError('bad_query', `${message}${where}`, {
    hint: 'correct the SQL; the dialect is DuckDB’s',
  })
}

function refuse(what: string, hint: string): OpsError {
  return new OpsError('query_refused', `not allowed: ${what}`, { hint })
}

const expressionClasses: ReadonlySet<string> = new Set([
  'BETWEEN',
  'CASE',
  'CAST',
  'COLLATE',
  'COLUMN_REF',
  'COMPARISON',
  'CONJUNCTION',
  'CONSTANT',
  'FUNCTION',
  'LAMBDA',
  'LAMBDA_REF',
  'OPERATOR',
  'PARAMETER',
  'POSITIONAL_REFERENCE',
  'STAR',
  'SUBQUERY',
  'WINDOW',
])

/** Nodes that are no expression: queries, things in FROM, modifiers, orders, and shapes of types. */
const nodeTypes: ReadonlySet<string> = new Set([
  'SELECT_NODE',
  'SET_OPERATION_NODE',
  'RECURSIVE_CTE_NODE',
  'CTE_NODE',
  'BASE_TABLE',
  'EMPTY',
  'EXPRESSION_LIST',
  'JOIN',
  'PIVOT',
  'SHOW_REF',
  'SUBQUERY',
  'TABLE_FUNCTION',
  'DISTINCT_MODIFIER',
  'LIMIT_MODIFIER',
  'LIMIT_PERCENT_MODIFIER',
  'ORDER_MODIFIER',
  'ASCENDING',
  'DESCENDING',
  'ORDER_DEFAULT',
  'ARRAY_TYPE_INFO',
  'DECIMAL_TYPE_INFO',
  'ENUM_TYPE_INFO',
  'GENERIC_TYPE_INFO',
  'INTEGER_LITERAL_TYPE_INFO',
  'LIST_TYPE_INFO',
  'STRING_TYPE_INFO',
  'STRUCT_TYPE_INFO',
  'UNBOUND_TYPE_INFO',
])

/** A key that names something to open or call, and the kinds of node it may stand on. */
const keyOwners: Readonly<Record<string, readonly string[]>> = {
  table_name: ['BASE_TABLE', 'SHOW_REF'],
  function_name: ['FUNCTION', 'WINDOW'],
  show_type: ['SHOW_REF'],
  cte_name: ['RECURSIVE_CTE_NODE', 'CTE_NODE'],
}

/** What is known at a place in the tree. */
type Scope = {
  /** Names of the CTEs in scope, lower case. */
  readonly ctes: ReadonlySet<string>
  /** Collects the relations read anywhere. */
  readonly reads: Set<RelationName>
}

function visit(value: unknown, outer: Scope, depth: number): void {
  if (typeof value !== 'object' || value === null) return
  if (depth > treeDepthMax) {
    throw refuse(`a statement nested deeper than ${treeDepthMax} levels`, 'write it flatter')
  }
  if (Array.isArray(value)) {
    for (const item of value) visit(item, outer, depth + 1)
    return
  }
  if (!isRecord(value)) return

  const kind = kindOf(value)
  for (const key of Object.keys(keyOwners)) {
    if (key in value && !(keyOwners[key] ?? []).includes(kind ?? '')) {
      throw refuse(`an unknown use of ${key}`, selectHint)
    }
  }

  let scope = outer
  if (kind === 'RECURSIVE_CTE_NODE' || kind === 'CTE_NODE') {
    scope = withCte(scope, value['cte_name'])
  } else if (kind === 'BASE_TABLE') {
    checkRelation(value, outer)
  } else if (kind === 'SHOW_REF') {
    checkShow(value)
  } else if (kind === 'PIVOT' && value['pivot_enum'] !== undefined) {
    throw refuse('a PIVOT over an enum type', 'list the values: FOR verdict IN (…)')
  } else if (kind === 'TABLE_FUNCTION') {
    checkTableFunction(value)
  } else if (kind === 'FUNCTION' || kind === 'WINDOW') {
    checkFunction(value)
  } else if (kind === 'UNBOUND_TYPE_INFO') {
    checkType(value)
  }

  // CTEs see those before them, and the node's other children see them all.
  const { cte_map: cteMap, ...rest } = value
  if (cteMap !== undefined) scope = visitCtes(cteMap, scope, depth + 1)

  for (const [key, child] of Object.entries(rest)) {
    if (kind === 'TABLE_FUNCTION' && key === 'function') visitArguments(child, scope, depth + 1)
    else visit(child, scope, depth + 1)
  }
}

/** The node's kind, checked against the lists; undefined for wrappers (`{key, value}`) and values. */
function kindOf(node: Readonly<Record<string, unknown>>): string | undefined {
  const { class: expressionClass, type } = node
  if (expressionClass !== undefined) {
    if (typeof expressionClass !== 'string' || !expressionClasses.has(expressionClass)) {
      throw refuse(`an expression of kind ${textOf(expressionClass)}`, selectHint)
    }
    // A subquery in an expression is no relation; what is inside it is visited like any other.
    return expressionClass
  }
  if (typeof type !== 'string') return undefined
  if (!nodeTypes.has(type)) throw refuse(`a clause of kind ${type}`, selectHint)
  return type
}

function visitCtes(cteMap: unknown, outer: Scope, depth: number): Scope {
  const entries = isRecord(cteMap) ? (cteMap['map'] ?? []) : undefined
  if (!Array.isArray(entries)) throw refuse('a WITH clause of unknown shape', selectHint)
  let scope = outer
  for (const entry of entries) {
    if (!isRecord(entry)) throw refuse('a WITH clause of unknown shape', selectHint)
    visit(entry['value'], scope, depth + 1)
    scope = withCte(scope, entry['key'])
  }
  return scope
}

/**
 * Adds a CTE's name to those in scope. The name may be no relation's (inside a view it would stand for
 * the relation) and no path or catalog table (outside its scope DuckDB would open that instead).
 */
function withCte(scope: Scope, name: unknown): Scope {
  if (typeof name !== 'string') throw refuse('a CTE without a name', selectHint)
  const lower = name.toLowerCase()
  if (relations.has(lower)) {
    throw refuse(`a CTE named ${name}, which hides the relation`, 'give the CTE another name')
  }
  if (!/^[\p{L}_][\p{L}\p{N}_ -]*$/u.test(name) || /^(duckdb_|sqlite_|pg_|pragma_|_)/.test(lower)) {
    throw refuse(`a CTE named ${JSON.stringify(name)}`, 'use letters, digits and _ in CTE names')
  }
  return { ...scope, ctes: new Set([...scope.ctes, lower]) }
}

function checkRelation(node: Readonly<Record<string, unknown>>, { ctes, reads }: Scope): void {
  const name = textOf(node['table_name'])
  const qualifiers = [node['catalog_name'], node['schema_name']]
  if (qualifiers.some((part) => part !== undefined && part !== '')) {
    const shown = [...qualifiers.map(textOf).filter((part) => part !== ''), name].join('.')
    throw refuse(`the relation ${shown}`, `leave the schema out; ${relationHint}`)
  }
  if (node['at_clause'] !== undefined) throw refuse('AT (…) on a relation', relationHint)
  const lower = name.toLowerCase()
  if (ctes.has(lower)) return
  const relation = relationNames.find((known) => known === lower)
  if (relation !== undefined) {
    reads.add(relation)
    return
  }
  const near = nearest(lower, [...relations, ...ctes])
  throw refuse(
    `the relation ${JSON.stringify(name)}`,
    near === undefined ? relationHint : `did you mean ${near}? ${relationHint}`,
  )
}

const relationHint = `a query reads ${relationNames.join(', ')}, and the CTEs it defines`

function checkShow(node: Readonly<Record<string, unknown>>): void {
  // DESCRIBE of a query carries it in `query`, which is visited; without one it asks the catalog.
  const kind = node['show_type']
  if ((kind === 'DESCRIBE' || kind === 'SUMMARY') && isRecord(node['query'])) {
    if (node['table_name'] === undefined) return
  }
  throw refuse('SHOW', `DESCRIBE events lists the columns; ${relationHint}`)
}

function checkTableFunction(node: Readonly<Record<string, unknown>>): void {
  const call = node['function']
  if (!isRecord(call) || call['class'] !== 'FUNCTION') {
    throw refuse('a table function of unknown shape', relationHint)
  }
  const name = textOf(call['function_name'])
  const plain = call['catalog'] === undefined && !hasForeignSchema(call)
  if (plain && allowedTableFunctions.has(name.toLowerCase())) return
  throw refuse(
    `the table function ${name}`,
    `allowed are ${[...allowedTableFunctions].join(', ')}; ${relationHint}`,
  )
}

/** The children of a table function's call: the call itself was checked against its own list. */
function visitArguments(call: unknown, scope: Scope, depth: number): void {
  if (!isRecord(call)) return
  for (const [key, child] of Object.entries(call)) {
    if (key !== 'function_name') visit(child, scope, depth + 1)
  }
}

function checkFunction(node: Readonly<Record<string, unknown>>): void {
  const name = textOf(node['function_name'])
  const shown = /^[\w$]+$/.test(name) ? name : JSON.stringify(name)
  if (node['export_state'] === true) throw refuse('EXPORT_STATE', 'leave EXPORT_STATE out')
  if (node['catalog'] !== undefined || hasForeignSchema(node)) {
    throw refuse(`the function ${shown} of another schema`, 'call functions by their bare names')
  }
  const lower = name.toLowerCase()
  if (allowedFunctions.has(lower)) return
  const near = nearest(lower, [...allowedFunctions])
  throw refuse(
    `the function ${shown}`,
    near === undefined
      ? 'a query may use DuckDB’s functions on numbers, text, time, lists, structs and JSON'
      : `did you mean ${near}?`,
  )
}

function hasForeignSchema(node: Readonly<Record<string, unknown>>): boolean {
  const schema = node['schema']
  return schema !== undefined && schema !== '' && schema !== 'main'
}

function checkType(node: Readonly<Record<string, unknown>>): void {
  if (node['schema'] === undefined && node['catalog'] === undefined) return
  throw refuse(`the type ${textOf(node['name'])} of a schema`, 'use built-in types')
}

/** A name in the tree; anything but text is on no list. */
function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** The candidate at most two edits away, for hints; undefined if none is that near. */
function nearest(name: string, candidates: readonly string[]): string | undefined {
  if (name.length < 3 || name.length > 40) return undefined
  let best: string | undefined
  let bestEdits = 3
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - name.length) >= bestEdits) continue
    const edits = editDistance(name, candidate)
    if (edits < bestEdits) [best, bestEdits] = [candidate, edits]
  }
  return best
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      current.push(Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, substitution))
    }
    previous = current
  }
  return previous[b.length] ?? 0
}
