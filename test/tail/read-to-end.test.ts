import { describe, expect, test } from 'bun:test'
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { OpsError } from '../../agent/errors.ts'
import type { Chunk } from '../../agent/tail/chunk.ts'
import { provenanceOf } from '../../agent/tail/provenance.ts'
import { type Progress, readToEnd } from '../../agent/tail/read-to-end.ts'
import { TestNode } from './node.ts'

type Given = { stdin?: string | Buffer; limits?: Parameters<typeof readToEnd>[1]['limits'] }

/** Imports and commits. @returns what came */
async function importAll(node: TestNode, paths: string[], given: Given = {}): Promise<Chunk[]> {
  const chunks: Chunk[] = []
  const files = paths.map((path) => ({ path, provenance: provenanceOf(path) }))
  const progress: Progress[] = []
  const options = {
    cursors: [...node.ledger.cursors.values()],
    clock: node.clock,
    onProblem: (problem: TestNode['problems'][number]) => node.problems.push(problem),
    onProgress: (step: Progress) => progress.push(step),
    ...(given.stdin === undefined ? {} : { stdin: inPieces(Buffer.from(given.stdin)) }),
    ...(given.limits === undefined ? {} : { limits: given.limits }),
  }
  for await (const chunk of readToEnd(files, options)) {
    chunks.push(chunk)
    node.ledger.take(chunk)
  }
  node.ledger.commit()
  node.ledger.checkConservation()
  return chunks
}

async function* inPieces(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 7) yield bytes.subarray(at, at + 7)
}

describe('reading files once', () => {
  test('the same content again adds nothing: same name, other name, compressed, piped', async () => {
    using node = new TestNode()
    const content = 'one\ntwo\nthree'
    const path = node.path('a.log')
    writeFileSync(path, content)
    writeFileSync(node.path('b.log'), content)
    writeFileSync(node.path('c.log.gz'), gzipSync(content))
    await importAll(node, [path])
    expect(node.ledger.contents()).toEqual(['one', 'two', 'three'])
    expect(node.ledger.lines.at(-1)?.line.unterminated).toBeTrue()
    for (const again of ['a.log', 'b.log', 'c.log.gz']) {
      expect(await importAll(node, [node.path(again)])).toEqual([])
    }
    expect(await importAll(node, ['-'], { stdin: content })).toEqual([])
    expect(await importAll(node, ['-'], { stdin: gzipSync(content) })).toEqual([])
    expect(node.ledger.contents()).toHaveLength(3)
  })

  test('the same file named twice is read once', async () => {
    using node = new TestNode()
    const path = node.path('a.log')
    writeFileSync(path, 'one\n')
    await importAll(node, [path, path])
    expect(node.ledger.contents()).toEqual(['one'])
  })

  test('a file that has grown goes on, what completes its last line first', async () => {
    using node = new TestNode()
    const path = node.path('a.log')
    writeFileSync(path, 'one\ntwo\nthr')
    await importAll(node, [path])
    appendFileSync(path, 'ee\nfour\n')
    await importAll(node, [path])
    const lines = node.ledger.lines.map(({ line }) => [line.content, line.continuation ?? false])
    expect(lines).toEqual([
      ['one', false],
      ['two', false],
      ['thr', false],
      ['ee', true],
      ['four', false],
    ])
    expect(node.ledger.cursors.size).toBe(1)
    node.ledger.checkConservation(() => readFileSync(path))
  })

  test('a file without any line end is kept, and goes on when it grows', async () => {
    using node = new TestNode()
    const path = node.path('a.log')
    writeFileSync(path, 'on')
    await importAll(node, [path])
    expect(await importAll(node, [path])).toEqual([])
    appendFileSync(path, 'e\ntwo\n')
    await importAll(node, [path])
    expect(node.ledger.contents()).toEqual(['on', 'e', 'two'])
    node.ledger.checkConservation(() => readFileSync(path))
  })

  test('piped content that continues what is known goes on, other content with its first line not', async () => {
    using node = new TestNode()
    await importAll(node, ['-'], { stdin: 'banner\none\n' })
    await importAll(node, ['-'], { stdin: 'banner\none\ntwo\n' })
    await importAll(node, ['-'], { stdin: 'banner\nTWO, and longer than the first was\n' })
    expect(node.ledger.contents()).toEqual([
      'banner',
      'one',
      'two',
      'banner',
      'TWO, and longer than the first was',
    ])
    expect(node.ledger.cursors.size).toBe(2)
  })

  test('breaking off anywhere and starting again delivers every byte once', async () => {
    const content = Array.from(
      { length: 60 },
      (_, i) =>
        `2026-01-01T00:00:00Z ${i % 3 === 0 ? 'stderr' : 'stdout'} ${i % 4 === 0 ? 'P' : 'F'} ${i}\n`,
    ).join('')
    const limits = { chunkBytesMax: 128, lineBytesMax: 1024, partsPerLineMax: 10 }
    for (const name of ['a.log', 'a.log.gz']) {
      for (let stopAfter = 1; stopAfter < 12; stopAfter++) {
        using node = new TestNode()
        const path = node.path(name)
        writeFileSync(path, name.endsWith('.gz') ? gzipSync(content) : content)
        const options = { cursors: [], clock: node.clock, onProblem: () => {}, limits }
        let taken = 0
        for await (const chunk of readToEnd([{ path, provenance: provenanceOf(path) }], options)) {
          node.ledger.take(chunk)
          // The last one was handed out and never committed.
          if (++taken < stopAfter) node.ledger.commit()
          else break
        }
        node.ledger.crash()
        await importAll(node, [path], { limits })
        node.ledger.checkConservation(() => Buffer.from(content))
        expect(node.ledger.only().cursor.offset).toBe(content.length)
        expect(node.ledger.gaps).toEqual([])
      }
    }
  })

  test('a damaged compressed file gives what can be read, and a gap without end, once', async () => {
    using node = new TestNode()
    const lines = Array.from({ length: 20_000 }, (_, i) => `${Bun.hash(String(i))}\n`).join('')
    const whole = gzipSync(lines)
    const path = node.path('a.log.gz')
    writeFileSync(path, whole.subarray(0, whole.length / 2))
    await importAll(node, [path])
    expect(node.ledger.contents().length).toBeGreaterThan(1000)
    expect(node.ledger.gaps).toMatchObject([{ cause: 'read_error', to: null }])
    expect(node.problems).toMatchObject([{ code: 'corrupt_gzip' }])
    await importAll(node, [path])
    expect(node.ledger.gaps).toHaveLength(1)
  })

  test('what is no gzip at all is refused with a hint', async () => {
    using node = new TestNode()
    const path = node.path('a.log.gz')
    writeFileSync(path, Buffer.from([0x1f, 0x8b, 1, 2, 3, 4, 5]))
    const failure = await importAll(node, [path]).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(OpsError)
    expect(failure).toMatchObject({ code: 'corrupt_input' })
    const missing = await importAll(node, [node.path('none.log')]).catch((error: unknown) => error)
    expect(missing).toMatchObject({ code: 'not_found' })
  })

  test('an empty file and an empty pipe are nothing', async () => {
    using node = new TestNode()
    writeFileSync(node.path('a.log'), '')
    expect(await importAll(node, [node.path('a.log'), '-'], { stdin: '' })).toEqual([])
  })

  test('progress reaches the end', async () => {
    using node = new TestNode()
    const path = node.path('a.log')
    writeFileSync(path, 'x'.repeat(99).concat('\n').repeat(20_000))
    const steps: Progress[] = []
    const options = {
      cursors: [],
      clock: node.clock,
      onProblem: () => {},
      onProgress: (step: Progress) => steps.push(step),
    }
    for await (const chunk of readToEnd([{ path, provenance: provenanceOf(path) }], options)) {
      node.ledger.take(chunk)
    }
    expect(steps.length).toBeGreaterThan(5)
    expect(steps.at(-1)).toEqual({ path, bytes: 2_000_000, bytesTotal: 2_000_000 })
  })
})

