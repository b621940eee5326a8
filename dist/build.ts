/**
 * Builds the single file that is shipped: program, Bun runtime and DuckDB in one executable.
 *
 *   bun run build                            dist/bin/meshtrail             (linux-x64)
 *   bun run build --target linux-arm64       dist/bin/meshtrail-linux-arm64 (cross-compiled)
 *   bun run build --all
 *
 * Everything that goes in is pinned: the runtime by SHA-256, DuckDB by version and by the integrity in
 * `bun.lock`. The same sources give the same bytes. What this machine does not have is fetched from the
 * npm registry with `bun install`, and from nowhere else.
 *
 * It does not sign anything, and it does not run what it built for another architecture.
 */

import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { exitStatus, OpsError } from '../agent/errors.ts'
import type { EmbeddedFile } from '../agent/runtime/unpack.ts'

export type TargetName = 'linux-x64' | 'linux-arm64'

type Target = {
  readonly name: TargetName
  readonly outfile: string
  /** As npm and `process.arch` spell it. */
  readonly cpu: 'x64' | 'arm64'
  /** `e_machine` of an ELF file for this target. */
  readonly machine: number
  readonly runtime: {
    readonly package: string
    readonly integrity: string
    readonly sha256: string
  }
  readonly nativePackage: string
}

const root = join(import.meta.dir, '..')
const bunVersion = '1.4.5'

export const targets: Readonly<Record<TargetName, Target>> = {
  'linux-x64': {
    name: 'linux-x64',
    outfile: join(root, 'dist/bin/meshtrail'),
    cpu: 'x64',
    machine: 0x3e,
    runtime: {
      package: '@oven/bun-linux-x64',
      integrity:
        'sha512-IWX9BELoGHAUtMonkeSaNaZwXzRk+oDw6Mk+HBFXd3KHYIBNBsIGRupMZPcgNoDbJpLu6gAJjIoIVPZtt1aJ1g==',
      sha256: 'f05d28a3862f4b84395c7fa32480b835dd47482e80b7e7a49a115227f0c06083',
    },
    nativePackage: '@duckdb/node-bindings-linux-x64',
  },
  'linux-arm64': {
    name: 'linux-arm64',
    outfile: join(root, 'dist/bin/meshtrail-linux-arm64'),
    cpu: 'arm64',
    machine: 0xb7,
    runtime: {
      package: '@oven/bun-linux-aarch64',
      integrity:
        'sha512-4BXmsSKnjOrlGWqZV4x/oWa7AVoR+B6lCXddMzOAXBIm3t50eslg9wb66gmtW1AamEQ1l1CDvmmruysEhqOWMg==',
      sha256: '04778f1f42399a69d086853e9c7af4acf574b2f21a43d0dc673853d8b84a2923',
    },
    nativePackage: '@duckdb/node-bindings-linux-arm64',
  },
}

/** In the order of their dependencies: the addon needs the library. */
const nativeFileNames = ['libduckdb.so', 'duckdb.node']

/**
 * Environment variables through which a stock runtime lets whoever sets them turn the program into
 * something else: a plain `bun`, one with other flags or a preloaded script, one that listens for a
 * debugger or reports its crashes to an address. No build option switches these off, so their names are
 * made unfindable in the copy of the runtime that goes into the binary: a name that starts with NUL
 * cannot be in an environment.
 */
export const disabledVariables = [
  'BUN_BE_BUN',
  'BUN_OPTIONS',
  'BUN_INSPECT',
  'BUN_CRASH_REPORT_URL',
  'BUN_ENABLE_CRASH_REPORTING',
] as const

export type BuildRequest = {
  readonly target: TargetName
  /** Default `agent/main.ts`. */
  readonly entry?: string
  readonly outfile?: string
  /** Default: the version of `@duckdb/node-bindings` that is installed. */
  readonly nativeVersion?: string
}

export type BuiltFile = {
  readonly outfile: string
  readonly bytes: number
  readonly sha256: string
  readonly version: string
  readonly commit: string
  readonly native: readonly EmbeddedFile[]
  /** What a release should not pass over: a package whose hash was not known beforehand. */
  readonly warnings: readonly string[]
}

/**
 * Builds one target.
 *
 * @throws {OpsError} `unreachable` when a package is neither here nor in the registry, `forged` when it
 *   is not the one that was pinned, `corrupt_input` when the bundler refuses the sources
 */
