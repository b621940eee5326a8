import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { matchLoadedRules } from '../../agent/detect/match.ts'
import { loadRules } from '../../rules/engine/load.ts'
import { shippedRules } from '../../rules/shipped.ts'

const root = join(import.meta.dir, '../..')
const files = readdirSync(join(root, 'rules'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.yml'))
  .map((file) => `rules/${file}`)
  .toSorted()
const loaded = loadRules(shippedRules)

const examplesSchema = z.object({
  match: z.array(z.looseObject({ source: z.string() })).min(1),
  nearMiss: z.array(z.looseObject({ source: z.string() })).min(1),
})

test('every rule file is shipped, as it lies in the folder', () => {
  expect(shippedRules.map((file) => file.path)).toEqual(files)
  for (const { path, text } of shippedRules)
    expect(text).toBe(readFileSync(join(root, path), 'utf8'))
})

test('no shipped rule has a problem, not even a warning', async () => {
  expect(loaded.problems).toEqual([])
  const { problems } = await matchLoadedRules(loaded.rules, [])
  expect(problems).toEqual([])
})

test('each says what an analyst needs', () => {
  const ids = new Set(loaded.rules.map((rule) => rule.id))
  expect(ids.size).toBe(files.length)
  for (const rule of loaded.rules) {
    expect(rule.level).toBeDefined()
    expect(rule.description?.length ?? 0).toBeGreaterThan(60)
    expect(rule.falsepositives.length).toBeGreaterThan(0)
    expect(rule.tags.some((tag) => tag.startsWith('attack.t'))).toBe(true)
  }
})

describe('examples', () => {
  for (const file of files) {
    const examples = examplesSchema.parse(
      JSON.parse(readFileSync(join(root, file.replace(/yml$/, 'test.json')), 'utf8')),
    )
    test(`${file} matches its ${examples.match.length} and none of its ${examples.nearMiss.length} near misses`, async () => {
      const rules = loaded.rules.filter((rule) => rule.at.file === file)
      const lines = [...examples.match, ...examples.nearMiss].map((event) => JSON.stringify(event))
      const matched: number[] = []
      const { matches } = await matchLoadedRules(rules, lines)
      for await (const match of matches) matched.push(match.event)
      expect(matched).toEqual([...examples.match.keys()])
    })
  }
})
