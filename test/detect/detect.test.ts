import { DuckDBInstance } from '@duckdb/node-api'
import { afterAll, describe, expect, test } from 'bun:test'
import { Detector, findingEvent } from '../../agent/detect/detect.ts'
import { queryOf } from '../../agent/detect/match.ts'
import { columns } from '../../agent/event.ts'
import { loadRules } from '../../rules/engine/load.ts'
import type { Rule } from '../../rules/engine/rule.ts'

const sqlTypes = {
  utf8: 'VARCHAR',
  json: 'VARCHAR',
  time: 'TIMESTAMPTZ',
  u64: 'UBIGINT',
  i64: 'BIGINT',
  u32: 'UINTEGER',
  bytes: 'BLOB',
} as const

const instance = await DuckDBInstance.create(':memory:', { threads: '1' })
const connection = await instance.connect()
const query = queryOf(connection)
afterAll(() => connection.closeSync())
await query("SET TimeZone='UTC'")
const visible = columns.filter((column) => !column.hidden)
await query(
  `CREATE TABLE events (${visible.map((c) => `"${c.name}" ${sqlTypes[c.type]}`).join(', ')})`,
)

/** One row; what is not given is NULL. */
async function insert(leaf: number, row: Readonly<Record<string, string | number>>): Promise<void> {
  const given = {
    observed_ts: '2026-11-20 10:00:00+00',
    time: '2026-11-20 09:59:59.123456+00',
    kind: 'request',
    ...row,
  }
  const names = ['leaf_index', ...Object.keys(given)].map((name) => `"${name}"`).join(', ')
  const values = [leaf, ...Object.values(given)].map(
    (value) => `'${String(value).replaceAll("'", "''")}'`,
  )
  await query(`INSERT INTO events (${names}) VALUES (${values.join(', ')})`)
}

function rulesOf(...texts: readonly string[]): readonly Rule[] {
  const loaded = loadRules(texts.map((text, index) => ({ path: `${index}.yml`, text })))
  expect(loaded.problems.filter((problem) => problem.severity === 'error')).toEqual([])
  return loaded.rules
}
const denied = `{title: Denied, name: b, level: high, tags: [attack.t1190], logsource: {product: istio}, detection: {s: {verdict: denied}, condition: s}}`
const admin = `{title: Admin, name: a, logsource: {category: webserver}, detection: {s: {path|startswith: /admin}, condition: s}}`
const own = `{title: Own, name: c, logsource: {product: meshtrail}, detection: {s: {verdict: denied}, condition: s}}`

const hostile = String.raw`{"x":"\ud800"}`
await insert(7, {
  source: 'istio.access',
  verdict: 'denied',
  path: '/admin/x',
  policy: 'prod/deny',
  status: 403,
  principal: 'spiffe://td/ns/a/sa/b',
})
await insert(5, { source: 'istio.access', verdict: 'denied', path: '/shop', attributes: hostile })
await insert(6, { source: 'meshtrail', kind: 'finding', verdict: 'denied', path: '/admin' })
await insert(8, { source: 'k8s.audit', verdict: 'denied', path: '/admin' })
await insert(9, { source: 'nginx.access', verdict: 'allowed', path: '/ADMIN' })

describe('detect', () => {
  test('finds by leaf, then by rule; own events only where the log source names them', async () => {
    const detector = await Detector.create(rulesOf(denied, admin, own), query)
    const findings = await detector.detect(query, 'events', 0, 100)
    expect(findings.map((finding) => `${finding.leafIndex} ${finding.ruleId}`)).toEqual([
      '5 b',
      '6 c',
      '7 a',
      '7 b',
      '9 a',
    ])
    expect(findings[3]).toEqual({
      ruleId: 'b',
      ruleTitle: 'Denied',
      level: 'high',
      tags: ['attack.t1190'],
      leafIndex: 7,
      time: 1795168799123456,
      ruleSet: detector.hash,
      summary: {
        source: 'istio.access',
        kind: 'request',
        verdict: 'denied',
        policy: 'prod/deny',
        path: '/admin/x',
        status: 403,
        principal: 'spiffe://td/ns/a/sa/b',
      },
    })
  })

  test('looks only at the leaves asked for, both ends included', async () => {
    const detector = await Detector.create(rulesOf(denied, admin, own), query)
    const findings = await detector.detect(query, 'events', 6, 7)
    expect(findings.map((finding) => finding.leafIndex)).toEqual([6, 7, 7])
  })

  test('a row whose attributes DuckDB cannot read stops no rule', async () => {
    const [inner] = rulesOf(
      `{title: I, name: i, logsource: {product: istio}, detection: {s: {attributes.x: null, verdict: denied}, condition: s}}`,
    )
    const detector = await Detector.create(inner === undefined ? [] : [inner], query)
    expect((await detector.detect(query, 'events', 0, 100)).map((f) => f.leafIndex)).toEqual([5, 7])
  })

  test('no rules find nothing', async () => {
    expect(await (await Detector.create([], query)).detect(query, 'events', 0, 100)).toEqual([])
  })

  test('a rule that DuckDB refuses is left out and named; the others run', async () => {
    const [good, bad] = rulesOf(
      denied,
      `{title: R, name: r, logsource: {product: istio}, detection: {s: {path|re: x}, condition: s}}`,
    )
    if (good === undefined || bad === undefined) throw new Error('the rules did not load')
    // A pattern that the check at load lets pass.
    const item = bad.detections.get('s')
    if (item?.kind !== 'item') throw new Error('no item')
    const broken: Rule = {
      ...bad,
      detections: new Map([
        [
          's',
          {
            kind: 'item',
            item: { ...item.item, matches: [{ kind: 'regex', pattern: '(', flags: '' }] },
          },
        ],
      ]),
    }
    const detector = await Detector.create([broken, good], query)
    expect(detector.ruleCount).toBe(1)
    expect(detector.problems.map((problem) => problem.message).join()).toContain('missing )')
    expect((await detector.detect(query, 'events', 0, 100)).length).toBe(2)
  })

  test('a log source that is not captured here is a warning', async () => {
    const rules = rulesOf(
      `{title: W, logsource: {product: windows}, detection: {s: {Image: x}, condition: s}}`,
    )
    const detector = await Detector.create(rules, query)
    expect(detector.ruleCount).toBe(0)
    expect(detector.problems.map((p) => `${p.severity} ${p.message}`)).toEqual([
      'warning the log source (product windows) is not captured here: the rule does not run',
    ])
  })
})

