/**
 * What a consumer of chunks keeps: lines, gaps and cursors, committed together or lost together.
 * Checks conservation over everything it was given.
 */

import type { Chunk, Cursor, Gap, Line } from '../../agent/tail/chunk.ts'

export type Piece = { from: number; to: number; raw: Buffer | null }

export class Ledger {
  readonly lines: { gen: string; line: Line }[] = []
  readonly gaps: Gap[] = []
  readonly cursors = new Map<string, Cursor>()
  #pending: Chunk[] = []

  take(chunk: Chunk): void {
    if (chunk.cursor !== null) this.#pending.push(chunk)
  }

  commit(): void {
    for (const { generation, lines, gaps, cursor } of this.#pending) {
      if (generation === null || cursor === null) throw new Error('a chunk without a generation')
      for (const line of lines) this.lines.push({ gen: generation.id, line })
      this.gaps.push(...gaps)
      this.cursors.set(cursor.gen, cursor)
    }
    this.#pending = []
  }

  crash(): void {
    this.#pending = []
  }

  contents(): string[] {
    return this.lines.map(({ line }) => line.content)
  }

  /** The one generation there is. */
  only(): { gen: string; cursor: Cursor } {
    const [first, ...others] = this.cursors
    if (first === undefined || others.length > 0) {
      throw new Error(`expected one generation, found ${this.cursors.size}`)
    }
    return { gen: first[0], cursor: first[1] }
  }

  pieces(gen: string): Piece[] {
    const pieces: Piece[] = []
    for (const { gen: of, line } of this.lines) {
      if (of !== gen) continue
      const raw = Buffer.from(line.rawBuffer.subarray(line.rawStart, line.rawEnd))
      let at = 0
      for (let i = 0; i < line.ranges.length; i += 2) {
        const from = line.ranges[i] ?? Number.NaN
        const length = line.ranges[i + 1] ?? Number.NaN
        pieces.push({ from, to: from + length, raw: raw.subarray(at, at + length) })
        at += length
      }
      if (at !== raw.length) throw new Error(`ranges hold ${at} bytes, the line ${raw.length}`)
    }
    for (const gap of this.gaps) {
      if (gap.gen === gen && gap.to !== null) {
        pieces.push({ from: gap.from, to: gap.to, raw: null })
      }
    }
    for (const { offset, length } of this.cursors.get(gen)?.pending ?? []) {
      if (length > 0) pieces.push({ from: offset, to: offset + length, raw: null })
    }
    return pieces.toSorted((a, b) => a.from - b.from)
  }

  /**
   * Line ranges, gaps and pending ranges cover [0, offset) of every generation, once; raw bytes are
   * what `contentOf` says was written there.
   */
  checkConservation(contentOf?: (cursor: Cursor) => Buffer | undefined): void {
    for (const [gen, cursor] of this.cursors) {
      const content = contentOf?.(cursor)
      let at = 0
      for (const { from, to, raw } of this.pieces(gen)) {
        if (from !== at) {
          throw new Error(`${cursor.path} (${gen}): expected ${at} next, found [${from}, ${to})`)
        }
        if (raw !== null && content !== undefined && !raw.equals(content.subarray(from, to))) {
          const found = raw.toString('latin1').slice(0, 200)
          throw new Error(
            `${cursor.path} (${gen}): [${from}, ${to}) is not what was written there, but ${found}`,
          )
        }
        at = to
      }
      if (at !== cursor.offset) {
        throw new Error(`${cursor.path} (${gen}): covered up to ${at}, cursor at ${cursor.offset}`)
      }
      for (const gap of this.gaps) {
        if (gap.gen === gen && gap.to === null && gap.from !== cursor.offset) {
          throw new Error(`${gen}: a gap without end at ${gap.from}, cursor at ${cursor.offset}`)
        }
      }
    }
    if (this.lines.some(({ line }) => line.rawEnd <= line.rawStart))
      throw new Error('an empty line')
  }
}
