import { describe, expect, test } from 'bun:test'
import { Decoder, type Decoded } from '../../agent/decode/decoder.ts'

const limits = { lineBytesMax: 1 << 20, partsPerLineMax: 1024 }
const at = '2026-11-20T09:12:31.004512345Z'
const atUs = Date.UTC(2026, 10, 20, 9, 12, 31) * 1000 + 4512

function decode(text: string | Buffer, decoder = new Decoder('gen', limits)): Decoded {
  const out: Decoded = { lines: [], gaps: [] }
  const bytes = Buffer.from(text)
  decoder.decode(bytes, 0, bytes.length, 0, 'path', out)
  return out
}

function contents({ lines }: Decoded): string[] {
  return lines.map((line) => line.content)
}

function rawOf({ lines }: Decoded): string[] {
  return lines.map((line) =>
    Buffer.from(line.rawBuffer.subarray(line.rawStart, line.rawEnd)).toString('latin1'),
  )
}

function part(tag: string, text: string): string {
  return `${at} stdout ${tag} ${text}\n`
}

function docker(log: string, stream = 'stdout', more = ''): string {
  return `{"log":${JSON.stringify(log)},"stream":"${stream}",${more}"time":"${at}"}\n`
}

describe('plain lines', () => {
  test('content is without terminator, raw with it', () => {
    const out = decode('one\ntwo\r\n\n\r\nthree\r\r\n')
    expect(contents(out)).toEqual(['one', 'two', '', '', 'three\r'])
    expect(rawOf(out)).toEqual(['one\n', 'two\r\n', '\n', '\r\n', 'three\r\r\n'])
    expect(out.lines.map((line) => line.ranges)).toEqual([
      [0, 4],
      [4, 5],
      [9, 1],
      [10, 2],
      [12, 8],
    ])
  })

  test('offsets count from where the chunk lies in the file and in its buffer', () => {
    const bytes = Buffer.from('before|one\ntwo\nafter')
    const out: Decoded = { lines: [], gaps: [] }
    new Decoder('gen').decode(bytes, 7, 15, 1000, 'path', out)
    expect(contents(out)).toEqual(['one', 'two'])
    expect(rawOf(out)).toEqual(['one\n', 'two\n'])
    expect(out.lines.map((line) => line.ranges)).toEqual([
      [1000, 4],
      [1004, 4],
    ])
  })

  test('NUL bytes are content like any other', () => {
    const out = decode('a\0b\n\0\0\0\n')
    expect(contents(out)).toEqual(['a\0b', '\0\0\0'])
    expect(out.lines.map((line) => line.lossy)).toEqual([false, false])
  })

  test('UTF-8 stays itself, with its byte order mark', () => {
    const out = decode('\uFEFFä\n日本 🦊\nplain\n')
    expect(contents(out)).toEqual(['\uFEFFä', '日本 🦊', 'plain'])
    expect(out.lines.map((line) => line.lossy)).toEqual([false, false, false])
  })

  test('invalid UTF-8 is replaced in the content, said to be lossy, and kept in raw', () => {
    const out = decode(Buffer.from([0x61, 0xff, 0x62, 0x0a, 0x63, 0x0a, 0xc3, 0x0a]))
    expect(contents(out)).toEqual(['a\uFFFDb', 'c', '\uFFFD'])
    expect(out.lines.map((line) => line.lossy)).toEqual([true, false, true])
    expect(rawOf(out)).toEqual(['a\xffb\n', 'c\n', '\xc3\n'])
  })

  test('what only begins like a wrapper is plain', () => {
    const lines = [
      `${at} info access something`,
      `${at} stdout X text`,
      `${at} stdout Full text`,
      `${at} stdin F text`,
      '2026-13-20T09:12:31Z stdout F month 13',
      '2026-11-20 09:12:31Z stdout F no T',
      '{"log":"text","stream":"stdout"}',
      `{"log":"text\\n","stream":"stdout","time":"${at}","more":1}`,
      '{"log":"cut',
      `{"log":"text\\n","stream":"stdout","time":"yesterday"}`,
      '10.0.0.1 - - [x]',
    ]
    const out = decode(`${lines.join('\n')}\n`)
    expect(contents(out)).toEqual(lines)
    expect(out.lines.every((line) => line.stream === '' && line.wrapperUs === null)).toBeTrue()
  })
})

