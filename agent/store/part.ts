/**
 * A part: the rows of one commit as a small Parquet file whose footer says where they stand in the log.
 *
 * Invariant: a part holds everything needed to take up the log after it (cursors, tree size and root,
 * salt key, how far rules have run), so that its rename is the whole commit.
 */
import { ByteWriter } from 'hyparquet-writer'
import { z } from 'zod'
import type { AuditEvent, Column } from '../event.ts'
import { columns, parserVersion, schemaVersion } from '../event.ts'
import type { Cursor, Provenance } from '../tail/chunk.ts'
import type { ColumnSource, ParquetEncoder } from './parquet.ts'
import { finishFile, rowGroupOf, startFile } from './parquet.ts'

/** How far which rule set has looked: every leaf below `leaf`. */
export type RulesThrough = { readonly leaf: number; readonly ruleSet: string }

/** Sums over the whole log up to here, for coverage. */
export type Totals = {
  /** Declared gaps. */
  readonly gaps: number
  /** Event time covered, µs. */
  readonly from: number
  readonly to: number
}

/** The footer of a part, as JSON under the key `meshtrail`. */
export type PartMeta = {
  readonly format: 'meshtrail/part@v1'
  readonly origin: string
  /** Leaf index of the first row. */
  readonly first: number
  readonly count: number
  /** Tree head after these rows, hex. */
  readonly root: string
  /** SHA-256, hex, of the part before; '' for the first of a log. */
  readonly previous: string
  /** Key of the leaf salts of the sealing range, hex. Never leaves the file's footer. */
  readonly saltKey: string
  /** All cursors in the first part after a seal, those that moved in the others. */
  readonly cursors: readonly Cursor[]
  readonly allCursors: boolean
  readonly rulesThrough: RulesThrough
  readonly totals: Totals
  /** The last checkpoint signed before this commit, a C2SP signed note; '' before the first. */
  readonly checkpoint: string
  readonly schema: number
  readonly parser: number
}

const hex64 = z.string().regex(/^[0-9a-f]{64}$/)
const whole = z.number().int().nonnegative()
const nullableText = z.string().nullable()

export const provenanceSchema: z.ZodType<Provenance> = z.strictObject({
  trust: z.enum(['proxy', 'control_plane', 'api_server', 'none']),
  namespace: nullableText,
  pod: nullableText,
  podUid: nullableText,
  container: nullableText,
  workload: nullableText,
})

const cursorSchema: z.ZodType<Cursor> = z.strictObject({
  gen: z.string().regex(/^[0-9a-f]{32}$/),
  path: z.string(),
  dev: z.number(),
  ino: z.number(),
  offset: whole,
  fingerprint: hex64.or(z.literal('')),
  fingerprintBytes: whole,
  before: hex64.or(z.literal('')),
  pending: z.array(
    z.strictObject({ offset: whole, length: whole, stream: z.enum(['stdout', 'stderr']) }),
  ),
  provenance: provenanceSchema,
  finished: z.boolean(),
  seenUs: z.number(),
})

export const totalsSchema: z.ZodType<Totals> = z.strictObject({
  gaps: whole,
  from: z.number().int(),
  to: z.number().int(),
})

const partMetaSchema: z.ZodType<PartMeta> = z.strictObject({
  format: z.literal('meshtrail/part@v1'),
  origin: z.string(),
  first: whole,
  count: z.number().int().positive(),
  root: hex64,
  previous: hex64.or(z.literal('')),
  saltKey: hex64,
  cursors: z.array(cursorSchema),
  allCursors: z.boolean(),
  rulesThrough: z.strictObject({ leaf: whole, ruleSet: z.string() }),
  totals: totalsSchema,
  checkpoint: z.string(),
  schema: whole,
  parser: whole,
})

/** Reads a part's footer; takes JSON from anyone. */
export function parsePartMeta(
  footer: unknown,
):
  | { readonly ok: true; readonly meta: PartMeta }
  | { readonly ok: false; readonly problem: string } {
  const parsed = partMetaSchema.safeParse(footer)
  if (parsed.success) return { ok: true, meta: parsed.data }
  return { ok: false, problem: `footer: ${z.prettifyError(parsed.error).replaceAll('\n', ' ')}` }
}

/** The footer key of parts and segments. */
export const metadataKey = 'meshtrail'

export type PartMetaInput = Omit<PartMeta, 'format' | 'schema' | 'parser' | 'count'>

/**
 * Encodes `events` as the part that starts at leaf `meta.first`. Columns without a value are left out.
 *
 * @param events at least one, in leaf order
 */
export function encodePart(
  encoder: ParquetEncoder,
  events: readonly AuditEvent[],
  meta: PartMetaInput,
): Uint8Array {
  const footer: PartMeta = {
    format: 'meshtrail/part@v1',
    ...meta,
    count: events.length,
    schema: schemaVersion,
    parser: parserVersion,
  }
  const file = new ByteWriter(1 << 16)
  startFile(file)
  const start = file.offset
  const encoded = encoder.rowGroup(file, columnSources(events, meta.first), events.length)
  const present = new Set(encoded.map((column) => column.name))
  const chunks = encoded.map((column) => column.chunk)
  finishFile(
    file,
    columns.filter((column) => present.has(column.name)),
    [rowGroupOf(chunks, events.length, start, file.offset)],
    [{ key: metadataKey, value: JSON.stringify(footer) }],
  )
  return file.getBytes()
}

/** Columns whose values hardly repeat within a commit: a dictionary would only cost. */
const distinctColumns = new Set(['request_id', 'trace_id', 'attributes', 'change'])

