/**
 * Opening a log: from the files that a stop, a crash or a power cut left to a `LogState`.
 *
 * Decides nothing by guessing: what is signed must be there whole, or the log does not open. Only
 * the one commit that nobody signed yet may be dropped, and then its lines are read again, because
 * its cursors go with it.
 */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, dateOfUs } from '../clock.ts'
import { messageOf, OpsError } from '../errors.ts'
import type { AuditEvent } from '../event.ts'
import { openCheckpoint } from '../log/checkpoint.ts'
import { encodeHex } from '../log/encoding.ts'
import { LeafHasher } from '../log/entry.ts'
import { CompactRange, emptyRoot, hashBytes } from '../log/merkle.ts'
import { parseVkey } from '../log/note.ts'
import { formatTilePath, type HashTile, TileEdge, tileWidth } from '../log/tile.ts'
import type { Cursor } from '../tail/chunk.ts'
import { sha256Hex, signHeads } from './commit.ts'
import { makeFolder, syncFolder } from './durable.ts'
import {
  isTemporary,
  manifestName,
  names,
  parseManifestName,
  parsePartName,
  type PartName,
} from './filenames.ts'
import type { LogIdentity } from './keys.ts'
import type { LogState, PartRef, SegmentRef, StepHook } from './log-state.ts'
import { markOf } from './log-state.ts'
import { type PartMeta, parsePartMeta, type RulesThrough } from './part.ts'
import { leafRows, memoryFile, type Opened, openParquet, readEvents } from './read.ts'
import { type Head, openHead, openManifest } from './statement.ts'

export type Recovered = {
  readonly log: LogState
  /** What had to be done, for the log file and a `lifecycle` event; empty after a clean stop. */
  readonly repairs: readonly string[]
}

/** Parses an event's raw bytes again, to check columns nobody signed; null when it cannot tell. */
export type Rederive = (event: AuditEvent, cursors: ReadonlyMap<string, Cursor>) => string | null

/**
 * @param rederive says how an event's columns differ from what its raw bytes give, or null
 * @throws {OpsError} `corrupt_input` when signed data is missing or changed
 */
export async function recover(
  root: string,
  identity: LogIdentity,
  rederive: Rederive,
  random: (bytes: Uint8Array) => void,
  clock: Clock,
  step: StepHook,
): Promise<Recovered> {
  const repairs: string[] = []
  for (const folder of [names.parts, names.segments, names.manifests, names.quarantine]) {
    makeFolder(root, folder)
  }
  removeTemporaries(root)

  const segments = readManifests(root, identity)
  removeUnfinishedSegments(root, segments, repairs)
  const sealedEnd = endOf(segments)
  const head = readSignedHead(root, identity)

  const log = emptyState(root, identity, segments, random)
  const stored = listParts(root)
  const live = stored.filter((part) => part.first >= sealedEnd)
  const known = stored.filter((part) => part.first < sealedEnd)
  const sealedMs = sealedSince(root, segments, clock)
  log.retired = known.map((part) => ({
    path: part.path,
    bytes: sizeOf(root, part.path),
    sinceMs: sealedMs,
  }))

  const cursorsKnown = await readSealedCursors(root, known)
  let cursors = cursorsKnown.cursors
  let complete = cursorsKnown.complete
  let rules: RulesThrough = segments.at(-1)?.manifest.rulesThrough ?? { leaf: 0, ruleSet: '' }

  log.tiles = restoreTiles(root, log.tree)

  for (const [position, name] of live.entries()) {
    const unsigned = head === null || name.first >= head.size
    const isLast = position === live.length - 1
    const replayed = await replayPart(log, name, identity)
    if (!replayed.ok || (unsigned && isLast && !(await columnsHold(replayed.opened)))) {
      if (!unsigned || !isLast) throw corrupt(name.path, replayed.ok ? 'columns' : replayed.problem)
      quarantine(root, name.path)
      repairs.push(`${name.path}: dropped, unsigned and ${replayed.ok ? 'altered' : 'unreadable'}`)
      break
    }
    if (unsigned && !isLast) throw corrupt(name.path, 'two commits nobody signed')
    const { meta, ref } = replayed
    if (meta.allCursors) {
      cursors = new Map()
      complete = true
    }
    for (const cursor of meta.cursors) cursors.set(cursor.gen, cursor)
    log.tree = replayed.tree
    for (const hash of replayed.runRoots) log.tiles.push(hash)
    log.lastPart = ref.sha256
    log.parts.push(ref)
    log.saltKey = ref.saltKey
    log.listAllCursors = false
    rules = meta.rulesThrough
    log.totals = meta.totals
    if (unsigned) repairs.push(`${name.path}: committed but unsigned, checked and signed`)
  }

  async function columnsHold(opened: Opened): Promise<boolean> {
    const footer = parsePartMeta(opened.footer)
    if (!footer.ok) return false
    const all = new Map(cursors)
    for (const cursor of footer.meta.cursors) all.set(cursor.gen, cursor)
    const events = await readEvents(opened)
    return events.every((event) => rederive(event, all) === null)
  }

  if (log.tree.size > 0 && !complete) {
    throw corrupt(names.parts, 'no part lists where reading stands')
  }
  log.cursors = cursors
  log.rulesThrough = rules
  if (log.parts.length === 0) log.listAllCursors = true
  checkHead(log, head)
  log.bytes = bytesBelow(root)

  if (needsSigning(log, head, root, identity)) {
    // The same code as after every commit, so that it is exercised all day.
    if (log.tree.size > 0) signHeads(log, step)
  } else {
    log.checkpoint = readFileSync(join(root, names.checkpoint), 'utf8')
    // The files are as the tree says: nothing to write before the next commit.
    log.tiles.take()
  }
  for (const twin of [names.checkpointNext, names.headNext]) {
    if (existsSync(join(root, twin))) {
      rmSync(join(root, twin))
      repairs.push(`${twin}: left by an interrupted commit, removed`)
    }
  }
  syncFolder(root, names.log)
  return { log, repairs }
}