describe('long lines', () => {
  const mebi = 1 << 20
  const plain = `first\n${'x'.repeat(mebi - 1)}\n${'y'.repeat(mebi)}\n${'z'.repeat(5 * mebi)}\nlast\n`

  for (const name of ['a.log', 'a.log.gz']) {
    test(`a line of just 1 MiB is whole, a longer one is cut and its rest a gap: ${name}`, async () => {
      using node = new TestNode()
      const path = node.path(name)
      writeFileSync(path, name.endsWith('.gz') ? gzipSync(plain) : plain)
      await importAll(node, [path])
      const lines = node.ledger.lines.map(({ line }) => [
        line.content[0],
        line.content.length,
        line.truncated,
      ])
      expect(lines).toEqual([
        ['f', 5, false],
        ['x', mebi - 1, false],
        ['y', mebi, true],
        ['z', mebi, true],
        ['l', 4, false],
      ])
      expect(node.ledger.gaps.map(({ cause, from, to }) => [cause, (to ?? 0) - from])).toEqual([
        ['line_too_long', 1],
        ['line_too_long', 4 * mebi + 1],
      ])
      node.ledger.checkConservation(() => Buffer.from(plain))
    })

    test(`an overlong line without an end is cut, unterminated: ${name}`, async () => {
      using node = new TestNode()
      const path = node.path(name)
      const content = `one\n${'x'.repeat(3 * mebi)}`
      writeFileSync(path, name.endsWith('.gz') ? gzipSync(content) : content)
      await importAll(node, [path])
      expect(node.ledger.lines.at(-1)?.line).toMatchObject({ truncated: true, unterminated: true })
      expect(node.ledger.gaps).toMatchObject([{ from: 4 + mebi, to: content.length }])
    })
  }

  test('parts that wait when an overlong line ends the file are handed out', async () => {
    using node = new TestNode()
    for (const [second, name] of ['a.log', 'b.log.gz'].entries()) {
      const at = `2026-01-01T00:00:0${second}Z`
      const content = `${at} stdout P part\n${at} stderr F ${'x'.repeat(2 * mebi)}`
      writeFileSync(node.path(name), name.endsWith('.gz') ? gzipSync(content) : content)
      await importAll(node, [node.path(name)])
    }
    const parts = node.ledger.lines.filter(({ line }) => line.content === 'part')
    expect(parts.map(({ line }) => line.unterminated)).toEqual([true, true])
  })

  test('a line of 192 MiB does not fill the memory', async () => {
    using node = new TestNode()
    const path = node.path('a.log')
    writeFileSync(path, 'one\n')
    const block = Buffer.alloc(16 * mebi, 'x')
    for (let i = 0; i < 12; i++) appendFileSync(path, block)
    appendFileSync(path, '\ntwo\n')
    Bun.gc(true)
    const before = process.memoryUsage().rss
    await importAll(node, [path])
    const grownBytes = process.memoryUsage().rss - before
    expect(node.ledger.lines.map(({ line }) => line.content.length)).toEqual([3, mebi, 3])
    expect(grownBytes).toBeLessThan(96 * mebi)
  })
})
