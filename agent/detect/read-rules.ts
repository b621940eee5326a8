/** Rule files and folders from disk, in an order that does not depend on the file system. */

import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type LoadedRules, loadRules, type RuleFile } from '../../rules/engine/load.ts'
import { errnoOf, messageOf, OpsError } from '../errors.ts'

/**
 * Loads every `.yml` and `.yaml` under the paths; a file named outright may have any name.
 *
 * @throws {OpsError} `not_found` or `permission` for a path that cannot be read
 */
export async function readRules(paths: readonly string[]): Promise<LoadedRules> {
  const files: RuleFile[] = []
  for (const path of paths) {
    for (const file of await ruleFilesOf(path)) {
      files.push({ path: file, text: await guarded(file, async () => readFile(file, 'utf8')) })
    }
  }
  return loadRules(files)
}

async function ruleFilesOf(path: string): Promise<readonly string[]> {
  const found = await guarded(path, async () => stat(path))
  if (!found.isDirectory()) return [path]
  const entries = await guarded(path, async () => readdir(path, { recursive: true }))
  const rules = entries
    .filter((entry) => /\.ya?ml$/.test(entry))
    .toSorted((a, b) => (a < b ? -1 : 1))
  return rules.map((entry) => join(path, entry))
}

async function guarded<T>(path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (thrown) {
    const code = errnoOf(thrown) === 'EACCES' ? 'permission' : 'not_found'
    throw new OpsError(code, `cannot read rules at ${path}: ${messageOf(thrown)}`, {
      hint: 'name a Sigma file, or a folder with .yml files in it',
      detail: { path },
      cause: thrown,
    })
  }
}
