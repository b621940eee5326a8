/** Timestamps: the fixed-width forms and the others, against Date. */
import { expect, test } from 'bun:test'
import { epochUs, fixedWidthUs, parseTimestamp } from '../../agent/normalise/time.ts'

test('fixed-width timestamps agree with Date on days around every month and leap year', () => {
  for (
    let day = Date.UTC(1999, 11, 28);
    day < Date.UTC(2032, 2, 3);
    day += 86_400_000 * 3 + 3_723_456
  ) {
    const iso = new Date(day).toISOString()
    expect(fixedWidthUs(iso)).toBe(day * 1000)
    expect(fixedWidthUs(`${iso.slice(0, 23)}789Z`)).toBe(day * 1000 + 789)
  }
})

test('days and hours that no clock shows are refused, also after a good one', () => {
  expect(fixedWidthUs('2026-02-28T00:00:00.000Z')).toBeGreaterThan(0)
  for (const text of [
    '2026-02-30T00:00:00.000Z',
    '2026-13-01T00:00:00.000Z',
    '2026-02-28T24:00:00.000Z',
    '2026-02-28T00:60:00.000Z',
    '2026-02-28T00:00:60.000Z',
    '2026-02-28T00:00:00.0x0Z',
    '2026-02-28 00:00:00.000Z',
    '2026-02-28T00:00:00,000Z',
    '1969-12-31T23:59:59.999Z',
    '2026-02-28T00:00:00.000+',
    '',
  ]) {
    expect({ text, us: fixedWidthUs(text) }).toEqual({ text, us: -1 })
  }
})

function at(text: string): number | undefined {
  return parseTimestamp(text)?.us
}

test('other RFC 3339 forms are read to the microsecond, and not called exact', () => {
  const noon = Date.UTC(2026, 10, 20, 12) * 1000
  expect(at('2026-11-20T12:00:00Z')).toBe(noon)
  expect(at('2026-11-20T14:00:00+02:00')).toBe(noon)
  expect(at('2026-11-20T06:30:00.5-05:30')).toBe(noon + 500_000)
  expect(at('2026-11-20T12:00:00.123456789Z')).toBe(noon + 123_456)
  expect(parseTimestamp('2026-11-20T12:00:00Z')?.exact).toBeFalse()
  expect(parseTimestamp('2026-11-20T12:00:00.000Z')?.exact).toBeTrue()
  expect(at('1795176000')).toBe(noon)
  expect(at('1795176000.5')).toBe(noon + 500_000)
  for (const text of [
    'yesterday',
    '2026-11-20',
    '12:00',
    '2026-11-20T12:00:00',
    '1',
    '9'.repeat(50),
  ]) {
    expect({ text, us: at(text) }).toEqual({ text, us: undefined })
  }
})

test('epoch numbers tell their unit by size', () => {
  const noon = Date.UTC(2026, 10, 20, 12) * 1000
  expect(epochUs(noon / 1e6)).toBe(noon)
  expect(epochUs(noon / 1e3)).toBe(noon)
  expect(epochUs(noon)).toBe(noon)
  expect(epochUs(noon * 1e3)).toBe(noon)
  for (const value of [0, -1, 17_950_252_351, 9.9e19, Number.NaN, Number.POSITIVE_INFINITY])
    expect(epochUs(value)).toBeNull()
})
