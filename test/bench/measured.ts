/** What `capture.ts` measures, in a process of its own: `bun measured.ts floor|capture <file> <data>`. */
import { readFileSync, readSync, openSync } from 'node:fs'
import { systemClock } from '../../agent/clock.ts'
import { defaultConfig } from '../../agent/config.ts'
import { openNode } from '../../agent/node.ts'
import { runPipeline, sourceOf } from '../../agent/pipeline.ts'
import { provenanceOf } from '../../agent/tail/provenance.ts'
import { readToEnd } from '../../agent/tail/read-to-end.ts'

const [mode = '', file = '', data = ''] = process.argv.slice(2)

/** Split into lines, take the wrapper's place off, `JSON.parse`: what nothing can do without. */
function floor(): number {
  const fd = openSync(file, 'r')
  const buffer = Buffer.allocUnsafe(256 * 1024)
  let rest = ''
  let lines = 0
  for (;;) {
    const length = readSync(fd, buffer, 0, buffer.length, null)
    if (length === 0) return lines
    const text = rest + buffer.toString('latin1', 0, length)
    let from = 0
    for (let end = text.indexOf('\n', from); end >= 0; end = text.indexOf('\n', from)) {
      JSON.parse(text.slice(text.indexOf('{', from), end))
      lines++
      from = end + 1
    }
    rest = text.slice(from)
  }
}

async function capture(): Promise<number> {
  const defaults = defaultConfig('bench')
  await using node = await openNode({
    config: { ...defaults, data: { path: data, bytesMax: { kind: 'bytes', bytes: 2 ** 40 } } },
    onProblem: (problem) => console.error(problem),
  })
  // From here on: starting up is not part of what a line costs.
  startedMs = performance.now()
  before = process.cpuUsage()
  const chunks = readToEnd([{ path: file, provenance: provenanceOf(file) }], {
    cursors: node.store.cursors,
    clock: systemClock,
    onProblem: (problem) => console.error(problem.message),
  })
  await runPipeline(node.agent, sourceOf(chunks), systemClock, new AbortController().signal)
  const { lines } = node.agent.counters
  await node.agent.close('bench')
  return lines
}

/** Both are set anew once everything is open. */
let startedMs = performance.now()
let before = process.cpuUsage()
const lines = mode === 'floor' ? floor() : await capture()
const { user, system } = process.cpuUsage(before)
const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
console.log(
  JSON.stringify({
    seconds: (performance.now() - startedMs) / 1000,
    cpuUs: user + system,
    peakBytes: Number(peak) * 1024,
    lines,
  }),
)
