/** Every name under the data directory, in one place. Paths are relative to it, with `/`. */

export const names = {
  lock: 'lock',
  keys: 'keys',
  logKey: 'keys/log.key',
  vkey: 'log/vkey',
  checkpoint: 'log/checkpoint',
  checkpointNext: 'log/checkpoint.next',
  head: 'log/head.note',
  headNext: 'log/head.note.next',
  manifests: 'log/manifest',
  log: 'log',
  parts: 'parts',
  segments: 'segments',
  quarantine: 'quarantine',
  cache: 'cache',
} as const

export function partName(first: number, count: number): string {
  return `${names.parts}/${pad(first)}-${count}.parquet`
}

export function segmentName(date: string, first: number, count: number, sha256: string): string {
  return `${names.segments}/observed_date=${date}/${pad(first)}-${count}-${sha256.slice(0, 16)}.parquet`
}

export function manifestName(seq: number): string {
  return `${names.manifests}/${pad(seq)}.note`
}

/** Twelve digits, so that a listing is in order for the first 10^12. */
function pad(value: number): string {
  return String(value).padStart(12, '0')
}

export type PartName = { readonly path: string; readonly first: number; readonly count: number }

/** @returns null for anything `partName` would not have written */
export function parsePartName(path: string): PartName | null {
  const match = /^parts\/(\d{12,16})-([1-9]\d{0,9})\.parquet$/.exec(path)
  if (match === null) return null
  const first = Number(match[1])
  const count = Number(match[2])
  return partName(first, count) === path ? { path, first, count } : null
}

/** @returns the sequence number, or null for anything `manifestName` would not have written */
export function parseManifestName(path: string): number | null {
  const match = /^log\/manifest\/(\d{12,16})\.note$/.exec(path)
  if (match === null) return null
  const seq = Number(match[1])
  return manifestName(seq) === path ? seq : null
}

/** Files a crash may leave half-written; they hold nothing that was committed. */
export function isTemporary(path: string): boolean {
  return path.endsWith('.tmp')
}
