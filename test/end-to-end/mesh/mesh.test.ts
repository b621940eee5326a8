/**
 * The mesh that the end-to-end test and the demo rest on is real, and its logs say what the driver
 * claims they say. meshtrail itself does not appear here.
 */
import { X509Certificate } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { createAuthority, spiffeId } from './certificates.ts'
import { criLineBytesMax } from './cri.ts'
import { drive, type Driven, expected } from './driver.ts'
import { countLines, differences } from './evidence.ts'
import { envoyVersion, installEnvoy } from './install.ts'
import { podLogPath, pods, startMesh, workloads } from './mesh.ts'

describe('a mesh of real Envoys', () => {
  const root = mkdtempSync(join(tmpdir(), 'meshtrail-mesh-test-'))
  let driven: Driven
  let version = ''

  beforeAll(async () => {
    await using mesh = await startMesh(root, 120)
    version = mesh.version
    driven = await drive(mesh)
    await mesh.settle(driven.lines)
  }, 55_000)

  afterAll(() => rmSync(root, { recursive: true, force: true }))

  test('Envoy is the pinned release and names itself', async () => {
    expect(version).toMatch(new RegExp(`^[0-9a-f]{40}/${envoyVersion}/Clean/RELEASE/BoringSSL$`))
    const child = Bun.spawn([await installEnvoy(), '--version'], { stdout: 'pipe' })
    expect(await new Response(child.stdout).text()).toContain(version)
  })

  test('every line of the logs is one the driver expects, as often as it says', () => {
    expect(differences(root, driven)).toEqual([])
    expect(countLines(root)).toEqual(driven.lines)
  })

  test('the rows add up to the lines', () => {
    for (const workload of workloads) {
      const rows = driven.rows.filter((row) => row.workload === workload)
      expect(rows.reduce((sum, { count }) => sum + count, 0)).toBe(driven.lines[workload])
    }
  })

  test('numbers are numbers and absent values are null in the JSON format', () => {
    for (const workload of ['frontend', 'payments'] as const) {
      const file = readFileSync(join(root, podLogPath(pods[workload])), 'latin1')
      const content = file.split('\n').filter((line) => line.includes(' stdout F {'))
      expect(content.length).toBeGreaterThan(20)
      for (const line of content) {
        const parsed: unknown = JSON.parse(line.slice(line.indexOf('{')))
        const fields = new Map(Object.entries(parsed ?? {}))
        for (const number of ['response_code', 'bytes_sent', 'duration']) {
          expect(fields.get(number)).toBeNumber()
        }
        expect(fields.get('log_kind')).toBe('mesh-audit-v1')
        expect(fields.get('peer_principal')).toBeNull()
      }
    }
  })

  test('a long line is cut at 16 KiB as containerd cuts it', () => {
    for (const workload of ['frontend', 'payments', 'ledger'] as const) {
      const file = readFileSync(join(root, podLogPath(pods[workload])), 'latin1')
      const pieces = file.split('\n').filter((line) => line.includes(' stdout P '))
      expect(pieces.length).toBe(workload === 'frontend' ? 2 : 1)
      for (const piece of pieces) {
        expect(piece.length).toBe(piece.indexOf(' stdout P ') + 10 + criLineBytesMax)
      }
    }
  })

  test("the sidecar's own words share the file, on stderr", () => {
    for (const workload of workloads) {
      const file = readFileSync(join(root, podLogPath(pods[workload])), 'latin1')
      expect(file).toMatch(/^\S+ stderr F \S+\twarning\tenvoy main /m)
    }
  })
})

describe('the recording', () => {
  const recorded = join(import.meta.dir, '..', 'recorded')
  const stated = z
    .object({
      rounds: z.number(),
      rows: z.array(z.unknown()),
      audit: z.object({ file: z.string() }),
    })
    .parse(JSON.parse(readFileSync(join(recorded, 'expected.json'), 'utf8')))

  test('its lines are what the driver expects of as many rounds', () => {
    const driven = expected(stated.rounds)
    expect(differences(recorded, driven)).toEqual([])
    expect(stated.rows).toEqual([...driven.rows])
  })

  test('its audit log has an event in each line, and no private key is anywhere', () => {
    const audit = readFileSync(join(recorded, stated.audit.file), 'utf8').trimEnd().split('\n')
    for (const line of audit) {
      expect(JSON.parse(line)).toMatchObject({ kind: 'Event', apiVersion: 'audit.k8s.io/v1' })
    }
    for (const path of new Bun.Glob('**/*').scanSync({ cwd: recorded, onlyFiles: true })) {
      expect(readFileSync(join(recorded, path), 'latin1')).not.toContain('PRIVATE KEY')
    }
  })
})

describe('certificates', () => {
  const nowMs = Date.UTC(2026, 0, 15, 12)
  const authority = createAuthority('cluster.local', nowMs)
  const root = new X509Certificate(authority.root)

  test('a leaf is signed by its authority and by no other of the same name', () => {
    const leaf = new X509Certificate(authority.issue(spiffeId('shop', 'frontend'), 1).certificate)
    expect(leaf.subjectAltName).toBe('URI:spiffe://cluster.local/ns/shop/sa/frontend')
    expect(leaf.verify(root.publicKey)).toBe(true)
    expect(leaf.checkIssued(root)).toBe(true)
    const other = new X509Certificate(createAuthority('cluster.local', nowMs).root)
    expect(leaf.verify(other.publicKey)).toBe(false)
  })

  test('negative days make a certificate that has expired', () => {
    const expired = new X509Certificate(authority.issue(spiffeId('shop', 'batch'), -2).certificate)
    expect(Date.parse(expired.validFrom)).toBe(nowMs - 2 * 86_400_000)
    expect(Date.parse(expired.validTo)).toBe(nowMs - 3_600_000)
  })
})
