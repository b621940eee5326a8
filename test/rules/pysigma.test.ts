import { describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { loadRules } from '../../rules/engine/load.ts'
import { predicateOf } from '../../rules/engine/predicate.ts'
import { pysigmaTree } from './pysigma-tree.ts'
import { hasVectors, readText, tallied, tally } from './vectors.ts'

const lineSchema = z.object({
  path: z.string(),
  doc: z.number(),
  conditions: z.array(z.unknown()).optional(),
  error: z.string().optional(),
})

describe.skipIf(!hasVectors)('the 4,041 documents of SigmaHQ', () => {
  test('each is the tree that pySigma makes of it, or refused with a reason', async () => {
    const expected = new Map<string, z.infer<typeof lineSchema>[]>()
    for (const line of (await readText('vectors/pysigma-ast.jsonl')).trim().split('\n')) {
      const parsed = lineSchema.parse(JSON.parse(line))
      expected.set(parsed.path, [...(expected.get(parsed.path) ?? []), parsed])
    }
    const later = new Map<string, number>()
    const unexplained: string[] = []
    let documents = 0
    let same = 0
    let refusedByBoth = 0
    for (const [path, lines] of expected) {
      const loaded = loadRules([{ path, text: await readText(`sigmahq/${path}`) }])
      documents += loaded.documentCount
      const errors = loaded.problems.filter((problem) => problem.severity === 'error')
      if (loaded.documentCount !== lines.length)
        unexplained.push(`${path}: ${loaded.documentCount}`)
      if (lines.every((line) => line.error !== undefined) && loaded.rules.length === 0) {
        refusedByBoth += lines.length
        continue
      }
      const [rule] = loaded.rules
      if (rule === undefined) {
        const feature = errors.find((problem) => problem.feature !== undefined)?.feature
        const [reason] = errors
        if (feature !== undefined) tally(later, feature)
        else if (reason?.message.startsWith('timeframe') === true)
          tally(later, 'timeframe (version 1)')
        else unexplained.push(`${path}: ${reason?.message}`)
        continue
      }
      const isSame = Bun.deepEquals([pysigmaTree(predicateOf(rule))], lines[0]?.conditions)
      if (isSame) same++
      else unexplained.push(`${path}: another tree`)
    }
    console.log(
      `SigmaHQ: ${documents} documents, ${same} as pySigma, ${refusedByBoth} refused by both; ` +
        `not supported yet: ${tallied(later)}`,
    )
    expect(unexplained).toEqual([])
    expect(documents).toBe(4041)
    expect(refusedByBoth).toBe(64)
    expect(same).toBeGreaterThanOrEqual(3848)
  }, 30_000)
})
