/**
 * A dotted field name inside a JSON column, as DuckDB SQL. JSON keys may hold dots themselves
 * (`annotations.authorization.k8s.io/decision`), so each way to cut the name is tried, longest key
 * first; an array on the way stands for each of its members.
 */

import type { Field } from '../../rules/engine/compile.ts'
import { quoteText } from '../../rules/engine/sql.ts'

/** Names with more dots are cut in fewer ways: all ways double with each dot. */
const segmentsMax = 5
/** Arrays on the way are looked through in names of up to this many segments. */
const fanOutSegmentsMax = 4

/**
 * @param document SQL of valid JSON text without white space, or NULL
 * @returns the scalars found under the name, as VARCHAR[]; NULL when absent or null
 */
export function jsonField(document: string, name: string): Field {
  const segments = name.split('.')
  const paths = cuts(segments).map((keys) => quoteText(jsonPath(keys)))
  const found =
    paths.length === 1
      ? `json_extract(${document}, ${paths[0]})`
      : `list_filter(json_extract(${document}, [${paths.join(', ')}]), lambda v: v IS NOT NULL)[1]`
  const members = fanOut(document, segments)
  const single =
    `CASE json_type(${found}) WHEN 'NULL' THEN NULL WHEN 'OBJECT' THEN [] ` +
    `WHEN 'ARRAY' THEN ${scalars(`json_extract(${found}, '$[*]')`)} ` +
    `ELSE [json_extract_string(${found}, '$')] END`
  if (members === undefined)
    return { sql: `(${single})`, type: 'list', existsSql: `${found} IS NOT NULL` }
  const many = `CASE WHEN contains(${document}, '[{') AND len(${members}) > 0 THEN ${scalars(members)} END`
  return {
    sql: `(CASE WHEN ${found} IS NOT NULL THEN ${single} ELSE ${many} END)`,
    type: 'list',
    existsSql: `(${found} IS NOT NULL OR coalesce(len(${members}) > 0, false))`,
  }
}

/** The scalars of a list of JSON, as text; objects and arrays are no values. */
function scalars(list: string): string {
  return (
    `list_transform(list_filter(${list}, lambda v: json_type(v) NOT IN ('OBJECT', 'ARRAY')), ` +
    `lambda v: json_extract_string(v, '$'))`
  )
}

/** Every way to cut the name into keys, those with the longest first key first. */
function cuts(segments: readonly string[]): readonly (readonly string[])[] {
  if (segments.length > segmentsMax) {
    return segments.map((_, kept) => {
      const merged = segments.length - kept
      return [...segments.slice(0, kept), segments.slice(kept, kept + merged).join('.')]
    })
  }
  const ways: (readonly string[])[] = []
  for (let length = segments.length; length > 0; length--) {
    const key = segments.slice(0, length).join('.')
    const rest = segments.slice(length)
    if (rest.length === 0) ways.push([key])
    else for (const way of cuts(rest)) ways.push([key, ...way])
  }
  return ways
}

function jsonPath(keys: readonly string[], isArray?: readonly boolean[]): string {
  const steps = keys.map(
    (key, index) => `.${jsonKey(key)}${isArray?.[index] === true ? '[*]' : ''}`,
  )
  return `$${steps.join('')}`
}

function jsonKey(key: string): string {
  return `"${key.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
}

/** What lies under the name when one or more keys before the last hold arrays, as JSON[]. */
function fanOut(document: string, segments: readonly string[]): string | undefined {
  if (segments.length < 2 || segments.length > fanOutSegmentsMax) return undefined
  const lists: string[] = []
  for (let mask = 1; mask < 1 << segments.length; mask++) {
    const isArray = segments.map((_, index) => (mask & (1 << index)) !== 0)
    // An array only at the end is what the plain path finds.
    if (!isArray.slice(0, -1).includes(true)) continue
    lists.push(`json_extract(${document}, ${quoteText(jsonPath(segments, isArray))})`)
  }
  return `flatten([${lists.join(', ')}])`
}
