/** The built binary as somebody at a prompt runs it: arguments in, exit status and both streams out. */
import { join } from 'node:path'
import { type Ran, meshtrailBinary } from '../packaging/built-binary.ts'

export type CommandOptions = {
  readonly cwd?: string
  readonly stdin?: string | Uint8Array
  /** Added to an environment that holds nothing else but `PATH` and where DuckDB is unpacked. */
  readonly env?: Readonly<Record<string, string>>
  /** What the binary is started through, such as `setpriv --reuid 12345`. */
  readonly through?: readonly string[]
  /** Called when the process runs: to send it signals. */
  readonly onStart?: (child: Bun.Subprocess) => void
}

/** One unpacked copy of DuckDB for every test: 70 MB for each data directory would be wasted on them. */
const cacheDirectory = join(import.meta.dir, '../../dist/bin/test-cache')

/** What the agent and its commands see of the environment. */
export function testEnvironment(): Record<string, string> {
  return { PATH: '/usr/bin:/bin', MESHTRAIL_CACHE_DIR: cacheDirectory, NO_COLOR: '1' }
}

/** Runs `meshtrail <args>` to its end. */
export async function meshtrail(
  args: readonly string[],
  { cwd, stdin, env, through = [], onStart }: CommandOptions = {},
): Promise<Ran> {
  const child = Bun.spawn([...through, await meshtrailBinary(), ...args], {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...testEnvironment(), ...env },
    stdin: stdin === undefined ? 'ignore' : new Blob([new Uint8Array(Buffer.from(stdin))]),
    stdout: 'pipe',
    stderr: 'pipe',
  })
  onStart?.(child)
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  return { status, stdout, stderr }
}

/** As `meshtrail`, for commands that must do what they are told: anything but exit status 0 throws. */
export async function meshtrailOk(
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const { status, stdout, stderr } = await meshtrail(args, options)
  if (status !== 0) throw new Error(`meshtrail ${args.join(' ')} ended with ${status}:\n${stderr}`)
  return stdout
}
