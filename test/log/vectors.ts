/**
 * Published vectors, read in place. They are not part of the repository: without them each test that
 * needs them says how many it skipped and passes.
 */

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'bun:test'

const folder = join(import.meta.dir, '../../../shared/data/evidence-vectors')
const present = existsSync(folder)

/** A test over `count` published vectors. */
export function vectorTest(name: string, count: number, check: () => void): void {
  if (!present) console.log(`skipped ${count} vectors (no ${folder}): ${name}`)
  test.skipIf(!present)(`${name} (${count} vectors)`, check)
}

export function vectorBytes(path: string): Uint8Array {
  return new Uint8Array(readFileSync(join(folder, path)))
}

export function vectorJson(path: string): unknown {
  return JSON.parse(readFileSync(join(folder, path), 'utf8'))
}

/** Paths of all files below `path`, relative to the vectors' folder, sorted. */
export function vectorPaths(path: string): string[] {
  return readdirSync(join(folder, path), { recursive: true, withFileTypes: true })
    .filter((found) => found.isFile())
    .map((found) => join(found.parentPath, found.name).slice(folder.length + 1))
    .toSorted()
}

export function bytesOfHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'))
}

export function bytesOfBase64(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, 'base64'))
}

export function bytesOf(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text))
}