async function hashOf(...texts: readonly string[]): Promise<string> {
  return (await Detector.create(rulesOf(...texts), query)).hash
}

test('columns of type JSON are compared as text, and keywords are looked for in them', async () => {
  await query(
    `CREATE VIEW typed AS SELECT * REPLACE (CAST(NULL AS JSON) AS change, CAST('{"k":"a word"}' AS JSON) AS attributes) FROM events`,
  )
  const rules = rulesOf(
    `{title: K, name: k, logsource: {product: istio}, detection: {s: [a word], condition: s}}`,
    `{title: T, name: t, logsource: {product: istio}, detection: {s: {attributes: not json}, u: {attributes|contains: word}, condition: u and not s}}`,
    `{title: J, name: j, logsource: {product: istio}, detection: {s: {k: a word}, condition: s}}`,
  )
  const detector = await Detector.create(rules, query)
  const findings = await detector.detect(query, 'typed', 5, 5)
  expect(findings.map((finding) => finding.ruleId)).toEqual(['j', 'k', 't'])
})

describe('the hash of a rule set', () => {
  test('does not depend on order or layout, but on every change of meaning', async () => {
    const hash = await hashOf(denied, admin)
    expect(hash).toMatch(/^[0-9a-f]{64}$/)
    expect(await hashOf(admin, denied)).toBe(hash)
    expect(await hashOf(denied.replace('{title', '{  description: d, title'), admin)).toBe(hash)
    expect(await hashOf(denied.replace('verdict: denied', 'verdict: allowed'), admin)).not.toBe(
      hash,
    )
    expect(await hashOf(denied.replace('level: high', 'level: low'), admin)).not.toBe(hash)
    expect(await hashOf(denied)).not.toBe(hash)
  })
})

describe('a finding as an event', () => {
  test('carries the matched event in columns, attributes and raw line', async () => {
    const detector = await Detector.create(rulesOf(denied), query)
    const [, finding] = await detector.detect(query, 'events', 0, 100)
    if (finding === undefined) throw new Error('no finding')
    const event = findingEvent(finding, 'node-1', 1_795_168_800_000_000)
    // No verdict of its own: counting denials must not count findings about them.
    expect(event).toMatchObject({
      source: 'meshtrail',
      kind: 'finding',
      ts: null,
      observed_ts: 1_795_168_800_000_000,
      verdict: null,
      policy: null,
      principal: null,
      gen: '',
      ranges: [],
    })
    expect(JSON.parse(event.attributes ?? '')).toMatchObject({
      kind: 'finding',
      rule_id: 'b',
      rule_title: 'Denied',
      level: 'high',
      tags: ['attack.t1190'],
      event: 'node-1@7',
      event_time_us: 1795168799123456,
      event_source: 'istio.access',
      event_kind: 'request',
      rule_set: detector.hash,
      matched: {
        verdict: 'denied',
        policy: 'prod/deny',
        principal: 'spiffe://td/ns/a/sa/b',
        status: 403,
        path: '/admin/x',
      },
    })
    const raw = new TextDecoder().decode(event.rawBuffer.subarray(event.rawStart, event.rawEnd))
    expect(raw).toBe(event.attributes ?? '')
    expect(Object.keys(event)).toEqual(
      Object.keys(findingEvent({ ...finding, summary: {} }, 'x', 1)),
    )
  })
})
