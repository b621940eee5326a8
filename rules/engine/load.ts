/**
 * Rule files to typed rules. Every document becomes a rule or a problem with its place and a hint:
 * nothing is dropped in silence, and a rule with an error in it is not used in part.
 * Correlations and filters are recognised and refused.
 */

import { parseCondition } from './condition.ts'
import {
  type DocumentNode,
  entryOf,
  type MapNode,
  type Node,
  parseDocuments,
  plainOf,
} from './document.ts'
import { applyModifiers } from './modifiers.ts'
import {
  type Position,
  type Problem,
  problemAt,
  type Refusal,
  refuse,
  unsupported,
} from './problem.ts'
import {
  type Condition,
  type Detection,
  type Item,
  levels,
  type Logsource,
  type Match,
  type Rule,
  statuses,
} from './rule.ts'
import { parseParts } from './value.ts'

const titleLengthMax = 256
const descriptionLengthMax = 65_535
/** The longest list in the public rules has 4,432 values. */
const valuesMax = 20_000
const valueLengthMax = 64_000
const modifiersMax = 8

export type RuleFile = {
  /** Shown in problems; any name for text that is no file. */
  readonly path: string
  readonly text: string
}

export type LoadedRules = {
  readonly rules: readonly Rule[]
  readonly problems: readonly Problem[]
  /** How many documents were read: each is in `rules` or has an error in `problems`. */
  readonly documentCount: number
}

export function loadRules(files: readonly RuleFile[]): LoadedRules {
  const rules: Rule[] = []
  const problems: Problem[] = []
  let documentCount = 0
  const places = new Map<string, Position>()
  for (const file of files) {
    const documents = parseDocuments(file.path, file.text)
    documentCount += documents.length
    if (documents.length === 0) {
      const refusal = refuse('document', 'no document in the file', 'put a rule into it')
      problems.push(problemAt({ file: file.path, line: 1, column: 1 }, refusal))
    }
    for (const document of documents) {
      const loaded = loadDocument(document)
      problems.push(...loaded.problems)
      if (loaded.rule === undefined) continue
      const twice = duplicateOf(loaded.rule, places)
      if (twice === undefined) rules.push(loaded.rule)
      else problems.push(twice)
    }
  }
  return { rules, problems, documentCount }
}

function duplicateOf(rule: Rule, places: Map<string, Position>): Problem | undefined {
  for (const key of [rule.id, rule.name]) {
    if (key === undefined) continue
    const other = places.get(key)
    if (other !== undefined) {
      const message = `"${key}" is already the id or name of the rule at ${other.file}:${other.line}`
      return problemAt(rule.at, refuse('duplicate', message, 'give each rule an id of its own'))
    }
  }
  for (const key of [rule.id, rule.name]) if (key !== undefined) places.set(key, rule.at)
  return undefined
}

function loadDocument(document: DocumentNode): { rule?: Rule; problems: readonly Problem[] } {
  if (document.root === undefined) return { problems: document.problems }
  const reader = new RuleReader(document.root)
  const rule = reader.read()
  const failed = reader.problems.some((problem) => problem.severity === 'error')
  return failed || rule === undefined
    ? { problems: reader.problems }
    : { rule, problems: reader.problems }
}

const knownFields = new Set([
  'title',
  'id',
  'name',
  'related',
  'taxonomy',
  'status',
  'description',
  'license',
  'author',
  'references',
  'date',
  'modified',
  'logsource',
  'detection',
  'fields',
  'falsepositives',
  'level',
  'tags',
  'scope',
])

class RuleReader {
  readonly problems: Problem[] = []
  readonly #root: Node
  /** Fields such as `args[0]` are plain names, except where a rule asks for the draft of version 3. */
  #isVersion3 = false

  constructor(root: Node) {
    this.#root = root
  }

