/**
 * What is signed: the key, the manifests' chain, head note and checkpoint. No row is read here.
 */
import { openCheckpoint } from '../log/checkpoint.ts'
import { encodeHex } from '../log/encoding.ts'
import { emptyRoot } from '../log/merkle.ts'
import { noteVerifier, parseVkey, type VerifierKey } from '../log/note.ts'
import { manifestName, names, parseManifestName } from '../store/filenames.ts'
import { type Head, type Manifest, openHead, openManifest } from '../store/statement.ts'
import type { Evidence } from './evidence.ts'
import type { Complaints } from './report.ts'

export type SealedSegment = { readonly manifest: Manifest; readonly sha256: string }

/** The end of the log that its key vouches for. */
export type SignedEnd = {
  /** Null before the first commit, or when no head note can be believed. */
  readonly head: Head | null
  readonly size: number
  /** Hex. */
  readonly root: string
}

/** @param vkey from a source other than the evidence; null when there is none */
export function readKey(
  evidence: Evidence,
  vkey: string | null,
  complaints: Complaints,
): VerifierKey | null {
  const stored = evidence.has(names.vkey)
    ? Buffer.from(evidence.read(names.vkey)).toString('utf8')
    : null
  if (stored === null) complaints.forged(names.vkey, 'missing')
  else if (vkey !== null && stored !== `${vkey}\n`) {
    complaints.forged(names.vkey, 'it is not the key given')
  }
  if (vkey === null) {
    complaints.incomplete(
      names.vkey,
      'consistent at best, not authenticated: no trusted key given (--key)',
    )
  }
  const parsed = parseVkey(vkey ?? stored?.trimEnd() ?? '')
  if (parsed.ok) return parsed.key
  complaints.forged(names.vkey, parsed.problem)
  return null
}

export function readManifests(
  evidence: Evidence,
  key: VerifierKey,
  complaints: Complaints,
): readonly SealedSegment[] {
  const verifiers = [noteVerifier(key)]
  const segments: SealedSegment[] = []
  for (const path of evidence.list()) {
    const seq = parseManifestName(path)
    if (seq === null) continue
    const bytes = evidence.read(path)
    const opened = openManifest(bytes, verifiers)
    if (!opened.ok) {
      complaints.forged(path, opened.problem)
      continue
    }
    const manifest = opened.value
    if (manifest.origin !== key.name || manifest.seq !== seq) {
      complaints.forged(path, `it is manifest ${manifest.seq} of ${manifest.origin}`)
      continue
    }
    const before = segments.at(-1)
    const next = before === undefined ? 0 : before.manifest.seq + 1
    const end = sealedEnd(segments)
    if (seq !== next) complaints.forged(manifestName(next), 'missing', [end, manifest.first])
    else if (manifest.previous !== (before?.sha256 ?? '') || manifest.first !== end) {
      complaints.forged(path, 'it does not follow the manifest before it')
    }
    segments.push({ manifest, sha256: sha256(bytes) })
  }
  return segments
}

/** The leaf behind the newest segment. */
export function sealedEnd(segments: readonly SealedSegment[]): number {
  const newest = segments.at(-1)?.manifest
  return newest === undefined ? 0 : newest.first + newest.count
}

/**
 * Head note and checkpoint must agree. They may differ by one commit only while the newer twin of
 * the older one lies beside it: that is a crash between two renames, not an old copy put back.
 */
