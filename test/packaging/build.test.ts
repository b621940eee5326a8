import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cacheDirectories } from '../../agent/runtime/native-library.ts'
import {
  build,
  checkedOutCommit,
  elfMachine,
  lockedIntegrity,
  targets,
  withoutVariables,
} from '../../dist/build.ts'
import { checked, run, selfCheckBinary } from './built-binary.ts'

const armFile = targets['linux-arm64'].outfile
const emulator = '/usr/bin/qemu-aarch64-static'
const armLibraries = '/usr/aarch64-linux-gnu'
if (!existsSync(armFile)) {
  console.warn('arm64: skipped, not built; bun run build --target linux-arm64')
}

let scratch = ''

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'meshtrail-build-'))
})

afterAll(() => {
  rmSync(scratch, { recursive: true, force: true })
})

/** `e_machine` of every shared library inside a file. */
function embeddedMachines(bytes: Buffer): number[] {
  const found: number[] = []
  const magic = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  for (let at = bytes.indexOf(magic, 1); at >= 0; at = bytes.indexOf(magic, at + 1)) {
    const isSharedLibrary = bytes.readUInt16LE(at + 16) === 3
    const hasHeaderSize = bytes.readUInt16LE(at + 52) === 64
    if (isSharedLibrary && hasHeaderSize) found.push(elfMachine(bytes.subarray(at)) ?? -1)
  }
  return found
}

describe('the build', () => {
  test('gives the same bytes twice', async () => {
    const entry = join(import.meta.dir, 'self-check-program.ts')
    const twice = ['first', 'second'].map(async (name) =>
      build({ target: 'linux-x64', entry, outfile: join(scratch, name, 'program') }),
    )
    const [first, second] = await Promise.all(twice)
    expect(first?.sha256).toBe(second?.sha256 ?? '')
  }, 120_000)

  test('puts the x86-64 runtime and libraries into the x86-64 file', async () => {
    const bytes = readFileSync(await selfCheckBinary())
    expect(elfMachine(bytes)).toBe(targets['linux-x64'].machine)
    expect(embeddedMachines(bytes)).toEqual([0x3e, 0x3e])
  }, 120_000)

  test.skipIf(!existsSync(armFile))('puts the aarch64 ones into the aarch64 file', () => {
    const bytes = readFileSync(armFile)
    expect(elfMachine(bytes)).toBe(targets['linux-arm64'].machine)
    expect(embeddedMachines(bytes)).toEqual([0xb7, 0xb7])
  })

  test.skipIf(!existsSync(armFile) || !existsSync(emulator) || !existsSync(armLibraries))(
    'the aarch64 file answers SQL under emulation',
    async () => {
      const env = { MESHTRAIL_CACHE_DIR: scratch }
      const command = [emulator, '-L', armLibraries, armFile, '__selfcheck']
      expect(checked(await run(command, { cwd: scratch, env })).answer).toBe('42')
    },
    120_000,
  )

  test('refuses a target it does not know, with the usage status', async () => {
    const command = [process.execPath, join(import.meta.dir, '../../dist/build.ts')]
    const ran = await run([...command, '--target', 'linux-mips'], { cwd: scratch })
    expect(ran.status).toBe(2)
    expect(ran.stderr).toContain('no target linux-mips')
  })

  test('stops when the runtime no longer has a switch it means to disable', () => {
    expect(() => withoutVariables(Buffer.from('BUN_OPTIONS'))).toThrow('BUN_BE_BUN')
  })

  test('takes the integrity of exactly the named version from the lock', () => {
    const lock = '    "a/b": ["a/b@1.2.3", "", { "os": "linux" }, "sha512-AbC+/=="],\n'
    expect(lockedIntegrity(lock, 'a/b', '1.2.3')).toBe('sha512-AbC+/==')
    expect(lockedIntegrity(lock, 'a/b', '1.2.4')).toBeUndefined()
  })

  test('reads the commit without Git, and admits when there is none', () => {
    const commit = 'a'.repeat(40)
    const repository = join(scratch, 'repository')
    mkdirSync(join(repository, '.git/refs/heads'), { recursive: true })
    expect(checkedOutCommit(repository)).toBe('unknown')
    writeFileSync(join(repository, '.git/HEAD'), 'ref: refs/heads/main\n')
    expect(checkedOutCommit(repository)).toBe('unknown')
    writeFileSync(join(repository, '.git/packed-refs'), `# pack-refs\n${commit} refs/heads/main\n`)
    expect(checkedOutCommit(repository)).toBe(commit)
    writeFileSync(join(repository, '.git/refs/heads/main'), `${'b'.repeat(40)}\n`)
    expect(checkedOutCommit(repository)).toBe('b'.repeat(40))
    writeFileSync(join(repository, '.git/HEAD'), `${commit}\n`)
    expect(checkedOutCommit(repository)).toBe(commit)
  })
})

describe('the places the library may be unpacked to', () => {
  test('come in order, and a relative XDG_CACHE_HOME does not count', () => {
    const environment = { MESHTRAIL_CACHE_DIR: '/chosen', XDG_CACHE_HOME: 'relative' }
    expect(cacheDirectories(environment, '/data/cache', '/home/u', '/tmp')).toEqual([
      '/chosen',
      '/data/cache',
      '/home/u/.cache/meshtrail',
      '/tmp',
    ])
    expect(cacheDirectories({ XDG_CACHE_HOME: '/xdg' }, undefined, '', '/tmp')).toEqual([
      '/xdg/meshtrail',
      '/tmp',
    ])
    expect(cacheDirectories({}, undefined, '', '/tmp')).toEqual(['/tmp'])
  })
})
