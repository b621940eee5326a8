import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import { z } from 'zod'
import {
  appendSignatureLines,
  type Checkpoint,
  type CheckpointTrust,
  cosignatureLine,
  cosignatureSigner,
  cosignatureVerifier,
  formatCheckpoint,
  openCheckpoint,
  parseCheckpoint,
  signCheckpoint,
} from '../../agent/log/checkpoint.ts'
import { signingKeyFromSeed } from '../../agent/log/ed25519.ts'
import { encodeBase64, encodeHex } from '../../agent/log/encoding.ts'
import { CompactRange, leafHash } from '../../agent/log/merkle.ts'
import {
  formatSignature,
  noteSigner,
  noteVerifier,
  openNote,
  parseVkey,
  signNote,
  type VerifierKey,
  verifierKey,
} from '../../agent/log/note.ts'
import { bytesOf, bytesOfHex, vectorBytes, vectorJson, vectorTest } from './vectors.ts'

const logKey = signingKeyFromSeed(new Uint8Array(32).fill(1))
const witnessKey = signingKeyFromSeed(new Uint8Array(32).fill(2))
const origin = 'prod/node-a/0123456789abcdef'
const root = leafHash(bytesOf('x'))
const head: Checkpoint = { origin, size: 2 ** 40 + 1, root, extensions: [] }
const log = verifierKey(origin, 1, logKey.publicKey)
const witness = verifierKey('witness.example/w', 4, witnessKey.publicKey)
const trust: CheckpointTrust = { origin, logKeys: [log], witnessKeys: [witness] }

function vkey(line: string): VerifierKey {
  const parsed = parseVkey(line)
  if (!parsed.ok) throw new Error(`${line}: ${parsed.problem}`)
  return parsed.key
}

function problemOf(note: Uint8Array, whom: CheckpointTrust = trust): string | undefined {
  const opened = openCheckpoint(note, whom)
  return opened.ok ? undefined : opened.problem
}

function append(note: Uint8Array, line: string): Uint8Array {
  const longer = appendSignatureLines(note, bytesOf(line))
  if (!longer.ok) throw new Error(longer.problem)
  return longer.note
}