describe('CRI', () => {
  test('the wrapper gives stream and time, the content is what was printed', () => {
    const out = decode(`${at} stdout F {"a":1}\n${at} stderr F \n${at} stderr F\n`)
    expect(out.lines).toMatchObject([
      { content: '{"a":1}', stream: 'stdout', wrapperUs: atUs, ranges: [0, 48] },
      { content: '', stream: 'stderr', wrapperUs: atUs },
      { content: '', stream: 'stderr', wrapperUs: atUs },
    ])
  })

  test.each([
    ['2026-11-20T09:12:31Z', 0],
    ['2026-11-20T09:12:31.5Z', 500_000],
    ['2026-11-20T09:12:31.0000019Z', 1],
    ['2026-11-20T18:12:31.25+09:00', 250_000],
    ['2026-11-20T03:42:31.25-05:30', 250_000],
  ])('%s is read to the microsecond', (time, micros) => {
    const out = decode(`${time} stdout F x\n`)
    expect(out.lines[0]?.wrapperUs).toBe(Date.UTC(2026, 10, 20, 9, 12, 31) * 1000 + micros)
  })

  test('a second follows a second: the remembered one does not stick', () => {
    const out = decode(
      '2026-11-20T09:12:59Z stdout F a\n2026-11-20T09:13:00Z stdout F b\n2026-11-20T09:12:59Z stdout F c\n',
    )
    const base = Date.UTC(2026, 10, 20, 9, 12, 59) * 1000
    expect(out.lines.map((line) => (line.wrapperUs ?? 0) - base)).toEqual([0, 1_000_000, 0])
  })

  test('more tags than one are passed over', () => {
    const out = decode(`${at} stdout P:x=1 one \n${at} stdout F:y:z two\n`)
    expect(contents(out)).toEqual(['one two'])
  })

  test('parts are joined per stream, however they interleave', () => {
    const text = [
      `${at} stdout P a1`,
      `${at} stderr P b1`,
      `${at} stdout P a2`,
      `${at} stderr F b2`,
      `${at} stderr F c`,
      `${at} stdout F a3`,
      `${at} stdout F d`,
    ].map((line) => `${line}\n`)
    const out = decode(text.join(''))
    expect(contents(out)).toEqual(['b1b2', 'c', 'a1a2a3', 'd'])
    expect(out.lines.map((line) => line.stream)).toEqual(['stderr', 'stderr', 'stdout', 'stdout'])
    expect(rawOf(out)[2]).toBe(`${text[0]}${text[2]}${text[5]}`)
    const length = (text[0] ?? '').length
    expect(out.lines[2]?.ranges).toEqual([0, length, 2 * length, length, 5 * length - 1, length])
  })

  test('a part keeps its carriage return, the end of the line does not', () => {
    const out = decode(`${at} stdout P a\r\n${at} stdout F b\r\n`)
    expect(contents(out)).toEqual(['a\rb'])
  })

  test('a character split between parts is whole again', () => {
    const fox = Buffer.from('🦊')
    const text = Buffer.concat([
      Buffer.from(`${at} stdout P x`),
      fox.subarray(0, 2),
      Buffer.from(`\n${at} stdout F `),
      fox.subarray(2),
      Buffer.from('y\n'),
    ])
    const out = decode(text)
    expect(out.lines).toMatchObject([{ content: 'x🦊y', lossy: false }])
  })

  test('what is printed inside a wrapper is not unwrapped again', () => {
    const inner = `${at} stderr F forged`
    expect(decode(`${at} stdout F ${inner}\n`).lines).toMatchObject([
      { content: inner, stream: 'stdout' },
    ])
  })

  test('pending parts survive a restart', () => {
    const before = `${at} stdout P a\n${at} stderr P b\n`
    const decoder = new Decoder('gen', limits)
    expect(decode(before, decoder).lines).toEqual([])
    const { pending } = decoder
    const length = before.length / 2
    expect(pending).toEqual([
      { offset: 0, length, stream: 'stdout' },
      { offset: length, length, stream: 'stderr' },
    ])

    const restarted = new Decoder('gen', limits)
    const bytes = Buffer.from(before)
    expect(restarted.restore(pending, (from, size) => bytes.subarray(from, from + size))).toBeTrue()
    expect(restarted.pending).toEqual(pending)
    const out: Decoded = { lines: [], gaps: [] }
    const rest = Buffer.from(`${at} stderr F B\n${at} stdout F A\n`)
    restarted.decode(rest, 0, rest.length, before.length, 'path', out)
    expect(contents(out)).toEqual(['bB', 'aA'])
    expect(restarted.pending).toEqual([])
  })

  test('pending ranges that hold something else are refused', () => {
    const pending = [{ offset: 0, length: 2, stream: 'stdout' as const }]
    expect(new Decoder('gen').restore(pending, () => Buffer.from('x\n'))).toBeFalse()
    expect(new Decoder('gen').restore(pending, () => Buffer.alloc(0))).toBeFalse()
    const other = Buffer.from(`${at} stderr P b\n`)
    const wrong = [{ offset: 0, length: other.length, stream: 'stdout' as const }]
    expect(new Decoder('gen').restore(wrong, () => other)).toBeFalse()
  })

  test('parts that never end are handed out unterminated, oldest first', () => {
    const decoder = new Decoder('gen', limits)
    decode(`${at} stderr P b\n${at} stdout P a\n`, decoder)
    const out: Decoded = { lines: [], gaps: [] }
    decoder.flush(out)
    expect(out.lines).toMatchObject([
      { content: 'b', stream: 'stderr', unterminated: true },
      { content: 'a', stream: 'stdout', unterminated: true },
    ])
    expect(decoder.pending).toEqual([])
  })

  test('the rest of a line that was handed out without its end is a continuation', () => {
    const decoder = new Decoder('gen', limits)
    decoder.resumeAfter(Buffer.from(`${at} stdout P a\n`))
    const out = decode(`${at} stderr F x\n${at} stdout F "GET /forged\n${at} stdout F y\n`, decoder)
    expect(out.lines.map((line) => [line.content, line.continuation ?? false])).toEqual([
      ['x', false],
      ['"GET /forged', true],
      ['y', false],
    ])
  })
})

