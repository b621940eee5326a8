/**
 * Sizes, durations and counts as people write and read them.
 *
 * Parsing is strict: what is not understood completely is undefined, never a guess. Formatting is for
 * reading only and rounds.
 */

const bytesOfUnit: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['B', 1],
  ...['k', 'M', 'G', 'T', 'P'].flatMap((letter, index): [string, number][] => {
    const decimal = 1000 ** (index + 1)
    const binary = 1024 ** (index + 1)
    const upper = letter.toUpperCase()
    return [
      [letter, decimal],
      [`${letter}B`, decimal],
      [`${upper}B`, decimal],
      [`${upper}i`, binary],
      [`${upper}iB`, binary],
    ]
  }),
])

/**
 * Bytes from `4096`, `10GiB`, `1.5 MB`, `64Mi`: units as in Kubernetes, with or without the `B`. `GB` is
 * 10⁹ and `GiB` is 2³⁰.
 *
 * @returns a whole number of bytes, or undefined when the text is no size
 */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]*)$/.exec(text.trim())
  if (match === null) return undefined
  const unit = bytesOfUnit.get(match[2] ?? '')
  if (unit === undefined) return undefined
  const bytes = Math.round(Number(match[1]) * unit)
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

const msOfUnit: ReadonlyMap<string, number> = new Map([
  ['us', 0.001],
  ['µs', 0.001],
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
  ['w', 604_800_000],
  ['y', 31_536_000_000],
])

/**
 * Milliseconds from `250ms`, `5m`, `90d`, `1h30m`: larger units first, each once. A day is 24 hours, a
 * year 365 days. A bare number has no unit and is refused, except `0`.
 */
export function parseDuration(text: string): number | undefined {
  const trimmed = text.trim()
  if (trimmed === '0') return 0
  if (!/^(?:\d+(?:\.\d+)?[a-zµ]+)+$/.test(trimmed)) return undefined
  let totalMs = 0
  let previousMs = Number.POSITIVE_INFINITY
  for (const [, amount, unit] of trimmed.matchAll(/(\d+(?:\.\d+)?)([a-zµ]+)/g)) {
    const unitMs = msOfUnit.get(unit ?? '')
    if (unitMs === undefined || unitMs >= previousMs) return undefined
    totalMs += Number(amount) * unitMs
    previousMs = unitMs
  }
  return totalMs
}

/** A share of the whole from `10%`: 0.1. Undefined outside 0 % to 100 %. */
export function parsePercent(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?%$/.exec(text.trim())
  if (match === null) return undefined
  const fraction = Number(match[1]) / 100
  return fraction <= 1 ? fraction : undefined
}

/** A size in bytes, or a share of something whose size is known only later, such as a file system. */
export type Size =
  | { readonly kind: 'bytes'; readonly bytes: number }
  | { readonly kind: 'share'; readonly fraction: number }

/** Either `10GiB` or `10%`. */
export function parseSize(text: string): Size | undefined {
  const fraction = parsePercent(text)
  if (fraction !== undefined) return { kind: 'share', fraction }
  const bytes = parseBytes(text)
  return bytes === undefined ? undefined : { kind: 'bytes', bytes }
}

/** `0 B`, `999 B`, `1.5 KiB`, `64 MiB`: three digits, binary units. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let index = 0
  // 1023.5 would be shown as 1024 of a unit that has a larger one.
  while (Math.abs(value) >= 1023.5 && index < units.length - 1) {
    value /= 1024
    index++
  }
  return `${threeDigits(value, index === 0)} ${units[index]}`
}

/** `12,345,678`. */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US')
}

/** `850 µs`, `12.5 ms`, `3.21 s`, `4m 10s`, `2h 5m`, `3d 4h`: two units at most. */
export function formatDuration(ms: number): string {
  if (ms < 0) return `-${formatDuration(-ms)}`
  if (ms < 0.9995) return `${Math.round(ms * 1000)} µs`
  if (ms < 999.5) return `${threeDigits(ms, false)} ms`
  if (ms < 59_950) return `${threeDigits(ms / 1000, false)} s`
  const seconds = Math.round(ms / 1000)
  const large: readonly [string, number, string, number][] = [
    ['d', 86_400, 'h', 3600],
    ['h', 3600, 'm', 60],
    ['m', 60, 's', 1],
  ]
  for (const [unit, size, nextUnit, nextSize] of large) {
    if (seconds < size) continue
    const rest = Math.floor((seconds % size) / nextSize)
    return `${Math.floor(seconds / size)}${unit}${rest > 0 ? ` ${rest}${nextUnit}` : ''}`
  }
  return `${seconds} s`
}

/** `10 %`, `0.3 %`: never `0 %` for something, nor `100 %` for less than all. */
export function formatPercent(fraction: number): string {
  const percent = fraction * 100
  if (percent > 0 && percent < 0.1) return '<0.1 %'
  if (percent < 100 && percent > 99.9) return '>99.9 %'
  return `${Number(percent.toFixed(percent < 10 ? 1 : 0))} %`
}

function threeDigits(value: number, whole: boolean): string {
  const size = Math.abs(value)
  const decimals = whole || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2
  return String(Number(value.toFixed(decimals)))
}
