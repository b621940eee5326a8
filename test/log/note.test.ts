import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import { z } from 'zod'
import { signingKeyFromSeed } from '../../agent/log/ed25519.ts'
import { encodeBase64, encodeHex } from '../../agent/log/encoding.ts'
import {
  formatSignature,
  formatVkey,
  keyNameProblem,
  noteSigner,
  noteVerifier,
  openNote,
  parseNote,
  parseVkey,
  signNote,
  type VerifierKey,
  verifierKey,
} from '../../agent/log/note.ts'
import { bytesOf, bytesOfBase64, bytesOfHex, vectorJson, vectorTest } from './vectors.ts'

const ours = signingKeyFromSeed(new Uint8Array(32).fill(1))
const theirs = signingKeyFromSeed(new Uint8Array(32).fill(2))
const name = 'prod/node-a/0123456789abcdef'
const key = verifierKey(name, 1, ours.publicKey)
const text = bytesOf('first\n\nsecond — line\n')

function vkey(line: string): VerifierKey {
  const parsed = parseVkey(line)
  if (!parsed.ok) throw new Error(`${line}: ${parsed.problem}`)
  return parsed.key
}

function problemOf(bytes: Uint8Array, keys: readonly VerifierKey[] = [key]): string | undefined {
  const opened = openNote(bytes, keys.map(noteVerifier))
  return opened.ok ? undefined : opened.problem
}

function join(...parts: readonly (string | Uint8Array)[]): Uint8Array {
  return new Uint8Array(
    Buffer.concat(parts.map((part) => (typeof part === 'string' ? bytesOf(part) : part))),
  )
}

