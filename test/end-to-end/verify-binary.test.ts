/**
 * `meshtrail verify --key` against a log of 1,000 events that the binary made: whatever is changed on disk is
 * told by exit status 3 and by the file's name. Each change is undone before the next.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { meshtrail, meshtrailOk } from '../commands/command.ts'
import { criLine } from '../faults/lines.ts'
import { randomFrom, seedFrom } from '../faults/random.ts'
import { NodeFolder } from './node.ts'

const eventCount = 1000
const flipCount = Number(process.env['MESHTRAIL_FLIPS'] ?? 200)
const seed = seedFrom(process.env['MESHTRAIL_SEED'])
/** Directories worked on side by side, one process each. */
const copies = 2

let folder: NodeFolder
let key = ''
/** Every file of the log, by its path below the data directory. */
let log: Map<string, Buffer>
/** The same when fewer events were in it. */
let earlier: Map<string, Buffer>

beforeAll(async () => {
  folder = new NodeFolder('verify')
  const file = folder.podLog('payments-1')
  // Three imports, so that there are several segments and parts, and older copies of what changes.
  const importTo = async (size: number): Promise<void> => {
    // A denied line brings a finding, a commit its own events: fill up to the size with lines.
    writeFileSync(file, linesTo(size))
    await meshtrailOk(['import', file, '--data', folder.data, '--json'])
  }
  await importTo(400)
  earlier = snapshot(folder.data)
  await importTo(700)
  await importTo(eventCount)
  log = snapshot(folder.data)
  key = join(folder.path, 'node.vkey')
  writeFileSync(key, log.get('log/vkey') ?? '')
  for (let copy = 0; copy < copies; copy++) restore(copyRoot(copy))
}, 60_000)
afterAll(() => folder[Symbol.dispose]())

function linesTo(count: number): string {
  return Array.from({ length: count }, (_, number) => criLine(number)).join('')
}

function copyRoot(copy: number): string {
  return join(folder.path, `copy-${copy}`)
}

/** What verify looks at: everything but keys, lock and the unpacked library. */
function snapshot(root: string): Map<string, Buffer> {
  const files = new Map<string, Buffer>()
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name).slice(root.length + 1)
    if (!/^(?:keys|cache)\/|^lock$/.test(path)) files.set(path, readFileSync(join(root, path)))
  }
  return files
}

function restore(root: string): void {
  rmSync(root, { recursive: true, force: true })
  mkdirSync(root)
  for (const [path, bytes] of log) put(root, path, bytes)
}

function put(root: string, path: string, bytes: Uint8Array): void {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  writeFileSync(join(root, path), bytes)
}

const report = z.object({
  verdict: z.string(),
  size: z.number(),
  complaints: z.array(z.object({ severity: z.string(), path: z.string(), problem: z.string() })),
})

type Verdict = { readonly status: number; readonly size: number; readonly forged: string[] }

async function verify(root: string, ...options: string[]): Promise<Verdict> {
  const { status, stdout, stderr } = await meshtrail(['verify', root, '--json', ...options])
  if (stdout === '') throw new Error(`verify ended with ${status} and no report:\n${stderr}`)
  const { size, complaints } = report.parse(JSON.parse(stdout))
  const forged = complaints.filter(({ severity }) => severity === 'forged').map(({ path }) => path)
  return { status, size, forged }
}

type Change = {
  readonly name: string
  /** Files of which at least one must be named. */
  readonly names: readonly string[]
  readonly make: (root: string) => void
}

/** @returns changes that were not told, in words */
async function missedOf(changes: readonly Change[]): Promise<string[]> {
  const missed: string[] = []
  const queue = [...changes]
  const work = async (root: string): Promise<void> => {
    for (let change = queue.shift(); change !== undefined; change = queue.shift()) {
      change.make(root)
      const { status, forged } = await verify(root, '--key', key)
      if (status !== 3 || !change.names.some((name) => forged.includes(name))) {
        missed.push(
          `${change.name}: exit status ${status}, named ${forged.join(', ') || 'nothing'}`,
        )
      }
      restore(root)
    }
  }
  await Promise.all(Array.from({ length: copies }, async (_, copy) => work(copyRoot(copy))))
  return missed
}

