/**
 * YAML text to plain nodes that know where they stand. YAML 1.2 core: a bare `yes` is a string and
 * a date is text. Duplicate keys, anchors, aliases and tags are refused; size and depth are bounded.
 */

import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type ParsedNode,
  parseAllDocuments,
} from 'yaml'
import { type Position, type Problem, problemAt, refuse } from './problem.ts'

const textLengthMax = 4 << 20
const depthMax = 32

export type Node = { readonly at: Position } & (
  | { readonly kind: 'map'; readonly entries: readonly Entry[] }
  | { readonly kind: 'list'; readonly items: readonly Node[] }
  | {
      readonly kind: 'scalar'
      readonly value: string | number | boolean | null
      readonly source: string
    }
)
export type Entry = { readonly key: string; readonly at: Position; readonly value: Node }
export type MapNode = Extract<Node, { kind: 'map' }>

export type DocumentNode = {
  readonly at: Position
  /** Undefined when the document could not be read; `problems` then says why. */
  readonly root: Node | undefined
  readonly problems: readonly Problem[]
}

/** Reads every document of a file; empty documents are left out. */
export function parseDocuments(file: string, text: string): readonly DocumentNode[] {
  const start: Position = { file, line: 1, column: 1 }
  if (text.length > textLengthMax) {
    const refusal = refuse(
      'limit',
      `file has ${text.length} characters, at most ${textLengthMax}`,
      'split it into several files',
    )
    return [{ at: start, root: undefined, problems: [problemAt(start, refusal)] }]
  }
  try {
    return parseWithin(file, text)
  } catch (thrown) {
    // The parser recurses: a file of nothing but brackets ends its stack.
    const message = thrown instanceof RangeError ? 'nested too deeply' : String(thrown)
    const refusal = refuse('yaml', `cannot be read as YAML: ${message}`, 'correct the YAML')
    return [{ at: start, root: undefined, problems: [problemAt(start, refusal)] }]
  }
}

function parseWithin(file: string, text: string): readonly DocumentNode[] {
  const lines = new LineCounter()
  const parsed = parseAllDocuments(text, {
    lineCounter: lines,
    version: '1.2',
    schema: 'core',
    uniqueKeys: true,
    merge: false,
    prettyErrors: false,
    logLevel: 'silent',
  })
  const placeOf = (offset: number): Position => {
    const { line, col } = lines.linePos(offset)
    return { file, line: Math.max(line, 1), column: Math.max(col, 1) }
  }
  // For an empty stream the library returns an empty list that carries errors of its own.
  const documents: DocumentNode[] = []
  for (const document of 'empty' in parsed ? [] : parsed) {
    const problems: Problem[] = []
    for (const error of document.errors) {
      const duplicate = error.code === 'DUPLICATE_KEY'
      const refusal = refuse(
        duplicate ? 'duplicate' : 'yaml',
        duplicate ? 'the same key twice in one map' : error.message,
        duplicate ? 'put both values into one list' : 'correct the YAML',
      )
      problems.push(problemAt(placeOf(error.pos[0]), refusal))
    }
    for (const warning of document.warnings) {
      const refusal = refuse('yaml', warning.message, 'tags are not used in Sigma: remove it')
      problems.push(problemAt(placeOf(warning.pos[0]), refusal))
    }
    const contents = document.contents
    if (contents === null && problems.length === 0) continue
    const at = placeOf(contents?.range[0] ?? document.range[0])
    const reader = new Reader(placeOf, problems)
    const root = problems.length > 0 || contents === null ? undefined : reader.read(contents, 0)
    if (root?.kind === 'scalar' && root.value === null && problems.length === 0) continue
    documents.push({ at, root: problems.length > 0 ? undefined : root, problems })
  }
  return documents
}

class Reader {
  readonly #placeOf: (offset: number) => Position
  readonly #problems: Problem[]

  constructor(placeOf: (offset: number) => Position, problems: Problem[]) {
    this.#placeOf = placeOf
    this.#problems = problems
  }

  read(node: ParsedNode | null, depth: number): Node {
    const at = this.#placeOf(node?.range[0] ?? 0)
    if (node === null) return { kind: 'scalar', value: null, source: '', at }
    if (depth > depthMax) {
      return this.#bad(at, `nested deeper than ${depthMax}`, 'a rule needs no such depth')
    }
    if (isAlias(node) || node.anchor !== undefined) {
      return this.#bad(at, 'anchors and aliases are not supported', 'write the values out')
    }
    if (isMap(node)) return { kind: 'map', entries: this.#entries(node.items, at, depth), at }
    if (isSeq(node)) {
      return { kind: 'list', items: node.items.map((item) => this.read(item, depth + 1)), at }
    }
    return this.#scalar(node.value, node.source, at)
  }

  #entries(
    pairs: readonly { key: ParsedNode; value: ParsedNode | null }[],
    mapAt: Position,
    depth: number,
  ): readonly Entry[] {
    const entries: Entry[] = []
    const seen = new Set<string>()
    for (const pair of pairs) {
      const key: unknown = isScalar(pair.key) ? (pair.key.source ?? pair.key.value) : undefined
      const at = pair.key.range === undefined ? mapAt : this.#placeOf(pair.key.range[0])
      if (typeof key !== 'string') {
        this.#bad(at, 'a key must be text', 'write key: value')
        continue
      }
      // The parser compares values: it lets 1 and "1" stand side by side.
      if (seen.has(key)) this.#bad(at, `the key ${key} twice in one map`, 'use one list')
      seen.add(key)
      entries.push({ key, at, value: this.read(pair.value, depth + 1) })
    }
    return entries
  }

  #scalar(value: unknown, source: string | undefined, at: Position): Node {
    if (typeof value === 'string') {
      if (!value.isWellFormed()) {
        return this.#bad(at, 'half of a surrogate pair', 'write the whole character')
      }
      return { kind: 'scalar', value, source: value, at }
    }
    if (value === null || typeof value === 'boolean' || typeof value === 'number') {
      return { kind: 'scalar', value, source: source ?? String(value), at }
    }
    return this.#bad(
      at,
      `a value of type ${typeof value}`,
      'write text, a number, true, false or null',
    )
  }

  #bad(at: Position, message: string, hint: string): Node {
    this.#problems.push(problemAt(at, refuse('yaml', message, hint)))
    return { kind: 'scalar', value: null, source: '', at }
  }
}

export function entryOf(map: MapNode, key: string): Entry | undefined {
  return map.entries.find((entry) => entry.key === key)
}

/** The node as plain JSON data. */
export function plainOf(node: Node): unknown {
  switch (node.kind) {
    case 'scalar':
      return node.value
    case 'list':
      return node.items.map(plainOf)
    case 'map':
      return Object.fromEntries(node.entries.map((entry) => [entry.key, plainOf(entry.value)]))
  }
}
