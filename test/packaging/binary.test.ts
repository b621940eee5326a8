import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import manifest from '../../package.json' with { type: 'json' }
import { disabledVariables } from '../../dist/build.ts'
import { checked, meshtrailBinary, run, selfCheckBinary } from './built-binary.ts'

const duckdbVersion = `v${manifest.dependencies['@duckdb/node-api'].split('-')[0]}`
const isRoot = process.getuid?.() === 0

let binary = ''
let program = ''
let scratch = ''
let count = 0

beforeAll(async () => {
  binary = await meshtrailBinary()
  program = await selfCheckBinary()
  scratch = mkdtempSync(join(tmpdir(), 'meshtrail-packaging-'))
}, 120_000)

afterAll(() => {
  rmSync(scratch, { recursive: true, force: true })
})

/** A new empty directory. */
function fresh(): string {
  const path = join(scratch, String(count++))
  mkdirSync(path)
  return path
}

async function selfCheck(cache: string): Promise<ReturnType<typeof checked>> {
  const env = { MESHTRAIL_CACHE_DIR: cache }
  return checked(await run([binary, '__selfcheck'], { cwd: fresh(), env }))
}

describe('the built file alone', () => {
  test('answers SQL in an empty directory, with an empty environment and no node_modules', async () => {
    const home = fresh()
    const found = checked(await run([binary, '__selfcheck'], { cwd: fresh(), env: { HOME: home } }))
    expect(found).toMatchObject({ duckdb: duckdbVersion, answer: '42', version: manifest.version })
    expect(found.library).toStartWith(join(home, '.cache/meshtrail/duckdb-'))
  })

  test('unpacks nothing for a command that needs no SQL', async () => {
    const place = fresh()
    const env = { HOME: place, TMPDIR: place, MESHTRAIL_CACHE_DIR: place }
    for (const file of [binary, program]) {
      // The second one even imports DuckDB at the top.
      const { status, stdout } = await run([file, '--version'], { cwd: place, env })
      expect(status).toBe(0)
      expect(stdout).toContain(manifest.version)
      expect(readdirSync(place)).toEqual([])
    }
  })

  test('keeps no path of the machine it was built on', () => {
    expect(readFileSync(program).includes(join(import.meta.dir, '../..'))).toBe(false)
  })
})

describe('what is in the environment or the directory does not change the program', () => {
  test('BUN_BE_BUN=1 does not turn it into bun', async () => {
    const cwd = fresh()
    const env = { BUN_BE_BUN: '1' }
    const { stdout } = await run([binary, '--version'], { cwd, env })
    expect(stdout).toBe((await run([binary, '--version'], { cwd })).stdout)
    const evaluated = await run([binary, '-e', 'console.log("eval" + "uated")'], { cwd, env })
    expect(evaluated.stdout + evaluated.stderr).not.toContain('evaluated')
  })

  test('bunfig.toml, .env, tsconfig.json and package.json in the directory are ignored', async () => {
    const cwd = fresh()
    writeFileSync(join(cwd, 'preload.js'), 'console.log("preloaded")')
    writeFileSync(join(cwd, 'bunfig.toml'), 'preload = ["./preload.js"]')
    writeFileSync(join(cwd, '.env'), 'FROM_DOTENV=from-dotenv')
    writeFileSync(join(cwd, 'tsconfig.json'), 'not json')
    writeFileSync(join(cwd, 'package.json'), 'not json')
    for (const file of [binary, program]) {
      const { status, stdout, stderr } = await run([file, '--version'], { cwd })
      expect(status).toBe(0)
      expect(stdout + stderr).not.toMatch(/preloaded|from-dotenv|not json|error/i)
    }
  })

  test('BUN_OPTIONS and NODE_OPTIONS do not load a script', async () => {
    const cwd = fresh()
    writeFileSync(join(cwd, 'preload.js'), 'console.log("preloaded")')
    for (const env of [
      { BUN_OPTIONS: '--preload=./preload.js' },
      { NODE_OPTIONS: '--require=./preload.js' },
      { BUN_INSPECT_PRELOAD: './preload.js', BUN_INSPECT: 'ws://127.0.0.1:0/x' },
    ]) {
      const { status, stdout } = await run([binary, '--version'], { cwd, env })
      expect(status).toBe(0)
      expect(stdout).not.toContain('preloaded')
    }
  })

  test('the names of the variables that would change it are nowhere in the file', () => {
    const bytes = readFileSync(program)
    expect(disabledVariables.filter((name) => bytes.includes(name))).toEqual([])
  })
})