describe('the body of a checkpoint', () => {
  test('is three lines, and reads back as written', () => {
    const text = formatCheckpoint(head)
    expect(Buffer.from(text).toString()).toBe(`${origin}\n1099511627777\n${encodeBase64(root)}\n`)
    expect(parseCheckpoint(text)).toEqual({ ok: true, checkpoint: head })
  })

  test('has one spelling: everything else is refused', () => {
    const base64 = encodeBase64(root)
    const cases = [
      '',
      '\n',
      `${origin}\n5\n${base64}`,
      `${origin}\n5\n${base64}x`,
      `\n5\n${base64}\n`,
      `${origin}\n05\n${base64}\n`,
      `${origin}\n+5\n${base64}\n`,
      `${origin}\n5 \n${base64}\n`,
      `${origin}\n5e3\n${base64}\n`,
      `${origin}\n0x5\n${base64}\n`,
      `${origin}\n٥\n${base64}\n`,
      `${origin}\n\n${base64}\n`,
      `${origin}\n9007199254740992\n${base64}\n`,
      `${origin}\n18446744073709551615\n${base64}\n`,
      `${origin}\n5\n${base64.slice(0, -1)}\n`,
      `${origin}\n5\n${base64} \n`,
      `${origin}\n5\n${encodeBase64(root.subarray(1))}\n`,
      `${origin}\n5\n${encodeBase64(Buffer.concat([root, root]))}\n`,
      `${origin}\n5\n`,
      `${origin}\n5\n${base64}\n\n`,
      `${origin}\n5\n${base64}\nextension\n\n`,
    ]
    for (const text of cases) {
      expect([text, parseCheckpoint(bytesOf(text)).ok]).toEqual([text, false])
    }
    expect(parseCheckpoint(bytesOf(`${origin}\n9007199254740991\n${base64}\n`)).ok).toBe(true)
    expect(parseCheckpoint(bytesOf(`${origin}\n0\n${base64}\n`)).ok).toBe(true)
  })

  test('of an origin with a byte order mark is of another origin', () => {
    const parsed = parseCheckpoint(bytesOf(`\ufeff${origin}\n5\n${encodeBase64(root)}\n`))
    expect(parsed.ok && parsed.checkpoint.origin).toBe(`\ufeff${origin}`)
  })

  test('keeps extension lines in sight', () => {
    const parsed = parseCheckpoint(bytesOf(`${origin}\n5\n${encodeBase64(root)}\none\ntwo\n`))
    if (!parsed.ok) throw new Error(parsed.problem)
    expect(parsed.checkpoint.extensions).toEqual(['one', 'two'])
    expect(parseCheckpoint(formatCheckpoint(parsed.checkpoint))).toEqual(parsed)
  })

  test('whatever is accepted writes back the same bytes', () => {
    const body = fc
      .array(fc.constantFrom('a', '0', '12', encodeBase64(root), '', '\n', '\n', ' '), {
        maxLength: 9,
      })
      .map((parts) => bytesOf(parts.join('')))
    const line = fc.string({ maxLength: 3 })
    const likely = fc
      .tuple(line, fc.oneof(line, fc.nat().map(String)), fc.array(line, { maxLength: 2 }))
      .map(([first, size, rest]) =>
        bytesOf([first, size, encodeBase64(root), ...rest, ''].join('\n')),
      )
    fc.assert(
      fc.property(fc.oneof(body, likely, fc.uint8Array()), (bytes) => {
        const parsed = parseCheckpoint(bytes)
        if (!parsed.ok) return
        expect(encodeHex(formatCheckpoint(parsed.checkpoint))).toBe(encodeHex(bytes))
      }),
      { numRuns: 2000 },
    )
  })

  test('of our own that would not read back is a bug', () => {
    const bads: Partial<Checkpoint>[] = [
      { origin: '' },
      { origin: 'a\nb' },
      { origin: '\ud800' },
      { size: -1 },
      { size: 0.5 },
      { size: 2 ** 53 },
      { root: new Uint8Array(31) },
      { extensions: [''] },
      { extensions: ['a\nb'] },
    ]
    for (const bad of bads) expect(() => formatCheckpoint({ ...head, ...bad })).toThrow('BUG')
  })
})

