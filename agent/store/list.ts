/**
 * The files of a log on disk, for readers beside a live agent or after it: nothing is locked or changed.
 *
 * A live agent may seal meanwhile; it keeps replaced parts until every query that may read them is over.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { OpsError } from '../errors.ts'
import { noteVerifier, parseVkey } from '../log/note.ts'
import { names, parseManifestName, parsePartName } from './filenames.ts'
import { openManifest } from './statement.ts'
import type { LogFiles } from './store.ts'

export type ListedLog = { readonly origin: string; readonly vkey: string; readonly files: LogFiles }

/** @throws {OpsError} `not_found` when there is no log, `corrupt_input` when a manifest is not its own */
export function listLog(root: string): ListedLog {
  const path = join(root, names.vkey)
  if (!existsSync(path)) {
    throw new OpsError('not_found', `there is no log in ${root}`, {
      hint: 'name a data directory with --data, or make one with meshtrail import',
    })
  }
  const vkey = readFileSync(path, 'utf8').trimEnd()
  const parsed = parseVkey(vkey)
  if (!parsed.ok) throw damaged(names.vkey, parsed.problem)
  const verifiers = [noteVerifier(parsed.key)]
  // Parts first: one that is sealed in between is then in both lists, and the segment counts.
  const parts = namesIn(root, names.parts)
    .map(parsePartName)
    .filter((part) => part !== null)
    .toSorted((a, b) => a.first - b.first)
  const segments: string[] = []
  let sealedEnd = 0
  for (const name of namesIn(root, names.manifests).toSorted()) {
    if (parseManifestName(name) === null) continue
    const opened = openManifest(readFileSync(join(root, name)), verifiers)
    if (!opened.ok) throw damaged(name, opened.problem)
    const { file, first, count } = opened.value
    segments.push(join(root, file.path))
    sealedEnd = Math.max(sealedEnd, first + count)
  }
  return {
    origin: parsed.key.name,
    vkey,
    files: {
      segments,
      parts: parts.filter((part) => part.first >= sealedEnd).map((part) => join(root, part.path)),
    },
  }
}

function namesIn(root: string, folder: string): string[] {
  const path = join(root, folder)
  return existsSync(path) ? readdirSync(path).map((file) => `${folder}/${file}`) : []
}

function damaged(path: string, problem: string): OpsError {
  return new OpsError('corrupt_input', `${path} is damaged: ${problem}`, {
    hint: 'run meshtrail verify on the data directory',
    detail: { path },
  })
}