describe('a signed note', () => {
  const note = signNote(text, [noteSigner(name, ours)])

  test('opens with its key and gives back the signed bytes, blank lines and all', () => {
    const opened = openNote(note, [noteVerifier(key)])
    if (!opened.ok) throw new Error(opened.problem)
    expect(opened.note.text).toEqual(text)
    expect(opened.note.verified.map(({ keyId }) => keyId)).toEqual([key.keyId])
    expect(opened.note.unknown).toEqual([])
  })

  test('is refused when any one byte of it is another', () => {
    for (let at = 0; at < note.length; at++) {
      for (const bit of [1, 2, 32, 128]) {
        const changed = Uint8Array.from(note)
        changed[at] = (changed[at] ?? 0) ^ bit
        expect([at, bit, problemOf(changed) !== undefined]).toEqual([at, bit, true])
      }
    }
  })

  test('is refused when cut anywhere', () => {
    for (let length = 0; length < note.length; length++) {
      expect(problemOf(note.subarray(0, length))).toBeDefined()
    }
    expect(problemOf(note.subarray(0, -1))).toBe('note does not end with a newline')
  })

  test('carries several signatures, counts each key once, and ignores strangers', () => {
    const stranger = noteSigner('elsewhere', theirs)
    const twice = signNote(text, [noteSigner(name, ours), stranger, noteSigner(name, ours)])
    const opened = openNote(twice, [noteVerifier(key)])
    if (!opened.ok) throw new Error(opened.problem)
    expect(opened.note.verified).toHaveLength(1)
    expect(opened.note.unknown.map((signature) => signature.name)).toEqual(['elsewhere'])
    expect(problemOf(twice, [])).toBe('note has no signature of a known key')
    expect(problemOf(signNote(text, [stranger]))).toBe('note has no signature of a known key')
  })

  test('with one bad signature of a known key is refused, though a good one precedes it', () => {
    const bad = formatSignature({ name, keyId: key.keyId, signature: theirs.sign(text) })
    expect(problemOf(join(note, bad))).toBe(`invalid signature for key ${name}+${key.keyId}`)
    expect(problemOf(join(text, '\n', bad))).toContain('invalid signature')
    const short = formatSignature({ name, keyId: key.keyId, signature: new Uint8Array(63) })
    expect(problemOf(join(note, short))).toContain('invalid signature')
  })

  test('a key of the same name with another id is a stranger', () => {
    const other = formatSignature({ name, keyId: '00000000', signature: theirs.sign(text) })
    expect(problemOf(join(note, other))).toBeUndefined()
  })

  test('with a hundred signatures opens and with one more does not', () => {
    const line = formatSignature({ name: 'x', keyId: '01020304', signature: bytesOf('y') })
    expect(problemOf(join(note, line.repeat(99)))).toBeUndefined()
    expect(problemOf(join(note, line.repeat(100)))).toBe('note has more than 100 signatures')
  })

  test('two given keys with one name and id are refused', () => {
    expect(problemOf(note, [key, key])).toBe('two of the given keys have one name and id')
  })

  test('malformed bytes are refused with a reason, never thrown', () => {
    const good = Buffer.from(note).toString()
    const signature = good.slice(good.lastIndexOf('\n\n') + 2)
    const encoded = signature.split(' ')[2]?.trim() ?? ''
    const sigBytes = bytesOfBase64(encoded)
    expect(sigBytes).toHaveLength(68)
    const cases: [string, Uint8Array][] = [
      ['empty', new Uint8Array(0)],
      ['no text', bytesOf(signature)],
      ['no blank line', join('text\n', signature)],
      ['no signatures', join(text, '\n')],
      ['blank line at the end', join(note, '\n')],
      ['no final newline', note.subarray(0, -1)],
      ['carriage return', join('a\r\n\n', signature)],
      ['tab', join('a\tb\n\n', signature)],
      ['nul', join('a\0\n\n', signature)],
      ['invalid utf-8', join('a', bytesOfHex('ff'), '\n\n', signature)],
      ['overlong utf-8', join('a', bytesOfHex('c0af'), '\n\n', signature)],
      ['surrogate', join('a', bytesOfHex('eda080'), '\n\n', signature)],
      ['byte order mark', join(bytesOfHex('efbbbf'), note)],
      ['hyphen for dash', join(text, '\n', signature.replace('—', '-'))],
      ['two spaces', join(text, '\n', signature.replace(' ', '  '))],
      ['no base64', join(text, '\n', `— ${name} \n`)],
      ['no space', join(text, '\n', `— ${name}\n`)],
      ['plus in name', join(text, '\n', `— a+b ${encoded}\n`, signature)],
      ['no-break space in name', join(text, '\n', `— a\u00a0b ${encoded}\n`, signature)],
      ['next line in name', join(text, '\n', `— a\u0085b ${encoded}\n`, signature)],
      ['ideographic space in name', join(text, '\n', `— a\u3000b ${encoded}\n`, signature)],
      ['empty name', join(text, '\n', `—  ${encoded}\n`, signature)],
      ['four bytes only', join(text, '\n', `— a ${encodeBase64(new Uint8Array(4))}\n`, signature)],
      ['missing padding', join(text, '\n', `— ${name} ${encoded.replace(/=+$/, '')}\n`)],
      [
        'junk in base64',
        join(text, '\n', `— ${name} ${encoded.slice(0, 9)}*${encoded.slice(9)}\n`),
      ],
      ['trailing space', join(text, '\n', `— ${name} ${encoded} \n`)],
      ['too long', join('x'.repeat(1 << 20), '\n\n', signature)],
    ]
    for (const [why, bytes] of cases) {
      expect([why, problemOf(bytes) === undefined]).toEqual([why, false])
      const parsed = parseNote(bytes)
      if (why !== 'byte order mark') expect([why, parsed.ok]).toEqual([why, false])
    }
  })

  test('a byte order mark in a key name is part of the name', () => {
    const parsed = parseNote(bytesOf('t\n\n— \ufeffa AQIDBAU=\n'))
    if (!parsed.ok) throw new Error(parsed.problem)
    expect(parsed.note.signatures.map((signature) => signature.name)).toEqual(['\ufeffa'])
  })

  test('stray bits in the last base64 character are refused', () => {
    const line = '— a AQIDBAV=\n'
    expect(parseNote(join('t\n\n', line)).ok).toBe(false)
    expect(parseNote(join('t\n\n', line.replace('V=', 'U='))).ok).toBe(true)
  })

  test('no bytes crash the parser, and what it accepts writes back the same', () => {
    const pieces = fc.constantFrom('text\n', '\n', '— ', 'name ', 'AQIDBAU=', '\n', '\u2028', 'é')
    const made = fc.array(pieces, { maxLength: 14 }).map((list) => bytesOf(list.join('')))
    fc.assert(
      fc.property(fc.oneof(made, fc.uint8Array({ maxLength: 200 })), (bytes) => {
        const parsed = parseNote(bytes)
        if (!parsed.ok) return
        const again = join(
          parsed.note.text,
          '\n',
          parsed.note.signatures.map(formatSignature).join(''),
        )
        expect(encodeHex(again)).toBe(encodeHex(bytes))
      }),
      { numRuns: 3000 },
    )
  })

  test('our own note that would be malformed is a bug', () => {
    for (const bad of ['no newline', 'a\tb\n', '', 'x\ud800\n\u0001']) {
      expect(() => signNote(bytesOf(bad), [noteSigner(name, ours)])).toThrow('BUG')
    }
    expect(() => signNote(text, [])).toThrow('BUG')
    expect(() => noteSigner('a b', ours)).toThrow('BUG')
  })
})