export function readSignedEnd(
  evidence: Evidence,
  key: VerifierKey,
  segments: readonly SealedSegment[],
  complaints: Complaints,
): SignedEnd {
  const staged = readHead(evidence, key, names.headNext, complaints)
  const head = newer(readHead(evidence, key, names.head, complaints), staged)
  const stagedCheckpoint = readCheckpoint(evidence, key, names.checkpointNext, complaints)
  // The checkpoint is staged first: alone it is a commit that got no further.
  const isAhead = stagedCheckpoint !== null && stagedCheckpoint.size > (head?.size ?? 0)
  const checkpoint = newer(
    readCheckpoint(evidence, key, names.checkpoint, complaints),
    isAhead ? null : stagedCheckpoint,
  )
  if (head === null) {
    if (checkpoint !== null || segments.length > 0) {
      complaints.forged(names.head, 'missing or not signed by the key')
    }
    const { size, root } = checkpoint ?? { size: 0, root: encodeHex(emptyRoot()) }
    return { head, size, root }
  }
  if (checkpoint === null) {
    complaints.forged(names.checkpoint, 'missing or not signed by the key')
  } else if (checkpoint.size !== head.size || checkpoint.root !== head.root) {
    const isCheckpointOlder = checkpoint.size < head.size
    const [older, newest] = isCheckpointOlder ? [checkpoint, head] : [head, checkpoint]
    complaints.forged(
      isCheckpointOlder ? names.checkpoint : names.head,
      `it covers ${older.size} events, its twin ${newest.size}: an older copy was put back`,
    )
  }
  checkNewestManifest(head, head === staged, segments, complaints)
  return { head, size: head.size, root: head.root }
}

function checkNewestManifest(
  head: Head,
  isStaged: boolean,
  segments: readonly SealedSegment[],
  complaints: Complaints,
): void {
  const newest = segments.at(-1)
  const stated = head.manifest
  const sealed = newest === undefined ? 0 : newest.manifest.seq + 1
  const counted = stated === null ? 0 : stated.seq + 1
  if (counted > sealed) {
    // The head is staged before the manifest's rename, so a crash may leave it one ahead.
    if (isStaged && counted === sealed + 1) return
    complaints.forged(manifestName(counted - 1), 'the signed head names it and it is missing')
  } else if (counted < sealed) {
    complaints.forged(
      names.head,
      `it counts ${counted} manifests, there are ${sealed}: an older copy was put back`,
    )
  } else if (stated !== null && newest !== undefined && stated.sha256 !== newest.sha256) {
    complaints.forged(manifestName(stated.seq), 'it is not the one the signed head names')
  }
}

function readHead(
  evidence: Evidence,
  key: VerifierKey,
  path: string,
  complaints: Complaints,
): Head | null {
  if (!evidence.has(path)) return null
  const opened = openHead(evidence.read(path), [noteVerifier(key)])
  if (!opened.ok || opened.value.origin !== key.name) {
    complaints.forged(path, opened.ok ? `it is of ${opened.value.origin}` : opened.problem)
    return null
  }
  if (path === names.headNext) interrupted(path, complaints)
  return opened.value
}

function readCheckpoint(
  evidence: Evidence,
  key: VerifierKey,
  path: string,
  complaints: Complaints,
): { readonly size: number; readonly root: string } | null {
  if (!evidence.has(path)) return null
  const opened = openCheckpoint(evidence.read(path), { origin: key.name, logKeys: [key] })
  if (!opened.ok) {
    complaints.forged(path, opened.problem)
    return null
  }
  if (path === names.checkpointNext) interrupted(path, complaints)
  return { size: opened.checkpoint.size, root: encodeHex(opened.checkpoint.root) }
}

function interrupted(path: string, complaints: Complaints): void {
  complaints.incomplete(path, 'an interrupted commit; start the agent once to finish it')
}

function newer<T extends { readonly size: number }>(current: T | null, staged: T | null): T | null {
  if (current === null || staged === null) return current ?? staged
  return staged.size >= current.size ? staged : current
}

/** A head kept elsewhere that the log must contain. */
export type ExpectedHead = { readonly size: number; readonly root: string }

export function readExpectedHead(
  note: Uint8Array,
  key: VerifierKey,
  complaints: Complaints,
): ExpectedHead | null {
  const opened = openCheckpoint(note, { origin: key.name, logKeys: [key] })
  if (opened.ok) {
    return { size: opened.checkpoint.size, root: encodeHex(opened.checkpoint.root) }
  }
  complaints.forged(names.checkpoint, `the expected head: ${opened.problem}`)
  return null
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher('sha256').update(bytes).digest('hex')
}
