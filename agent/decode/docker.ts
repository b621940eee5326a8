/**
 * One line of Docker's json-file driver: `{"log":"…\n","stream":"stdout","time":"…"}`.
 *
 * Only an object with exactly these keys (and `attrs`, which the driver adds when asked to) counts: a
 * program may well print an object that has a field `log`.
 */

import { TimestampReader } from './timestamp.ts'

export type DockerRecord = {
  /** What was printed, with its newline where the line ended. */
  readonly log: string
  readonly stream: 'stdout' | 'stderr'
  /** Microseconds since the epoch. */
  readonly timeUs: number
}

export const dockerStart = '{"log":"'

/** @returns null when `text` is no such line */
export function readDocker(text: string): DockerRecord | null {
  if (!text.startsWith(dockerStart)) return null
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  if (typeof value !== 'object' || value === null) return null
  if (!('log' in value) || !('stream' in value) || !('time' in value)) return null
  const { log, stream, time } = value
  if (typeof log !== 'string' || typeof time !== 'string') return null
  if (stream !== 'stdout' && stream !== 'stderr') return null
  if (Object.keys(value).length !== ('attrs' in value ? 4 : 3)) return null

  const bytes = Buffer.from(time, 'latin1')
  const timestamp = new TimestampReader()
  if (timestamp.read(bytes, 0, bytes.length) !== bytes.length) return null
  return { log, stream, timeUs: timestamp.us }
}
