/** `meshtrail verify`: the auditor's command. Reads only; needs no agent and no network. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { formatUs } from '../clock.ts'
import { exitStatus, messageOf, OpsError } from '../errors.ts'
import { ColumnComparer } from '../rederive.ts'
import { startProgress } from '../terminal/progress.ts'
import { formatBytes, formatCount } from '../terminal/units.ts'
import { evidenceIn } from '../verify/evidence.ts'
import type { Complaint, Verification } from '../verify/report.ts'
import { verifyLog } from '../verify/verify.ts'
import { escapeForTerminal } from '../terminal/escape.ts'
import { facts, paintFor, writeJson, writeOut } from './output.ts'

export type VerifyCommandOptions = {
  readonly key: string | null
  readonly expectHead: string | null
  readonly deep: boolean
  readonly json: boolean
}

const statusOf = {
  verified: exitStatus.ok,
  forged: exitStatus.forged,
  incomplete: exitStatus.incomplete,
} as const

export async function verify(root: string, options: VerifyCommandOptions): Promise<void> {
  if (!existsSync(root) || !statSync(root).isDirectory()) {
    throw new OpsError('not_found', `${root} is not a directory`, {
      hint: 'name a data directory or a copy of one',
    })
  }
  const progress = startProgress({ label: 'verify', unit: 'bytes' })
  const comparer = new ColumnComparer()
  const verification = await verifyLog(evidenceIn(root), {
    vkey: options.key === null ? null : readGiven(options.key).toString('utf8').trim(),
    expectHead: options.expectHead === null ? null : readGiven(options.expectHead),
    deep: options.deep,
    compare: (event, provenance) => comparer.compare(event, provenance),
    onProgress: ({ bytes, total }) => {
      progress.setTotal(total)
      progress.update(bytes)
    },
  })
  progress.finish()
  if (options.json) writeJson(verification)
  else writeOut(reportText(verification, options.deep))
  process.exitCode = statusOf[verification.verdict]
}

/** The report as people read it; the verdict is its last line. */
export function reportText(verification: Verification, deep: boolean): string {
  const paint = paintFor(process.stdout)
  const { complaints, size, from, to } = verification
  const covered = from === null || to === null ? 'nothing' : `${formatUs(from)} to ${formatUs(to)}`
  const colour = { verified: 'green', forged: 'red', incomplete: 'yellow' } as const
  const word = verification.verdict.toUpperCase()
  return [
    facts([
      ['log', verification.origin],
      ['events', `${formatCount(size)} (${formatBytes(verification.rawBytes)} of raw lines)`],
      ['root', verification.root],
      ['files', `${verification.segments} segments, ${verification.parts} parts`],
      ['observed', covered],
      ['gaps', `${formatCount(verification.gaps)} declared`],
    ]),
    ...complaints.map((complaint) => `${complaintText(complaint)}\n`),
    verification.anchored
      ? ''
      : 'tail not anchored: a rollback of the whole directory cannot be excluded (--expect-head)\n',
    deep ? '' : 'columns not parsed again (--deep)\n',
    `${paint(colour[verification.verdict], word)}\n`,
  ].join('')
}

function complaintText(complaint: Complaint): string {
  const { severity, path, problem, leaves } = complaint
  const where = leaves === undefined ? '' : ` [leaves ${leaves[0]} to ${leaves[1] - 1}]`
  return escapeForTerminal(`${severity}: ${path}${where}: ${problem}`)
}

function readGiven(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new OpsError('not_found', `cannot read ${path}: ${messageOf(cause)}`, {
      hint: 'give the file that was kept apart from the log',
      cause,
    })
  }
}
