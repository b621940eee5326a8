/**
 * What the README says is so: its commands run as pasted, in a copy of the repository; its tables are
 * those of the code; its links lead to files.
 *
 * `sh run` blocks are one session, in order; `text output` blocks are what it printed. Only the
 * package runner is replaced (by this bun) and the port (by a free one). Blocks marked `http` need curl.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { type Config, defaultConfig, parseConfig } from '../../agent/config.ts'
import { exitStatus, OpsError, type OpsErrorCode } from '../../agent/errors.ts'
import { problemOf } from '../../query/problem.ts'
import { relationNames } from '../../query/views.ts'
import { shippedRules } from '../../rules/shipped.ts'
import { columnsTable, readmePath, section } from './tables.ts'

const root = dirname(readmePath)
const readme = readFileSync(readmePath, 'utf8')

type Block = { readonly info: string; readonly text: string }

const blocks: readonly Block[] = [...readme.matchAll(/^```(\S.*)\n([\s\S]*?)^```$/gm)].map(
  ([, info = '', text = '']) => ({ info, text }),
)
const hasCurl = Bun.which('curl') !== null
const runnable = blocks.filter(
  ({ info }) => info === 'sh run' || (info === 'sh run http' && hasCurl),
)

/** The cells of a Markdown table's rows, without its head. */
function rowsOf(table: string): string[][] {
  return table
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .slice(2)
    .map((line) =>
      line
        .slice(1, -1)
        .split(' | ')
        .map((cell) => cell.trim()),
    )
}

/** The one table whose head is this. */
function tableBelow(head: string): string[][] {
  const at = readme.indexOf(`\n${head}\n`)
  if (at < 0) throw new Error(`README.md has no table ${head}`)
  return rowsOf(readme.slice(at + 1).split('\n\n')[0] ?? '')
}

function byCode(a: { code: string }, b: { code: string }): number {
  return a.code < b.code ? -1 : 1
}

function codesIn(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)
}

describe('the commands of the README', () => {
  let copy = ''
  let printed = ''
  let complained = ''
  let status = -1

  beforeAll(async () => {
    const scratch = mkdtempSync(join(tmpdir(), 'meshtrail-readme-'))
    copy = join(scratch, 'clone')
    cpSync(root, copy, { recursive: true, filter: (path) => isInClone(relative(root, path)) })
    const tools = join(scratch, 'tools')
    mkdirSync(tools)
    const runner = `#!/bin/sh\n[ "$1 $2" = "-y bun@1.4.5" ] || exit 9\nshift 2\nexec ${process.execPath} "$@"\n`
    writeFileSync(join(tools, 'npx'), runner)
    chmodSync(join(tools, 'npx'), 0o755)

    const port = await freePort()
    const session = runnable.map(({ text }) => text.replaceAll('7575', String(port)))
    // Whatever happens, no agent stays behind.
    const script = `set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n${session.join('')}`
    const child = Bun.spawn(['bash', '-c', script], {
      cwd: copy,
      env: { ...process.env, PATH: `${tools}:${process.env['PATH']}` },
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const [out, err, ended] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ])
    printed = out
    complained = err
    status = ended
  }, 180_000)

  afterAll(() => rmSync(dirname(copy), { recursive: true, force: true }))

  test('run to their end', () => {
    expect({ status, last: complained.split('\n').slice(-6) }).toMatchObject({ status: 0 })
  })

  test('print what the README shows', () => {
    const shown = blocks.filter(({ info }) => info === 'text output')
    expect(shown.length).toBeGreaterThan(0)
    for (const { text } of shown) {
      expect(printed).toContain(text)
    }
  })

  test('show in the demo what the README says of it', () => {
    const wanted = ['prod/deny-admin', 'CERTIFICATE_VERIFY_FAILED', 'jane@example.com']
    for (const text of [...wanted, '\nVERIFIED\n', '\nFORGED\n']) expect(printed).toContain(text)
  })

  test('end with a verified and anchored log', () => {
    const last = printed.trimEnd().split('\n')
    expect(last.at(-1)).toBe('VERIFIED')
    expect(last.slice(-8).join('\n')).not.toContain('not anchored')
  })

  test.skipIf(!hasCurl)('get answers with their coverage over HTTP', () => {
    expect(printed).toContain('"coverage":{"complete":true')
    expect(printed).toContain('"row_count":3')
    expect(printed).not.toContain('urn:meshtrail:problem')
  })

  test('name the package runner and version that package.json names', () => {
    const manifest: unknown = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    expect(manifest).toMatchObject({ packageManager: 'bun@1.4.5' })
    const scripts = new Map(Object.entries(Object(manifest)['scripts'] ?? {}))
    const named = [...readme.matchAll(/npx -y (\S+) run ([a-z:]+)/g)]
    expect(named.length).toBeGreaterThan(3)
    for (const [, bun, script = ''] of named) {
      expect(bun).toBe('bun@1.4.5')
      expect(scripts.has(script)).toBe(true)
    }
  })
})

