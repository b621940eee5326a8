import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatPercent,
  parseBytes,
  parseDuration,
  parsePercent,
  parseSize,
} from '../../agent/terminal/units.ts'

describe('sizes', () => {
  test.each([
    ['4096', 4096],
    ['10GiB', 10 * 2 ** 30],
    ['10Gi', 10 * 2 ** 30],
    ['10GB', 10e9],
    ['10 G', 10e9],
    ['1.5 MiB', 1_572_864],
    ['64kB', 64_000],
    ['64KB', 64_000],
    ['0', 0],
    ['10g', undefined],
    ['-1', undefined],
    ['1e3', undefined],
    ['10%', undefined],
    ['', undefined],
    ['GiB', undefined],
    ['9000000PiB', undefined],
  ])('%p is %p bytes', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes)
  })

  test.each([
    [0, '0 B'],
    [999, '999 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [70_546_800, '67.3 MiB'],
    [2 ** 20 - 1, '1 MiB'],
    [10 * 2 ** 30, '10 GiB'],
    [2 ** 50 * 5000, '5000 PiB'],
  ])('%p bytes read %p', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text)
  })

  test('what is written is read back to within what is shown', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 50 }), (bytes) => {
        const back = parseBytes(formatBytes(bytes))
        expect(Math.abs((back ?? Number.NaN) - bytes)).toBeLessThanOrEqual(bytes * 0.006)
      }),
    )
  })

  test('may be a share', () => {
    expect(parseSize('10%')).toEqual({ kind: 'share', fraction: 0.1 })
    expect(parseSize('64MiB')).toEqual({ kind: 'bytes', bytes: 67_108_864 })
    expect(parseSize('ten')).toBeUndefined()
  })
})

describe('durations', () => {
  test.each([
    ['250ms', 250],
    ['5m', 300_000],
    ['90d', 7_776_000_000],
    ['1h30m', 5_400_000],
    ['1.5h', 5_400_000],
    ['2w', 1_209_600_000],
    ['500us', 0.5],
    ['0', 0],
    ['5', undefined],
    ['30m1h', undefined],
    ['1h1h', undefined],
    ['5 m', undefined],
    ['-5m', undefined],
    ['5M', undefined],
    ['', undefined],
  ])('%p is %p ms', (text, ms) => {
    expect(parseDuration(text)).toBe(ms)
  })

  test.each([
    [0, '0 µs'],
    [0.85, '850 µs'],
    [0.9999, '1 ms'],
    [12.5, '12.5 ms'],
    [999.7, '1 s'],
    [3210, '3.21 s'],
    [59_960, '1m'],
    [250_000, '4m 10s'],
    [7_500_000, '2h 5m'],
    [86_400_000 * 3 + 4 * 3_600_000, '3d 4h'],
    [-1500, '-1.5 s'],
  ])('%p ms read %p', (ms, text) => {
    expect(formatDuration(ms)).toBe(text)
  })
})

describe('shares and counts', () => {
  test.each([
    ['10%', 0.1],
    ['0.5 %', 0.005],
    ['100%', 1],
    ['101%', undefined],
    ['-1%', undefined],
    ['10', undefined],
  ])('%p is %p', (text, fraction) => {
    expect(parsePercent(text)).toBe(fraction)
  })

  test('never round something to nothing, or nearly all to all', () => {
    const shown = [0, 0.0001, 0.003, 0.1, 0.9995, 1].map(formatPercent)
    expect(shown).toEqual(['0 %', '<0.1 %', '0.3 %', '10 %', '>99.9 %', '100 %'])
  })

  test('group digits', () => {
    expect(formatCount(12_345_678)).toBe('12,345,678')
  })
})
