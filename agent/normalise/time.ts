/**
 * Turns the timestamps proxies and API servers print into microseconds since the epoch.
 *
 * The fixed-width UTC forms (`2026-10-09T11:04:06.878Z`, `….878123Z`) are read digit by digit; any
 * other RFC 3339 form and epoch numbers take a slower way. Nothing here guesses a time zone.
 */

export type Timestamp = {
  /** Microseconds since the epoch, UTC. */
  readonly us: number
  /** The text was a fixed-width form, so that `us` alone gives it back. */
  readonly exact: boolean
}

/** 2255-06-05, where µs leave the range of exact integers. */
const usMax = Number.MAX_SAFE_INTEGER

const rfc3339 =
  /^(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,12}))?(?:([Zz])|([+-])(\d\d):?(\d\d))$/

let dayText = ''
let dayUs = 0

/** µs of a fixed-width UTC timestamp with 3 or 6 fractional digits, or -1 for any other text. */
export function fixedWidthUs(text: string): number {
  const width = text.length
  if ((width !== 24 && width !== 27) || text.charCodeAt(width - 1) !== 0x5a) return -1
  if (dayText === '' || !text.startsWith(dayText)) {
    const us = dayStartUs(text.slice(0, 10))
    if (us < 0) return -1
    // Detached from the line it was cut from, which it would otherwise keep alive.
    dayText = new Date(us / 1000).toISOString().slice(0, 10)
    dayUs = us
  }
  if (
    text.charCodeAt(10) !== 0x54 ||
    text.charCodeAt(13) !== 0x3a ||
    text.charCodeAt(16) !== 0x3a ||
    text.charCodeAt(19) !== 0x2e
  ) {
    return -1
  }
  const hour = digits(text, 11, 13)
  const minute = digits(text, 14, 16)
  const second = digits(text, 17, 19)
  const fraction = digits(text, 20, width - 1)
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return -1
  if (fraction < 0) return -1
  return (
    dayUs +
    (hour * 3600 + minute * 60 + second) * 1_000_000 +
    (width === 24 ? fraction * 1000 : fraction)
  )
}

/** Reads any RFC 3339 timestamp, or null. Digits below a microsecond are dropped (`exact` false). */
export function parseTimestamp(text: string): Timestamp | null {
  const fixed = fixedWidthUs(text)
  if (fixed >= 0) return { us: fixed, exact: true }
  if (text.length > 40) return null
  const match = rfc3339.exec(text)
  if (match === null) return parseEpoch(text)
  const [, day = '', hour, minute, second, fraction = '', , sign, zoneHour, zoneMinute] = match
  const base = dayStartUs(day)
  if (base < 0 || Number(hour) > 23 || Number(minute) > 59 || Number(second) > 60) return null
  const offsetMinutes =
    sign === undefined ? 0 : (sign === '-' ? -1 : 1) * (Number(zoneHour) * 60 + Number(zoneMinute))
  const seconds = Number(hour) * 3600 + (Number(minute) - offsetMinutes) * 60 + Number(second)
  const us = base + seconds * 1_000_000 + Number(fraction.slice(0, 6).padEnd(6, '0'))
  return us < 0 || us > usMax ? null : { us, exact: false }
}

/** Epoch seconds, milliseconds, microseconds or nanoseconds by their number of digits. */
export function epochUs(value: number): number | null {
  if (!(value > 1e8) || value > 1e20) return null
  const us =
    value < 1e11
      ? Math.round(value * 1e6)
      : value < 1e14
        ? Math.round(value * 1e3)
        : Math.floor(value < 9e15 ? value : value / 1e3)
  return us > usMax ? null : us
}

function parseEpoch(text: string): Timestamp | null {
  if (!/^\d{9,20}(?:\.\d{1,9})?$/.test(text)) return null
  const us = epochUs(Number(text))
  return us === null ? null : { us, exact: false }
}

/** Midnight UTC of `YYYY-MM-DD` in µs; -1 for a day no calendar has, or before 1970. */
function dayStartUs(day: string): number {
  if (!/^\d{4}-\d\d-\d\d$/.test(day)) return -1
  const ms = Date.parse(`${day}T00:00:00.000Z`)
  if (!(ms >= 0) || ms * 1000 > usMax) return -1
  // Date.parse accepts 31 February in some engines and moves it to March.
  return new Date(ms).toISOString().startsWith(day) ? ms * 1000 : -1
}

function digits(text: string, from: number, to: number): number {
  let value = 0
  for (let index = from; index < to; index += 1) {
    const digit = text.charCodeAt(index) - 48
    if (digit < 0 || digit > 9) return -1
    value = value * 10 + digit
  }
  return value
}
