/**
 * Time as the program sees it. Passed as a parameter so that tests own it; nothing else calls `Date.now`.
 *
 * Microseconds are plain numbers: 2^53 µs reaches the year 2255, and a bigint costs ten times as much
 * on the path every line takes.
 */
export type Clock = {
  /** Microseconds since the Unix epoch, UTC. May jump; never use it to measure. */
  nowUs(): number
  /** Milliseconds that only grow, for deadlines and intervals. */
  monotonicMs(): number
}

export const systemClock: Clock = {
  nowUs: () => Math.round((performance.timeOrigin + performance.now()) * 1000),
  monotonicMs: () => performance.now(),
}

/** RFC 3339 in UTC with microseconds: `2026-11-20T09:12:31.004512Z`. */
export function formatUs(us: number): string {
  const iso = new Date(Math.floor(us / 1000)).toISOString()
  const micros = String(((us % 1000) + 1000) % 1000).padStart(3, '0')
  return `${iso.slice(0, 23)}${micros}Z`
}

/** `YYYY-MM-DD` in UTC. */
export function dateOfUs(us: number): string {
  return new Date(Math.floor(us / 1000)).toISOString().slice(0, 10)
}
