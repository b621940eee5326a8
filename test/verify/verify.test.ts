import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatVkey, keyTypes, verifierKey } from '../../agent/log/note.ts'
import { signingKeyFromSeed } from '../../agent/log/ed25519.ts'
import { evidenceOf } from '../../agent/verify/evidence.ts'
import type { Verification } from '../../agent/verify/report.ts'
import { type VerifyOptions, verifyLog } from '../../agent/verify/verify.ts'
import { openStore, ranRules, SampleSource } from '../store/sample.ts'

type Files = ReadonlyMap<string, Uint8Array>

let root: string
let vkey: string
/** 1,000 events: two segments, and two parts that are not sealed. */
let log: Files
/** The same directory at earlier commits, newest first. */
const earlier: Files[] = []

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'meshtrail-verify-'))
  const source = new SampleSource()
  await using store = await openStore(root)
  vkey = store.identity.vkey
  for (const [size, seal] of [
    [300, false],
    [200, true],
    [150, true],
    [50, false],
    [300, false],
  ] as const) {
    store.commit(source.batch(size))
    ranRules(store)
    earlier.unshift(snapshot(root))
    if (!seal) continue
    await store.sealAll()
    earlier.unshift(snapshot(root))
  }
  log = snapshot(root)
  earlier.shift()
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

function snapshot(folder: string): Files {
  const files = new Map<string, Uint8Array>()
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    files.set(path.slice(folder.length + 1), readFileSync(path))
  }
  return files
}

function verify(files: Files, options: Partial<VerifyOptions> = {}): Promise<Verification> {
  return verifyLog(evidenceOf(files), {
    vkey,
    expectHead: null,
    deep: false,
    compare: () => null,
    ...options,
  })
}

function evidencePaths(): string[] {
  return [...log.keys()].filter((path) => !path.startsWith('keys/') && path !== 'lock')
}

function changed(change: (files: Map<string, Uint8Array>) => void): Files {
  const files = new Map(log)
  change(files)
  return files
}

function at(path: string): Uint8Array {
  const bytes = log.get(path)
  if (bytes === undefined) throw new Error(`no ${path}`)
  return bytes
}

function forgedPaths(verification: Verification): string[] {
  return verification.complaints
    .filter((complaint) => complaint.severity === 'forged')
    .map((complaint) => complaint.path)
}

