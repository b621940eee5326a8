/** The files under test: built once, again when a source is newer. Never the sources themselves. */

import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { build } from '../../dist/build.ts'

const root = join(import.meta.dir, '../..')
const mainEntry = join(root, 'agent/main.ts')
const selfCheckEntry = join(import.meta.dir, 'self-check-program.ts')

/** The program itself; before it exists, the smallest one with the same two commands. */
export async function meshtrailBinary(): Promise<string> {
  if (!existsSync(mainEntry)) return selfCheckBinary()
  return built(mainEntry, join(root, 'dist/bin/meshtrail'))
}

/** `self-check-program.ts`: `__selfcheck [data directory]`, anything else prints version and environment. */
export async function selfCheckBinary(): Promise<string> {
  return built(selfCheckEntry, join(root, 'dist/bin/self-check-program'))
}

async function built(entry: string, outfile: string): Promise<string> {
  if (!existsSync(outfile) || statSync(outfile).mtimeMs < newestSourceMs()) {
    await build({ target: 'linux-x64', entry, outfile })
  }
  return outfile
}

function newestSourceMs(): number {
  const files = ['package.json', 'bun.lock', 'dist/build.ts'].map((name) => join(root, name))
  for (const folder of ['agent', 'query', 'rules', 'test/packaging']) {
    const path = join(root, folder)
    if (!existsSync(path)) continue
    const names = readdirSync(path, { recursive: true, encoding: 'utf8' })
    files.push(
      ...names.filter((name) => !name.endsWith('.test.ts')).map((name) => join(path, name)),
    )
  }
  return Math.max(...files.filter((file) => existsSync(file)).map((file) => statSync(file).mtimeMs))
}

export type Ran = { readonly status: number; readonly stdout: string; readonly stderr: string }

/** Runs a command with exactly this environment (`env -i`) in this directory. */
export async function run(
  command: string[],
  options: { cwd: string; env?: Record<string, string> },
): Promise<Ran> {
  const child = Bun.spawn(command, {
    cwd: options.cwd,
    env: options.env ?? {},
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  return { status, stdout, stderr }
}

const selfCheckSchema = z.object({
  duckdb: z.string(),
  answer: z.string(),
  version: z.string(),
  library: z.string(),
})

/** What `__selfcheck` printed; fails with its standard error when it printed something else. */
export function checked(ran: Ran): z.infer<typeof selfCheckSchema> {
  if (ran.status !== 0) throw new Error(`self-check ended with ${ran.status}: ${ran.stderr}`)
  return selfCheckSchema.parse(JSON.parse(ran.stdout))
}
