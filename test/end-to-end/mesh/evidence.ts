/**
 * Compares the raw log files with what a drive expects, line by line: each access-log line must be one
 * expected line, and each expected line must be there as often as stated.
 *
 * It shares no code with meshtrail's own decoding and parsing: this is what those are checked against.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExpectedLine } from './cases.ts'
import type { Driven } from './driver.ts'
import { podLogPath, pods, type Workload, workloads } from './mesh.ts'

/** @returns the differences, in words; none when the logs are as expected */
export function differences(root: string, driven: Driven): string[] {
  const found: string[] = []
  for (const workload of workloads) {
    const expected = driven.evidence.filter(({ line }) => line.reporter === workload)
    const counts = new Map<string, number>()
    const lines = accessLines(readFileSync(join(root, podLogPath(pods[workload]))))
    for (const text of lines) {
      const matching = new Set(
        expected.filter(({ line }) => matches(line, text)).map(({ line }) => identity(line)),
      )
      const [only] = matching
      if (only === undefined || matching.size !== 1) {
        found.push(`${workload}: ${matching.size} expectations match ${text.slice(0, 2_000)}`)
        continue
      }
      counts.set(only, (counts.get(only) ?? 0) + 1)
    }
    for (const [line, { count, names }] of summed(expected)) {
      const seen = counts.get(line) ?? 0
      if (seen !== count) found.push(`${workload}: ${seen} lines, not ${count}, for ${names}`)
    }
  }
  return found
}

/** The content of stdout, joined where containerd cut it; every wrapper is checked. */
export function accessLines(file: Uint8Array): string[] {
  const lines: string[] = []
  let piece = ''
  const content = Buffer.from(file).toString('latin1')
  if (!content.endsWith('\n')) throw new Error('the log does not end with a line feed')
  for (const line of content.slice(0, -1).split('\n')) {
    const [, stream, tag, text] = criLine.exec(line) ?? []
    if (text === undefined) throw new Error(`no CRI line: ${line.slice(0, 200)}`)
    if (stream !== 'stdout') continue
    piece += text
    if (tag === 'P') {
      if (text.length !== 16_384) throw new Error(`a partial line of ${text.length} bytes`)
      continue
    }
    lines.push(piece)
    piece = ''
  }
  if (piece !== '') throw new Error('the log ends in a partial line')
  return lines
}

const criLine = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z (stdout|stderr) ([FP]) (.*)$/s

/** @param text the line's bytes, one character each */
function matches(line: ExpectedLine, text: string): boolean {
  if (isText(line.facts)) return inOrder(line.facts, text)
  const parsed: unknown = JSON.parse(Buffer.from(text, 'latin1').toString('utf8'))
  if (typeof parsed !== 'object' || parsed === null) return false
  const fields = new Map<string, unknown>(Object.entries(parsed))
  return Object.entries(line.facts).every(([key, value]) => fields.get(key) === value)
}

function isText(facts: ExpectedLine['facts']): facts is readonly string[] {
  return Array.isArray(facts)
}

function inOrder(fragments: readonly string[], text: string): boolean {
  let from = 0
  return fragments.every((fragment) => {
    const at = text.indexOf(fragment, from)
    from = at + fragment.length
    return at !== -1
  })
}

function identity(line: ExpectedLine): string {
  return JSON.stringify(line.facts)
}

/** Cases whose lines look alike are counted together. */
function summed(evidence: Driven['evidence']): Map<string, { count: number; names: string }> {
  const sums = new Map<string, { count: number; names: string }>()
  for (const { case: name, line, count } of evidence) {
    const before = sums.get(identity(line))
    sums.set(identity(line), {
      count: count + (before?.count ?? 0),
      names: before === undefined ? `'${name}'` : `${before.names}, '${name}'`,
    })
  }
  return sums
}

/** Access-log lines in the files now, per sidecar. */
export function countLines(root: string): Record<Workload, number> {
  const count = (workload: Workload): number =>
    accessLines(readFileSync(join(root, podLogPath(pods[workload])))).length
  return {
    frontend: count('frontend'),
    batch: count('batch'),
    payments: count('payments'),
    ledger: count('ledger'),
  }
}