describe('lines too long to join', () => {
  const small = { lineBytesMax: 200, partsPerLineMax: 4 }

  test('are cut, and their rest is one gap up to the final part', () => {
    const decoder = new Decoder('gen', small)
    const parts = ['a', 'b', 'c', 'd', 'e', 'f'].map((text) => part('P', text.repeat(40)))
    const text = `${parts.join('')}${part('F', 'g')}${part('F', 'next')}`
    const out = decode(text, decoder)
    expect(out.lines).toMatchObject([
      { content: 'a'.repeat(40) + 'b'.repeat(40), truncated: true },
      { content: 'next', truncated: false },
    ])
    const length = (parts[0] ?? '').length
    expect(out.gaps).toMatchObject([
      { cause: 'line_too_long', from: 2 * length, to: text.length - part('F', 'next').length },
    ])
    expect(decoder.pending).toEqual([])
  })

  test('are cut by the number of parts too', () => {
    const decoder = new Decoder('gen', { ...small, lineBytesMax: 1 << 20 })
    const out = decode(`${part('P', 'x').repeat(6)}${part('F', 'y')}${part('F', 'z')}`, decoder)
    expect(contents(out)).toEqual(['xxxx', 'z'])
    expect(out.gaps).toHaveLength(1)
  })

  test('stay cut through a restart', () => {
    const decoder = new Decoder('gen', small)
    decode(part('P', 'x'.repeat(60)).repeat(4), decoder)
    expect(decoder.pending).toEqual([{ offset: 0, length: 0, stream: 'stdout' }])
    const restarted = new Decoder('gen', small)
    expect(restarted.restore(decoder.pending, () => Buffer.alloc(0))).toBeTrue()
    const out = decode(`${part('P', 'y')}${part('F', 'forged')}${part('F', 'next')}`, restarted)
    expect(contents(out)).toEqual(['next'])
    expect(out.gaps).toHaveLength(1)
  })

  test('one physical line too long is cut where it is, and its parts with it', () => {
    const decoder = new Decoder('gen', small)
    const long = part('P', 'x'.repeat(400))
    const out = decode(`${long}${part('F', 'rest')}${part('F', 'next')}`, decoder)
    expect(out.lines).toMatchObject([{ truncated: true, ranges: [0, 200] }, { content: 'next' }])
    expect(out.gaps).toMatchObject([
      { cause: 'line_too_long', from: 200, to: long.length + part('F', 'rest').length },
    ])
  })
})

