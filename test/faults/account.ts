/** What a log holds of numbered lines: which are there, how often. Reads the files, not through SQL. */
import { z } from 'zod'
import { openParquet, diskFile, eventGroups } from '../../agent/store/read.ts'
import { listLog } from '../../agent/store/list.ts'
import { evidenceIn } from '../../agent/verify/evidence.ts'
import type { Verification } from '../../agent/verify/report.ts'
import { verifyLog } from '../../agent/verify/verify.ts'

export type Account = {
  readonly lost: readonly number[]
  readonly duplicated: readonly number[]
  /** Events of refused lines. */
  readonly denied: number
  /** Leaves of refused lines that no finding names, or more than one. */
  readonly findingsMissing: readonly number[]
  readonly findingsRepeated: readonly number[]
}

/** What an account says when everything is there once. */
export const nothingWrong = {
  lost: [],
  duplicated: [],
  findingsMissing: [],
  findingsRepeated: [],
} as const

/** @param count lines numbered 0 to count - 1, whose request id is `line-<number>` */
export async function accountOf(root: string, count: number): Promise<Account> {
  const seen = new Uint32Array(count)
  const deniedLeaves: number[] = []
  const findings = new Map<number, number>()
  const { files } = listLog(root)
  for (const path of [...files.segments, ...files.parts]) {
    const opened = await openParquet(diskFile(path))
    if (!opened.ok) throw new Error(opened.problem)
    const first = firstLeaf.parse(opened.footer).first
    for await (const { firstRow, events } of eventGroups(opened)) {
      for (const [row, event] of events.entries()) {
        if (event.source === 'meshtrail') {
          const found = event.kind === 'finding' ? matchedLeaf(event.attributes) : null
          if (found !== null) findings.set(found, (findings.get(found) ?? 0) + 1)
          continue
        }
        const number = /^line-(\d+)$/.exec(event.request_id ?? '')?.[1]
        if (number !== undefined) seen[Number(number)] = (seen[Number(number)] ?? 0) + 1
        if (event.verdict === 'denied') deniedLeaves.push(first + firstRow + row)
      }
    }
  }
  const lost: number[] = []
  const duplicated: number[] = []
  for (const [number, times] of seen.entries()) {
    if (times === 0) lost.push(number)
    if (times > 1) duplicated.push(number)
  }
  return {
    lost,
    duplicated,
    denied: deniedLeaves.length,
    findingsMissing: deniedLeaves.filter((leaf) => !findings.has(leaf)),
    findingsRepeated: [...findings].filter(([, times]) => times > 1).map(([leaf]) => leaf),
  }
}

const firstLeaf = z.object({ first: z.number() })
const findingBody = z.object({ event: z.string() })

/** A finding names its event as `origin@index`. */
function matchedLeaf(attributes: string | null): number | null {
  const body = findingBody.parse(JSON.parse(attributes ?? '{}'))
  const index = /@(\d+)$/.exec(body.event)?.[1]
  return index === undefined ? null : Number(index)
}

export function verifyDirectory(root: string): Promise<Verification> {
  return verifyLog(evidenceIn(root), {
    vkey: listLog(root).vkey,
    expectHead: null,
    deep: false,
    compare: () => null,
  })
}
