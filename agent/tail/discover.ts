/**
 * Which files are followed: lists them, opens none.
 *
 * Only proxy and control-plane containers, audit logs and what the operator names are listed, each
 * with its rotated siblings. `*.tmp` files, which kubelet is still compressing, match nothing.
 */

import { lstatSync, readdirSync, realpathSync, type Stats } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { errnoOf, messageOf } from '../errors.ts'
import type { Provenance } from './chunk.ts'
import { readLogName } from './log-name.ts'
import { isBelow } from './open-file.ts'
import type { OnProblem } from './problem.ts'
import {
  defaultAuditPaths,
  defaultProvenanceRules,
  podLogOf,
  type ProvenanceRules,
  provenanceOf,
  readPodDirectory,
  trustOfContainer,
} from './provenance.ts'

/** Files the operator names. */
export type NamedFiles = {
  /** Absolute; `*`, `?`, `[…]`, `{…}` and `**` as in a shell. */
  readonly glob: string
  /** What the operator vouches for; absent: what the path says. */
  readonly trust?: Provenance['trust']
}

export type FollowConfig = ProvenanceRules & {
  /** Directories of `<namespace>_<pod>_<uid>/<container>/<n>.log`. */
  readonly podRoots: readonly string[]
  /** Globs of API server audit logs. */
  readonly auditPaths: readonly string[]
  readonly named: readonly NamedFiles[]
  /** Where symbolic links may lead, beside the roots: Docker keeps the files that /var/log/pods names. */
  readonly symlinkRoots: readonly string[]
}

export const defaultFollowConfig: FollowConfig = {
  ...defaultProvenanceRules,
  podRoots: ['/var/log/pods'],
  auditPaths: defaultAuditPaths,
  named: [],
  symlinkRoots: ['/var/lib/docker/containers'],
}

export type FoundFile = {
  /** As configured; may be a symbolic link. */
  readonly path: string
  /** Resolved: what to open. */
  readonly target: string
  readonly provenance: Provenance
  /** The path under which this content is, or was, written. */
  readonly livePath: string
  /** Which run of its container wrote it; null for files that belong to no container. */
  readonly run: { readonly directory: string; readonly restart: number } | null
  readonly rotated: boolean
  readonly gzip: boolean
  readonly dev: number
  readonly ino: number
  readonly size: number
  readonly mtimeMs: number
}

export type Listing = {
  /** Rotated files first, of each directory in the order of their names. */
  readonly files: readonly FoundFile[]
  /** Resolved directories below which files may be opened. */
  readonly roots: readonly string[]
  /** Directories (or globs) that could not be listed: what was below them may still be there. */
  readonly unlistable: readonly string[]
}

/** Lists everything that is to be followed now. Takes about 10 µs a file. */
export function listFiles(config: FollowConfig, onProblem: OnProblem): Listing {
  const listing = new Lister(config, onProblem)
  for (const root of config.podRoots) listing.addPods(root)
  for (const glob of config.auditPaths) listing.addNamed({ glob, trust: 'api_server' })
  for (const named of config.named) listing.addNamed(named)
  return listing.result()
}

/** Whether a path is one that `listFiles` would list if it existed. */
export function follows(config: FollowConfig, path: string): boolean {
  if (podLogOf(path) !== null && isBelow(path, config.podRoots)) return true
  const live = join(dirname(path), readLogName(basename(path)).live)
  const globs = [...config.auditPaths, ...config.named.map((named) => named.glob)]
  if (isBelow(path, config.symlinkRoots)) return true
  return globs.some((glob) => {
    const pattern = new Bun.Glob(glob)
    return pattern.match(path) || pattern.match(live)
  })
}

/** One listing in the making. */
class Lister {
  readonly #config: FollowConfig
  readonly #onProblem: OnProblem
  readonly #paths = new Map<string, string>()
  readonly #rotated: FoundFile[] = []
  readonly #live: FoundFile[] = []
  readonly #roots: string[]
  readonly #unlistable: string[] = []

  constructor(config: FollowConfig, onProblem: OnProblem) {
    this.#config = config
    this.#onProblem = onProblem
    this.#roots = config.symlinkRoots.map((root) => resolved(root) ?? root)
  }