/** The stored columns of `events`, the first of which is leaf `first`. */
export function columnSources(events: readonly AuditEvent[], first: number): ColumnSource[] {
  return columns.map((column) => sourceOf(column, events, first))
}

function sourceOf(column: Column, events: readonly AuditEvent[], first: number): ColumnSource {
  const { name, nullable } = column
  switch (column.type) {
    case 'utf8':
    case 'json': {
      const read = textOf[name]
      if (read === undefined) throw new Error(`BUG: no text reader for column ${name}`)
      return {
        name,
        nullable,
        type: column.type,
        distinct: distinctColumns.has(name),
        text: (row) => read(at(events, row)),
      }
    }
    case 'bytes':
      return {
        name,
        nullable,
        type: 'bytes',
        bytes: (row, page) => {
          const event = at(events, row)
          page.copy(event.rawBuffer, event.rawStart, event.rawEnd)
        },
      }
    case 'time':
    case 'u64':
    case 'i64':
    case 'u32': {
      if (name === 'leaf_index') {
        return { name, nullable, type: column.type, number: (row) => first + row }
      }
      const read = numberOf[name]
      if (read === undefined) throw new Error(`BUG: no number reader for column ${name}`)
      return { name, nullable, type: column.type, number: (row) => read(at(events, row)) }
    }
  }
}

function at(events: readonly AuditEvent[], row: number): AuditEvent {
  const event = events[row]
  if (event === undefined) throw new Error(`BUG: row ${row} of ${events.length} events`)
  return event
}

/** `offset+length`, comma separated: the `_ranges` column. */
function formatRanges(ranges: readonly number[]): string {
  let text = ''
  for (let pair = 0; pair < ranges.length; pair += 2) {
    text += `${pair === 0 ? '' : ','}${ranges[pair]}+${ranges[pair + 1]}`
  }
  return text
}

/**
 * The ranges of a row, from the three columns that hold them.
 *
 * @returns null when they are not what this file writes
 */
export function rangesOf(
  offset: number | null,
  length: number | null,
  text: string | null,
): number[] | null {
  if (text === null) return offset === null || length === null ? [] : [offset, length]
  const ranges: number[] = []
  for (const pair of text.split(',')) {
    const match = /^(0|[1-9]\d{0,15})\+(0|[1-9]\d{0,15})$/.exec(pair)
    if (match === null) return null
    ranges.push(Number(match[1]), Number(match[2]))
  }
  return ranges
}

// One small function a column, so that each property access has one shape to deal with.
const textOf: Readonly<Record<string, (event: AuditEvent) => string | null>> = {
  cluster: (e) => e.cluster,
  node: (e) => e.node,
  namespace: (e) => e.namespace,
  pod: (e) => e.pod,
  container: (e) => e.container,
  workload: (e) => e.workload,
  source: (e) => e.source,
  mesh: (e) => e.mesh,
  plane: (e) => e.plane,
  kind: (e) => e.kind,
  direction: (e) => e.direction,
  verdict: (e) => e.verdict,
  decided_by: (e) => e.decided_by,
  reason: (e) => e.reason,
  policy: (e) => e.policy,
  policy_kind: (e) => e.policy_kind,
  policy_rule: (e) => e.policy_rule,
  tls_version: (e) => e.tls_version,
  tls_failure: (e) => e.tls_failure,
  tls_detail: (e) => e.tls_detail,
  principal: (e) => e.principal,
  principal_kind: (e) => e.principal_kind,
  principal_namespace: (e) => e.principal_namespace,
  principal_name: (e) => e.principal_name,
  end_user: (e) => e.end_user,
  end_user_issuer: (e) => e.end_user_issuer,
  on_behalf_of: (e) => e.on_behalf_of,
  src_namespace: (e) => e.src_namespace,
  src_workload: (e) => e.src_workload,
  client_ip: (e) => e.client_ip,
  user_agent: (e) => e.user_agent,
  dst_principal: (e) => e.dst_principal,
  dst_namespace: (e) => e.dst_namespace,
  dst_workload: (e) => e.dst_workload,
  dst_service: (e) => e.dst_service,
  server_ip: (e) => e.server_ip,
  sni: (e) => e.sni,
  method: (e) => e.method,
  host: (e) => e.host,
  path: (e) => e.path,
  query: (e) => e.query,
  protocol: (e) => e.protocol,
  response_flags: (e) => e.response_flags,
  request_id: (e) => e.request_id,
  trace_id: (e) => e.trace_id,
  api_group: (e) => e.api_group,
  resource: (e) => e.resource,
  subresource: (e) => e.subresource,
  object_namespace: (e) => e.object_namespace,
  object_name: (e) => e.object_name,
  change: (e) => e.change,
  attributes: (e) => e.attributes,
  _gen: (e) => e.gen,
  _ranges: (e) => (e.ranges.length > 2 ? formatRanges(e.ranges) : null),
  _stream: (e) => e.stream,
}

const numberOf: Readonly<Record<string, (event: AuditEvent) => number | null>> = {
  _offset: (e) => (e.ranges.length === 2 ? (e.ranges[0] ?? null) : null),
  _length: (e) => (e.ranges.length === 2 ? (e.ranges[1] ?? null) : null),
  ts: (e) => e.ts,
  observed_ts: (e) => e.observed_ts,
  time: (e) => e.ts ?? e.observed_ts,
  client_port: (e) => e.client_port,
  server_port: (e) => e.server_port,
  status: (e) => e.status,
  grpc_status: (e) => e.grpc_status,
  bytes_in: (e) => e.bytes_in,
  bytes_out: (e) => e.bytes_out,
  duration_us: (e) => e.duration_us,
}
