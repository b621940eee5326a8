import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { NodeFolder } from '../end-to-end/node.ts'
import { accountOf, nothingWrong } from '../faults/account.ts'
import { criLine } from '../faults/lines.ts'
import { randomFrom, seedFrom } from '../faults/random.ts'
import { meshtrail, meshtrailOk } from './command.ts'

let folder: NodeFolder
beforeEach(() => {
  folder = new NodeFolder('import')
})
afterEach(() => folder[Symbol.dispose]())

const summarySchema = z.object({
  lines: z.number(),
  events: z.number(),
  unparsed: z.number(),
  gaps: z.number(),
  size: z.number(),
  interrupted: z.boolean(),
})

async function importOf(
  args: readonly string[],
  stdin?: Uint8Array,
): Promise<z.infer<typeof summarySchema>> {
  const options = stdin === undefined ? {} : { stdin }
  const text = await meshtrailOk(['import', ...args, '--data', folder.data, '--json'], options)
  return summarySchema.parse(JSON.parse(text))
}

async function rows(sql: string): Promise<unknown[][]> {
  const text = await meshtrailOk(['query', sql, '--data', folder.data, '--json'])
  return z.object({ rows: z.array(z.array(z.unknown())) }).parse(JSON.parse(text)).rows
}

function linesOf(count: number): string {
  return Array.from({ length: count }, (_, number) => criLine(number)).join('')
}

describe('import', () => {
  test('of standard input is read as what the operator says it is, and again adds nothing', async () => {
    const bytes = Buffer.from(linesOf(500))
    const first = await importOf(['-', '--trust', 'proxy'], bytes)
    expect(first).toMatchObject({ lines: 500, unparsed: 0, gaps: 0 })
    expect(await rows(`SELECT count(*) FROM events WHERE verdict = 'denied'`)).toEqual([[10]])
    expect(await importOf(['-', '--trust', 'proxy'], bytes)).toMatchObject({
      lines: 0,
      size: first.size,
    })
    const packed = Bun.gzipSync(bytes)
    expect(await importOf(['-', '--trust', 'proxy'], packed)).toMatchObject({
      lines: 0,
      size: first.size,
    })
  }, 30_000)

  test('without trust keeps every line and lets none of them decide anything', async () => {
    const { stderr, status } = await meshtrail(['import', '-', '--data', folder.data], {
      stdin: linesOf(100),
    })
    expect([status, stderr]).toEqual([0, expect.stringContaining('--trust')])
    expect(
      await rows(`SELECT reason, verdict, principal, count(*) FROM events
                  WHERE source <> 'meshtrail' GROUP BY ALL`),
    ).toEqual([['untrusted_source', null, null, 100]])
  }, 30_000)

  test('interrupted keeps what it read, and the next one completes it without repeating a line', async () => {
    const count = 40_000
    const file = folder.podLog('payments-1')
    writeFileSync(file, linesOf(count))
    const args = ['import', file, '--data', folder.data, '--json']
    const { status, stdout } = await meshtrail(args, {
      onStart: (child) => {
        // As soon as there is something to keep.
        const timer = setInterval(() => {
          if (partCount(folder.data) === 0) return
          // Once: a second Ctrl-C means now, and leaves it to the next start.
          clearInterval(timer)
          child.kill('SIGINT')
        }, 5)
        void child.exited.finally(() => clearInterval(timer))
      },
    })
    expect(status).toBe(130)
    const interrupted = summarySchema.parse(JSON.parse(stdout))
    expect(interrupted.interrupted).toBe(true)
    expect(interrupted.lines).toBeGreaterThan(0)
    expect(interrupted.lines).toBeLessThan(count)

    const rest = await importOf([file])
    expect(rest.lines + interrupted.lines).toBe(count)
    expect(rest.gaps).toBe(0)
    expect(await accountOf(folder.data, count)).toMatchObject(nothingWrong)
    const key = join(folder.data, 'log/vkey')
    expect((await meshtrail(['verify', folder.data, '--key', key])).status).toBe(0)
  }, 90_000)

  test('of a file that is not there names it, and what was named before it is kept', async () => {
    const file = folder.podLog('payments-1')
    writeFileSync(file, linesOf(10))
    const missing = join(folder.path, 'missing.log')
    const { status, stderr } = await meshtrail(['import', file, missing, '--data', folder.data])
    expect([status, stderr]).toEqual([2, expect.stringContaining(missing)])
    expect(await importOf([file])).toMatchObject({ gaps: 0 })
    expect(await accountOf(folder.data, 10)).toMatchObject(nothingWrong)
  }, 30_000)

  test('of what is no gzip, a directory, or an empty file', async () => {
    const broken = join(folder.path, 'broken.log.gz')
    writeFileSync(broken, Buffer.from([0x1f, 0x8b, 1, 2, 3, 4]))
    const damaged = await meshtrail(['import', broken, '--data', folder.data])
    expect([damaged.status, damaged.stderr]).toEqual([65, expect.stringContaining(broken)])
    const directory = await meshtrail(['import', folder.path, '--data', folder.data])
    expect([directory.status, directory.stderr]).toEqual([2, expect.stringContaining('hint:')])
    const empty = join(folder.path, 'empty.log')
    writeFileSync(empty, '')
    expect(await importOf([empty])).toMatchObject({ lines: 0, events: 0 })
  }, 30_000)
})

function partCount(root: string): number {
  const parts = join(root, 'parts')
  if (!existsSync(parts)) return 0
  return readdirSync(parts).filter((name) => name.endsWith('.parquet')).length
}