describe('verify, by the binary', () => {
  test('the untouched log and an untouched copy of it are verified', async () => {
    for (const root of [folder.data, copyRoot(0)]) {
      const { status, size, forged } = await verify(root, '--key', key)
      expect([status, forged]).toEqual([0, []])
      expect(size).toBeGreaterThanOrEqual(eventCount)
    }
    const { stdout } = await meshtrail(['verify', copyRoot(0), '--key', key])
    expect(stdout).toEndWith('VERIFIED\n')
    expect(stdout).toContain('tail not anchored')
  })

  test('without a key it is incomplete, with another key forged', async () => {
    expect(await verify(copyRoot(0))).toMatchObject({ status: 4, forged: [] })
    const other = join(folder.path, 'other')
    await meshtrailOk(['import', folder.podLog('payments-1'), '--data', other])
    const wrong = await verify(copyRoot(0), '--key', join(other, 'log/vkey'))
    expect([wrong.status, wrong.forged]).toEqual([3, expect.arrayContaining(['log/vkey'])])
  })

  test(`${flipCount} single bytes flipped at random are told, with the file (MESHTRAIL_SEED=${seed})`, async () => {
    console.log(`seed ${seed}`)
    const random = randomFrom(seed)
    const paths = [...log.keys()].toSorted()
    const changes = Array.from({ length: flipCount }, (_, number): Change => {
      // Every file as often as any other, or most flips would hit the largest.
      const path = paths[number % paths.length] ?? ''
      const bytes = log.get(path) ?? Buffer.alloc(0)
      const offset = Math.floor(random() * bytes.length)
      const bit = 1 << Math.floor(random() * 8)
      return {
        name: `${path}, byte ${offset} ^ ${bit}`,
        names: [path],
        make: (root) => {
          const changed = Buffer.from(bytes)
          changed[offset] = (changed[offset] ?? 0) ^ bit
          put(root, path, changed)
        },
      }
    })
    expect(await missedOf(changes)).toEqual([])
  }, 300_000)

  test('every file deleted, renamed, cut short or lengthened is told', async () => {
    const changes = [...log].flatMap(([path, bytes]): Change[] => [
      // Of a sealed part the agent itself deletes the copy: its rows are in the segment.
      ...(isSealed(path)
        ? []
        : [
            {
              name: `${path} deleted`,
              names: [path, dirname(path)],
              make: (root: string) => rmSync(join(root, path)),
            },
          ]),
      {
        name: `${path} renamed`,
        names: [path, `${path}.bak`],
        make: (root) => renameSync(join(root, path), join(root, `${path}.bak`)),
      },
      {
        name: `${path} cut short`,
        names: [path],
        make: (root) => put(root, path, bytes.subarray(0, -1)),
      },
      {
        name: `${path} lengthened`,
        names: [path],
        make: (root) => put(root, path, Buffer.concat([bytes, Buffer.from('\n')])),
      },
    ])
    expect(changes.length).toBeGreaterThan(20)
    expect(await missedOf(changes)).toEqual([])
  }, 120_000)

  test('files of one kind that change places are told', async () => {
    const changes: Change[] = []
    const paths = [...log.keys()].toSorted()
    for (const a of paths) {
      for (const b of paths.filter((path) => path > a && kindOf(path) === kindOf(a))) {
        changes.push({
          name: `${a} and ${b} swapped`,
          names: [a, b],
          make: (root) => {
            put(root, a, log.get(b) ?? Buffer.alloc(0))
            put(root, b, log.get(a) ?? Buffer.alloc(0))
          },
        })
      }
    }
    expect(changes.length).toBeGreaterThan(3)
    expect(await missedOf(changes)).toEqual([])
  }, 120_000)

  test('an older copy of any one file put back is told', async () => {
    const changes = [...earlier]
      .filter(([path, bytes]) => log.has(path) && !log.get(path)?.equals(bytes))
      .map(
        ([path, bytes]): Change => ({
          name: `older ${path}`,
          names: [path],
          make: (root) => put(root, path, bytes),
        }),
      )
    expect(changes.map(({ name }) => name)).toContain('older log/checkpoint')
    expect(changes.map(({ name }) => name)).toContain('older log/head.note')
    expect(await missedOf(changes)).toEqual([])
  }, 60_000)

  test('the whole directory rolled back is told by a head kept elsewhere, and only by it', async () => {
    const root = join(folder.path, 'rolled-back')
    for (const [path, bytes] of earlier) put(root, path, bytes)
    const head = join(folder.path, 'yesterday.checkpoint')
    writeFileSync(head, log.get('log/checkpoint') ?? '')
    expect((await verify(root, '--key', key)).status).toBe(0)
    expect((await verify(root, '--key', key, '--expect-head', head)).status).toBe(3)
    expect((await verify(copyRoot(0), '--key', key, '--expect-head', head)).status).toBe(0)
  })

  test('what is no log, or no key, is a mistake of the caller', async () => {
    const missing = await meshtrail(['verify', join(folder.path, 'nowhere')])
    expect([missing.status, missing.stderr]).toEqual([2, expect.stringContaining('hint:')])
    const keyless = await meshtrail(['verify', copyRoot(0), '--key', join(folder.path, 'no.vkey')])
    expect([keyless.status, keyless.stderr]).toEqual([2, expect.stringContaining('no.vkey')])
  })

  test('a copy on a medium nobody can write to verifies as well', async () => {
    const root = join(folder.path, 'read-only')
    cpSync(copyRoot(0), root, { recursive: true })
    Bun.spawnSync(['chmod', '-R', 'a-w', root])
    expect((await verify(root, '--key', key)).status).toBe(0)
    Bun.spawnSync(['chmod', '-R', 'u+w', root])
  })
})

/** Whether a segment holds the rows of a part. */
function isSealed(path: string): boolean {
  const first = Number(/^parts\/(\d+)-/.exec(path)?.[1])
  return [...log.keys()].some((other) => {
    const [, from, count] = /^segments\/.*\/(\d+)-(\d+)-\w+\.parquet$/.exec(other) ?? []
    return Number(from) <= first && first < Number(from) + Number(count)
  })
}

function kindOf(path: string): string {
  if (path.endsWith('.parquet')) return 'parquet'
  return path.startsWith('log/manifest/') ? 'manifest' : 'head'
}
