/**
 * The binary in the place it is made for: a read-only root file system, one writable directory, a user
 * without any rights. Real mounts in a mount namespace of its own; needs root and says so when skipped.
 */

import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checked, meshtrailBinary, type Ran, run, selfCheckBinary } from './built-binary.ts'

/**
 * $1 new root, $2 binary, $3 mount options of /data ('' for no such directory), $4 environment, then how
 * often to run, then the arguments. Every run prints one line.
 */
const script = String.raw`
set -eu
root=$1 binary=$2 data=$3 environment=$4 times=$5
shift 5
mount --make-rprivate /
mount -t tmpfs -o mode=0755 root "$root"
mkdir -p "$root/usr/lib" "$root/proc" "$root/etc" "$root/dev"
for link in /lib /lib64; do [ -L "$link" ] && cp -a "$link" "$root$link"; done
mount --bind /usr/lib "$root/usr/lib"
mount -o remount,ro,bind "$root/usr/lib"
if [ -d /usr/lib64 ]; then mkdir "$root/usr/lib64"; mount --bind /usr/lib64 "$root/usr/lib64"; mount -o remount,ro,bind "$root/usr/lib64"; fi
mount --rbind /proc "$root/proc"
touch "$root/meshtrail"
mount --bind "$binary" "$root/meshtrail"
mount -o remount,ro,bind "$root/meshtrail"
if [ -n "$data" ]; then
  mkdir "$root/data"
  mount -t tmpfs -o "$data" data "$root/data"
fi
mount -o remount,ro "$root"
chroot=$(command -v chroot)
if touch "$root/written" 2>/dev/null; then echo "the root is writable" >&2; exit 99; fi
for _ in $(seq "$times"); do
  env -i $environment "$chroot" --userspec=65534:65534 --groups= "$root" /meshtrail "$@"
done
`

const writable = 'mode=0700,uid=65534,gid=65534'
const possible = await canMount()
if (!possible) console.warn('read-only root: skipped, mount namespaces need root')

let program = ''
let binary = ''
let scratch = ''
let count = 0

beforeAll(async () => {
  program = await selfCheckBinary()
  binary = await meshtrailBinary()
  scratch = mkdtempSync(join(tmpdir(), 'meshtrail-read-only-'))
}, 120_000)

afterAll(() => {
  rmSync(scratch, { recursive: true, force: true })
})

async function canMount(): Promise<boolean> {
  if (process.getuid?.() !== 0 || !existsSync('/usr/bin/unshare')) return false
  const tried = await run(['/usr/bin/unshare', '-m', 'true'], { cwd: '/' })
  return tried.status === 0
}

async function inside(options: {
  file: string
  data: string
  environment?: string
  times?: number
  args: string[]
}): Promise<Ran> {
  const root = join(scratch, String(count++))
  mkdirSync(root)
  const { file, data, environment = '', times = 1, args } = options
  return run(
    ['/usr/bin/unshare', '-m', 'sh', '-c', script, 'sh']
      .concat([root, file, data, environment, String(times)])
      .concat(args),
    { cwd: '/', env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } },
  )
}

describe.skipIf(!possible)('on a read-only root file system, as a user without rights', () => {
  test('it unpacks into the data directory the program names', async () => {
    const ran = await inside({ file: program, data: writable, args: ['__selfcheck', '/data'] })
    const found = checked(ran)
    expect(found.answer).toBe('42')
    expect(found.library).toStartWith('/data/cache/duckdb-')
  })

  test('MESHTRAIL_CACHE_DIR names the place, and the second start finds it', async () => {
    const environment = 'MESHTRAIL_CACHE_DIR=/data/elsewhere'
    const args = ['__selfcheck']
    const ran = await inside({ file: binary, data: writable, environment, times: 2, args })
    const [first, second] = ran.stdout.trim().split('\n')
    expect(ran.stderr).toBe('')
    expect(checked({ ...ran, stdout: first ?? '' }).library).toStartWith('/data/elsewhere/duckdb-')
    expect(second).toBe(first ?? '')
  })

  test('an emptyDir volume that everybody may write to will do', async () => {
    const data = 'mode=0777,uid=0,gid=0'
    const found = checked(await inside({ file: program, data, args: ['__selfcheck', '/data'] }))
    expect(found.library).toStartWith('/data/cache/duckdb-')
  })

  test('with no writable directory at all it loads from memory', async () => {
    const found = checked(await inside({ file: binary, data: '', args: ['__selfcheck'] }))
    expect(found).toMatchObject({ answer: '42', library: 'memory' })
  })

  test('a data directory mounted noexec is passed over', async () => {
    const data = `${writable},noexec`
    const found = checked(await inside({ file: program, data, args: ['__selfcheck', '/data'] }))
    expect(found).toMatchObject({ answer: '42', library: 'memory' })
  })

  test('a data directory too small for the library is passed over and left clean', async () => {
    const data = `${writable},size=8m`
    const found = checked(await inside({ file: program, data, args: ['__selfcheck', '/data'] }))
    expect(found).toMatchObject({ answer: '42', library: 'memory' })
  })
})