describe('a signed checkpoint', () => {
  const note = signCheckpoint(head, [noteSigner(origin, logKey)])

  test('opens with the log key', () => {
    const opened = openCheckpoint(note, trust)
    if (!opened.ok) throw new Error(opened.problem)
    expect(opened.checkpoint).toEqual(head)
    expect(opened.logKeyIds).toEqual([log.keyId])
    expect(opened.cosignatures).toEqual([])
    expect(opened.text).toEqual(formatCheckpoint(head))
  })

  test('of another log, though signed by this key, is refused', () => {
    expect(problemOf(note, { ...trust, origin: 'prod/node-b/0' })).toBe(
      `checkpoint is of log ${origin}, not prod/node-b/0`,
    )
    expect(() =>
      signCheckpoint({ ...head, origin: 'other' }, [noteSigner(origin, logKey)]),
    ).toThrow('BUG')
  })

  test('signed over something that is no checkpoint is refused', () => {
    const other = signNote(bytesOf('hello\n'), [noteSigner(origin, logKey)])
    expect(problemOf(other)).toBe('checkpoint size is not a decimal below 2^53')
  })

  test('gains a witness signature that says when', () => {
    const line = cosignatureLine(note, cosignatureSigner(witness.name, witnessKey, 1_784_000_000))
    if (!line.ok) throw new Error(line.problem)
    const opened = openCheckpoint(append(note, line.line), trust)
    if (!opened.ok) throw new Error(opened.problem)
    expect(opened.cosignatures).toEqual([
      { name: witness.name, keyId: witness.keyId, timeSeconds: 1_784_000_000 },
    ])
    expect(opened.checkpoint).toEqual(head)
    // Who does not know the witness sees a checkpoint as before.
    const without = openCheckpoint(append(note, line.line), { origin, logKeys: [log] })
    expect(without.ok && without.cosignatures.length).toBe(0)
  })

  test('with a cosignature whose time or head was changed is refused', () => {
    const signer = cosignatureSigner(witness.name, witnessKey, 1_784_000_000)
    const payload = signer.sign(formatCheckpoint(head))
    for (let at = 0; at < payload.length; at++) {
      const changed = Uint8Array.from(payload)
      changed[at] = (changed[at] ?? 0) ^ 1
      const line = formatSignature({ ...witness, signature: changed })
      expect(problemOf(append(note, line))).toContain('invalid signature')
    }
    const elsewhere = signer.sign(formatCheckpoint({ ...head, size: 3 }))
    const line = formatSignature({ ...witness, signature: elsewhere })
    expect(problemOf(append(note, line))).toContain('invalid signature')
    const tooShort = formatSignature({ ...witness, signature: payload.slice(0, 64) })
    expect(problemOf(append(note, tooShort))).toContain('invalid signature')
  })

  test('that only a witness signed is not signed by the log', () => {
    const signer = cosignatureSigner(witness.name, witnessKey, 5)
    const only = signNote(formatCheckpoint(head), [signer])
    expect(problemOf(only)).toBe('checkpoint is not signed by the log')
  })

  test('a plain signature is no cosignature, and a cosignature no plain one', () => {
    expect(() => noteVerifier(witness)).toThrow('BUG')
    expect(() => cosignatureVerifier(log)).toThrow('BUG')
    const plain = formatSignature({
      ...witness,
      signature: witnessKey.sign(formatCheckpoint(head)),
    })
    expect(problemOf(append(note, plain))).toContain('invalid signature')
  })

  test('both keys sign while one replaces the other', () => {
    const next = signingKeyFromSeed(new Uint8Array(32).fill(9))
    const both = signCheckpoint(head, [noteSigner(origin, logKey), noteSigner(origin, next)])
    const nextKey = verifierKey(origin, 1, next.publicKey)
    for (const logKeys of [[log], [nextKey], [log, nextKey]]) {
      const opened = openCheckpoint(both, { origin, logKeys })
      expect(opened.ok && opened.logKeyIds).toEqual(logKeys.map(({ keyId }) => keyId))
    }
  })

  test('lines from a witness cannot change what was signed', () => {
    const line = formatSignature({ ...witness, signature: bytesOf('x') })
    const hostile = ['', '\n', `\n${line}`, 'text\n', `text\n\n${line}`, line.trim(), `${line}\n`]
    for (const lines of hostile.slice(1)) {
      expect([lines, appendSignatureLines(note, bytesOf(lines)).ok]).toEqual([lines, false])
    }
    expect(appendSignatureLines(bytesOf('junk'), bytesOf(line)).ok).toBe(false)
  })

  test('a witness signs only what is a checkpoint', () => {
    const signer = cosignatureSigner(witness.name, witnessKey, 5)
    expect(cosignatureLine(bytesOf('junk'), signer).ok).toBe(false)
    const hello = signNote(bytesOf('hello\n'), [noteSigner(origin, logKey)])
    expect(cosignatureLine(hello, signer).ok).toBe(false)
  })
})

