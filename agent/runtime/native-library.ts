/**
 * Gives the compiled program its DuckDB: finds a place for the embedded libraries on first use, checks
 * them, loads them.
 *
 * Promises that nothing is unpacked or loaded until something of DuckDB is used, and that nothing is
 * loaded whose hash differs from the one the build recorded. Runs from source never come here: they use
 * the package in `node_modules`.
 */

import { homedir, tmpdir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { systemClock } from '../clock.ts'
import { messageOf, OpsError } from '../errors.ts'
import { loadFromMemory } from './memory-library.ts'
import { type EmbeddedFile, unpackInto } from './unpack.ts'

/** Where the loaded library lives: in `path` below the cache directory `parent`, or in this process's own memory. */
export type NativeLocation =
  | { readonly kind: 'directory'; readonly path: string; readonly parent: string }
  | { readonly kind: 'memory'; readonly refused: readonly string[] }

let configuredDirectory: string | undefined
let location: NativeLocation | undefined

/**
 * Names the directory the program would like its libraries unpacked to, such as `<data>/cache`. Created
 * when needed. Too late, and without effect, once DuckDB has been used; without effect from source.
 */
export function setNativeCacheDirectory(directory: string): void {
  configuredDirectory = directory
}

/**
 * Where DuckDB was loaded from, or undefined when it has not been used yet or runs from source. A child
 * process started with `MESHTRAIL_CACHE_DIR` set to `parent` finds the same copy, and needs no more
 * than to list and read that directory.
 */
export function nativeLocation(): NativeLocation | undefined {
  return location
}

/** Candidate directories, best first. */
export function cacheDirectories(
  environment: Readonly<Record<string, string | undefined>>,
  configured: string | undefined,
  homeDirectory: string,
  temporary: string,
): string[] {
  const xdg = environment['XDG_CACHE_HOME']
  const cache = xdg !== undefined && isAbsolute(xdg) ? xdg : join(homeDirectory, '.cache')
  const candidates = [
    environment['MESHTRAIL_CACHE_DIR'],
    configured,
    isAbsolute(cache) ? join(cache, 'meshtrail') : undefined,
    temporary,
  ]
  return candidates.filter(
    (directory): directory is string => directory !== undefined && directory !== '',
  )
}

/** Objects DuckDB's TypeScript layer copies while it is imported, before anybody uses DuckDB. */
const copiedOnImport = ['ResultType', 'StatementType']
/** A number it branches on while it is imported: the same on every target, and checked when the library is loaded. */
const boolBytes = 1

/**
 * An object that turns into the addon's exports when one of them is first read.
 *
 * It starts empty on top of a proxy; loading copies the exports into it and takes the proxy away, so
 * that later reads cost what they cost on any object.
 *
 * @param files libraries in the order of their dependencies; the last one is the Node-API addon
 */
export function lazyBinding(files: readonly EmbeddedFile[]): object {
  const fillers: ((exports: object) => void)[] = []
  const facade = (
    pick: (exports: object) => unknown,
    early: ReadonlyMap<string, unknown> = new Map(),
  ): object => {
    const hollow = new Proxy(
      {},
      {
        get(_target, name): unknown {
          // Module loaders and promises ask these of anything they are handed.
          if (typeof name === 'symbol' || name === 'then' || name === '__esModule') return undefined
          const known = early.get(name)
          if (known !== undefined) return known
          const loaded = loadLibraries(files)
          if (Reflect.get(loaded, 'sizeof_bool') !== boolBytes) {
            throw new Error(
              'BUG: DuckDB and its TypeScript layer disagree on the size of a boolean',
            )
          }
          for (const fill of fillers) fill(loaded)
          const value: unknown = Reflect.get(object, name)
          return value
        },
      },
    )
    const object = {}
    Object.setPrototypeOf(object, hollow)
    fillers.push((exports) => {
      const source = pick(exports)
      if (typeof source !== 'object' || source === null) return
      Object.setPrototypeOf(object, Object.prototype)
      Object.defineProperties(object, Object.getOwnPropertyDescriptors(source))
      // The functions' native data is freed with the exports object they came on: copied functions
      // must keep it alive, or the first garbage collection leaves them pointing at nothing.
      Object.defineProperty(object, Symbol('exports'), { value: exports })
    })
    return object
  }
  const early = new Map<string, unknown>([['sizeof_bool', boolBytes]])
  for (const name of copiedOnImport) {
    early.set(
      name,
      facade((exports): unknown => Reflect.get(exports, name)),
    )
  }
  return facade((exports) => exports, early)
}

function loadLibraries(files: readonly EmbeddedFile[]): object {
  const refused: string[] = []
  const candidates = cacheDirectories(process.env, configuredDirectory, home(), tmpdir())
  for (const parent of candidates) {
    try {
      return loadFromDirectory(parent, files)
    } catch (error) {
      // Not ours, full, read-only, or mounted without exec: the next place may do.
      refused.push(`${parent}: ${messageOf(error)}`)
    }
  }
  try {
    const exports = loadFromMemory(files)
    location = { kind: 'memory', refused }
    return exports
  } catch (error) {
    refused.push(`memory: ${messageOf(error)}`)
    throw new OpsError(
      'disk',
      `no place to load the database library from: ${refused.join('; ')}`,
      {
        hint: 'Set MESHTRAIL_CACHE_DIR to a directory this user can write to, on a file system mounted without noexec.',
        cause: error,
      },
    )
  }
}

/** The home directory, or nothing: a container's user often has no entry in a password file. */
function home(): string {
  try {
    return homedir()
  } catch {
    return ''
  }
}

function loadFromDirectory(parent: string, files: readonly EmbeddedFile[]): object {
  const addon = files.at(-1)
  if (addon === undefined) throw new Error('BUG: no embedded library')
  const unpacked = unpackInto(parent, files, systemClock.nowUs() / 1000)
  try {
    const module: { exports: object } = { exports: {} }
    // The addon finds its library beside itself (RUNPATH $ORIGIN), that is through the same descriptor.
    process.dlopen(module, join(unpacked.through, addon.name))
    location = { kind: 'directory', path: unpacked.path, parent }
    return module.exports
  } finally {
    unpacked.close()
  }
}
