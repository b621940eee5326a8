/**
 * An import that kills itself: `bun dying-agent.ts <data> <file> <step> <nth>` sends itself SIGKILL
 * when the named step of commit or seal happens for the nth time. With step `none` it runs through.
 */
import { resolve } from 'node:path'
import { systemClock } from '../../agent/clock.ts'
import { defaultConfig } from '../../agent/config.ts'
import { openNode } from '../../agent/node.ts'
import { runPipeline } from '../../agent/pipeline.ts'
import { provenanceOf } from '../../agent/tail/provenance.ts'
import { readToEnd } from '../../agent/tail/read-to-end.ts'

const [data = '', file = '', step = '', nth = '1'] = process.argv.slice(2)
let left = Number(nth)
const defaults = defaultConfig('dying')
const node = await openNode({
  config: {
    ...defaults,
    data: { path: resolve(data), bytesMax: { kind: 'bytes', bytes: 1 << 30 } },
    rules: { shipped: true, paths: [] },
  },
  onProblem: (problem) => console.error(problem),
  step: (reached) => {
    if (reached === step && --left === 0) process.kill(process.pid, 'SIGKILL')
  },
})
const chunks = readToEnd([{ path: file, provenance: provenanceOf(file) }], {
  cursors: node.store.cursors,
  clock: systemClock,
  onProblem: (problem) => console.error(problem.message),
  // Small chunks, so that one file gives many commits.
  limits: { chunkBytesMax: 16 * 1024, lineBytesMax: 1 << 20, partsPerLineMax: 64 },
})
const { agent } = node
await runPipeline(
  agent,
  {
    next: async () => {
      await agent.commit()
      const { done, value } = await chunks.next()
      return done === true ? null : value
    },
  },
  systemClock,
  new AbortController().signal,
)
await agent.close('test')
await node[Symbol.asyncDispose]()
console.log(JSON.stringify({ size: node.store.size, vkey: node.store.identity.vkey }))
