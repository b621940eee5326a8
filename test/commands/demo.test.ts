import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { meshtrail, meshtrailOk } from './command.ts'

describe('demo --exit', () => {
  let folder: string
  let text = ''
  let tookMs = 0
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'meshtrail-demo-test-'))
    const startedMs = performance.now()
    text = await meshtrailOk(['demo', '--exit'], { cwd: folder, env: { TMPDIR: folder } })
    tookMs = performance.now() - startedMs
  }, 90_000)
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  /** What stands below a heading, up to the next one. */
  function section(heading: RegExp): string {
    const parts = text.split(/\n\n(?=[A-Z])/)
    return parts.find((part) => heading.test(part)) ?? ''
  }

  test('takes less than a minute', () => {
    expect(tookMs).toBeLessThan(60_000)
  })

  test('shows denials with policy, rule and identity', () => {
    const denials = section(/^Requests the mesh refused/)
    expect(denials).toMatch(
      /rbac_denied +│ prod\/deny-admin +│ 0 +│ spiffe:\/\/cluster\.local\/ns\/shop\/sa\/frontend/,
    )
  })

  test('shows a TLS failure with its reason', () => {
    const failures = section(/^TLS handshakes/)
    expect(failures).toMatch(/CERTIFICATE_VERIFY_FAILED +│ certificate has expired/)
  })

  test('shows who changed a policy', () => {
    const changes = section(/^Mesh policies changed/)
    expect(changes).toMatch(
      /jane@example\.com +│ delete +│ AuthorizationPolicy +│ prod\/payments-egress/,
    )
  })

  test('shows findings', () => {
    const findings = section(/^What the rules found/)
    expect(findings).toMatch(/Mesh authorization policy deleted +│ +1 │/)
    expect(findings).toMatch(/Peer certificate refused/)
  })

  test('shows a verified log, then a forged one with the row that was changed', () => {
    expect(text.indexOf('\nVERIFIED\n')).toBeGreaterThan(0)
    expect(text.indexOf('\nVERIFIED\n')).toBeLessThan(text.indexOf('\nFORGED\n'))
    expect(section(/^Now one row is changed/)).toMatch(
      /forged: segments\/.*\[leaves (\d+) to \1\]: row \d+, leaf \1: verdict is "allowed", its line says "denied"/,
    )
    expect(text).toEndWith('FORGED\n')
  })

  test('leaves nothing behind', () => {
    expect(readdirSync(folder)).toEqual([])
  })

  test('keeps its data where it is told, and never in a directory that holds something', async () => {
    const data = join(folder, 'kept')
    await meshtrailOk(['demo', '--exit', '--data', data])
    const key = join(data, 'node/log/vkey')
    expect((await meshtrail(['verify', join(data, 'node'), '--key', key])).status).toBe(0)
    writeFileSync(join(folder, 'something'), '')
    const { status, stderr } = await meshtrail(['demo', '--exit', '--data', folder])
    expect([status, stderr]).toEqual([2, expect.stringContaining('not empty')])
    expect(existsSync(join(folder, 'something'))).toBe(true)
  }, 60_000)
})
