/** The cursors that are known: where reading stands in every generation not yet forgotten. */

import { forgetFinishedMs } from '../limits.ts'
import type { Cursor, Generation, Provenance } from './chunk.ts'
import { generationId, identityOf, sha256Hex } from './identity.ts'

export class KnownCursors {
  readonly #byGen = new Map<string, Cursor>()
  readonly #gensByIdentity = new Map<string, Set<string>>()

  constructor(cursors: Iterable<Cursor>) {
    for (const cursor of cursors) this.set(cursor)
  }

  get(gen: string): Cursor | undefined {
    return this.#byGen.get(gen)
  }

  set(cursor: Cursor): void {
    this.#byGen.set(cursor.gen, cursor)
    const identity = identityOf(cursor.provenance)
    const gens = this.#gensByIdentity.get(identity)
    if (gens === undefined) this.#gensByIdentity.set(identity, new Set([cursor.gen]))
    else gens.add(cursor.gen)
  }

  delete(cursor: Cursor): void {
    this.#byGen.delete(cursor.gen)
    const identity = identityOf(cursor.provenance)
    const gens = this.#gensByIdentity.get(identity)
    gens?.delete(cursor.gen)
    if (gens?.size === 0) this.#gensByIdentity.delete(identity)
  }

  values(): Iterable<Cursor> {
    return this.#byGen.values()
  }

  /** Those that content with this provenance may continue. */
  of(provenance: Provenance): Cursor[] {
    const cursors: Cursor[] = []
    for (const gen of this.#gensByIdentity.get(identityOf(provenance)) ?? []) {
      const cursor = this.#byGen.get(gen)
      if (cursor !== undefined) cursors.push(cursor)
    }
    return cursors
  }

  /** An id for content that continues none of them. */
  newId(provenance: Provenance, fingerprint: string): string {
    for (let ordinal = 0; ; ordinal++) {
      const id = generationId(provenance, fingerprint, ordinal)
      if (!this.#byGen.has(id)) return id
    }
  }
}

/** The cursor of a generation of which nothing was read. */
export function freshCursor(
  generation: Generation,
  fingerprint: { readonly digest: string; readonly bytes: number },
  place: { readonly dev: number; readonly ino: number },
  seenUs: number,
): Cursor {
  return {
    gen: generation.id,
    path: generation.path,
    dev: place.dev,
    ino: place.ino,
    offset: 0,
    fingerprint: fingerprint.digest,
    fingerprintBytes: fingerprint.bytes,
    before: sha256Hex(Buffer.alloc(0)),
    pending: [],
    provenance: generation.provenance,
    finished: false,
    seenUs,
  }
}

/**
 * Which cursors must still be stored, with `seenUs` brought up to date.
 *
 * An unfinished cursor is never forgotten. A finished one may be forgotten once its content has not
 * been on disk for a day of the agent's running: until then a rotated or compressed copy of it could
 * be found, and would be read a second time. Call this where the full set is written anyway, at a seal.
 *
 * @param onDisk the generations that the newest complete scan found, `Tail.onDisk`; null before the
 *   first one, when nothing may be forgotten
 */
export function cursorsToKeep(
  cursors: Iterable<Cursor>,
  onDisk: ReadonlySet<string> | null,
  nowUs: number,
): Cursor[] {
  if (onDisk === null) return [...cursors]
  const kept: Cursor[] = []
  for (const cursor of cursors) {
    if (onDisk.has(cursor.gen)) kept.push({ ...cursor, seenUs: nowUs })
    else if (!cursor.finished || nowUs - cursor.seenUs < forgetFinishedMs * 1000) kept.push(cursor)
  }
  return kept
}
