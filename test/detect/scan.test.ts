import { expect, test } from 'bun:test'
import { openMemory, queryOf, rawTarget } from '../../agent/detect/match.ts'
import { compileRuleSet, scan, scanSql } from '../../agent/detect/scan.ts'
import { ruleOf } from './rule-under-test.ts'

const options = { relation: 'batch', indexColumn: 'leaf_index', columns: [] }

test('a field inside JSON is read once for each row, however many rules ask for it', async () => {
  const connection = await (await openMemory()).connect()
  const query = queryOf(connection)
  await query(
    `CREATE TABLE batch AS SELECT range AS leaf_index, '{"a":{"b":"x' || range || '"}}' AS event, '[]' AS scalars FROM range(5000)`,
  )
  const extractions: number[] = []
  for (const count of [2, 40]) {
    const rules = Array.from({ length: count }, (_, index) =>
      ruleOf(
        {
          s: { 'a.b|endswith': `x${index}` },
          t: { 'a.b|contains': 'y' },
          condition: 's and not t',
        },
        `r${index}`,
      ),
    )
    const set = await compileRuleSet(rules, rawTarget, query)
    const all = set.active.map((_, number) => number)
    const drawn = await query(`EXPLAIN ${scanSql(set, all, options)}`)
    const plan = drawn.map((row) => String(row['explain_value'])).join('')
    // The plan is drawn in boxes, which break words.
    extractions.push(plan.replaceAll(/[^a-z_]/g, '').split('json_type').length)
    const hits = await scan(query, set, options)
    expect(hits[0]).toMatchObject({ index: 0, rules: [0] })
    expect(hits.length).toBe(count)
  }
  connection.closeSync()
  // The plan names what a projection computes and spells out what a filter does: a test that was
  // pushed down into a filter would show here, with the reading of the field in it.
  expect(extractions).toEqual([1, 1])
})
