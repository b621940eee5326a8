/** What the tests start as `<bun> worker-entry.ts __query`: the child and nothing around it. */
import { runQueryWorker } from '../../query/worker.ts'

if (process.argv[2] !== '__query') throw new Error(`started as ${process.argv.join(' ')}`)
await runQueryWorker()