  read(): Rule | undefined {
    const root = this.#root
    if (root.kind !== 'map') {
      return this.#error(root.at, refuse('document', 'a rule is a map', 'start with "title: …"'))
    }
    for (const kind of ['correlation', 'filter'] as const) {
      const entry = entryOf(root, kind)
      if (entry === undefined || entryOf(root, 'detection') !== undefined) continue
      const message = `${kind} rules are not supported yet`
      const hint = 'only rules with a detection run in this version: take the document out'
      return this.#error(entry.at, unsupported(kind, message, hint))
    }
    const action = entryOf(root, 'action')
    if (action?.value.kind === 'scalar' && /^(?:global|reset|repeat)$/.test(action.value.source)) {
      const message = 'documents with "action" are Sigma version 1'
      return this.#error(action.at, unsupported('action', message, 'write each rule out in full'))
    }
    this.#checkVersion(root)
    const title = this.#text(root, 'title', titleLengthMax)
    if (entryOf(root, 'title') === undefined || title === '') {
      const hint = 'add "title: …"'
      this.#error(root.at, refuse('document', 'the rule has no title', hint))
    }
    this.#lintPlainWords(root)
    const logsource = this.#logsource(root)
    const detections = this.#detections(root)
    const condition = detections && this.#condition(root, [...detections.keys()])
    const id = this.#text(root, 'id', titleLengthMax)
    if (id !== undefined && !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id)) {
      this.#warn(root, 'id', `id "${id}" is no UUID`, 'make one with uuidgen')
    }
    const rule = {
      at: root.at,
      title: title ?? '',
      id,
      name: this.#text(root, 'name', titleLengthMax),
      status: this.#choice(root, 'status', statuses),
      level: this.#choice(root, 'level', levels),
      description: this.#text(root, 'description', descriptionLengthMax),
      author: this.#text(root, 'author', descriptionLengthMax),
      tags: this.#texts(root, 'tags'),
      falsepositives: this.#texts(root, 'falsepositives'),
      fields: this.#texts(root, 'fields'),
      references: this.#texts(root, 'references'),
      custom: customFields(root),
    }
    for (const tag of rule.tags) {
      if (/^[a-z0-9_-]+\.[a-z0-9._-]+$/.test(tag)) continue
      this.#warn(
        root,
        'tags',
        `tag "${tag}" is not namespace.name`,
        'write attack.t1190, for example',
      )
    }
    for (const key of ['date', 'modified']) {
      const date = this.#text(root, key, titleLengthMax)
      if (date === undefined || /^\d{4}-\d\d-\d\d$/.test(date)) continue
      this.#warn(root, key, `${key} "${date}" is not YYYY-MM-DD`, 'write 2026-01-31, for example')
    }
    if (logsource === undefined || detections === undefined || condition === undefined)
      return undefined
    return { ...rule, logsource, detections, condition }
  }

  #checkVersion(root: MapNode): void {
    const entry = entryOf(root, 'sigma-version')
    if (entry?.value.kind === 'scalar') this.#isVersion3 = Number(entry.value.value) >= 3
    const taxonomy = this.#text(root, 'taxonomy', titleLengthMax)
    if (taxonomy !== undefined && taxonomy !== 'sigma') {
      this.#warn(
        root,
        'taxonomy',
        `taxonomy "${taxonomy}" is unknown here`,
        'fields are read as named',
      )
    }
  }

  /** A bare `yes` is text in YAML 1.2 and true in YAML 1.1: the author may have meant either. */
  #lintPlainWords(node: Node): void {
    if (node.kind === 'map') for (const entry of node.entries) this.#lintPlainWords(entry.value)
    if (node.kind === 'list') for (const item of node.items) this.#lintPlainWords(item)
    if (node.kind !== 'scalar' || typeof node.value !== 'string') return
    if (!/^(?:yes|no|on|off|y|n)$/i.test(node.value)) return
    const message = `"${node.value}" is text here, but true or false to readers of YAML 1.1`
    const refusal = refuse('value', message, 'put it in quotes, or write true or false')
    this.problems.push(problemAt(node.at, refusal, 'warning'))
  }

  #logsource(root: MapNode): Logsource | undefined {
    const entry = entryOf(root, 'logsource')
    if (entry === undefined || entry.value.kind !== 'map') {
      const at = entry?.value.at ?? root.at
      const hint = 'add "logsource:" with product, service or category'
      return this.#error(at, refuse('logsource', 'the rule has no log source', hint))
    }
    const map = entry.value
    const logsource = {
      category: this.#text(map, 'category', titleLengthMax),
      product: this.#text(map, 'product', titleLengthMax),
      service: this.#text(map, 'service', titleLengthMax),
    }
    const { category, product, service } = logsource
    if (category === undefined && product === undefined && service === undefined) {
      const message = 'the log source sets none of category, product, service'
      return this.#error(entry.at, refuse('logsource', message, 'set at least one of them'))
    }
    return logsource
  }

  #detections(root: MapNode): ReadonlyMap<string, Detection> | undefined {
    const entry = entryOf(root, 'detection')
    if (entry === undefined || entry.value.kind !== 'map') {
      const at = entry?.value.at ?? root.at
      return this.#error(at, refuse('detection', 'the rule has no detection', 'add "detection:"'))
    }
    const detections = new Map<string, Detection>()
    for (const { key, at, value } of entry.value.entries) {
      if (key === 'condition') continue
      if (key === 'timeframe') {
        const hint = 'write a correlation rule with a timespan instead'
        this.#error(at, refuse('detection', 'timeframe is Sigma version 1', hint))
        continue
      }
      if (!/^[A-Za-z0-9_-]+$/.test(key)) {
        const message = `a condition cannot name "${key}", only match it with a pattern`
        const refusal = refuse('detection', message, 'use letters, digits, _ and -')
        this.problems.push(problemAt(at, refusal, 'warning'))
      }
      const detection = this.#detection(value, at)
      if (detection !== undefined) detections.set(key, detection)
    }
    if (detections.size === 0) {
      if (this.problems.some((problem) => problem.severity === 'error')) return undefined
      const hint = 'add a selection beside the condition'
      return this.#error(entry.at, refuse('detection', 'the detection has no selection', hint))
    }
    return detections
  }

  #detection(node: Node, at: Position): Detection | undefined {
    if (node.kind === 'map') return this.#mapDetection(node, at)
    if (node.kind === 'scalar') return this.#item('', [node], node.at)
    if (node.items.length === 0) {
      return this.#error(
        at,
        refuse('detection', 'the selection is empty', 'give it a field or value'),
      )
    }
    // A list of nothing but keywords is one item; anything else is a choice between its elements.
    if (node.items.every((item) => item.kind === 'scalar')) return this.#item('', node.items, at)
    const choices: Detection[] = []
    for (const item of node.items) {
      const choice = this.#detection(item, item.at)
      if (choice === undefined) return undefined
      choices.push(choice)
    }
    const [only] = choices
    return choices.length === 1 && only !== undefined ? only : { kind: 'or', of: choices }
  }

  #mapDetection(map: MapNode, at: Position): Detection | undefined {
    if (map.entries.length === 0) {
      return this.#error(
        at,
        refuse('detection', 'the selection is empty', 'give it a field or value'),
      )
    }
    const items: Detection[] = []
    for (const entry of map.entries) {
      const values = entry.value.kind === 'list' ? entry.value.items : [entry.value]
      const item = this.#item(entry.key, values, entry.at)
      if (item === undefined) return undefined
      items.push(item)
    }
    const [only] = items
    return items.length === 1 && only !== undefined ? only : { kind: 'and', of: items }
  }

  #item(key: string, values: readonly Node[], at: Position): Detection | undefined {
    const [name = '', ...modifiers] = key.split('|')
    const field = name === '' ? null : name
    if (this.#isVersion3 && name.includes('[')) {
      const message = `array matching (${name}) belongs to the draft of Sigma version 3`
      const hint = 'name the field without brackets: any member of an array matches'
      return this.#error(at, unsupported('array matching', message, hint))
    }
    if (modifiers.length > modifiersMax) {
      const message = `${modifiers.length} modifiers, at most ${modifiersMax}`
      return this.#error(at, refuse('limit', message, 'drop those that repeat'))
    }
    if (values.length === 0) {
      const message = `${name || 'the keyword list'} has an empty list of values`
      return this.#error(at, refuse('value', message, 'write null for an absent field'))
    }
    if (values.length > valuesMax) {
      const message = `${values.length} values, at most ${valuesMax}`
      return this.#error(at, refuse('limit', message, 'split the rule'))
    }
    const matches: Match[] = []
    for (const value of values) {
      const match = matchOf(value)
      if ('message' in match) return this.#error(value.at, match)
      if (match.kind === 'null' && field === null) {
        return this.#error(value.at, refuse('value', 'null is no keyword', 'put a field before it'))
      }
      matches.push(match)
    }
    const applied = applyModifiers({ field, matches, linking: 'or', negated: false }, modifiers)
    if ('refusal' in applied) return this.#error(at, applied.refusal)
    for (const warning of applied.warnings) this.problems.push(problemAt(at, warning, 'warning'))
    const item: Item = { at, ...applied.draft }
    return { kind: 'item', item }
  }

  #condition(root: MapNode, names: readonly string[]): Condition | undefined {
    const detection = entryOf(root, 'detection')?.value
    const entry = detection?.kind === 'map' ? entryOf(detection, 'condition') : undefined
    if (entry === undefined) {
      const hint = `add "condition: ${names[0] ?? 'selection'}"`
      return this.#error(detection?.at ?? root.at, refuse('condition', 'no condition', hint))
    }
    const nodes = entry.value.kind === 'list' ? entry.value.items : [entry.value]
    const conditions: Condition[] = []
    for (const node of nodes) {
      if (node.kind !== 'scalar' || node.value === null) {
        const hint = 'write it as text, such as "selection and not filter"'
        return this.#error(node.at, refuse('condition', 'the condition is not text', hint))
      }
      const parsed = parseCondition(node.source, names)
      if ('refusal' in parsed) return this.#error(node.at, parsed.refusal)
      conditions.push(parsed.condition)
    }
    const [only] = conditions
    if (only === undefined) {
      const refusal = refuse('condition', 'the list of conditions is empty', 'write one condition')
      return this.#error(entry.at, refusal)
    }
    return conditions.length === 1 ? only : { kind: 'or', of: conditions }
  }

  #text(map: MapNode, key: string, lengthMax: number): string | undefined {
    const entry = entryOf(map, key)
    if (entry === undefined) return undefined
    const { value } = entry
    if (value.kind !== 'scalar' || typeof value.value !== 'string') {
      return this.#error(value.at, refuse('document', `${key} must be text`, 'put it in quotes'))
    }
    if (value.value.length > lengthMax) {
      const message = `${key} has ${value.value.length} characters, at most ${lengthMax}`
      return this.#error(value.at, refuse('limit', message, 'shorten it'))
    }
    return value.value
  }

  #texts(map: MapNode, key: string): readonly string[] {
    const entry = entryOf(map, key)
    if (entry === undefined) return []
    const texts: string[] = []
    for (const node of entry.value.kind === 'list' ? entry.value.items : [undefined]) {
      if (node?.kind === 'scalar' && typeof node.value === 'string') {
        texts.push(node.value)
        continue
      }
      const hint = 'write one quoted text a line, each after "- "'
      this.#error(node?.at ?? entry.at, refuse('document', `${key} must be a list of texts`, hint))
    }
    return texts
  }

  #choice<T extends string>(map: MapNode, key: string, allowed: readonly T[]): T | undefined {
    const text = this.#text(map, key, titleLengthMax)
    if (text === undefined) return undefined
    const choice = allowed.find((candidate) => candidate === text)
    if (choice !== undefined) return choice
    const at = entryOf(map, key)?.value.at ?? map.at
    const message = `${key} "${text}" is unknown`
    return this.#error(at, refuse('document', message, `use ${allowed.join(', ')}`))
  }

  #warn(map: MapNode, key: string, message: string, hint: string): void {
    const at = entryOf(map, key)?.value.at ?? map.at
    this.problems.push(problemAt(at, refuse('document', message, hint), 'warning'))
  }

  #error(at: Position, refusal: Refusal): undefined {
    this.problems.push(problemAt(at, refusal))
    return undefined
  }
}

