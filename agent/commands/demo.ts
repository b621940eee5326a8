/**
 * `meshtrail demo`: a temporary node fed with recorded logs. Shows what it found, verifies the log,
 * changes one row on disk and shows `verify` naming it; then serves the API until Ctrl-C.
 */
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { spool } from '../../query/formats.ts'
import { QueryRunner } from '../../query/local.ts'
import { renderTable } from '../../query/table.ts'
import { systemClock } from '../clock.ts'
import { type Config, defaultConfig, followConfig } from '../config.ts'
import { OpsError } from '../errors.ts'
import { type Node, openNode } from '../node.ts'
import { runPipeline, sourceOf } from '../pipeline.ts'
import { ColumnComparer } from '../rederive.ts'
import { readToEnd } from '../tail/read-to-end.ts'
import { provenanceOf } from '../tail/provenance.ts'
import { formatCount } from '../terminal/units.ts'
import { evidenceIn } from '../verify/evidence.ts'
import type { Verification } from '../verify/report.ts'
import { verifyLog } from '../verify/verify.ts'
import { paintFor, tell, writeOut } from './output.ts'
import { unpackRecording } from './recording.ts'
import { selfCommand, workerEnvironment } from './self.ts'
import { serve } from './serve.ts'
import { reportText } from './verify.ts'

export type DemoOptions = { readonly exit: boolean; readonly data: string | null }

const tour: readonly { readonly title: string; readonly sql: string }[] = [
  {
    title: 'Requests the mesh refused: by which policy and rule, and who asked',
    sql: `SELECT reason, policy, policy_rule AS rule, principal, dst_workload AS at, count(*) AS n
          FROM events WHERE verdict = 'denied' AND kind IN ('request', 'connection') AND plane = 'data'
          GROUP BY ALL ORDER BY n DESC, 1, 2 LIMIT 10`,
  },
  {
    title: 'TLS handshakes that failed, and why',
    sql: `SELECT workload AS reporter, direction, tls_failure, split_part(tls_detail, ': ', -1) AS detail, count(*) AS n
          FROM events WHERE tls_failure IS NOT NULL AND reason = 'tls_handshake_failed' GROUP BY ALL ORDER BY n DESC, 1, 2 LIMIT 8`,
  },
  {
    title: 'Mesh policies changed through the Kubernetes API: who, what, with what outcome',
    sql: `SELECT time, principal, method, policy_kind, object_namespace || '/' || object_name AS object, verdict
          FROM events WHERE kind = 'policy_change' ORDER BY time LIMIT 8`,
  },
  {
    title: 'What the rules found',
    sql: `SELECT level, rule_title, count(*) AS n, min(event_id) AS first_event
          FROM findings GROUP BY ALL ORDER BY n DESC, 1, 2 LIMIT 8`,
  },
]

export async function demo(options: DemoOptions): Promise<void> {
  const paint = paintFor(process.stdout)
  const heading = (text: string): void => writeOut(`\n${paint('bold', text)}\n`)
  const root = options.data === null ? temporaryRoot() : emptyRoot(options.data)
  const data = join(root, 'node')
  const defaults = defaultConfig('demo-node')
  const config: Config = {
    ...defaults,
    cluster: 'demo',
    node: 'demo-node',
    data: { ...defaults.data, path: data },
    http: { ...defaults.http, listen: '127.0.0.1:0' },
  }
  try {
    const paths = await unpackRecording(join(root, 'recorded'))
    await using node = await openNode({ config, onProblem: tell })
    const seconds = await replay(node, paths, config)
    const { counters } = node.agent
    writeOut(
      `${formatCount(counters.lines)} recorded lines of real Envoys and a Kubernetes audit log became ` +
        `${formatCount(node.store.size)} events in ${seconds.toFixed(2)} s, ` +
        `${counters.unparsed} unparsed, ${counters.gaps} gaps.\n`,
    )
    for (const { title, sql } of tour) {
      heading(title)
      writeOut(await answerText(node, sql))
    }
    heading('The log, checked as an auditor would: meshtrail verify --key --deep')
    writeOut(reportText(await check(data, node.store.identity.vkey), true))

    heading('Now one row is changed on disk: a denial becomes "allowed"')
    writeOut(reportText(await tamper(root, data, node), true))
    if (!options.exit) await stayOpen(config, node)
  } finally {
    if (options.data === null) rmSync(root, { recursive: true, force: true })
  }
}

