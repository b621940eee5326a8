/**
 * Offline verification of a log: what an auditor runs on files, with one key and no trust in us.
 *
 * In order: names, key, manifests, head and checkpoint, hashes of all files; then, row by row, leaves,
 * tree, tiles, and the account of bytes.
 */
import type { Evidence } from './evidence.ts'
import { checkHashes, checkNames, liveParts } from './files.ts'
import { Complaints, type Verification } from './report.ts'
import { type RowOptions, RowReader } from './rows.ts'
import { readExpectedHead, readKey, readManifests, readSignedEnd } from './statements.ts'

export type VerifyOptions = RowOptions & {
  /** The log's public key, from a source other than the evidence; null when none was given. */
  readonly vkey: string | null
  /** A checkpoint the log must contain, as signed note bytes; null when none was given. */
  readonly expectHead: Uint8Array | null
  /** Stop at the first proof of forgery, before reading rows. */
  readonly failFast?: boolean
}

export async function verifyLog(evidence: Evidence, options: VerifyOptions): Promise<Verification> {
  const complaints = new Complaints()
  checkNames(evidence, complaints)
  const key = readKey(evidence, options.vkey, complaints)
  if (key === null) return withoutKey(complaints)

  const { expectHead } = options
  const expected = expectHead === null ? null : readExpectedHead(expectHead, key, complaints)
  const segments = readManifests(evidence, key, complaints)
  const signed = readSignedEnd(evidence, key, segments, complaints)
  const live = liveParts(evidence, segments)
  await checkHashes(evidence, segments, live, signed, complaints)

  const rows = new RowReader(evidence, options, expected, complaints)
  const stop = options.failFast === true && complaints.verdict === 'forged'
  if (!stop) await rows.read(segments, live, signed)
  return {
    verdict: complaints.verdict,
    origin: key.name,
    size: signed.size,
    root: signed.root,
    segments: segments.length,
    parts: live.length,
    rawBytes: rows.rawBytes,
    gaps: rows.gaps,
    from: Number.isFinite(rows.from) ? rows.from : null,
    to: Number.isFinite(rows.to) ? rows.to : null,
    anchored: expectHead !== null,
    complaints: complaints.all,
  }
}

function withoutKey(complaints: Complaints): Verification {
  return {
    verdict: complaints.verdict,
    origin: '',
    size: 0,
    root: '',
    segments: 0,
    parts: 0,
    rawBytes: 0,
    gaps: 0,
    from: null,
    to: null,
    anchored: false,
    complaints: complaints.all,
  }
}
