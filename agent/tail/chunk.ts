/**
 * What the tail hands on: whole lines of one file, with the exact place every byte came from.
 *
 * Invariant: for each generation, the ranges of its lines, its gaps and its cursor's pending ranges
 * cover [0, cursor.offset) without overlap.
 */

/** Whose log a file is, as its path (or the operator) says, and so what its lines may claim. */
export type Provenance = {
  /**
   * - `proxy`: a data-plane proxy of one pod; attests that pod only
   * - `control_plane`: a control-plane container in a configured namespace
   * - `api_server`: a Kubernetes audit log file
   * - `none`: anything else; its lines are kept, with no verdict and no principal
   */
  readonly trust: 'proxy' | 'control_plane' | 'api_server' | 'none'
  readonly namespace: string | null
  readonly pod: string | null
  readonly podUid: string | null
  readonly container: string | null
  /** The pod's name without replica-set and pod hashes. */
  readonly workload: string | null
}

/** One content of one file, through renames: `0.log` and the `0.log.20260101-120000` it became are one. */
export type Generation = {
  /** 32 hex digits, from the provenance and the fingerprint: the same content found again has the same id. */
  readonly id: string
  /** Where it was last seen. */
  path: string
  readonly provenance: Provenance
}

/** Where reading one generation stands. Durable with the lines before it, and only with them. */
export type Cursor = {
  readonly gen: string
  readonly path: string
  readonly dev: number
  readonly ino: number
  /** Bytes of the generation (uncompressed) that were read. */
  readonly offset: number
  /** SHA-256, hex, of the first `fingerprintBytes` bytes: the first line, at most 1 KiB of it. */
  readonly fingerprint: string
  readonly fingerprintBytes: number
  /** SHA-256, hex, of the up to 64 bytes before `offset`: a file that differs there is another one. */
  readonly before: string
  /**
   * Partial CRI and Docker lines read but not yet joined: offset, length, and the stream they belong to.
   * A length of 0 marks a stream whose line was cut at `lineBytesMax`: what follows, up to and with
   * its final part, is a gap.
   */
  readonly pending: readonly {
    readonly offset: number
    readonly length: number
    readonly stream: 'stdout' | 'stderr'
  }[]
  readonly provenance: Provenance
  /** Set when no more can come: everything of it is in events and gaps. */
  readonly finished: boolean
  /** When this generation was last seen on disk, µs; finished ones are forgotten after a while. */
  readonly seenUs: number
}

/** One line as its writer meant it, and the bytes that hold it. */
export type Line = {
  /** `rawBuffer.subarray(rawStart, rawEnd)` is the line's bytes, wrapper and terminator included. */
  readonly rawBuffer: Uint8Array
  readonly rawStart: number
  readonly rawEnd: number
  /** Offset and length in the generation, repeated for each joined part. */
  readonly ranges: readonly number[]
  /** What the program printed: no wrapper, no terminator. Invalid UTF-8 is replaced, and `lossy` set. */
  readonly content: string
  readonly stream: '' | 'stdout' | 'stderr'
  /** The container runtime's time, µs, where there is a wrapper. */
  readonly wrapperUs: number | null
  readonly lossy: boolean
  /** Cut at `lineBytesMax`; the rest is a gap. */
  readonly truncated: boolean
  /** The generation ended in the middle of it (no terminator, or no final CRI part). */
  readonly unterminated: boolean
  /**
   * The rest of a line whose beginning was handed out as `unterminated`: its file grew after it was
   * taken for complete. Kept, but never to be parsed as a line of its own: whoever wrote the middle
   * of the line chose where this one begins.
   */
  readonly continuation?: true
}

export type GapCause =
  | 'rotated_unread'
  | 'deleted_unread'
  | 'truncated'
  | 'line_too_long'
  | 'read_error'
  | 'storage_full'
  /** There before the agent first saw the file, and `from: now` told it not to read that. */
  | 'skipped'

/** Bytes that will never become events. `to` is null where nobody can know how much it was. */
export type Gap = {
  readonly gen: string
  readonly path: string
  readonly cause: GapCause
  readonly from: number
  readonly to: number | null
  readonly detail: string
}

/** What one turn of the tail brought. Idle turns bring no lines, so that age-based commits need no timer. */
export type Chunk = {
  readonly generation: Generation | null
  readonly lines: readonly Line[]
  readonly gaps: readonly Gap[]
  /** The cursor after these lines and gaps; null in an idle chunk. */
  readonly cursor: Cursor | null
}

export const idleChunk: Chunk = { generation: null, lines: [], gaps: [], cursor: null }