function emptyState(
  root: string,
  identity: LogIdentity,
  segments: SegmentRef[],
  random: (bytes: Uint8Array) => void,
): LogState {
  const newest = segments.at(-1)
  const saltKey = new Uint8Array(32)
  random(saltKey)
  const state: LogState = {
    root,
    identity,
    tree: new CompactRange(),
    tiles: new TileEdge(),
    lastPart: '',
    manifest: null,
    cursors: new Map(),
    listAllCursors: true,
    rulesThrough: { leaf: 0, ruleSet: '' },
    totals: newest?.manifest.totals ?? null,
    saltKey: encodeHex(saltKey),
    checkpoint: '',
    unsigned: false,
    parts: [],
    segments,
    retired: [],
    bytes: 0,
  }
  if (newest === undefined) return state
  const { manifest, manifestSha256 } = newest
  const restored = CompactRange.restore(manifest.first + manifest.count, manifest.frontier)
  if (!restored.ok) throw corrupt(names.manifests, restored.problem)
  if (encodeHex(restored.range.root()) !== manifest.rootAfter) {
    throw corrupt(names.manifests, `manifest ${manifest.seq} has a frontier of another root`)
  }
  state.tree = restored.range
  state.lastPart = manifest.parts.at(-1)?.sha256 ?? ''
  state.manifest = { seq: manifest.seq, sha256: manifestSha256 }
  return state
}

/** When the newest seal was, on the monotonic clock: queries of another process may still read its parts. */
function sealedSince(root: string, segments: readonly SegmentRef[], clock: Clock): number {
  const newest = segments.at(-1)
  if (newest === undefined) return 0
  const sealedAtMs = statSync(join(root, manifestName(newest.manifest.seq))).mtimeMs
  return clock.monotonicMs() - Math.max(0, clock.nowUs() / 1000 - sealedAtMs)
}

function endOf(segments: readonly SegmentRef[]): number {
  const newest = segments.at(-1)
  return newest === undefined ? 0 : newest.manifest.first + newest.manifest.count
}

function readManifests(root: string, identity: LogIdentity): SegmentRef[] {
  const folder = join(root, names.manifests)
  const stored = readdirSync(folder)
    .map((file) => `${names.manifests}/${file}`)
    .filter((path) => parseManifestName(path) !== null)
    .toSorted()
  const segments: SegmentRef[] = []
  for (const [seq, path] of stored.entries()) {
    const bytes = readFileSync(join(root, path))
    const opened = openManifest(bytes, [identity.verifier])
    if (!opened.ok) throw corrupt(path, opened.problem)
    const manifest = opened.value
    const before = segments.at(-1)
    if (
      manifest.seq !== seq ||
      parseManifestName(path) !== seq ||
      manifest.previous !== (before?.manifestSha256 ?? '') ||
      manifest.first !== endOf(segments)
    ) {
      throw corrupt(path, 'it does not follow the manifest before it')
    }
    segments.push({ manifest, manifestSha256: sha256Hex(bytes) })
  }
  return segments
}

