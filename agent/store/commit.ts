/**
 * The commit: rows, read cursors and leaves become durable in one rename.
 *
 * The order of these steps is the crash story; `ARCHITECTURE.md` tabulates what each leaves behind.
 * Synchronous on purpose: nothing else runs between the rename and the signatures over it.
 */
import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Batch } from '../buffer.ts'
import { dateOfUs } from '../clock.ts'
import { OpsError } from '../errors.ts'
import type { AuditEvent } from '../event.ts'
import { signCheckpoint } from '../log/checkpoint.ts'
import { statementBytesMax } from '../limits.ts'
import { encodeHex } from '../log/encoding.ts'
import { LeafHasher } from '../log/entry.ts'
import { hashBytes } from '../log/merkle.ts'
import { formatTilePath } from '../log/tile.ts'
import { makeFolder, publish, stage, syncFolder } from './durable.ts'
import { names, partName } from './filenames.ts'
import type { LogState, PartRef, StepHook } from './log-state.ts'
import { markOf } from './log-state.ts'
import type { ParquetEncoder } from './parquet.ts'
import { encodePart, type Totals } from './part.ts'
import { signHead } from './statement.ts'

/**
 * Commits a batch of at least one event, all observed on one UTC day.
 *
 * @param bytesMax bound of the data directory, bytes
 * @throws {OpsError} `disk_full` when it does not fit: nothing changed, the batch can be tried again;
 *   `disk` when an fsync failed: stop the process
 */
export function commit(
  log: LogState,
  batch: Batch,
  encoder: ParquetEncoder,
  bytesMax: number,
  step: StepHook,
): PartRef {
  // At most one commit is ever unsigned: the one a full disk kept from being signed comes first.
  if (log.unsigned) signHeads(log, step)
  const { events } = batch
  const first = log.tree.size
  const count = events.length
  const last = events[count - 1]
  if (last === undefined) throw new Error('BUG: commit of an empty batch')
  const date = dateOfUs(last.observed_ts)

  // Leaves first: the part's footer states the tree head that signing will later confirm.
  const tiles = log.tiles.clone()
  const tree = log.tree.clone((subtree) => {
    if (subtree.level === 8) tiles.push(subtree.hash)
  })
  const hasher = new LeafHasher(Buffer.from(log.saltKey, 'hex'))
  const leaf = new Uint8Array(hashBytes)
  for (const [row, event] of events.entries()) {
    const { rawBuffer, rawStart, rawEnd } = event
    hasher.leafInto(first + row, event.kind, event, rawBuffer, rawStart, rawEnd, leaf, 0)
    tree.append(leaf)
  }
  const root = encodeHex(tree.root())

  const totals = totalsAfter(log.totals, events)
  const cursors = new Map(log.cursors)
  for (const [gen, cursor] of batch.cursors) cursors.set(gen, cursor)
  const bytes = encodePart(encoder, events, {
    origin: log.identity.origin,
    first,
    root,
    previous: log.lastPart,
    saltKey: log.saltKey,
    cursors: [...(log.listAllCursors ? cursors : batch.cursors).values()],
    allCursors: log.listAllCursors,
    rulesThrough: log.rulesThrough,
    totals,
    checkpoint: log.checkpoint,
  })
  if (log.bytes + bytes.length + statementBytesMax > bytesMax) {
    throw new OpsError(
      'disk_full',
      `data.bytesMax of ${bytesMax} bytes is used up: ${log.bytes} are on disk, the next commit needs ${bytes.length}`,
      { hint: 'raise data.bytesMax, or move sealed segments away; reading goes on by itself' },
    )
  }

  const path = partName(first, count)
  stage(log.root, path, bytes)
  step('part-synced')
  publish(log.root, path)
  step('part-renamed')
  // Here it is decided. A crash from now on leaves an unsigned part, which recovery checks and signs.
  syncFolder(log.root, names.parts)

  const part: PartRef = {
    path,
    first,
    count,
    bytes: bytes.length,
    sha256: sha256Hex(bytes),
    date,
    saltKey: log.saltKey,
    totals,
    after: markOf(tree),
  }
  log.tree = tree
  log.tiles = tiles
  log.cursors = cursors
  log.totals = totals
  log.listAllCursors = false
  log.lastPart = part.sha256
  log.parts.push(part)
  log.bytes += part.bytes
  log.unsigned = true
  try {
    signHeads(log, step)
  } catch (thrown) {
    // The rows are committed: a batch given back now would be written twice. Signing is tried again.
    if (!(thrown instanceof OpsError && thrown.code === 'disk_full')) throw thrown
  }
  return part
}

function totalsAfter(before: Totals | null, events: readonly AuditEvent[]): Totals {
  let { gaps, from, to } = before ?? { gaps: 0, from: Number.MAX_SAFE_INTEGER, to: 0 }
  for (const event of events) {
    const time = event.ts ?? event.observed_ts
    if (time < from) from = time
    if (time > to) to = time
    if (event.kind === 'gap') gaps++
  }
  return { gaps, from, to }
}

/**
 * Brings tiles, head note and checkpoint up to the committed tree. Recovery ends with this too.
 */
export function signHeads(log: LogState, step: StepHook): void {
  const tiles = log.tiles.clone()
  const { files, superseded } = tiles.take()
  for (const { path, bytes } of files) {
    const stored = `log/${path}`
    makeFolder(log.root, dirname(stored))
    stage(log.root, stored, bytes)
    publish(log.root, stored)
    syncFolder(log.root, dirname(stored))
    log.bytes += bytes.length
  }
  step('tiles-written')

  const checkpoint = signCheckpoint(
    {
      origin: log.identity.origin,
      size: log.tree.size,
      root: log.tree.root(),
      extensions: [],
    },
    [log.identity.signer],
  )
  stageNext(log, names.checkpointNext, checkpoint)
  step('checkpoint-staged')
  stageNext(log, names.headNext, headNote(log))
  syncFolder(log.root, names.log)
  step('head-staged')
  publish(log.root, names.head, names.headNext)
  step('head-renamed')
  // Between these renames head and checkpoint differ by one commit, and `checkpoint.next` shows why.
  publish(log.root, names.checkpoint, names.checkpointNext)
  syncFolder(log.root, names.log)
  step('checkpoint-renamed')
  log.checkpoint = Buffer.from(checkpoint).toString('utf8')
  log.tiles = tiles
  log.unsigned = false

  for (const tile of superseded) {
    const stored = join(log.root, 'log', formatTilePath(tile))
    rmSync(stored, { force: true })
    log.bytes -= tile.width * hashBytes
  }
}

/** Writes and syncs a `.next` twin; a torn one never has that name. */
export function stageNext(log: LogState, path: string, bytes: Uint8Array): void {
  stage(log.root, path, bytes)
  publish(log.root, path)
}

export function headNote(log: LogState): Uint8Array {
  return signHead(
    {
      origin: log.identity.origin,
      size: log.tree.size,
      root: encodeHex(log.tree.root()),
      part: log.lastPart,
      manifest: log.manifest,
    },
    log.identity.signer,
  )
}

export function sha256Hex(bytes: Uint8Array): string {
  const hash = new Uint8Array(hashBytes)
  Bun.SHA256.hash(bytes, hash)
  return encodeHex(hash)
}