async function replay(node: Node, paths: readonly string[], config: Config): Promise<number> {
  const rules = followConfig(config)
  const startedMs = systemClock.monotonicMs()
  const chunks = readToEnd(
    paths.map((path) => ({ path, provenance: provenanceOf(path, rules) })),
    {
      cursors: node.store.cursors,
      clock: systemClock,
      onProblem: (problem) => tell(`${problem.path}: ${problem.message}`),
    },
  )
  await runPipeline(node.agent, sourceOf(chunks), systemClock, new AbortController().signal)
  const seconds = (systemClock.monotonicMs() - startedMs) / 1000
  await node.agent.close('demo')
  return seconds
}

async function answerText(node: Node, sql: string): Promise<string> {
  await using runner = new QueryRunner({
    command: selfCommand(),
    env: workerEnvironment(),
    spareIdleMs: 0,
  })
  const { files, identity } = { files: node.store.files(), identity: node.store.identity }
  await using answer = await runner.run({ sql, files, origin: identity.origin })
  const { rows, end } = await spool(answer)
  const width = process.stdout.columns ?? 120
  return renderTable({ columns: answer.columns, rows, end, width })
}

async function check(root: string, vkey: string): Promise<Verification> {
  const comparer = new ColumnComparer()
  return verifyLog(evidenceIn(root), {
    vkey,
    expectHead: null,
    deep: true,
    compare: (event, provenance) => comparer.compare(event, provenance),
  })
}

/** Rewrites one segment of a copy, as somebody with root and DuckDB would, and verifies the copy. */
async function tamper(root: string, data: string, node: Node): Promise<Verification> {
  const copy = join(root, 'tampered')
  cpSync(data, copy, { recursive: true })
  const [manifest] = node.store.segments
  if (manifest === undefined) throw new Error('BUG: the demo sealed nothing')
  const path = join(copy, manifest.file.path)
  const quoted = `'${path.replaceAll("'", "''")}'`
  const connection = await (await DuckDBInstance.create()).connect()
  const footer = await connection.runAndReadAll(
    `SELECT decode(value) FROM parquet_kv_metadata(${quoted}) WHERE decode(key) = 'meshtrail'`,
  )
  const metadata = String(footer.getRows()[0]?.[0]).replaceAll("'", "''")
  const victim = `(SELECT min(leaf_index) FROM read_parquet(${quoted}) WHERE verdict = 'denied')`
  const temporary = `'${path.replaceAll("'", "''")}.new'`
  await connection.run(
    `COPY (SELECT * REPLACE (CASE WHEN leaf_index = ${victim} THEN 'allowed' ELSE verdict END AS verdict)
           FROM read_parquet(${quoted}, hive_partitioning = false))
     TO ${temporary} (FORMAT parquet, COMPRESSION zstd, KV_METADATA {meshtrail: '${metadata}'})`,
  )
  connection.closeSync()
  cpSync(`${path}.new`, path)
  rmSync(`${path}.new`)
  return check(copy, node.store.identity.vkey)
}

async function stayOpen(config: Config, node: Node): Promise<void> {
  await using served = await serve(config, node, null)
  const { url, token } = served
  writeOut(
    `\nServing the API on ${url} until Ctrl-C, for example:\n` +
      `  curl -s ${url}/v1/query -H 'Authorization: Bearer ${token}' \\\n` +
      `    -H 'Content-Type: text/plain' -d "SELECT verdict, reason, count(*) FROM events GROUP BY ALL"\n`,
  )
  await new Promise<void>((resolvePromise) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => resolvePromise())
  })
}

function temporaryRoot(): string {
  return mkdtempSync(join(tmpdir(), 'meshtrail-demo-'))
}

function emptyRoot(path: string): string {
  const root = resolve(path)
  if (existsSync(root) && readdirSync(root).length > 0) {
    throw new OpsError('usage', `${root} is not empty`, {
      hint: 'give a new directory with --data; the demo never touches a log that is there',
    })
  }
  return root
}