describe('a vkey', () => {
  const good = formatVkey(key)

  test('reads back as written, whatever name C2SP allows', () => {
    for (const some of [name, 'sum.golang.org', 'ключ', 'a—b', '"<>']) {
      for (const type of [1, 4] as const) {
        const made = verifierKey(some, type, ours.publicKey)
        expect(vkey(formatVkey(made))).toEqual(made)
      }
    }
  })

  test('is refused when cut or when one byte is one higher', () => {
    expectOnlyWhole(good)
  })

  test('of a small-order key is refused', () => {
    const identity = Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 1 : 0))
    const parsed = parseVkey(formatVkey(verifierKey('evil', 1, identity)))
    expect(parsed).toMatchObject({ ok: false })
    if (!parsed.ok) expect(parsed.problem).toContain('small order')
  })

  test('has its key id in lower case', () => {
    const upper = good.replace(key.keyId, key.keyId.toUpperCase())
    expect(upper).not.toBe(good)
    expect(parseVkey(upper).ok).toBe(false)
  })

  test('names have no white space, plus or control characters', () => {
    for (const bad of ['', 'a b', 'a+b', 'a\nb', 'a\u0001b', 'a\u2003b', '\ud800']) {
      expect(keyNameProblem(bad)).toBeDefined()
    }
    expect(keyNameProblem(name)).toBeUndefined()
    expect(keyNameProblem('\ufeff')).toBeUndefined()
  })
})

function expectOnlyWhole(good: string): void {
  expect(parseVkey(good).ok).toBe(true)
  for (let from = 0; from < good.length; from++) {
    for (let to = from; to <= good.length; to++) {
      if (from === 0 && to === good.length) continue
      const part = good.slice(from, to)
      if (parseVkey(part).ok) throw new Error(`accepted ${part}`)
    }
  }
  for (let at = 0; at < good.length; at++) {
    const higher = String.fromCharCode(good.charCodeAt(at) + 1)
    const changed = good.slice(0, at) + higher + good.slice(at + 1)
    if (parseVkey(changed).ok) throw new Error(`accepted ${changed}`)
  }
}

describe('published vectors', () => {
  const schema = z.object({
    open: z.array(
      z.object({
        name: z.string(),
        note_b64: z.string(),
        vkeys: z.array(z.string()),
        ok: z.boolean(),
        verified: z.array(z.string()).optional(),
      }),
    ),
    vkeys: z.object({
      good: z.array(z.string()),
      good_cosigner: z.array(z.string()),
      bad: z.array(z.object({ vkey: z.string(), why: z.string() })),
    }),
    sign: z.array(
      z.object({
        skey: z.string().optional(),
        seed_hex: z.string().optional(),
        name: z.string().optional(),
        text: z.string(),
        signature_line: z.string(),
      }),
    ),
  })

  vectorTest('notes open or are refused as published', 14, () => {
    const { open } = schema.parse(vectorJson('notes/signed-note.json'))
    for (const { name: what, note_b64, vkeys, ok, verified } of open) {
      const opened = openNote(bytesOfBase64(note_b64), vkeys.map(vkey).map(noteVerifier))
      expect([what, opened.ok]).toEqual([what, ok])
      if (opened.ok) {
        expect(opened.note.verified.map((signature) => signature.name)).toEqual(verified ?? [])
      }
    }
    expect(open).toHaveLength(14)
  })

  vectorTest('vkeys parse or are refused as published, cut and altered ones too', 9, () => {
    const { vkeys } = schema.parse(vectorJson('notes/signed-note.json'))
    for (const line of [...vkeys.good, ...vkeys.good_cosigner]) {
      expect(formatVkey(vkey(line))).toBe(line)
      expectOnlyWhole(line)
    }
    for (const { vkey: line, why } of vkeys.bad) {
      expect([why, parseVkey(line).ok]).toEqual([why, false])
    }
    expect(vkeys.good.length + vkeys.good_cosigner.length + vkeys.bad.length).toBe(9)
  })

  vectorTest('signatures come out as published', 2, () => {
    const { sign } = schema.parse(vectorJson('notes/signed-note.json'))
    expect(sign).toHaveLength(2)
    for (const { skey, seed_hex, name: keyName, text: signed, signature_line } of sign) {
      const parts = skey?.split('+') ?? []
      const seed =
        seed_hex === undefined
          ? bytesOfBase64(parts.slice(4).join('+')).slice(1)
          : bytesOfHex(seed_hex)
      const signer = noteSigner(keyName ?? parts[2] ?? '', signingKeyFromSeed(seed))
      const note = signNote(bytesOf(signed), [signer])
      expect(Buffer.from(note).toString()).toBe(`${signed}\n${signature_line}`)
    }
  })
})
