import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import { escapeForTerminal, fitColumns } from '../../agent/terminal/escape.ts'

describe('hostile text', () => {
  test.each([
    ['\x1b[2J\x1b]0;owned\x07', String.raw`\x1b[2J\x1b]0;owned\x07`],
    ['\u009b31m', String.raw`\x9b31m`],
    ['GET /\r\nfake line', String.raw`GET /\r\nfake line`],
    ['a\tb', String.raw`a\tb`],
    ['\u202egnp.exe', String.raw`\u202egnp.exe`],
    ['\u2066x\u2069\u061c', String.raw`\u2066x\u2069\u061c`],
    ['ad\u200bmin', String.raw`ad\u200bmin`],
    ['a\u{e0041}b', String.raw`a\u{e0041}b`],
    ['a\ud800b', String.raw`a\ud800b`],
    ['a\x7fb\x00', String.raw`a\x7fb\x00`],
    ['grüße 日本 🙂 \\x1b', 'grüße 日本 🙂 \\x1b'],
  ])('%p', (text, expected) => {
    expect(escapeForTerminal(text)).toBe(expected)
  })

  test('leaves nothing a terminal acts on, whatever comes in', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const safe = escapeForTerminal(text)
        expect(safe).not.toMatch(/[\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069]/u)
        expect(escapeForTerminal(safe)).toBe(safe)
      }),
    )
  })

  test('keeps line feeds and tabs where lines are meant, but not carriage returns', () => {
    expect(escapeForTerminal('a\n\tb\r', { keepLines: true })).toBe('a\n\tb\\r')
  })

  test('is cut to columns, not to characters', () => {
    expect(fitColumns('abcdef', 6)).toBe('abcdef')
    expect(fitColumns('abcdef', 4)).toBe('abc…')
    expect(fitColumns('日本語日本語', 6)).toBe('日本…')
    expect(fitColumns('abc', 0)).toBe('')
  })
})
