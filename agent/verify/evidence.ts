/**
 * The files an auditor was given: a directory, or (in tests) a map. Reading is all there is.
 *
 * Names are relative, with `/`. Keys, locks, caches and whatever lies outside the log are not evidence.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { names } from '../store/filenames.ts'
import { diskFile, memoryFile, type ParquetFile } from '../store/read.ts'

export type Evidence = {
  /** Every file, sorted. */
  readonly list: () => readonly string[]
  /** Links, pipes and devices where files should be; nothing of theirs is read. */
  readonly irregular: readonly string[]
  readonly has: (path: string) => boolean
  readonly bytes: (path: string) => number
  readonly read: (path: string) => Uint8Array
  readonly parquet: (path: string) => ParquetFile
  /** SHA-256, hex; reads the file in pieces. */
  readonly sha256: (path: string) => Promise<string>
}

const notEvidence = [`${names.keys}/`, `${names.cache}/`, `${names.quarantine}/`, 'outbox/']

export function evidenceIn(root: string): Evidence {
  const entries = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => ({
      path: join(entry.parentPath, entry.name).slice(join(root, '/').length),
      regular: entry.isFile(),
    }))
    .filter(({ path }) => isEvidence(path))
  const files = entries
    .filter((entry) => entry.regular)
    .map((entry) => entry.path)
    .toSorted()
  const known = new Set(files)
  const at = (path: string): string => join(root, path)
  return {
    list: () => files,
    irregular: entries.filter((entry) => !entry.regular).map((entry) => entry.path),
    has: (path) => known.has(path),
    bytes: (path) => statSync(at(path)).size,
    read: (path) => readFileSync(at(path)),
    parquet: (path) => diskFile(at(path)),
    sha256: async (path) => {
      const hash = new Bun.CryptoHasher('sha256')
      for await (const piece of Bun.file(at(path)).stream()) hash.update(piece)
      return hash.digest('hex')
    },
  }
}

export function evidenceOf(files: ReadonlyMap<string, Uint8Array>): Evidence {
  const read = (path: string): Uint8Array => {
    const bytes = files.get(path)
    if (bytes === undefined) throw new Error(`BUG: no file ${path}`)
    return bytes
  }
  return {
    list: () => [...files.keys()].filter(isEvidence).toSorted(),
    irregular: [],
    has: (path) => files.has(path),
    bytes: (path) => read(path).length,
    read,
    parquet: (path) => memoryFile(read(path)),
    sha256: (path) =>
      Promise.resolve(new Bun.CryptoHasher('sha256').update(read(path)).digest('hex')),
  }
}

function isEvidence(path: string): boolean {
  return path !== names.lock && !notEvidence.some((folder) => path.startsWith(folder))
}
