import { expect, test } from 'bun:test'
import { describeResult, killRepeatedly, problemsOf } from './kill.ts'
import { seedFrom } from './random.ts'

/** The full size is 200: `MESHTRAIL_KILLS=200`, or `bun test/faults/kill.ts --kills 200`. */
const kills = Number(process.env['MESHTRAIL_KILLS'] ?? 25)
const seed = seedFrom(process.env['MESHTRAIL_SEED'])

test(
  `${kills} times kill -9 under load with rotation loses nothing and repeats nothing (MESHTRAIL_SEED=${seed})`,
  async () => {
    const result = await killRepeatedly({ kills, seed })
    console.log(describeResult(result))
    expect(problemsOf(result)).toEqual([])
    expect(result.lines).toBeGreaterThan(kills * 100)
    expect(result.account.denied).toBe(Math.ceil(result.lines / 50))
  },
  120_000 + kills * 10_000,
)