function matchOf(node: Node): Match | Refusal {
  if (node.kind !== 'scalar') {
    const what = node.kind === 'map' ? 'a map' : 'a list'
    return refuse(
      'value',
      `${what} where a value is expected`,
      'write a nested field as outer.inner',
    )
  }
  const { value, source } = node
  if (value === null) return { kind: 'null' }
  if (typeof value === 'boolean') return { kind: 'boolean', value }
  if (typeof value === 'string') {
    if (value.length <= valueLengthMax) {
      return { kind: 'string', source: value, parts: parseParts(value), cased: false }
    }
    return refuse(
      'limit',
      `value has ${value.length} characters, at most ${valueLengthMax}`,
      'shorten it',
    )
  }
  // 00000419 is a code and no quantity: as a number it would lose its zeros.
  if (/^[-+]?0\d/.test(source)) {
    return { kind: 'string', source, parts: parseParts(source), cased: false }
  }
  if (!Number.isFinite(value)) return refuse('value', `${source} is no number`, 'put it in quotes')
  // Beyond 2^53 the text as written is exact where the number is not.
  const isExact = !Number.isInteger(value) || Number.isSafeInteger(value)
  return {
    kind: 'number',
    value,
    text: isExact || !/^-?\d+$/.test(source) ? String(value) : source,
  }
}

function customFields(root: MapNode): Readonly<Record<string, unknown>> {
  const custom = root.entries.filter((entry) => !knownFields.has(entry.key))
  return Object.fromEntries(custom.map((entry) => [entry.key, plainOf(entry.value)]))
}
