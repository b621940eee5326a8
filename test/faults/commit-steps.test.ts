import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { accountOf, nothingWrong, verifyDirectory } from './account.ts'
import { criLine } from './lines.ts'

const lineCount = 400
const steps = [
  'part-synced',
  'part-renamed',
  'tiles-written',
  'checkpoint-staged',
  'head-staged',
  'head-renamed',
  'checkpoint-renamed',
  'segment-synced',
  'segment-renamed',
  'manifest-staged',
  'manifest-renamed',
  'seal-head-renamed',
] as const

let folder: string
let file: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'meshtrail-steps-'))
  file = join(folder, 'var/log/pods/prod_payments-1_uid-1/istio-proxy/0.log')
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, Array.from({ length: lineCount }, (_, number) => criLine(number)).join(''))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

async function runAgent(data: string, step: string, nth: number): Promise<number | null> {
  const child = Bun.spawn(
    [process.execPath, join(import.meta.dir, 'dying-agent.ts'), data, file, step, String(nth)],
    { stdout: 'ignore', stderr: 'pipe' },
  )
  const complaints = await new Response(child.stderr).text()
  await child.exited
  if (child.signalCode === null && child.exitCode !== 0) throw new Error(complaints)
  return child.exitCode
}

describe('kill -9 at each step of commit and seal', () => {
  for (const step of steps) {
    // The first time the log is new; later ones find parts, tiles and heads to get wrong.
    const occasions = steps.indexOf(step) < 7 ? [1, 4] : [1]
    for (const nth of occasions) {
      test(`after ${step}, time ${nth}: nothing lost, nothing twice, and it verifies`, async () => {
        const data = join(folder, `${step}-${nth}`)
        expect(await runAgent(data, step, nth)).not.toBe(0)
        // What a crash leaves is unfinished at worst, never taken for forgery.
        const crashed = await verifyDirectory(data)
        expect(crashed.complaints.filter((complaint) => complaint.severity === 'forged')).toEqual(
          [],
        )
        expect(await runAgent(data, 'none', 1)).toBe(0)
        expect(await accountOf(data, lineCount)).toMatchObject(nothingWrong)
        const verification = await verifyDirectory(data)
        expect([verification.verdict, verification.complaints]).toEqual(['verified', []])
      }, 30_000)
    }
  }

  test('a second crash while recovering from the first changes nothing', async () => {
    const data = join(folder, 'twice')
    for (const step of ['part-renamed', 'tiles-written', 'head-staged', 'head-renamed']) {
      expect(await runAgent(data, step, 1)).not.toBe(0)
    }
    expect(await runAgent(data, 'none', 1)).toBe(0)
    expect(await accountOf(data, lineCount)).toMatchObject(nothingWrong)
    expect((await verifyDirectory(data)).complaints).toEqual([])
  }, 30_000)
})
