/**
 * Capture with everything on (tail, parse, leaves, commit, sign, rules, seal), against the floor of only
 * splitting and `JSON.parse`, over the same lines in the same run.
 *
 *   bun run bench [--lines 600000] [--repeat 3]
 *
 * Prints lines/s, CPU µs a line (user + system of the whole process) and peak memory. Machines are
 * noisy: compare the ratios, not the absolute figures.
 */
import { mkdirSync, mkdtempSync, openSync, closeSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { accessLine } from './lines.ts'

const { values } = parseArgs({
  options: {
    lines: { type: 'string', default: '600000' },
    repeat: { type: 'string', default: '3' },
  },
})
const lineCount = Number(values.lines)
const folder = mkdtempSync(join(tmpdir(), 'meshtrail-bench-'))
const file = join(folder, 'var/log/pods/prod_payments-6f5b9c7d88-lm4tn_uid/istio-proxy/0.log')

const resultSchema = z.object({
  seconds: z.number(),
  cpuUs: z.number(),
  peakBytes: z.number(),
  lines: z.number(),
})
type Result = z.infer<typeof resultSchema>

function writeInput(): number {
  mkdirSync(dirname(file), { recursive: true })
  const fd = openSync(file, 'w')
  let bytes = 0
  for (let from = 0; from < lineCount; from += 10_000) {
    let text = ''
    for (let number = from; number < Math.min(from + 10_000, lineCount); number++) {
      text += accessLine(number)
    }
    bytes += writeSync(fd, text)
  }
  closeSync(fd)
  return bytes
}

/** Each measurement in a process of its own, so that peak memory is its own too. */
async function measure(mode: 'floor' | 'capture'): Promise<Result> {
  const data = join(folder, 'data')
  rmSync(data, { recursive: true, force: true })
  const child = Bun.spawn(
    [process.execPath, join(import.meta.dir, 'measured.ts'), mode, file, data],
    { stdout: 'pipe', stderr: 'inherit' },
  )
  const text = await new Response(child.stdout).text()
  if ((await child.exited) !== 0) throw new Error(`${mode} failed`)
  return resultSchema.parse(JSON.parse(text))
}

function median(results: readonly Result[]): Result {
  const sorted = results.toSorted((a, b) => a.cpuUs - b.cpuUs)
  const middle = sorted[Math.floor(sorted.length / 2)]
  if (middle === undefined) throw new Error('BUG: no result')
  return middle
}

function row(name: string, { seconds, cpuUs, peakBytes, lines }: Result): string {
  const rate = Math.round(lines / seconds).toLocaleString('en-US')
  const cpu = (cpuUs / lines).toFixed(2)
  return `${name.padEnd(10)} ${rate.padStart(10)} lines/s  ${cpu.padStart(6)} µs CPU/line  ${(peakBytes / 2 ** 20).toFixed(0).padStart(4)} MiB peak`
}

try {
  const bytes = writeInput()
  console.log(
    `${lineCount.toLocaleString('en-US')} lines of ${Math.round(bytes / lineCount)} bytes (CRI wrapper included), median of ${values.repeat}`,
  )
  const floors: Result[] = []
  const captures: Result[] = []
  for (let round = 0; round < Number(values.repeat); round++) {
    floors.push(await measure('floor'))
    captures.push(await measure('capture'))
  }
  const floor = median(floors)
  const capture = median(captures)
  console.log(row('floor', floor))
  console.log(row('capture', capture))
  console.log(
    `capture costs ${(capture.cpuUs / floor.cpuUs).toFixed(2)} times the floor; on one core ${Math.round(1e6 / (capture.cpuUs / capture.lines)).toLocaleString('en-US')} lines/s`,
  )
} finally {
  rmSync(folder, { recursive: true, force: true })
}
