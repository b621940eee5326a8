/** What commands write: results to standard output, everything else to standard error. */
import type { OpsError } from '../errors.ts'
import { painter, type Paint, wantsColour } from '../terminal/colour.ts'
import { escapeForTerminal } from '../terminal/escape.ts'

type Stream = { readonly isTTY?: boolean | undefined }

/** The colours of a stream, or none. */
export function paintFor(stream: Stream): Paint {
  return painter(wantsColour(stream, process.env))
}

export function describeFailure(error: OpsError, stream: Stream): string {
  const paint = paintFor(stream)
  const message = escapeForTerminal(error.message, { keepLines: true })
  const hint = escapeForTerminal(error.hint, { keepLines: true })
  return `${paint('red', 'error:')} ${message}\n${paint('dim', 'hint:')}  ${hint}\n`
}

export function writeOut(text: string): void {
  process.stdout.write(text)
}

/** A line for people, on standard error: never part of a result. */
export function tell(text: string): void {
  process.stderr.write(`${escapeForTerminal(text, { keepLines: true })}\n`)
}

export function writeJson(value: unknown): void {
  writeOut(`${JSON.stringify(value, null, process.stdout.isTTY ? 2 : 0)}\n`)
}

/** `label  value` lines, labels aligned. */
export function facts(rows: readonly (readonly [label: string, value: string])[]): string {
  const width = Math.max(...rows.map(([label]) => label.length))
  return rows
    .map(([label, value]) => `${label.padEnd(width)}  ${escapeForTerminal(value)}\n`)
    .join('')
}
