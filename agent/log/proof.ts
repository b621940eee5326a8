/**
 * C2SP tlog-proof files: one leaf's inclusion proof with the signed checkpoint it leads to, checkable
 * without the log.
 *
 * The `extra` bytes are not authenticated by the format: whoever reads them must compute the leaf
 * hash from them. What our `extra` holds is not decided here.
 *
 * @see https://c2sp.org/tlog-proof
 */

import { type CheckpointTrust, openCheckpoint, type OpenedCheckpoint } from './checkpoint.ts'
import {
  decodeBase64,
  decodeUtf8,
  encodeBase64,
  parseDecimal,
  refused,
  type Refused,
} from './encoding.ts'
import { hashBytes, verifyInclusion } from './merkle.ts'
import { noteBytesMax } from './note.ts'

/** A tree below 2^53 leaves has no longer path. */
const proofHashesMax = 53
/** What may stand before the checkpoint: a line of 1 MiB in base64, and the path. */
const headBytesMax = 2 << 20
const header = 'c2sp.org/tlog-proof@v1'

/** A proof file taken apart. */
export type TlogProof = {
  /** What the leaf hash is to be recomputed from, or absent. */
  readonly extra?: Uint8Array
  /** The leaf's place in the log. */
  readonly index: number
  /** The inclusion proof, leaf's sibling first. */
  readonly hashes: readonly Uint8Array[]
  /** The signed checkpoint, as a note. */
  readonly checkpoint: Uint8Array
}

/** The bytes of a proof file. @throws {Error} `BUG:` when it would not read back */
export function formatProof({ extra, index, hashes, checkpoint }: TlogProof): Uint8Array {
  const lines = [
    header,
    ...(extra === undefined ? [] : [`extra ${encodeBase64(extra)}`]),
    `index ${index}`,
    ...hashes.map(encodeBase64),
    '',
    '',
  ]
  const file = Buffer.concat([Buffer.from(lines.join('\n')), checkpoint])
  const parsed = parseProof(file)
  if (!parsed.ok) throw new Error(`BUG: ${parsed.problem}`)
  return new Uint8Array(file)
}

/** Takes a proof file apart; takes bytes from anyone. The checkpoint is cut off, not read. */
export function parseProof(
  bytes: Uint8Array,
): { readonly ok: true; readonly proof: TlogProof } | Refused {
  if (bytes.length > headBytesMax + noteBytesMax) {
    return refused(`proof has ${bytes.length} bytes, too many`)
  }
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  // The first blank line: base64 and numbers have none, the checkpoint below may.
  const blank = buffer.indexOf('\n\n')
  if (blank < 0) return refused('proof has no blank line before its checkpoint')
  const head = decodeUtf8(buffer.subarray(0, blank))
  if (head === undefined) return refused('proof is not utf-8')

  const lines = head.split('\n')
  if (lines.shift() !== header) return refused(`proof does not start with ${header}`)
  let extra: Uint8Array | undefined
  if (lines[0]?.startsWith('extra ') === true) {
    extra = decodeBase64(lines.shift()?.slice('extra '.length) ?? '')
    if (extra === undefined) return refused('extra is not base64')
  }
  const indexLine = lines.shift() ?? ''
  const index = indexLine.startsWith('index ')
    ? parseDecimal(indexLine.slice('index '.length))
    : undefined
  if (index === undefined) return refused('index is not a decimal below 2^53')
  if (lines.length > proofHashesMax) return refused(`proof has ${lines.length} hashes, too many`)
  const hashes: Uint8Array[] = []
  for (const [i, line] of lines.entries()) {
    const hash = decodeBase64(line)
    if (hash?.length !== hashBytes) return refused(`hash ${i} is not 32 bytes in base64`)
    hashes.push(hash)
  }
  const checkpoint = new Uint8Array(buffer.subarray(blank + 2))
  const proof = { index, hashes, checkpoint }
  return { ok: true, proof: extra === undefined ? proof : { extra, ...proof } }
}

/**
 * Checks that the leaf with this hash is in the log one trusts, at the proof's index.
 *
 * @param leaf 32 bytes, computed from the record itself
 */
export function verifyProof(
  proof: TlogProof,
  leaf: Uint8Array,
  trust: CheckpointTrust,
): ({ readonly ok: true } & OpenedCheckpoint) | Refused {
  const opened = openCheckpoint(proof.checkpoint, trust)
  if (!opened.ok) return opened
  const { size, root } = opened.checkpoint
  const included = verifyInclusion({ index: proof.index, size, leaf, proof: proof.hashes, root })
  return included.ok ? opened : included
}