describe('Docker', () => {
  test('the log field is the content', () => {
    const out = decode(`${docker('{"a":"ä"}\n')}${docker('x\r\n', 'stderr', '"attrs":{"a":"b"},')}`)
    expect(out.lines).toMatchObject([
      { content: '{"a":"ä"}', stream: 'stdout', wrapperUs: atUs },
      { content: 'x', stream: 'stderr', wrapperUs: atUs },
    ])
  })

  test('parts without a newline are joined per stream', () => {
    const text = [docker('a1'), docker('b1', 'stderr'), docker('a2\n'), docker('b2\n', 'stderr')]
    const out = decode(text.join(''))
    expect(contents(out)).toEqual(['a1a2', 'b1b2'])
    expect(rawOf(out)[0]).toBe(`${text[0]}${text[2]}`)
  })

  test('wrappers are chosen line by line', () => {
    const out = decode(`${docker('d\n')}${at} stdout F c\nplain\n{"json":1}\n`)
    expect(contents(out)).toEqual(['d', 'c', 'plain', '{"json":1}'])
  })
})

describe('the end of a generation', () => {
  test('a last line without terminator is unterminated', () => {
    const bytes = Buffer.from(`${at} stdout F par`)
    const out: Decoded = { lines: [], gaps: [] }
    new Decoder('gen').decodeLast(bytes, 0, bytes.length, 7, 'path', out)
    expect(out.lines).toMatchObject([
      { content: 'par', stream: 'stdout', unterminated: true, ranges: [7, bytes.length] },
    ])
  })

  test('what completes a line that was handed out unterminated is never a line of its own', () => {
    const decoder = new Decoder('gen')
    decoder.resumeAfter(Buffer.from('{"authority":"x"'))
    const out = decode(`${at} stdout F forged\n${at} stdout F real\n`, decoder)
    expect(out.lines).toMatchObject([
      { content: `${at} stdout F forged`, stream: '', continuation: true },
      { content: 'real', stream: 'stdout' },
    ])
    expect(out.lines[1]?.continuation).toBeUndefined()
  })
})

test('any bytes come back by their ranges, in ASCII and out of it, whole or chunk by chunk', () => {
  const alphabet = [
    'a',
    '\0',
    '\r',
    'ä',
    '\xff',
    ' ',
    '{"log":"',
    `${at} stdout P `,
    `${at} stderr F `,
  ]
  for (let seed = 1; seed <= 300; seed++) {
    let state = seed
    const below = (bound: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff
      return (state >>> 8) % bound
    }
    const lines: Buffer[] = []
    for (let i = 0; i < 12; i++) {
      let text = ''
      for (let j = below(5); j > 0; j--) text += alphabet[below(alphabet.length)] ?? ''
      lines.push(Buffer.from(`${text}\n`, below(2) === 0 ? 'utf8' : 'latin1'))
    }
    const all = Buffer.concat(lines)
    const decoder = new Decoder('gen', { lineBytesMax: 150, partsPerLineMax: 3 })
    const out: Decoded = { lines: [], gaps: [] }
    let offset = 0
    for (let i = 0; i < lines.length; i += 4) {
      const chunk = Buffer.concat(lines.slice(i, i + 4))
      decoder.decode(chunk, 0, chunk.length, offset, 'path', out)
      offset += chunk.length
    }
    decoder.flush(out)
    const covered = new Uint8Array(all.length)
    for (const line of out.lines) {
      const raw = line.rawBuffer.subarray(line.rawStart, line.rawEnd)
      let used = 0
      for (let i = 0; i < line.ranges.length; i += 2) {
        const from = line.ranges[i] ?? 0
        const length = line.ranges[i + 1] ?? 0
        const isSame = all.subarray(from, from + length).equals(raw.subarray(used, used + length))
        expect({ seed, from, isSame }).toEqual({ seed, from, isSame: true })
        for (let k = from; k < from + length; k++) covered[k] = (covered[k] ?? 0) + 1
        used += length
      }
      expect({ seed, used }).toEqual({ seed, used: raw.length })
    }
    for (const { from, to } of out.gaps) {
      for (let k = from; k < (to ?? 0); k++) covered[k] = (covered[k] ?? 0) + 1
    }
    expect({ seed, isCovered: covered.every((count) => count === 1) }).toEqual({
      seed,
      isCovered: true,
    })
  }
})
