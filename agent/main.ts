/** Arguments to a command, its result to an exit status; nothing else. */
import { CommanderError } from 'commander'
import { createProgram } from './commands/program.ts'
import { describeFailure } from './commands/output.ts'
import { exitStatus, OpsError } from './errors.ts'

async function main(argv: readonly string[]): Promise<number> {
  const program = createProgram()
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return Number(process.exitCode ?? exitStatus.ok)
  } catch (thrown) {
    if (thrown instanceof CommanderError) {
      // Commander has written its message, or the help that was asked for.
      return thrown.exitCode === 0 ? exitStatus.ok : exitStatus.usage
    }
    if (!(thrown instanceof OpsError)) throw thrown
    process.stderr.write(describeFailure(thrown, process.stderr))
    return thrown.exitStatus
  }
}

// Whoever closes the pipe early (`| head`) has what they wanted.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(exitStatus.ok)
  process.stderr.write(`error: the result cannot be written: ${error.message}\n`)
  process.exit(exitStatus.disk)
})

/** Resolves when the reader has everything: a pipe takes 64 KiB at a time, and exiting drops the rest. */
function written(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    stream.end(() => resolve())
  })
}

const status = await main(process.argv.slice(2))
await Promise.all([written(process.stdout), written(process.stderr)])
process.exit(status)
