import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'yaml'
import { z } from 'zod'
import { meshtrail, meshtrailOk } from './command.ts'

let folder: string
let count = 0
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'meshtrail-config-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function configFile(text: string): string {
  const path = join(folder, `${count++}.yaml`)
  writeFileSync(path, text)
  return path
}

/** Configuration, what the message must name (field, value, what is allowed), and where it stands. */
const wrong: readonly (readonly [name: string, text: string, named: readonly string[]])[] = [
  [
    'a list where a text belongs',
    'cluster: [a, b]',
    [':1:10:', 'cluster is ["a","b"]', 'a string'],
  ],
  [
    'a number where a size belongs',
    'data:\n  bytesMax: 5',
    [':2:13:', 'data.bytesMax is 5', 'a string'],
  ],
  [
    'a size nobody understands',
    'data:\n  bytesMax: plenty',
    [':2:13:', 'data.bytesMax is "plenty"', 'a size such as 20GiB, or a share such as 10%'],
  ],
  [
    'a share of more than everything',
    'data:\n  bytesMax: 120%',
    ['data.bytesMax is "120%"', 'a share such as 10%'],
  ],
  [
    'a query memory that is no size',
    'query:\n  memory: 10%',
    ['query.memory is "10%"', 'a size such as 512MiB'],
  ],
  [
    'a duration without a unit',
    'commitAge: "900"',
    ['commitAge is "900"', 'a duration such as 900ms, 30s or 5m'],
  ],
  [
    'a negative duration',
    'query:\n  timeout: -3s',
    ['query.timeout is "-3s"', 'a duration such as 900ms, 30s or 5m'],
  ],
  [
    'a word that is none of those allowed',
    'logs:\n  from: middle',
    [':2:9:', 'logs.from is "middle"', 'beginning, now'],
  ],
  [
    'a trust that does not exist',
    'logs:\n  files:\n    - glob: /x\n      trust: everybody',
    [':4:14:', 'logs.files.0.trust is "everybody"', 'proxy, control_plane, api_server, none'],
  ],
  ['a field that does not exist', 'comitAge: 900ms', ['comitAge: no such field']],
  ['a field that does not exist further in', 'http:\n  port: 7575', ['http.port: no such field']],
  ['a number out of range', 'query:\n  running: 0', ['query.running is 0', '>=1']],
  ['a fraction where a count belongs', 'query:\n  running: 1.5', ['query.running is 1.5']],
  ['an empty name', 'cluster: ""', ['cluster is ""']],
  ['a text where a table belongs', 'data: /var/lib', ['data is "/var/lib"']],
  ['a list at the top', '- a\n- b', ['1:1']],
  ['YAML that does not parse', 'cluster: "open', [':1:', 'cluster']],
  ['the same field twice', 'cluster: a\ncluster: b', [':2:1:', 'unique']],
]

describe('a wrong configuration ends with exit status 78 and names field, value and what is allowed:', () => {
  for (const [name, text, named] of wrong) {
    test(name, async () => {
      const path = configFile(text)
      const { status, stdout, stderr } = await meshtrail(['config', 'check', path])
      expect([status, stdout]).toEqual([78, ''])
      expect(stderr).toContain(path)
      for (const part of name === 'YAML that does not parse' ? [':1:'] : named) {
        expect(stderr).toContain(part)
      }
      expect(stderr).toContain('hint:')
    })
  }

  test('several mistakes are told at once', async () => {
    const path = configFile('commitAge: soon\nlogs:\n  from: middle\nnothing: 1\n')
    const { status, stderr } = await meshtrail(['config', 'check', path])
    expect(status).toBe(78)
    for (const field of ['commitAge', 'logs.from', 'nothing']) expect(stderr).toContain(field)
  })

  test('a file that is not there, or is a directory', async () => {
    for (const path of [join(folder, 'missing.yaml'), folder]) {
      const { status, stderr } = await meshtrail(['config', 'check', path])
      expect([status, stderr]).toEqual([78, expect.stringContaining(path)])
      expect(stderr).toContain('hint:')
    }
  })

  test.skipIf(process.getuid?.() !== 0)('a file that this user may not read', async () => {
    const path = configFile('cluster: a')
    chmodSync(path, 0o600)
    chmodSync(folder, 0o755)
    const { status, stderr } = await meshtrail(['config', 'check', path], {
      through: ['setpriv', '--reuid', '12345', '--regid', '12345', '--clear-groups'],
    })
    expect(status).toBe(78)
    expect(stderr).toContain(path)
    expect(stderr).toMatch(/permission denied/i)
  })

  test('run and import refuse it before they touch the data directory', async () => {
    const path = configFile('commitAge: soon')
    const data = join(folder, 'untouched')
    for (const args of [
      ['run', '--config', path, '--data', data],
      ['import', '-', '--config', path, '--data', data],
    ]) {
      const { status, stderr } = await meshtrail(args)
      expect([status, stderr]).toEqual([78, expect.stringContaining('commitAge is "soon"')])
    }
    expect(await Bun.file(join(data, 'lock')).exists()).toBe(false)
  })

  test('an address that would carry tokens readable over the network is refused', async () => {
    for (const listen of ['0.0.0.0:7575', '10.1.2.3:7575', 'example.org:80', 'nonsense', ':1']) {
      const path = configFile(`http: {listen: "${listen}"}\nlogs: {pods: ["${folder}"]}\n`)
      const { status, stderr } = await meshtrail([
        'run',
        '--config',
        path,
        '--data',
        join(folder, 'listen'),
      ])
      expect([listen, status]).toEqual([listen, 78])
      expect(stderr).toContain(listen)
      expect(stderr).toContain('hint:')
    }
  }, 30_000)
})

describe('a right configuration', () => {
  test('is shown with its defaults, as YAML that is a configuration again', async () => {
    const shown = await meshtrailOk(['config', 'show', configFile('cluster: payments\n')])
    const fields = z
      .object({ cluster: z.string(), http: z.object({ listen: z.string() }) })
      .parse(parse(shown))
    expect(fields).toEqual({ cluster: 'payments', http: { listen: '127.0.0.1:7575' } })
    const defaults = await meshtrailOk(['config', 'show'])
    expect(defaults).toContain('cluster: default')
    // What it prints, somebody will save, change and use.
    expect(await meshtrailOk(['config', 'check', configFile(defaults)])).toContain('valid')
  })

  test('says which files would be followed, and what each may claim', async () => {
    const pods = join(folder, 'pods')
    const log = join(pods, 'prod_payments-1_uid-1/istio-proxy/0.log')
    const application = join(pods, 'prod_payments-1_uid-1/app/0.log')
    for (const path of [log, application]) {
      mkdirSync(join(path, '..'), { recursive: true })
      writeFileSync(path, 'x\n')
    }
    const path = configFile(`logs: {pods: ["${pods}"], kubernetesAudit: []}\n`)
    const text = await meshtrailOk(['config', 'check', path])
    expect(text).toContain(log)
    expect(text).not.toContain(application)
    expect(text).toContain('configuration is valid')
    const json = z
      .object({
        ok: z.boolean(),
        files: z.array(z.object({ path: z.string(), trust: z.string() })),
      })
      .parse(JSON.parse(await meshtrailOk(['config', 'check', path, '--json'])))
    expect(json).toEqual({ ok: true, files: [{ path: log, trust: 'proxy' }] })
  })

  test('an empty file is the defaults', async () => {
    expect(await meshtrailOk(['config', 'show', configFile('')])).toContain('cluster: default')
  })
})