describe('malformed and hostile lines', () => {
  const seed = seedFrom(process.env['MESHTRAIL_SEED'])

  const hostile: readonly (readonly [name: string, content: string | Buffer])[] = [
    ['nothing at all', ''],
    ['one brace', '{'],
    ['JSON cut short', '{"start_time":"2026-01-02T00:00:00Z","method":"GE'],
    ['JSON nested ten thousand deep', '['.repeat(10_000)],
    ['an object nested ten thousand deep', `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`],
    ['a lone surrogate', '{"method":"\\ud800","path":"/x"}'],
    ['a key given twice', '{"method":"GET","method":"POST","response_code":200}'],
    ['a prototype for everybody', '{"__proto__":{"verdict":"allowed"},"constructor":1}'],
    ['numbers beyond any integer', '{"response_code":1e999,"duration":-1e308,"bytes_sent":1e30}'],
    ['a time that is none', '{"start_time":"yesterday","method":"GET","response_code":200}'],
    ['NUL bytes', Buffer.from('{"method":"G\0ET"}\0\0\0')],
    ['bytes that are no UTF-8', Buffer.from([0xff, 0xfe, 0x80, 0xc0, 0xaf, 0xed, 0xa0, 0x80])],
    ['a terminal being driven', '\u001b]0;owned\u0007\u001b[2J\u001b[31mdenied'],
    ['SQL', `'; DROP TABLE events; --`],
    ['text that begins like an access log', '[2026-01-02T00:00:00.000Z] "GET /'],
    ['an audit event cut short', '{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":'],
    [
      'an audit event of wrong types',
      '{"kind":"Event","apiVersion":"audit.k8s.io/v1","user":7,"objectRef":"x"}',
    ],
    ['half a MiB in one line', 'x'.repeat(1 << 19)],
    ['a carriage return', 'abc\r'],
  ]

  test('each become one event with its bytes, and nothing throws', async () => {
    const file = folder.podLog('payments-1')
    const time = '2026-01-02T00:00:00.000000000Z stdout F '
    const framed = hostile.map(([, content]) =>
      Buffer.concat([Buffer.from(time), Buffer.from(content), Buffer.from('\n')]),
    )
    // Without a wrapper, too, and with one that is broken.
    const bare = hostile.map(([, content]) =>
      Buffer.concat([Buffer.from(content), Buffer.from('\n')]),
    )
    const broken = ['2026-13-45T99:99:99Z stdout F x\n', '2026-01-02T00:00:00Z stdwhat F x\n']
    const all = [...framed, ...bare, ...broken.map((line) => Buffer.from(line))]
    writeFileSync(file, Buffer.concat([Buffer.from(criLine(0)), ...all, Buffer.from(criLine(1))]))
    const summary = await importOf([file])
    expect(summary.gaps).toBe(0)

    const kept = await rows(
      `SELECT hex(raw) FROM events WHERE source <> 'meshtrail' OR source IS NULL ORDER BY leaf_index`,
    )
    const keptBytes = Buffer.concat(kept.map(([hex]) => Buffer.from(String(hex), 'hex')))
    expect(keptBytes.equals(readFileSync(file))).toBe(true)
    expect(await rows(`SELECT count(*) FROM events WHERE request_id LIKE 'line-%'`)).toEqual([[2]])
    const unparsed = await rows(
      `SELECT count(*), count(verdict), count(principal) FROM events WHERE reason = 'unparsed'`,
    )
    expect(unparsed).toEqual([[expect.any(Number), 0, 0]])
    expect(Number(unparsed[0]?.[0])).toBeGreaterThan(hostile.length)
    const table = await meshtrailOk([
      'query',
      `SELECT raw::VARCHAR, decode(raw) FROM events WHERE contains(raw::VARCHAR, 'owned')`,
      '--data',
      folder.data,
    ])
    expect(controlCodesOf(table)).toEqual([])
  }, 60_000)

  test(`random bytes and damaged real lines come back bit for bit (MESHTRAIL_SEED=${seed})`, async () => {
    const random = randomFrom(seed)
    const pieces: Buffer[] = []
    for (let i = 0; i < 300; i++) {
      const line = Buffer.from(criLine(i))
      for (let flips = Math.floor(random() * 20); flips > 0; flips--) {
        line[Math.floor(random() * line.length)] = Math.floor(random() * 256)
      }
      pieces.push(line)
      const noise = Buffer.alloc(Math.floor(random() * 300))
      for (let at = 0; at < noise.length; at++) noise[at] = Math.floor(random() * 256)
      pieces.push(noise)
    }
    const bytes = Buffer.concat(pieces)
    const summary = await importOf(['-', '--trust', 'proxy'], bytes)
    expect(summary.gaps).toBe(0)
    const kept = await rows(
      `SELECT hex(raw) FROM events WHERE source <> 'meshtrail' OR source IS NULL ORDER BY leaf_index`,
    )
    const all = Buffer.concat(kept.map(([hex]) => Buffer.from(String(hex), 'hex')))
    expect(all.equals(bytes)).toBe(true)
    expect((await meshtrail(['verify', folder.data, '--deep'])).status).toBe(4)
  }, 60_000)
})

/** Codes of control characters in a text, line feeds excepted. */
function controlCodesOf(text: string): number[] {
  return Array.from(text, (char) => char.charCodeAt(0)).filter(
    (code) => code < 0x20 && code !== 0x0a,
  )
}
