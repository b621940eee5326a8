/**
 * The account of bytes: for every file generation, events and gaps must cover `[0, offset)` without
 * overlap, where `offset` is what the newest cursor says was read.
 */
import { z } from 'zod'
import type { Cursor } from '../tail/chunk.ts'
import type { Complaint } from './report.ts'

const gapSchema = z.object({ gen: z.string(), from: z.number(), to: z.number().nullable() })

type Range = [from: number, to: number]

export class ByteAccount {
  /** By generation: ranges seen, merged, in order of their start. Mostly one. */
  readonly #seen = new Map<string, Range[]>()
  readonly #overlaps = new Map<string, number>()
  /** Generations whose end nobody knows: a gap without an upper bound. */
  readonly #openEnded = new Set<string>()

  event(gen: string, ranges: readonly number[]): void {
    if (gen === '') return
    for (let pair = 0; pair < ranges.length; pair += 2) {
      const from = ranges[pair] ?? 0
      this.#add(gen, from, from + (ranges[pair + 1] ?? 0))
    }
  }

  /** @param body the statement of a gap event, from anyone */
  gap(body: unknown): void {
    const parsed = gapSchema.safeParse(body)
    if (!parsed.success) return
    const { gen, from, to } = parsed.data
    if (to !== null) this.#add(gen, from, to)
    else this.#openEnded.add(gen)
  }

  #add(gen: string, from: number, to: number): void {
    if (to <= from) return
    const ranges = this.#seen.get(gen) ?? []
    this.#seen.set(gen, ranges)
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === from) {
      last[1] = to
      return
    }
    let at = ranges.length
    while (at > 0 && (ranges[at - 1]?.[0] ?? 0) > from) at--
    const before = ranges[at - 1]
    const after = ranges[at]
    if ((before !== undefined && before[1] > from) || (after !== undefined && after[0] < to)) {
      if (!this.#overlaps.has(gen)) this.#overlaps.set(gen, from)
      return
    }
    ranges.splice(at, 0, [from, to])
    this.#mergeAround(ranges, at)
  }

  #mergeAround(ranges: Range[], at: number): void {
    const here = ranges[at]
    const after = ranges[at + 1]
    if (here !== undefined && after !== undefined && here[1] === after[0]) {
      here[1] = after[1]
      ranges.splice(at + 1, 1)
    }
    const before = ranges[at - 1]
    const now = ranges[at]
    if (before !== undefined && now !== undefined && before[1] === now[0]) {
      before[1] = now[1]
      ranges.splice(at, 1)
    }
  }

  /**
   * @param cursors the newest one of each generation; generations without one were finished long ago
   *   and must have no hole all the same
   */
  settle(cursors: ReadonlyMap<string, Cursor>): Complaint[] {
    const complaints: Complaint[] = []
    for (const [gen, at] of this.#overlaps) {
      complaints.push(forged(gen, `bytes from ${at} are in two events`))
    }
    const gens = new Set([...this.#seen.keys(), ...cursors.keys()])
    for (const gen of gens) {
      const cursor = cursors.get(gen)
      for (const { offset, length } of cursor?.pending ?? [])
        this.#add(gen, offset, offset + length)
      const ranges = this.#seen.get(gen) ?? []
      if (cursor === undefined) {
        const [first, second] = ranges
        if (first !== undefined && (first[0] !== 0 || second !== undefined)) {
          complaints.push(forged(gen, `bytes ${first[0] === 0 ? first[1] : 0} on are in no event`))
        }
        continue
      }
      const covered = ranges.length === 1 && ranges[0]?.[0] === 0 ? ranges[0][1] : 0
      if (ranges.length > 1 || (covered !== cursor.offset && !this.#openEnded.has(gen))) {
        const hole = ranges[0]?.[0] === 0 ? ranges[0][1] : 0
        complaints.push(
          forged(
            gen,
            `${cursor.path}: ${cursor.offset} bytes were read, byte ${hole} is in no event and no gap`,
          ),
        )
      }
    }
    return complaints
  }
}

function forged(gen: string, problem: string): Complaint {
  return { severity: 'forged', path: `generation ${gen}`, problem }
}
