/** The conformance vectors, read where they lie beside the repository. */

import { existsSync } from 'node:fs'
import { join } from 'node:path'

export const sigmaData = join(import.meta.dir, '../../../shared/data/sigma')
export const hasVectors = existsSync(sigmaData)

export async function readVectors(name: string): Promise<unknown> {
  return Bun.file(join(sigmaData, 'vectors', name)).json()
}

export async function readText(path: string): Promise<string> {
  return Bun.file(join(sigmaData, path)).text()
}

/** Adds one to a named count. */
export function tally(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1)
}

export function tallied(counts: ReadonlyMap<string, number>): string {
  const sorted = [...counts].toSorted(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
  return sorted.map(([name, count]) => `${count} ${name}`).join(', ') || 'none'
}