function removeUnfinishedSegments(
  root: string,
  segments: readonly SegmentRef[],
  repairs: string[],
): void {
  const named = new Set(segments.map((segment) => segment.manifest.file.path))
  for (const path of filesBelow(root, names.segments)) {
    const first = /(?:^|\/)(\d{12,16})-\d+-[0-9a-f]{16}\.parquet$/.exec(path)?.[1]
    if (first === undefined || named.has(path) || Number(first) < endOf(segments)) continue
    rmSync(join(root, path))
    repairs.push(`${path}: sealing was interrupted, its parts still hold the rows`)
  }
  for (const path of named) {
    if (!existsSync(join(root, path))) throw corrupt(path, 'a manifest names it and it is gone')
  }
}

/** The largest head this log's key signed, whether or not its rename came through; null before the first. */
function readSignedHead(root: string, identity: LogIdentity): Head | null {
  let newest: Head | null = null
  for (const path of [names.head, names.headNext]) {
    if (!existsSync(join(root, path))) continue
    const opened = openHead(readFileSync(join(root, path)), [identity.verifier])
    if (!opened.ok) {
      if (path === names.headNext) continue
      throw corrupt(path, opened.problem)
    }
    if (newest === null || opened.value.size > newest.size) newest = opened.value
  }
  return newest
}

function listParts(root: string): PartName[] {
  return readdirSync(join(root, names.parts))
    .map((file) => parsePartName(`${names.parts}/${file}`))
    .filter((part) => part !== null)
    .toSorted((a, b) => a.first - b.first)
}

/** Cursors of parts that a manifest covers but that are still here: the last seal may be the newest thing. */
async function readSealedCursors(
  root: string,
  parts: readonly PartName[],
): Promise<{ cursors: Map<string, Cursor>; complete: boolean }> {
  const cursors = new Map<string, Cursor>()
  let complete = false
  let end: number | null = null
  for (const name of parts) {
    const opened = await openParquet(memoryFile(readFileSync(join(root, name.path))))
    if (!opened.ok) throw corrupt(name.path, opened.problem)
    const footer = parsePartMeta(opened.footer)
    if (!footer.ok) throw corrupt(name.path, footer.problem)
    // Older ones may be deleted before newer ones: only an unbroken run says anything.
    if (footer.meta.allCursors || (end !== null && end !== name.first)) {
      cursors.clear()
      complete = footer.meta.allCursors
    }
    end = name.first + name.count
    for (const cursor of footer.meta.cursors) cursors.set(cursor.gen, cursor)
  }
  return { cursors, complete }
}

type Replayed =
  | {
      readonly ok: true
      readonly meta: PartMeta
      readonly ref: PartRef
      readonly tree: CompactRange
      /** Roots of the runs of 256 leaves that it completed. */
      readonly runRoots: readonly Uint8Array[]
      readonly opened: Opened
    }
  | { readonly ok: false; readonly problem: string }

/** Recomputes a part's leaves from its rows and compares with what its footer and its place say. */
async function replayPart(log: LogState, name: PartName, identity: LogIdentity): Promise<Replayed> {
  const bytes = readFileSync(join(log.root, name.path))
  const opened = await openParquet(memoryFile(bytes))
  if (!opened.ok) return opened
  const footer = parsePartMeta(opened.footer)
  if (!footer.ok) return footer
  const { meta } = footer
  const misplaced =
    meta.origin !== identity.origin ||
    meta.first !== name.first ||
    meta.count !== name.count ||
    opened.rows !== name.count ||
    meta.first !== log.tree.size ||
    meta.previous !== log.lastPart
  if (misplaced) {
    return { ok: false, problem: 'it does not follow the part before it' }
  }
  const runRoots: Uint8Array[] = []
  const tree = log.tree.clone((subtree) => {
    if (subtree.level === 8) runRoots.push(subtree.hash)
  })
  const hasher = new LeafHasher(Buffer.from(meta.saltKey, 'hex'), meta.schema)
  const leaf = new Uint8Array(hashBytes)
  let observed = 0
  for await (const rows of leafRows(opened)) {
    if (!rows.ok) return rows
    for (const [row, raw] of rows.raw.entries()) {
      const fields = {
        gen: rows.gen[row] ?? '',
        stream: rows.stream[row] ?? '',
        observed_ts: rows.observed[row] ?? 0,
        ranges: rows.ranges[row] ?? [],
      }
      if (rows.index[row] !== tree.size) {
        return {
          ok: false,
          problem: `row ${row} has leaf index ${rows.index[row]}, not ${tree.size}`,
        }
      }
      hasher.leafInto(tree.size, rows.kind[row] ?? 'other', fields, raw, 0, raw.length, leaf, 0)
      tree.append(leaf)
      observed = fields.observed_ts
    }
  }
  const root = encodeHex(tree.root())
  if (root !== meta.root) return { ok: false, problem: 'its rows do not give the root it states' }
  return {
    ok: true,
    meta,
    opened,
    tree: tree.clone(),
    runRoots,
    ref: {
      path: name.path,
      first: name.first,
      count: name.count,
      bytes: bytes.length,
      sha256: sha256Hex(bytes),
      date: dateOfUs(observed),
      saltKey: meta.saltKey,
      totals: meta.totals,
      after: markOf(tree),
    },
  }
}

