/**
 * Puts files embedded in the binary into a directory from which the dynamic linker can load them,
 * and promises that what the returned directory holds has the embedded hashes at that moment.
 *
 * Nothing found on disk is trusted by name: owner, mode and content are checked at every start, and
 * a copy that fails any check is replaced, never loaded. It does not choose the directory, and it does
 * not defend against root or against our own user, who could as well replace the binary.
 */

import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  unlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { errnoOf } from '../errors.ts'

/** One file carried inside the binary. */
export type EmbeddedFile = {
  /** Its name once unpacked: what the linker looks for. */
  readonly name: string
  /** Where `readFileSync` finds it in the binary. */
  readonly source: string
  readonly bytes: number
  /** 64 lower-case hex digits, computed when the binary was built. */
  readonly sha256: string
}

/** An open, checked directory. Paths through `through` keep meaning this inode if its name changes hands. */
export type UnpackedDirectory = {
  readonly path: string
  /** `/proc/self/fd/<n>`: valid until `close`. */
  readonly through: string
  /** Names that had to be written or replaced; empty when everything was in place. */
  readonly written: readonly string[]
  close(): void
}

const directoryPrefix = 'duckdb-'
const readChunkBytes = 1 << 20
/** A temporary file older than this belongs to a process that died while unpacking. */
const abandonedAfterMs = 10 * 60_000
/** Another version's copy unused for this long goes when a new one is written: it is 70 MB a time. */
const unusedAfterMs = 7 * 86_400_000
const touchAfterMs = 3_600_000

/** The directory name for these files: one set of contents, one name, so versions never share a copy. */
export function unpackedDirectoryName(files: readonly EmbeddedFile[]): string {
  const hasher = new Bun.CryptoHasher('sha256')
  for (const file of files) hasher.update(`${file.name}\n${file.sha256}\n`)
  return directoryPrefix + hasher.digest('hex').slice(0, 32)
}

/**
 * Makes sure that `<parent>/<content hash>` holds exactly these files.
 *
 * Safe to run in several processes at once: each writes under a name of its own and renames over the
 * final one, and a library somebody has mapped is never written to.
 *
 * @throws {Error} when the directory cannot be created or written, or is not ours
 */
export function unpackInto(
  parent: string,
  files: readonly EmbeddedFile[],
  nowMs: number,
): UnpackedDirectory {
  const path = join(parent, unpackedDirectoryName(files))
  mkdirSync(parent, { recursive: true, mode: 0o700 })
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error
  }
  // From here on only this inode counts: whoever may write `parent` can rename the directory away
  // between a check and the load, but cannot change what the descriptor refers to.
  const descriptor = openSync(
    path,
    constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
  )
  const through = `/proc/self/fd/${descriptor}`
  try {
    const trusted = claim(path, descriptor)
    const written = files
      .filter((file) => !(trusted && holds(join(through, file.name), file)))
      .map((file) => {
        writeDurably(through, file)
        if (!holds(join(through, file.name), file)) {
          throw new Error(`${join(path, file.name)} does not hold what was written to it`)
        }
        return file.name
      })
    if (written.length > 0) {
      fsyncSync(descriptor)
      removeAbandoned(through, nowMs)
      removeUnused(parent, path, nowMs)
    } else {
      markUsed(through, descriptor, nowMs)
    }
    return { path, through, written, close: () => closeSync(descriptor) }
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
}

/**
 * Takes possession of the directory. A lax mode is repaired (kubelet adds group write to everything on
 * a volume with an `fsGroup`, at every start of the pod), but then the files in it count for nothing:
 * somebody may still hold one of them open for writing.
 *
 * @returns whether files already there may be considered at all
 */
function claim(path: string, descriptor: number): boolean {
  const stats = fstatSync(descriptor)
  if (!isOurs(stats)) throw new Error(`${path} belongs to user ${stats.uid}, not to us`)
  if (!writableByOthers(stats)) return true
  fchmodSync(descriptor, 0o700)
  return false
}

function isOurs(stats: Stats): boolean {
  return stats.uid === (process.geteuid?.() ?? -1)
}

function writableByOthers(stats: Stats): boolean {
  return (stats.mode & 0o022) !== 0
}

/** Whether a regular file of ours with this content is at `path`. */
function holds(path: string, file: EmbeddedFile): boolean {
  let descriptor: number
  try {
    // O_NONBLOCK: a named pipe put there must not hang the start.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch {
    return false
  }
  try {
    const stats = fstatSync(descriptor)
    if (!stats.isFile() || !isOurs(stats) || writableByOthers(stats)) return false
    return stats.size === file.bytes && hashOf(descriptor) === file.sha256
  } finally {
    closeSync(descriptor)
  }
}

function hashOf(descriptor: number): string {
  const hasher = new Bun.CryptoHasher('sha256')
  const chunk = new Uint8Array(readChunkBytes)
  for (;;) {
    const count = readSync(descriptor, chunk, 0, chunk.length, null)
    if (count === 0) return hasher.digest('hex')
    hasher.update(count === chunk.length ? chunk : chunk.subarray(0, count))
  }
}

/** Writes one file under a temporary name and renames it. A crash leaves a temporary file, never half a library. */
function writeDurably(directory: string, file: EmbeddedFile): void {
  const temporary = join(
    directory,
    `.${file.name}.${process.pid}.${randomBytes(6).toString('hex')}`,
  )
  const descriptor = openSync(
    temporary,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600,
  )
  try {
    try {
      writeAll(descriptor, readFileSync(file.source))
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    renameSync(temporary, join(directory, file.name))
  } catch (error) {
    unlinkSync(temporary)
    throw error
  }
}

/** Writes every byte: one `write` may take fewer than it is given. */
export function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(descriptor, bytes, offset)
}

function removeAbandoned(directory: string, nowMs: number): void {
  for (const name of readdirSync(directory)) {
    if (!name.startsWith('.')) continue
    const path = join(directory, name)
    quietly(() => {
      if (nowMs - lstatSync(path).mtimeMs > abandonedAfterMs) unlinkSync(path)
    })
  }
}

function removeUnused(parent: string, keep: string, nowMs: number): void {
  for (const name of readdirSync(parent)) {
    const path = join(parent, name)
    if (!/^duckdb-[0-9a-f]{32}$/.test(name) || path === keep) continue
    quietly(() => {
      const stats = lstatSync(path)
      if (!stats.isDirectory() || !isOurs(stats)) return
      if (nowMs - stats.mtimeMs > unusedAfterMs) rmSync(path, { recursive: true })
    })
  }
}

/** The directory's time says when it was last used; a read-only file system need not know. */
function markUsed(through: string, descriptor: number, nowMs: number): void {
  if (nowMs - fstatSync(descriptor).mtimeMs < touchAfterMs) return
  quietly(() => utimesSync(through, nowMs / 1000, nowMs / 1000))
}

/** Tidying up is a courtesy: another process may be doing the same, and failing must not stop the start. */
function quietly(tidy: () => void): void {
  try {
    tidy()
  } catch {
    // Left for the next start.
  }
}
