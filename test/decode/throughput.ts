/**
 * How fast chunks become lines, on one core: `bun test/decode/throughput.ts`. Chunks of 256 KiB of lines
 * of 960 bytes with their terminator, each in a buffer of its own, as the reader hands them over.
 */

import { Decoder } from '../../agent/decode/decoder.ts'

const at = '2026-11-20T09:12:31.004512345Z'
const body = '{"authority":"productpage:9080","path":"/productpage?u=1","x":"'.padEnd(
  957,
  'abc def ',
)
const docker = (text: string): string =>
  JSON.stringify({ log: `${text}\n`, stream: 'stdout', time: at })

const kinds: Record<string, string> = {
  plain: `${body}"}`,
  cri: `${at} stdout F ${body.slice(0, 916)}"}`,
  'plain, not ASCII': `${body.replace('abc', 'äc')}"}`,
  'cri, not ASCII': `${at} stdout F ${body.slice(0, 916).replace('abc', 'äc')}"}`,
  docker: docker(body.slice(0, 850)),
}

for (const [name, line] of Object.entries(kinds)) {
  const source = Buffer.from(`${line}\n`.repeat(Math.floor((256 * 1024) / (line.length + 1))))
  let best = 0
  for (let round = 0; round < 6; round++) {
    const decoder = new Decoder('bench')
    let count = 0
    let spentMs = 0
    for (let i = 0; i < 800; i++) {
      const chunk = Buffer.allocUnsafeSlow(source.length)
      source.copy(chunk)
      const out = { lines: [], gaps: [] }
      const start = performance.now()
      decoder.decode(chunk, 0, chunk.length, 0, 'bench', out)
      spentMs += performance.now() - start
      count += out.lines.length
    }
    best = Math.max(best, count / spentMs / 1000)
  }
  const bytes = Math.round(source.length / Math.floor((256 * 1024) / (line.length + 1)))
  process.stdout.write(`${name}: ${best.toFixed(2)} M lines/s of ${bytes} bytes\n`)
}