export async function build(request: BuildRequest): Promise<BuiltFile> {
  const target = targets[request.target]
  const outfile = request.outfile ?? target.outfile
  const warnings: string[] = []
  mkdirSync(buildCache(), { recursive: true, mode: 0o700 })
  const work = mkdtempSync(join(buildCache(), 'work-'))
  mkdirSync(dirname(outfile), { recursive: true })
  const unfinishedDirectory = mkdtempSync(join(dirname(outfile), '.unfinished-'))
  try {
    const runtime = join(work, 'runtime')
    writeFileSync(runtime, withoutVariables(readFileSync(await runtimePath(target))), {
      mode: 0o755,
    })
    const nativeVersion = request.nativeVersion ?? installedNativeVersion()
    const nativeDirectory = await nativePath(target, nativeVersion, warnings)
    const native = nativeFileNames.map((name) => embeddedFile(nativeDirectory, name, target))
    const version = manifestSchema.parse(readJson(join(root, 'package.json'))).version
    const commit = checkedOutCommit(root)
    // Built beside its final place and renamed: who runs the old file keeps it, nobody sees half of one.
    // The file's own name goes into it, so that must not depend on the process.
    const unfinished = join(unfinishedDirectory, 'meshtrail')
    await bundle({
      entry: request.entry ?? join(root, 'agent/main.ts'),
      outfile: unfinished,
      target,
      runtime,
      native,
      define: {
        MESHTRAIL_VERSION: JSON.stringify(version),
        MESHTRAIL_COMMIT: JSON.stringify(commit),
      },
    })
    chmodSync(unfinished, 0o755)
    renameSync(unfinished, outfile)
    const bytes = readFileSync(outfile)
    requireMachine(bytes, target, outfile)
    return {
      outfile,
      bytes: bytes.length,
      sha256: sha256(bytes),
      version,
      commit,
      native,
      warnings,
    }
  } finally {
    rmSync(work, { recursive: true, force: true })
    rmSync(unfinishedDirectory, { recursive: true, force: true })
  }
}

type BundleRequest = {
  readonly entry: string
  readonly outfile: string
  readonly target: Target
  readonly runtime: string
  readonly native: readonly EmbeddedFile[]
  readonly define: Record<string, string>
}

async function bundle(request: BundleRequest): Promise<void> {
  const result = await Bun.build({
    entrypoints: [request.entry],
    root,
    target: 'bun',
    // Names stay: a stack trace in a bug report is worth more than the last 200 kB.
    minify: { whitespace: true, syntax: true, identifiers: false },
    define: request.define,
    env: 'disable',
    plugins: [nativePlugin(request.native)],
    compile: {
      target: `bun-${request.target.name}`,
      executablePath: request.runtime,
      outfile: request.outfile,
      autoloadDotenv: false,
      autoloadBunfig: false,
      autoloadTsconfig: false,
      autoloadPackageJson: false,
    },
    throw: false,
  })
  if (!result.success) {
    throw new OpsError('corrupt_input', result.logs.map(String).join('\n'), {
      hint: 'Run bun run typecheck; if that is clean, the bundler does not support what the message names.',
    })
  }
}

/**
 * Resolves `@duckdb/node-bindings` to the libraries embedded in the binary. Named exports stand in for
 * those DuckDB's TypeScript layer reads by name rather than through the default export; mixing in
 * `module.exports` breaks the bundle.
 */
function nativePlugin(files: readonly EmbeddedFile[]): Bun.BunPlugin {
  const loader = join(root, 'agent/runtime/native-library.ts')
  const readByName = [
    'double_to_hugeint',
    'double_to_uhugeint',
    'hugeint_to_double',
    'uhugeint_to_double',
  ]
  const contents = [
    ...files.map(
      (file, index) =>
        `import file${index} from ${JSON.stringify(file.source)} with { type: 'file' }`,
    ),
    `import { lazyBinding } from ${JSON.stringify(loader)}`,
    `const binding = lazyBinding([`,
    ...files.map(
      ({ name, bytes, sha256: hash }, index) =>
        `  { ...${JSON.stringify({ name, bytes, sha256: hash })}, source: file${index} },`,
    ),
    '])',
    'export default binding',
    ...readByName.map((name) => `export const ${name} = (value) => binding.${name}(value)`),
  ].join('\n')
  return {
    name: 'embedded DuckDB',
    setup(builder) {
      builder.onResolve({ filter: /^@duckdb\/node-bindings$/ }, () => ({
        path: 'libraries',
        namespace: 'embedded-duckdb',
      }))
      builder.onLoad({ filter: /^libraries$/, namespace: 'embedded-duckdb' }, () => ({
        contents,
        loader: 'js',
      }))
    },
  }
}