/** The signed head must be one of the tree heads that the files give, with the part it names. */
function checkHead(log: LogState, head: Head | null): void {
  if (head === null) {
    if (log.parts.length > 1 || log.segments.length > 0) {
      throw corrupt(names.head, 'the log has commits and no signed head')
    }
    return
  }
  if (head.size > log.tree.size) {
    throw corrupt(
      names.parts,
      `the signed head covers ${head.size} events, the files hold ${log.tree.size}`,
    )
  }
  const sealed = log.segments.at(-1)?.manifest
  const part = log.parts.find((candidate) => candidate.first + candidate.count === head.size)
  const expected =
    part === undefined
      ? {
          size: endOf(log.segments),
          root: sealed?.rootAfter ?? encodeHex(emptyRoot()),
          part: sealed?.parts.at(-1)?.sha256 ?? '',
        }
      : { size: head.size, root: part.after.root, part: part.sha256 }
  if (
    head.size !== expected.size ||
    head.root !== expected.root ||
    head.part !== expected.part ||
    head.origin !== log.identity.origin
  ) {
    throw corrupt(names.head, `it is not of the ${log.tree.size} events the files hold`)
  }
  const seals = log.segments.length
  const signedSeals = head.manifest === null ? 0 : head.manifest.seq + 1
  // A crash between the renames of manifest and head leaves the head one seal behind.
  if (signedSeals > seals || signedSeals < seals - 1) {
    throw corrupt(names.manifests, `the head counts ${signedSeals} seals, there are ${seals}`)
  }
}

function needsSigning(
  log: LogState,
  head: Head | null,
  root: string,
  identity: LogIdentity,
): boolean {
  if (head === null || head.size !== log.tree.size) return true
  if (head.manifest?.sha256 !== log.manifest?.sha256) return true
  if (existsSync(join(root, names.headNext)) || existsSync(join(root, names.checkpointNext))) {
    return true
  }
  const key = parseVkey(identity.vkey)
  if (!key.ok || !existsSync(join(root, names.checkpoint))) return true
  const opened = openCheckpoint(readFileSync(join(root, names.checkpoint)), {
    origin: identity.origin,
    logKeys: [key.key],
  })
  return !opened.ok || opened.checkpoint.size !== log.tree.size
}

/** The tiles' right edge as of the newest manifest; wider partial tiles hold it as their beginning. */
function restoreTiles(root: string, tree: CompactRange): TileEdge {
  const restored = TileEdge.restore(tree, (tile) => readTileFrom(root, tile))
  if (!restored.ok) throw corrupt(`${names.log}/tile`, restored.problem)
  return restored.edge
}

function readTileFrom(root: string, tile: HashTile): Uint8Array | undefined {
  for (let width = tileWidth; width >= tile.width; width--) {
    const path = join(root, names.log, formatTilePath({ ...tile, width }))
    if (existsSync(path)) return readFileSync(path).subarray(0, tile.width * hashBytes)
  }
  return undefined
}

function removeTemporaries(root: string): void {
  for (const folder of [names.parts, names.segments, names.log]) {
    for (const path of filesBelow(root, folder)) {
      if (isTemporary(path)) rmSync(join(root, path), { force: true })
    }
  }
}

function filesBelow(root: string, folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
}

function bytesBelow(root: string): number {
  return [names.parts, names.segments, names.log]
    .flatMap((folder) => filesBelow(root, folder))
    .reduce((sum, path) => sum + sizeOf(root, path), 0)
}

function sizeOf(root: string, path: string): number {
  return statSync(join(root, path)).size
}

function quarantine(root: string, path: string): void {
  const file = path.slice(names.parts.length + 1)
  try {
    renameSync(join(root, path), join(root, names.quarantine, file))
  } catch (cause) {
    throw new OpsError('disk', `cannot set ${path} aside: ${messageOf(cause)}`, {
      hint: 'check the permissions of the data directory',
      cause,
    })
  }
  syncFolder(root, names.parts)
}

function corrupt(path: string, problem: string): OpsError {
  return new OpsError('corrupt_input', `${path}: ${problem}`, {
    hint: 'keep the directory as it is and run meshtrail verify on it; start a new log elsewhere',
    detail: { path },
  })
}