describe('published vectors', () => {
  vectorTest('checkpoint bodies parse or are refused as published', 8, () => {
    const { format_tree: tree, parse } = z
      .object({
        format_tree: z.object({
          origin: z.string(),
          size: z.number(),
          leaf: z.string(),
          body: z.string(),
        }),
        parse: z.array(
          z.object({
            body: z.string(),
            ok: z.boolean(),
            origin: z.string().optional(),
            size: z.number().optional(),
          }),
        ),
      })
      .parse(vectorJson('notes/checkpoint-body.json'))
    for (const { body, ok, origin: expected, size } of parse) {
      const parsed = parseCheckpoint(bytesOf(body))
      expect([body, parsed.ok]).toEqual([body, ok])
      if (parsed.ok) {
        expect([parsed.checkpoint.origin, parsed.checkpoint.size]).toEqual([
          expected ?? '',
          size ?? -1,
        ])
      }
    }
    const formatted = formatCheckpoint({
      origin: tree.origin,
      size: tree.size,
      root: leafHash(bytesOf(tree.leaf)),
      extensions: [],
    })
    expect(Buffer.from(formatted).toString()).toBe(tree.body)
    expect(parse).toHaveLength(7)
  })

  vectorTest('a Tessera log of every size has the root of its entries, signed', 17, () => {
    const keys = z
      .object({
        origin: z.string(),
        vkey: z.string(),
        skey: z.string(),
        entries: z.array(z.string()),
      })
      .parse(vectorJson('tessera-log/keys.json'))
    const logTrust = { origin: keys.origin, logKeys: [vkey(keys.vkey)] }
    const seed = Buffer.from(keys.skey.split('+').slice(4).join('+'), 'base64').subarray(1)
    const signer = noteSigner(keys.origin, signingKeyFromSeed(seed))
    const range = new CompactRange()
    const check = (path: string): void => {
      const note = vectorBytes(path)
      const opened = openCheckpoint(note, logTrust)
      if (!opened.ok) throw new Error(`${path}: ${opened.problem}`)
      expect(opened.checkpoint.size).toBe(range.size)
      expect(encodeHex(opened.checkpoint.root)).toBe(encodeHex(range.root()))
      expect(signCheckpoint(opened.checkpoint, [signer])).toEqual(note)
    }
    check('tessera-log/checkpoint.0')
    for (const entry of keys.entries) {
      range.append(leafHash(bytesOf(entry)))
      check(`tessera-log/checkpoint.${range.size}`)
    }
    check('tessera-log/checkpoint')
    expect(range.size).toBe(15)
  })

  vectorTest('a real witness cosigned at the published time', 1, () => {
    const { verifier_keys: keys } = z
      .object({ verifier_keys: z.array(z.string()) })
      .parse(vectorJson('cosigned-checkpoint/witness.v0.json'))
    const note = vectorBytes('cosigned-checkpoint/checkpoint')
    // The log of this one signs with ECDSA, which nobody here verifies: only the witness counts.
    const opened = openNote(note, keys.map(vkey).map(cosignatureVerifier))
    if (!opened.ok) throw new Error(opened.problem)
    const [cosignature] = opened.note.verified
    expect(Buffer.from(cosignature?.signature ?? []).readBigUInt64BE()).toBe(1_767_139_200n)
    const body = parseCheckpoint(opened.note.text)
    expect(body.ok && body.checkpoint.size).toBe(300)
    const flipped = Buffer.from(note)
    flipped[flipped.indexOf('300')] = 0x34
    expect(openNote(flipped, keys.map(vkey).map(cosignatureVerifier)).ok).toBe(false)
  })

  vectorTest('a cosignature comes out as generated', 1, () => {
    const vector = z
      .object({
        seed_hex: z.string(),
        name: z.string(),
        vkey: z.string(),
        time: z.number(),
        line: z.string(),
      })
      .parse(vectorJson('generated/cosignature-v1.json'))
    const signer = cosignatureSigner(
      vector.name,
      signingKeyFromSeed(bytesOfHex(vector.seed_hex)),
      vector.time,
    )
    const note = vectorBytes('tessera-log/checkpoint')
    expect(cosignatureLine(note, signer)).toEqual({ ok: true, line: vector.line })
    const longer = append(note, vector.line)
    const opened = openNote(longer, [cosignatureVerifier(vkey(vector.vkey))])
    expect(opened.ok).toBe(true)
  })

  vectorTest('checkpoints sent to a witness are signed, or not, as its answers say', 9, () => {
    const conversation = z
      .object({
        origin: z.string(),
        log_ed25519_pub_hex: z.string(),
        requests: z.array(z.object({ body: z.string(), status: z.number() })),
      })
      .parse(vectorJson('witness/add-checkpoint-conversation.json'))
    const key = verifierKey(conversation.origin, 1, bytesOfHex(conversation.log_ed25519_pub_hex))
    for (const { body, status } of conversation.requests) {
      const note = bytesOf(body.slice(body.indexOf('\n\n') + 2))
      const opened = openCheckpoint(note, { origin: conversation.origin, logKeys: [key] })
      expect([body, opened.ok]).toEqual([body, status !== 403])
    }
    expect(conversation.requests).toHaveLength(9)
  })
})
