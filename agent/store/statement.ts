/**
 * What the log's key signs beside checkpoints: the head note and the manifests. Each is a C2SP signed
 * note whose text is a line naming the kind and a line of JSON.
 *
 *     meshtrail/head@v1        which part and which manifest are the newest
 *     meshtrail/manifest@v1    one segment: its leaf range, file, and the parts it replaces
 *
 * They exist because a C2SP checkpoint holds a tree head and nothing else.
 */
import { z } from 'zod'
import { decodeUtf8 } from '../log/encoding.ts'
import type { NoteSigner, NoteVerifier } from '../log/note.ts'
import { openNote, signNote } from '../log/note.ts'
import { totalsSchema } from './part.ts'

const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const whole = z.number().int().nonnegative()

export const headSchema = z.strictObject({
  origin: z.string().min(1),
  size: whole,
  root: hex64,
  /** SHA-256 of the newest part; '' before the first commit. */
  part: hex64.or(z.literal('')),
  /** The newest manifest's sequence number and SHA-256; null before the first seal. */
  manifest: z.strictObject({ seq: whole, sha256: hex64 }).nullable(),
})
export type Head = z.infer<typeof headSchema>

const span = z.strictObject({ min: whole, max: whole })

export const manifestSchema = z.strictObject({
  origin: z.string().min(1),
  seq: whole,
  /** SHA-256 of the manifest before; '' for the first. */
  previous: hex64.or(z.literal('')),
  first: whole,
  count: z.number().int().positive(),
  rootBefore: hex64,
  rootAfter: hex64,
  /** Roots of the perfect subtrees of the tree after it: enough to append further leaves. */
  frontier: z.array(hex64).max(53),
  file: z.strictObject({
    path: z.string(),
    bytes: z.number().int().positive(),
    sha256: hex64,
    rowGroups: z.number().int().positive(),
  }),
  /** The parts it holds, in order; they vanish once nobody reads them. */
  parts: z.array(z.strictObject({ path: z.string(), sha256: hex64 })).min(1),
  /** Microseconds; `time` is what queries filter by. */
  time: span,
  observed: span,
  rulesThrough: z.strictObject({ leaf: whole, ruleSet: z.string() }),
  totals: totalsSchema,
  schema: whole,
  parser: whole,
  agent: z.string(),
})
export type Manifest = z.infer<typeof manifestSchema>

const kinds = {
  head: { line: 'meshtrail/head@v1', schema: headSchema },
  manifest: { line: 'meshtrail/manifest@v1', schema: manifestSchema },
} as const

export function signHead(head: Head, signer: NoteSigner): Uint8Array {
  return sign('head', head, signer)
}

export function signManifest(manifest: Manifest, signer: NoteSigner): Uint8Array {
  return sign('manifest', manifest, signer)
}

export type Stated<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problem: string }

/** @param bytes from anyone; only what a key of `verifiers` signed is returned */
export function openHead(bytes: Uint8Array, verifiers: readonly NoteVerifier[]): Stated<Head> {
  return open('head', bytes, verifiers, headSchema)
}

export function openManifest(
  bytes: Uint8Array,
  verifiers: readonly NoteVerifier[],
): Stated<Manifest> {
  return open('manifest', bytes, verifiers, manifestSchema)
}

function sign(kind: keyof typeof kinds, value: Head | Manifest, signer: NoteSigner): Uint8Array {
  const { line, schema } = kinds[kind]
  schema.parse(value)
  return signNote(Buffer.from(`${line}\n${JSON.stringify(value)}\n`), [signer])
}

function open<T>(
  kind: keyof typeof kinds,
  bytes: Uint8Array,
  verifiers: readonly NoteVerifier[],
  schema: z.ZodType<T>,
): Stated<T> {
  const opened = openNote(bytes, verifiers)
  if (!opened.ok) return opened
  const [first, json, ...rest] = (decodeUtf8(opened.note.text) ?? '').split('\n')
  if (first !== kinds[kind].line || json === undefined || rest.length !== 1) {
    return { ok: false, problem: `not a ${kinds[kind].line} statement` }
  }
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    return { ok: false, problem: `${kind} is not json` }
  }
  const parsed = schema.safeParse(value)
  if (!parsed.success) {
    return { ok: false, problem: `${kind}: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}` }
  }
  return { ok: true, value: parsed.data }
}