/** The runtime for a target: the one running now if it is the pinned one, else the registry's. */
async function runtimePath(target: Target): Promise<string> {
  const pinned = target.runtime
  if (sha256(readFileSync(process.execPath)) === pinned.sha256) return process.execPath
  const directory = await fetchPackage(pinned.package, bunVersion, target.cpu, pinned.integrity)
  const path = join(directory, 'bin/bun')
  const found = sha256(readFileSync(path))
  if (found !== pinned.sha256) {
    throw new OpsError(
      'forged',
      `${pinned.package} holds SHA-256 ${found}, expected ${pinned.sha256}`,
      {
        hint: 'Delete the build cache and build again; if it persists, do not use this registry.',
        detail: { path },
      },
    )
  }
  return path
}

/** The directory with DuckDB's libraries for a target: installed for this machine, else the registry's. */
async function nativePath(target: Target, version: string, warnings: string[]): Promise<string> {
  const name = target.nativePackage
  const installed = join(root, 'node_modules', name)
  if (existsSync(installed)) {
    const found = manifestSchema.parse(readJson(join(installed, 'package.json'))).version
    if (found === version) return installed
  }
  const pinned = lockedIntegrity(readFileSync(join(root, 'bun.lock'), 'utf8'), name, version)
  if (pinned === undefined) {
    warnings.push(
      `${name}@${version} is not in bun.lock: its integrity is what the registry stated on the first fetch`,
    )
  }
  return fetchPackage(name, version, target.cpu, pinned)
}

/**
 * Installs one package for another platform into the build cache, and returns its directory. The client
 * checks the tarball against the registry's integrity; this checks that integrity against the pinned one.
 */
async function fetchPackage(
  name: string,
  version: string,
  cpu: string,
  integrity: string | undefined,
): Promise<string> {
  const cache = join(buildCache(), `${name.replace('/', '+')}@${version}`)
  const directory = join(cache, 'node_modules', name)
  const lockPath = join(cache, 'bun.lock')
  if (!existsSync(lockPath) || !existsSync(join(directory, 'package.json'))) {
    rmSync(cache, { recursive: true, force: true })
    mkdirSync(cache, { recursive: true, mode: 0o700 })
    await Bun.write(
      join(cache, 'package.json'),
      JSON.stringify({ name: 'fetched', private: true, dependencies: { [name]: version } }),
    )
    const install = Bun.spawn(
      [process.execPath, 'install', '--cpu', cpu, '--os', 'linux', '--ignore-scripts'],
      { cwd: cache, stdout: 'ignore', stderr: 'pipe' },
    )
    const complaint = await new Response(install.stderr).text()
    if ((await install.exited) !== 0) {
      rmSync(cache, { recursive: true, force: true })
      throw new OpsError('unreachable', `cannot get ${name}@${version}: ${lastLines(complaint)}`, {
        hint: 'The registry must be reachable and carry exactly this version; another version of these libraries is not used in its place.',
      })
    }
  }
  const stated = lockedIntegrity(readFileSync(lockPath, 'utf8'), name, version)
  if (stated === undefined || (integrity !== undefined && stated !== integrity)) {
    throw new OpsError(
      'forged',
      `${name}@${version} has integrity ${stated ?? 'unknown'}, expected ${integrity ?? 'one in its lock file'}`,
      {
        hint: 'Delete the build cache and build again; if it persists, do not use this registry.',
        detail: { cache },
      },
    )
  }
  return directory
}

/** The integrity a `bun.lock` states for a package, if it lists exactly this version. */
export function lockedIntegrity(lock: string, name: string, version: string): string | undefined {
  for (const line of lock.split('\n')) {
    if (!line.includes(`["${name}@${version}"`)) continue
    return /"(sha512-[A-Za-z0-9+/=]+)"\]/.exec(line)?.[1]
  }
  return undefined
}

/**
 * A copy of the runtime in which no name of `disabledVariables` can be found.
 *
 * @throws {Error} `BUG:` when one does not occur: the pinned runtime has changed, and so may its switches
 */
export function withoutVariables(runtime: Uint8Array): Buffer {
  const copy = Buffer.from(runtime)
  for (const name of disabledVariables) {
    let at = copy.indexOf(name)
    if (at < 0) throw new Error(`BUG: the runtime does not contain ${name}`)
    for (; at >= 0; at = copy.indexOf(name, at + 1)) copy[at] = 0
  }
  return copy
}