function isInClone(path: string): boolean {
  const [top = ''] = path.split('/')
  return !['.git', '.cache', '.tmp', 'node_modules'].includes(top) && path !== 'dist/bin'
}

async function freePort(): Promise<number> {
  const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response() })
  const { port } = server
  await server.stop(true)
  if (port === undefined) throw new Error('BUG: a server without a port')
  return port
}

describe('the tables of the README', () => {
  test('configuration: every field, with the default as one would write it', () => {
    const defaults = defaultConfig('host')
    const listed = rowsOf(section(readme, 'config')).map(([field = '', value = '']) => ({
      field: codesIn(field)[0] ?? '',
      value: codesIn(value)[0] ?? '',
    }))
    expect(listed.map(({ field }) => field).toSorted()).toEqual(leavesOf(defaults).toSorted())
    for (const { field, value } of listed.filter((row) => row.field !== 'node')) {
      const parsed = parseConfig(nested(field, value), 'README.md', 'host')
      expect({ field, parsed }).toEqual({ field, parsed: defaults })
    }
  })

  test('columns: those of agent/event.ts (bun test/readme/tables.ts writes them)', () => {
    expect(section(readme, 'columns')).toBe(columnsTable())
  })

  test('views: all of them', () => {
    const listed = tableBelow('| view | holds |').map(([view = '']) => codesIn(view)[0] ?? '')
    expect(['events', ...listed].toSorted()).toEqual([...relationNames].toSorted())
  })

  test('errors: every code, with its exit status and HTTP status', () => {
    const listed = tableBelow('| code | exit | HTTP | means |').flatMap(
      ([codes = '', exit = '', http = '']) =>
        codesIn(codes).map((code) => ({ code, exit: Number(exit), http: Number(http) })),
    )
    const expected = Object.keys(knownCodes)
      .filter(isKnownCode)
      .map((code) => {
        const error = new OpsError(code, 'message', { hint: 'hint' })
        return { code, exit: error.exitStatus, http: problemOf(error).status }
      })
    expect(listed.toSorted(byCode)).toEqual(expected.toSorted(byCode))
  })

  test('verification: the three verdicts and their exit statuses', () => {
    const listed = tableBelow('| exit | verdict | when |').map(([exit]) => Number(exit))
    expect(listed).toEqual([exitStatus.ok, exitStatus.forged, exitStatus.incomplete])
  })

  test('metrics: each of them, and no other', () => {
    const source = readFileSync(join(root, 'agent/commands/node-status.ts'), 'utf8')
    const made = new Set(source.match(/meshtrail_[a-z_]+/g))
    expect(new Set(readme.match(/meshtrail_[a-z_]+/g))).toEqual(made)
  })
})

/** Paths of the fields; lists and sizes are values. */
function leavesOf(config: Config): string[] {
  const walk = (value: unknown, path: readonly string[]): string[] => {
    const isGroup = typeof value === 'object' && value !== null && !Array.isArray(value)
    if (!isGroup || 'kind' in value) return [path.join('.')]
    return Object.entries(value).flatMap(([key, member]) => walk(member, [...path, key]))
  }
  return walk(config, [])
}

/** `a.b` and `1` as the YAML `a: {b: 1}`. */
function nested(field: string, value: string): string {
  const [outer = '', inner] = field.split('.')
  return inner === undefined ? `${outer}: ${value}\n` : `${outer}:\n  ${inner}: ${value}\n`
}

/** The type says that none is left out. */
const knownCodes: Readonly<Record<OpsErrorCode, true>> = {
  usage: true,
  not_found: true,
  bad_query: true,
  query_refused: true,
  query_limit: true,
  query_failed: true,
  forged: true,
  incomplete: true,
  corrupt_input: true,
  unreachable: true,
  busy: true,
  disk: true,
  disk_full: true,
  permission: true,
  unauthenticated: true,
  in_use: true,
  configuration: true,
}

function isKnownCode(code: string): code is OpsErrorCode {
  return Object.hasOwn(knownCodes, code)
}

describe('what the README and its neighbours point at', () => {
  for (const name of ['README.md', 'SECURITY.md', 'CHANGELOG.md', 'ARCHITECTURE.md']) {
    test(`links in ${name} lead to files and headings that are there`, () => {
      const text = readFileSync(join(root, name), 'utf8')
      for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^https?:/.test(target)) continue
        const [path = '', heading] = target.split('#')
        const file = path === '' ? name : path
        expect({ target, there: existsSync(join(root, file)) }).toEqual({ target, there: true })
        if (heading === undefined) continue
        expect(headingsOf(readFileSync(join(root, file), 'utf8'))).toContain(heading)
      }
    })
  }

  test('the number of rules that come along is right', () => {
    expect(shippedRules.length).toBe(14)
    expect(readme).toContain('Fourteen rules come along')
  })
})

function headingsOf(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replaceAll(/[^a-z0-9 -]/g, '')
      .replaceAll(' ', '-'),
  )
}