describe('verify', () => {
  test('the untouched log is verified, and says what it holds', async () => {
    const verification = await verify(log)
    expect(verification.complaints).toEqual([])
    expect(verification).toMatchObject({ verdict: 'verified', size: 1000, segments: 2, parts: 2 })
    expect(evidencePaths().filter((path) => path.includes('tile')).length).toBeGreaterThan(0)
  })

  test('flipping any one byte of any file is forged, and the file is named', async () => {
    const missed: string[] = []
    let flips = 0
    for (const path of evidencePaths()) {
      const bytes = Uint8Array.from(at(path))
      const files = changed((all) => all.set(path, bytes))
      for (let offset = 0; offset < bytes.length; offset++) {
        const original = bytes[offset] ?? 0
        bytes[offset] = original ^ (1 << (offset % 8))
        const verification = await verify(files, { failFast: true })
        flips++
        if (verification.verdict !== 'forged' || !namesIt(verification, path)) {
          missed.push(`${path}@${offset}: ${verification.verdict}`)
        }
        bytes[offset] = original
      }
    }
    expect(missed).toEqual([])
    console.log(`${flips} flips`)
  }, 600_000)

  test('deleting any file is forged', async () => {
    for (const path of evidencePaths()) {
      const verification = await verify(changed((files) => files.delete(path)))
      expect([path, verification.verdict]).toEqual([path, 'forged'])
    }
  })

  test('putting back an older copy of any one file is forged', async () => {
    let tried = 0
    for (const old of earlier) {
      for (const [path, bytes] of old) {
        if (path.startsWith('keys/') || path === 'lock') continue
        if (Buffer.from(log.get(path) ?? []).equals(bytes)) continue
        // A part that was sealed and deleted since is a true copy of rows the log still holds.
        if (!log.has(path) && path.startsWith('parts/')) continue
        if (!log.has(path) && path.startsWith('log/tile/')) continue
        const verification = await verify(changed((files) => files.set(path, bytes)))
        tried++
        expect([path, verification.verdict]).toEqual([path, 'forged'])
      }
    }
    expect(tried).toBeGreaterThan(8)
  })

  test('swapping, renaming and copying files is forged', async () => {
    const paths = evidencePaths()
    for (const a of paths) {
      for (const b of paths) {
        if (a >= b) continue
        const swapped = await verify(changed((files) => void files.set(a, at(b)).set(b, at(a))))
        expect([a, b, swapped.verdict]).toEqual([a, b, 'forged'])
      }
      const renamed = await verify(
        changed((files) => {
          files.delete(a)
          files.set(`${a}.bak`, at(a))
        }),
      )
      expect([a, renamed.verdict]).toEqual([a, 'forged'])
      const copied = await verify(
        changed((files) => files.set(a.replace(/\d(?=\D*$)/, '9'), at(a))),
      )
      if (/\d(?=\D*$)/.test(a) && a.replace(/\d(?=\D*$)/, '9') !== a) {
        expect([a, copied.verdict]).toEqual([a, 'forged'])
      }
    }
  })

  test('rolling the whole directory back shows only against a head kept elsewhere', async () => {
    const [before] = earlier
    if (before === undefined) throw new Error('BUG: no earlier copy')
    const rolledBack = await verify(before)
    expect([rolledBack.verdict, rolledBack.anchored]).toEqual(['verified', false])
    const anchored = await verify(before, { expectHead: at('log/checkpoint') })
    expect(anchored.verdict).toBe('forged')
    expect(anchored.complaints[0]?.problem).toContain('rolled back')
    const fine = await verify(log, { expectHead: at('log/checkpoint') })
    expect([fine.verdict, fine.anchored]).toEqual(['verified', true])
    const older = await verify(log, { expectHead: before.get('log/checkpoint') ?? null })
    expect(older.verdict).toBe('verified')
    const fork = await anotherLog()
    const forked = await verify(log, { expectHead: fork })
    expect(forked.complaints.map((complaint) => complaint.problem)).toEqual([
      'another root was signed for 10 events: the log forked',
    ])
  })

  test('without a trusted key the log is at best incomplete; with another one it is forged', async () => {
    expect((await verify(log, { vkey: null })).verdict).toBe('incomplete')
    const stranger = signingKeyFromSeed(new Uint8Array(32).fill(9))
    const [origin = ''] = vkey.split('+')
    const other = formatVkey(verifierKey(origin, keyTypes.ed25519, stranger.publicKey))
    expect((await verify(log, { vkey: other })).verdict).toBe('forged')
  })

  test('a changed row is named by its leaf', async () => {
    const segment = evidencePaths().find((path) => path.startsWith('segments/')) ?? ''
    const bytes = Uint8Array.from(at(segment))
    bytes[bytes.length - 5] = (bytes[bytes.length - 5] ?? 0) ^ 1
    const files = changed((all) => all.set(segment, bytes))
    const verification = await verify(files)
    expect(forgedPaths(verification)).toContain(segment)
    const difference = await verify(log, {
      deep: true,
      compare: (event) => (event.request_id === 'request-7' ? 'verdict is not denied' : null),
    })
    expect(difference.complaints.map((complaint) => complaint.leaves)).toEqual([[7, 8]])
  })
})

/** A head that the same key signed over other events. */
async function anotherLog(): Promise<Uint8Array> {
  const folder = mkdtempSync(join(tmpdir(), 'meshtrail-fork-'))
  try {
    await using store = await openStore(folder)
    const source = new SampleSource()
    source.batch(1)
    store.commit(source.batch(10))
    return Buffer.from(store.checkpoint)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Tiles are checked against the rows, so a flip there names the tile; all else names the file itself. */
function namesIt(verification: Verification, path: string): boolean {
  return forgedPaths(verification).includes(path)
}