describe('the unpacked library', () => {
  test('lies in a directory of mode 0700 and is used again by the next start', async () => {
    const cache = fresh()
    const first = await selfCheck(cache)
    expect(statSync(first.library).mode & 0o777).toBe(0o700)
    const inode = statSync(join(first.library, 'libduckdb.so')).ino
    expect(await selfCheck(cache)).toEqual(first)
    expect(statSync(join(first.library, 'libduckdb.so')).ino).toBe(inode)
    expect(readdirSync(first.library).toSorted()).toEqual(['duckdb.node', 'libduckdb.so'])
  })

  test('that was tampered with is replaced, not loaded', async () => {
    const cache = fresh()
    const { library } = await selfCheck(cache)
    const path = join(library, 'libduckdb.so')
    const original = readFileSync(path)
    // A library that still works, and would give itself away by another version.
    const tampered = Buffer.from(original)
    const forgedVersion = 'v6.6.6'.slice(0, duckdbVersion.length)
    let places = 0
    for (let at = tampered.indexOf(duckdbVersion); at >= 0; at = tampered.indexOf(duckdbVersion)) {
      tampered.write(forgedVersion, at, 'latin1')
      places++
    }
    expect(places).toBeGreaterThan(0)
    writeFileSync(path, tampered)
    expect((await selfCheck(cache)).duckdb).toBe(duckdbVersion)
    expect(readFileSync(path).equals(original)).toBe(true)
  })

  test('that was cut short, emptied, or replaced by a symlink or a pipe is replaced', async () => {
    const cache = fresh()
    const { library } = await selfCheck(cache)
    const path = join(library, 'duckdb.node')
    const original = readFileSync(path)
    const damages: (() => void)[] = [
      () => writeFileSync(path, original.subarray(0, 4096)),
      () => writeFileSync(path, ''),
      () => {
        const elsewhere = join(cache, 'elsewhere.node')
        writeFileSync(elsewhere, original)
        rmSync(path)
        symlinkSync(elsewhere, path)
      },
      () => {
        rmSync(path)
        Bun.spawnSync(['mkfifo', path])
      },
      () => chmodSync(path, 0o666),
    ]
    for (const damage of damages) {
      damage()
      expect((await selfCheck(cache)).answer).toBe('42')
      expect(statSync(path).mode & 0o777).toBe(0o600)
      expect(readFileSync(path).equals(original)).toBe(true)
    }
  })

  test('in a directory others could write to is written anew, and the directory closed', async () => {
    const cache = fresh()
    const { library } = await selfCheck(cache)
    const before = statSync(join(library, 'libduckdb.so')).ino
    chmodSync(library, 0o2775)
    expect((await selfCheck(cache)).library).toBe(library)
    expect(statSync(library).mode & 0o022).toBe(0)
    expect(statSync(join(library, 'libduckdb.so')).ino).not.toBe(before)
  })

  test.skipIf(!isRoot)('in a directory that belongs to somebody else is not used', async () => {
    const cache = fresh()
    const home = fresh()
    const { library } = await selfCheck(cache)
    chownSync(library, 12_345, 12_345)
    const env = { MESHTRAIL_CACHE_DIR: cache, HOME: home }
    const found = checked(await run([binary, '__selfcheck'], { cwd: fresh(), env }))
    expect(found.answer).toBe('42')
    expect(found.library).toStartWith(home)
  })

  test('a symlink in the place of the directory is not followed', async () => {
    const cache = fresh()
    const home = fresh()
    const target = fresh()
    const { library } = await selfCheck(cache)
    rmSync(library, { recursive: true })
    symlinkSync(target, library)
    const env = { MESHTRAIL_CACHE_DIR: cache, HOME: home }
    const found = checked(await run([binary, '__selfcheck'], { cwd: fresh(), env }))
    expect(found.library).toStartWith(home)
    expect(readdirSync(target)).toEqual([])
  })

  test('survives six first starts at once', async () => {
    const cache = fresh()
    const all = await Promise.all(Array.from({ length: 6 }, async () => selfCheck(cache)))
    expect(all.map((found) => found.answer)).toEqual(Array(6).fill('42'))
    const libraries = [...new Set(all.map((found) => found.library))]
    expect(libraries).toHaveLength(1)
    expect(readdirSync(libraries[0] ?? '').toSorted()).toEqual(['duckdb.node', 'libduckdb.so'])
  }, 60_000)

  test('writing one tidies up after a crash and removes versions long unused', async () => {
    const cache = fresh()
    const { library } = await selfCheck(cache)
    const abandoned = join(library, '.libduckdb.so.1.0123456789ab')
    const unused = join(cache, `duckdb-${'0'.repeat(32)}`)
    const inUse = join(cache, `duckdb-${'1'.repeat(32)}`)
    const foreign = join(cache, 'not-ours')
    for (const directory of [unused, inUse, foreign]) mkdirSync(directory)
    writeFileSync(abandoned, 'half')
    const longAgo = new Date(Date.now() - 30 * 86_400_000)
    for (const path of [abandoned, unused, foreign]) utimesSync(path, longAgo, longAgo)
    rmSync(join(library, 'duckdb.node'))
    await selfCheck(cache)
    expect([abandoned, unused, inUse, foreign].map((path) => existsSync(path))).toEqual([
      false,
      false,
      true,
      true,
    ])
  })
})
