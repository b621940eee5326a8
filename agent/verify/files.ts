/**
 * Every file against what something signed says of it, and nothing that nobody names. The hashes cover
 * all bytes of segments and parts, so rows need no check of their own to be believed, only to be counted.
 */
import { parseTilePath } from '../log/tile.ts'
import {
  isTemporary,
  names,
  parseManifestName,
  parsePartName,
  type PartName,
} from '../store/filenames.ts'
import { parsePartMeta } from '../store/part.ts'
import { openParquet } from '../store/read.ts'
import type { Evidence } from './evidence.ts'
import type { Complaints, LeafRange } from './report.ts'
import { type SealedSegment, sealedEnd, type SignedEnd } from './statements.ts'

const fixedNames: ReadonlySet<string> = new Set([
  names.vkey,
  names.checkpoint,
  names.checkpointNext,
  names.head,
  names.headNext,
])

export function checkNames(evidence: Evidence, complaints: Complaints): void {
  for (const path of evidence.list()) {
    const known =
      fixedNames.has(path) ||
      parsePartName(path) !== null ||
      parseManifestName(path) !== null ||
      isSegmentPath(path) ||
      (path.startsWith('log/tile/') && parseTilePath(path.slice('log/'.length)).ok)
    if (known) continue
    if (isTemporary(path)) {
      complaints.incomplete(path, 'an interrupted write; start the agent once to clean up')
    } else complaints.forged(path, 'not a file of the log')
  }
  for (const path of evidence.irregular) complaints.forged(path, 'not a regular file')
}

/** Parts that no segment covers, in leaf order. */
export function liveParts(
  evidence: Evidence,
  segments: readonly SealedSegment[],
): readonly PartName[] {
  const end = sealedEnd(segments)
  return partsOf(evidence)
    .filter((part) => part.first >= end)
    .toSorted((a, b) => a.first - b.first)
}

function partsOf(evidence: Evidence): PartName[] {
  return evidence
    .list()
    .map(parsePartName)
    .filter((part) => part !== null)
}

export async function checkHashes(
  evidence: Evidence,
  segments: readonly SealedSegment[],
  live: readonly PartName[],
  signed: SignedEnd,
  complaints: Complaints,
): Promise<void> {
  for (const { manifest } of segments) {
    const { file, first, count } = manifest
    const leaves: LeafRange = [first, first + count]
    if (!evidence.has(file.path)) complaints.forged(file.path, 'missing', leaves)
    else if ((await evidence.sha256(file.path)) !== file.sha256) {
      complaints.forged(file.path, 'its bytes are not those the manifest signs', leaves)
    }
  }
  checkStraySegments(evidence, segments, complaints)
  await checkSealedParts(evidence, segments, live, complaints)
  await checkPartChain(evidence, segments, live, signed, complaints)
  checkUnsignedParts(live, signed, complaints)
}

function checkStraySegments(
  evidence: Evidence,
  segments: readonly SealedSegment[],
  complaints: Complaints,
): void {
  const named = new Set(segments.map(({ manifest }) => manifest.file.path))
  for (const path of evidence.list()) {
    if (!isSegmentPath(path) || named.has(path)) continue
    const first = Number(/(\d+)-\d+-[0-9a-f]+\.parquet$/.exec(path)?.[1])
    if (first >= sealedEnd(segments)) {
      complaints.incomplete(path, 'sealing was interrupted; its parts count')
    } else complaints.forged(path, 'no manifest names it')
  }
}

/** Sealed parts lie around until no query reads them; while they do, they must be what was sealed. */
async function checkSealedParts(
  evidence: Evidence,
  segments: readonly SealedSegment[],
  live: readonly PartName[],
  complaints: Complaints,
): Promise<void> {
  const sealed = new Map(
    segments.flatMap(({ manifest }) => manifest.parts.map((part) => [part.path, part.sha256])),
  )
  const liveNames = new Set(live.map((part) => part.path))
  for (const part of partsOf(evidence)) {
    if (liveNames.has(part.path)) continue
    const expected = sealed.get(part.path)
    if (expected === undefined) {
      complaints.forged(part.path, 'no manifest names it', leavesOf(part))
    } else if ((await evidence.sha256(part.path)) !== expected) {
      complaints.forged(part.path, 'it is not the part that was sealed', leavesOf(part))
    }
  }
}

/** The head names the newest part's hash, each part the one before: so all bytes of all parts. */
async function checkPartChain(
  evidence: Evidence,
  segments: readonly SealedSegment[],
  live: readonly PartName[],
  signed: SignedEnd,
  complaints: Complaints,
): Promise<void> {
  const parts = live.filter((part) => part.first < signed.size)
  const newest = parts.at(-1)
  if (newest === undefined && signed.size > sealedEnd(segments)) {
    complaints.forged(names.parts, 'missing', [sealedEnd(segments), signed.size])
    return
  }
  if (newest !== undefined && newest.first + newest.count !== signed.size) {
    complaints.forged(newest.path, `it does not end at ${signed.size}, where the signed head does`)
  }
  let expected = signed.head?.part ?? null
  for (const part of parts.toReversed()) {
    if (expected !== null && (await evidence.sha256(part.path)) !== expected) {
      const witness = part === newest ? 'the signed head' : 'the part after it'
      complaints.forged(part.path, `its bytes are not those ${witness} names`, leavesOf(part))
    }
    const opened = await openParquet(evidence.parquet(part.path))
    const footer = opened.ok ? parsePartMeta(opened.footer) : opened
    if (!footer.ok) {
      complaints.forged(part.path, footer.problem, leavesOf(part))
      return
    }
    expected = footer.meta.previous
  }
  const lastSealed = segments.at(-1)?.manifest.parts.at(-1)?.sha256 ?? ''
  if (expected !== null && expected !== lastSealed) {
    const path = parts[0]?.path ?? names.head
    complaints.forged(path, 'it does not follow the newest sealed part')
  }
}

function checkUnsignedParts(
  live: readonly PartName[],
  signed: SignedEnd,
  complaints: Complaints,
): void {
  const unsigned = live.filter((part) => part.first >= signed.size)
  for (const [position, part] of unsigned.entries()) {
    if (position === 0 && part.first === signed.size) {
      const problem = 'one commit nobody signed yet; start the agent once'
      complaints.incomplete(part.path, problem, leavesOf(part))
    } else complaints.forged(part.path, 'behind the signed end of the log', leavesOf(part))
  }
}

export function leavesOf(part: PartName): LeafRange {
  return [part.first, part.first + part.count]
}

function isSegmentPath(path: string): boolean {
  return /^segments\/observed_date=\d{4}-\d\d-\d\d\/\d{12,16}-[1-9]\d*-[0-9a-f]{16}\.parquet$/.test(
    path,
  )
}
