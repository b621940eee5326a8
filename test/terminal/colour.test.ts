import { describe, expect, test } from 'bun:test'
import { painter, wantsColour } from '../../agent/terminal/colour.ts'

const terminal = { isTTY: true }

describe('colours', () => {
  test.each([
    [terminal, {}, true],
    [terminal, { TERM: 'xterm' }, true],
    [terminal, { TERM: 'dumb' }, false],
    [terminal, { NO_COLOR: '1' }, false],
    [terminal, { NO_COLOR: '' }, true],
    [{}, {}, false],
    [{ isTTY: false }, { FORCE_COLOR: '1' }, true],
    [{}, { FORCE_COLOR: '1', NO_COLOR: '1' }, true],
    [terminal, { FORCE_COLOR: '0' }, false],
    [terminal, { FORCE_COLOR: 'false' }, false],
  ])('on %p with %p: %p', (stream, environment, expected) => {
    expect(wantsColour(stream, environment)).toBe(expected)
  })

  test('leave text alone where there are none, and close what they open', () => {
    expect(painter(false)('red', 'x')).toBe('x')
    expect(painter(true)('red', 'x')).toBe('\x1b[31mx\x1b[0m')
    expect(painter(true)('red', '')).toBe('')
  })
})
