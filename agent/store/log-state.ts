/**
 * What is known of the log in memory, all of it derived from committed files. `commit` and `seal`
 * replace fields only after the step that makes the new value durable.
 */
import { encodeHex } from '../log/encoding.ts'
import type { CompactRange } from '../log/merkle.ts'
import type { TileEdge } from '../log/tile.ts'
import type { Cursor } from '../tail/chunk.ts'
import type { LogIdentity } from './keys.ts'
import type { RulesThrough, Totals } from './part.ts'
import type { Manifest } from './statement.ts'

/** A committed part that may still be read. */
export type PartRef = {
  readonly path: string
  readonly first: number
  readonly count: number
  readonly bytes: number
  readonly sha256: string
  /** UTC day of observation; a segment holds one. */
  readonly date: string
  readonly saltKey: string
  readonly totals: Totals
  /** The tree after it: what a manifest that ends here states. */
  readonly after: TreeMark
}

/** The tree head at a leaf count. */
export type TreeMark = {
  readonly size: number
  /** Hex. */
  readonly root: string
  readonly frontier: readonly string[]
}

export function markOf(tree: CompactRange): TreeMark {
  return { size: tree.size, root: encodeHex(tree.root()), frontier: tree.frontier() }
}

export type SegmentRef = { readonly manifest: Manifest; readonly manifestSha256: string }

export type LogState = {
  readonly root: string
  readonly identity: LogIdentity
  tree: CompactRange
  tiles: TileEdge
  /** SHA-256 of the newest part, hex; '' before the first. */
  lastPart: string
  /** Newest manifest; null before the first seal. */
  manifest: { readonly seq: number; readonly sha256: string } | null
  cursors: Map<string, Cursor>
  /** The next part must list all cursors: the first of a log, and the first after a seal. */
  listAllCursors: boolean
  rulesThrough: RulesThrough
  /** Null for an empty log. */
  totals: Totals | null
  /** Hex; drawn anew when a seal begins. */
  saltKey: string
  /** Newest signed checkpoint note; '' before the first. */
  checkpoint: string
  /** The newest part is committed, but head and checkpoint do not say so yet. */
  unsigned: boolean
  /** Parts no manifest covers, oldest first. */
  parts: PartRef[]
  segments: SegmentRef[]
  /** Sealed parts on disk, deletable once a part with all cursors is durable and no query reads them. */
  retired: { readonly path: string; readonly bytes: number; readonly sinceMs: number }[]
  /** Bytes of parts, segments, notes and tiles on disk. */
  bytes: number
}

/** Steps a test may interrupt; called after the named thing happened. */
export type StepHook = (step: string) => void
