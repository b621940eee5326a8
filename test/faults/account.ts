/** What a log holds of numbered lines: which are there, how often. Reads the files, not through SQL. */
import { openParquet, diskFile, eventGroups } from '../../agent/store/read.ts'
import { listLog } from '../../agent/store/list.ts'
import { evidenceIn } from '../../agent/verify/evidence.ts'
import type { Verification } from '../../agent/verify/report.ts'
import { verifyLog } from '../../agent/verify/verify.ts'

export type Account = { readonly lost: readonly number[]; readonly duplicated: readonly number[] }

/** @param count lines numbered 0 to count - 1, whose request id is `line-<number>` */
export async function accountOf(root: string, count: number): Promise<Account> {
  const seen = new Uint32Array(count)
  const { files } = listLog(root)
  for (const path of [...files.segments, ...files.parts]) {
    const opened = await openParquet(diskFile(path))
    if (!opened.ok) throw new Error(opened.problem)
    for await (const { events } of eventGroups(opened)) {
      for (const event of events) {
        const number = /^line-(\d+)$/.exec(event.request_id ?? '')?.[1]
        if (number !== undefined && event.source !== 'meshtrail') {
          seen[Number(number)] = (seen[Number(number)] ?? 0) + 1
        }
      }
    }
  }
  const lost: number[] = []
  const duplicated: number[] = []
  for (const [number, times] of seen.entries()) {
    if (times === 0) lost.push(number)
    if (times > 1) duplicated.push(number)
  }
  return { lost, duplicated }
}

export function verifyDirectory(root: string): Promise<Verification> {
  return verifyLog(evidenceIn(root), {
    vkey: listLog(root).vkey,
    expectHead: null,
    deep: false,
    compare: () => null,
  })
}
