/**
 * From real Envoys' logs to answers: what meshtrail says of a mesh is what the driver made happen,
 * live and from the recording, in counts that are exactly equal.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { meshtrail, meshtrailOk } from '../commands/command.ts'
import { drive, type Driven, type ExpectedRow } from './mesh/driver.ts'
import { startMesh } from './mesh/mesh.ts'
import { NodeFolder, startNode } from './node.ts'

const outcomeSql = `
  SELECT namespace, workload, pod, kind, direction, verdict, decided_by, reason,
         policy, policy_rule, principal, count(*) AS count
  FROM events WHERE source IN ('envoy.access', 'istio.access') GROUP BY ALL`
const outcomeColumns = [
  'namespace',
  'workload',
  'pod',
  'kind',
  'direction',
  'verdict',
  'decided_by',
  'reason',
  'policy',
  'policy_rule',
  'principal',
  'count',
] as const satisfies readonly (keyof ExpectedRow)[]

type Cell = string | number | boolean | null
const cell = z.union([z.string(), z.number(), z.boolean(), z.null()])

/** Both sides in one order and one shape, so that a difference shows as itself. */
function sorted(rows: readonly (readonly unknown[])[]): Cell[][] {
  return rows
    .map((row) => row.map((value) => cell.parse(value)))
    .toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
}

function asCells(rows: readonly ExpectedRow[]): Cell[][] {
  return sorted(rows.map((row) => outcomeColumns.map((name) => row[name])))
}

const jsonAnswer = z.object({ rows: z.array(z.array(z.unknown())) })

async function ask(data: string, sql: string): Promise<Cell[][]> {
  const text = await meshtrailOk(['query', sql, '--data', data, '--json', '--limit', '100000'])
  return sorted(jsonAnswer.parse(JSON.parse(text)).rows)
}

describe('a live mesh, followed while it is driven', () => {
  let driven: Driven
  let folder: NodeFolder
  let answered: Cell[][]
  let unexpected: Cell[][]
  let findings: Map<Cell, Cell>
  let gaps = -1

  beforeAll(async () => {
    folder = new NodeFolder('live-mesh')
    await using node = await startNode(folder)
    await using mesh = await startMesh(folder.path, 300)
    driven = await drive(mesh)
    await mesh.settle(driven.lines)
    // No wait: a query sees what was written before it.
    const answer = await node.query(outcomeSql)
    answered = sorted(answer.rows)
    gaps = answer.coverage.agents[0]?.gaps ?? -1
    unexpected = sorted(
      await node.rows(`
        SELECT workload, count(*) FROM events
        WHERE reason = 'unparsed' AND raw::VARCHAR LIKE '% stdout %' GROUP BY ALL`),
    )
    const found = await node.rows(`
      SELECT e.reason, count(*) FROM findings f
      JOIN events e ON f.event_id = e.log_origin || '@' || e.leaf_index GROUP BY 1`)
    findings = new Map(sorted(found).map(([reason = null, count = null]) => [reason, count]))
    await node.stop()
  }, 110_000)
  afterAll(() => folder[Symbol.dispose]())

  test('gives exactly the rows the driver made', () => {
    expect(answered).toEqual(asCells(driven.rows))
    expect(gaps).toBe(0)
  })

  test('leaves no access-log line unparsed', () => {
    expect(unexpected).toEqual([])
  })

  test('has findings for refused certificates, refused plaintext and denied administration', () => {
    expect(findings.get('plaintext_refused')).toBe(deniedCount(driven, 'plaintext_refused'))
    expect(Number(findings.get('tls_handshake_failed'))).toBeGreaterThanOrEqual(
      deniedCount(driven, 'tls_handshake_failed'),
    )
    expect(Number(findings.get('rbac_denied'))).toBeGreaterThan(0)
  })

  test('stops into a directory that verifies with the key, and deeply', async () => {
    const key = join(folder.path, 'node.vkey')
    writeFileSync(key, readFileSync(join(folder.data, 'log/vkey')))
    const { status, stdout } = await meshtrail(['verify', folder.data, '--key', key, '--deep'])
    expect([status, stdout.trimEnd().split('\n').at(-1)]).toEqual([0, 'VERIFIED'])
  })
})