function embeddedFile(directory: string, name: string, target: Target): EmbeddedFile {
  const source = join(directory, name)
  const bytes = readFileSync(source)
  requireMachine(bytes, target, source)
  return { name, source, bytes: bytes.length, sha256: sha256(bytes) }
}

/** `e_machine` of a little-endian 64-bit ELF file, or undefined when it is none. */
export function elfMachine(bytes: Uint8Array): number | undefined {
  const magic = [0x7f, 0x45, 0x4c, 0x46, 2, 1]
  if (bytes.length < 20 || magic.some((byte, index) => bytes[index] !== byte)) return undefined
  return (bytes[18] ?? 0) | ((bytes[19] ?? 0) << 8)
}

function requireMachine(bytes: Uint8Array, target: Target, path: string): void {
  const found = elfMachine(bytes)
  if (found === target.machine) return
  throw new OpsError(
    'corrupt_input',
    `${path} is for ELF machine ${found ?? 'none'}, ${target.name} needs ${target.machine}`,
    { hint: 'Delete the build cache and build again.' },
  )
}

const manifestSchema = z.object({ version: z.string() })
const nodeApiSchema = z.object({
  dependencies: z.object({ '@duckdb/node-bindings': z.string() }),
})

/** The one version of the libraries that the installed TypeScript layer was made for. */
function installedNativeVersion(): string {
  const manifest = readJson(join(root, 'node_modules/@duckdb/node-api/package.json'))
  return nodeApiSchema.parse(manifest).dependencies['@duckdb/node-bindings']
}

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'))
}

/**
 * The commit that is checked out, read from the files Git keeps, so that the build needs no Git. It says
 * nothing about changes that are not committed.
 */
export function checkedOutCommit(directory: string): string {
  const git = join(directory, '.git')
  const read = (name: string): string | undefined =>
    existsSync(join(git, name)) ? readFileSync(join(git, name), 'utf8').trim() : undefined
  try {
    const head = read('HEAD')
    const reference = head?.startsWith('ref: ') === true ? head.slice(5) : undefined
    const loose = reference === undefined ? head : read(reference)
    const packed = read('packed-refs')
      ?.split('\n')
      .find((line) => line.endsWith(` ${reference}`))
      ?.split(' ')[0]
    const commit = loose ?? packed ?? ''
    return /^[0-9a-f]{40,64}$/.test(commit) ? commit : 'unknown'
  } catch {
    return 'unknown'
  }
}

function buildCache(): string {
  const chosen = process.env['MESHTRAIL_BUILD_CACHE']
  if (chosen !== undefined && chosen !== '') return chosen
  return join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'meshtrail-build')
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function lastLines(text: string): string {
  return text.trim().split('\n').slice(-2).join(' ')
}

function describe(built: BuiltFile): string {
  return [
    describeFile(built.outfile, built.bytes, built.sha256),
    ...built.native.map((file) => describeFile(`  with ${file.name}`, file.bytes, file.sha256)),
    `meshtrail ${built.version}, commit ${built.commit}`,
    ...built.warnings.map((warning) => `warning: ${warning}`),
  ].join('\n')
}

function describeFile(name: string, bytes: number, hash: string): string {
  return `${(bytes / 1e6).toFixed(1).padStart(7)} MB  sha256 ${hash}  ${name}`
}

async function main(args: string[]): Promise<number> {
  try {
    const names = requested(args)
    for (const target of names) console.log(describe(await build({ target })))
    return exitStatus.ok
  } catch (error) {
    if (!(error instanceof OpsError)) throw error
    console.error(`build: ${error.message}\n${error.hint}`)
    return error.exitStatus
  }
}

function requested(args: string[]): TargetName[] {
  const known = Object.values(targets).map((target) => target.name)
  const wrong = (message: string): OpsError =>
    new OpsError('usage', message, {
      hint: `Usage: bun run build [--target ${known.join('|')}]… [--all]`,
    })
  let values: { target?: string[] | undefined; all?: boolean | undefined }
  try {
    const options = {
      target: { type: 'string', multiple: true },
      all: { type: 'boolean' },
    } as const
    values = parseArgs({ args, options }).values
  } catch (error) {
    throw wrong(error instanceof Error ? error.message : String(error))
  }
  if (values.all === true) return known
  return (values.target ?? ['linux-x64']).map((given) => {
    const found = known.find((name) => name === given)
    if (found === undefined) throw wrong(`no target ${given}`)
    return found
  })
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2))