  addPods(root: string): void {
    const real = resolved(root)
    if (real !== null) this.#roots.push(real)
    // A root that does not exist is a mount that is missing, not a node without pods.
    for (const podName of this.#list(root, true)) {
      const owner = readPodDirectory(podName)
      if (owner === null) continue
      const podPath = join(root, podName)
      for (const container of this.#list(podPath, false)) {
        if (trustOfContainer(owner.namespace, owner.pod, container, this.#config) === 'none') {
          continue
        }
        const directory = join(podPath, container)
        for (const name of this.#list(directory, false)) this.#addPodFile(directory, name)
      }
    }
  }

  addNamed({ glob, trust }: NamedFiles): void {
    for (const path of this.#expand(glob)) {
      const directory = dirname(path)
      const real = resolved(directory)
      if (real !== null && !this.#roots.includes(real)) this.#roots.push(real)
      const provenance = provenanceOf(path, this.#config, trust)
      const log = podLogOf(path)
      const run = log === null ? null : { directory, restart: log.restart }
      this.#add(path, provenance, join(directory, readLogName(basename(path)).live), run)
    }
  }

  result(): Listing {
    const files = [...this.#rotated, ...this.#live]
    return { files, roots: this.#roots, unlistable: this.#unlistable }
  }

  #addPodFile(directory: string, name: string): void {
    const path = `${directory}/${name}`
    const log = podLogOf(path)
    if (log === null) return
    const livePath = `${directory}/${readLogName(name).live}`
    const provenance = provenanceOf(path, this.#config)
    const run = { directory, restart: log.restart }
    const target = this.#add(path, provenance, livePath, run)
    if (target === null || target === path || basename(target) === name) return

    // Docker: the link stays, and the files it led to before are beside its target.
    for (const sibling of this.#list(dirname(target), false)) {
      const { live, rotated } = readLogName(sibling)
      if (rotated && live === basename(target)) {
        this.#add(join(dirname(target), sibling), provenance, livePath, run)
      }
    }
  }

  /** @returns the resolved path when the file was added */
  #add(
    path: string,
    provenance: Provenance,
    livePath: string,
    run: FoundFile['run'],
  ): string | null {
    const known = this.#paths.get(path)
    if (known !== undefined) return known
    let target = path
    let stats: Stats | undefined
    try {
      // Directories above it are below resolved roots; where the open file lies is checked again.
      stats = lstatSync(path)
      if (stats.isSymbolicLink()) {
        target = realpathSync(path)
        stats = lstatSync(target)
      }
    } catch (error) {
      // ENOENT: rotated away since it was listed; the next listing has its new name.
      if (errnoOf(error) !== 'ENOENT') this.#fail('unreadable', path, error)
      return null
    }
    if (!stats.isFile()) {
      if (!stats.isDirectory()) {
        this.#onProblem({ code: 'not_a_file', path, message: `${path} is not a regular file` })
      }
      return null
    }
    if (target !== path && !isBelow(target, this.#roots)) {
      const message = `${path} leads to ${target}, which is outside the directories allowed`
      this.#onProblem({ code: 'symlink_refused', path, message })
      return null
    }
    const { rotated, gzip } = readLogName(basename(path))
    const { dev, ino, size, mtimeMs } = stats
    this.#paths.set(path, target)
    const list = rotated ? this.#rotated : this.#live
    list.push({
      path,
      target,
      provenance,
      livePath,
      run,
      rotated,
      gzip,
      dev,
      ino,
      size,
      mtimeMs,
    })
    return target
  }

  /** The paths a glob names now, and the rotated siblings of each. */
  #expand(glob: string): string[] {
    const isPlain = !/[*?[{]/.test(glob)
    const paths = isPlain ? [glob] : this.#scan(glob)
    const found = new Set<string>()
    const directories = new Set(paths.map((path) => dirname(path)))
    const lives = new Set(
      paths.map((path) => join(dirname(path), readLogName(basename(path)).live)),
    )
    for (const path of paths) found.add(path)
    for (const directory of directories) {
      for (const name of this.#list(directory, false)) {
        const { live, rotated } = readLogName(name)
        if (rotated && lives.has(join(directory, live))) found.add(join(directory, name))
      }
    }
    return [...found].filter((path) => !path.endsWith('.tmp'))
  }

  #scan(glob: string): string[] {
    const fixed = glob.slice(0, glob.search(/[*?[{]/))
    const cwd = fixed.slice(0, fixed.lastIndexOf('/') + 1)
    try {
      const pattern = new Bun.Glob(glob.slice(cwd.length))
      return [...pattern.scanSync({ cwd, absolute: true, onlyFiles: false, dot: true })]
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') {
        this.#unlistable.push(cwd)
        this.#fail('unlistable', glob, error)
      }
      return []
    }
  }

  #list(directory: string, mustExist: boolean): string[] {
    try {
      return readdirSync(directory).toSorted()
    } catch (error) {
      const errno = errnoOf(error)
      // Gone since its parent was listed, or a file among directories.
      if (!mustExist && (errno === 'ENOENT' || errno === 'ENOTDIR')) return []
      this.#unlistable.push(directory)
      this.#fail('unlistable', directory, error)
      return []
    }
  }

  #fail(code: 'unreadable' | 'unlistable', path: string, error: unknown): void {
    this.#onProblem({ code, path, message: messageOf(error) })
  }
}

function resolved(path: string): string | null {
  try {
    return realpathSync(path)
  } catch {
    // Listing it says why.
    return null
  }
}