describe('the recording, imported', () => {
  const recorded = join(import.meta.dir, 'recorded')
  const expectation = z
    .object({
      files: z.record(z.string(), z.string()),
      accessLines: z.record(z.string(), z.number()),
      rows: z.array(z.record(z.string(), cell)),
      audit: z.object({ file: z.string(), rows: z.array(z.unknown()) }),
    })
    .parse(JSON.parse(readFileSync(join(recorded, 'expected.json'), 'utf8')))
  const files = [...Object.values(expectation.files), expectation.audit.file].map((file) =>
    join(recorded, file),
  )
  let folder: NodeFolder
  let summary: { lines: number; gaps: number; size: number }

  const importAll = async (paths = files): Promise<typeof summary> =>
    z
      .object({ lines: z.number(), gaps: z.number(), size: z.number() })
      .parse(JSON.parse(await meshtrailOk(['import', ...paths, '--data', folder.data, '--json'])))

  beforeAll(async () => {
    folder = new NodeFolder('recorded')
    summary = await importAll()
  }, 60_000)
  afterAll(() => folder[Symbol.dispose]())

  test('gives exactly the rows the driver made', async () => {
    const stated = expectation.rows.map((row) => outcomeColumns.map((name) => row[name] ?? null))
    expect(await ask(folder.data, outcomeSql)).toEqual(sorted(stated))
    const lines = Object.values(expectation.accessLines).reduce((sum, count) => sum + count, 0)
    expect(stated.reduce((sum, row) => sum + Number(row.at(-1)), 0)).toBe(lines)
    expect(summary.gaps).toBe(0)
  })

  test('says of the Kubernetes audit log who did what to which policy', async () => {
    const [row] = await ask(folder.data, `SELECT count(*) FROM events WHERE source = 'k8s.audit'`)
    expect(row).toEqual([expectation.audit.rows.length])
    const changes = await ask(
      folder.data,
      `SELECT principal, method, object_namespace || '/' || object_name, verdict FROM events
       WHERE kind = 'policy_change' AND principal = 'jane@example.com'`,
    )
    expect(changes.length).toBeGreaterThan(1)
    expect(changes).toContainEqual([
      'jane@example.com',
      'delete',
      'prod/payments-egress',
      'allowed',
    ])
  })

  test('again adds nothing: the same size, the same checkpoint, the same files', async () => {
    const before = fingerprint(folder.data)
    expect(before.size).toBeGreaterThan(5)
    const again = await importAll()
    expect(again).toMatchObject({ lines: 0, size: summary.size })
    expect(fingerprint(folder.data)).toEqual(before)
    // In another order, elsewhere and compressed, as kubelet leaves them: it is the content that counts.
    const [first = '', ...others] = files.toReversed()
    const compressed = others.map((file) => {
      const path = join(folder.path, `${file.slice(recorded.length)}.20260101-000000.gz`)
      mkdirSync(dirname(path), { recursive: true })
      writeFileSync(path, Bun.gzipSync(readFileSync(file)))
      return path
    })
    const elsewhere = await importAll([first, ...compressed])
    expect(elsewhere).toMatchObject({ lines: 0, size: summary.size })
    expect(fingerprint(folder.data)).toEqual(before)
  }, 30_000)

  test('verifies with the key, and deeply', async () => {
    const key = join(folder.path, 'node.vkey')
    writeFileSync(key, readFileSync(join(folder.data, 'log/vkey')))
    const { status } = await meshtrail(['verify', folder.data, '--key', key, '--deep'])
    expect(status).toBe(0)
  })
})

/** Every file with its bytes' hash and when it was written. */
function fingerprint(root: string): Map<string, string> {
  const files = new Map<string, string>()
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    const hash = Bun.SHA256.hash(readFileSync(path), 'hex')
    files.set(path.slice(root.length + 1), `${hash} ${statSync(path).mtimeMs}`)
  }
  return files
}

/** How often the driver had something denied for this reason. */
function deniedCount({ rows }: Driven, reason: string): number {
  return rows
    .filter((row) => row.reason === reason && row.verdict === 'denied')
    .reduce((sum, row) => sum + row.count, 0)
}
