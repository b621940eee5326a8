/**
 * Operational failures: what can go wrong outside the program, each with an exit status and a hint.
 * Answers (an unparsed line, forged evidence) are values, and bugs are plain `Error('BUG: …')`.
 */

/** Exit statuses (sysexits where one fits). 1 is left to crashes: Bun exits 1 on an uncaught throw. */
export const exitStatus = {
  ok: 0,
  usage: 2,
  forged: 3,
  incomplete: 4,
  corruptInput: 65,
  unreachable: 69,
  interrupted: 130,
  disk: 74,
  permission: 77,
  configuration: 78,
} as const

const statusOfCode = {
  usage: exitStatus.usage,
  not_found: exitStatus.usage,
  bad_query: exitStatus.usage,
  query_refused: exitStatus.permission,
  query_limit: exitStatus.incomplete,
  query_failed: exitStatus.usage,
  forged: exitStatus.forged,
  incomplete: exitStatus.incomplete,
  corrupt_input: exitStatus.corruptInput,
  unreachable: exitStatus.unreachable,
  busy: exitStatus.unreachable,
  disk: exitStatus.disk,
  disk_full: exitStatus.disk,
  permission: exitStatus.permission,
  unauthenticated: exitStatus.permission,
  in_use: exitStatus.permission,
  configuration: exitStatus.configuration,
} as const

export type OpsErrorCode = keyof typeof statusOfCode

export class OpsError extends Error {
  override readonly name = 'OpsError'
  readonly code: OpsErrorCode
  /** What the operator should do next, as one sentence. */
  readonly hint: string
  /** Values for the log line, never for the message: `{ path, byte, segmentId }`. */
  readonly detail: Readonly<Record<string, string | number>>

  constructor(
    code: OpsErrorCode,
    message: string,
    options: { hint: string; detail?: Record<string, string | number>; cause?: unknown },
  ) {
    super(message, { cause: options.cause })
    this.code = code
    this.hint = options.hint
    this.detail = options.detail ?? {}
  }

  get exitStatus(): number {
    return statusOfCode[this.code]
  }
}

/** The text of anything thrown, for a message that wraps it. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}

/** The `errno` name (`ENOENT`, `ENOSPC`, …) of a file-system failure, or undefined. */
export function errnoOf(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error) || !('code' in thrown)) return undefined
  return typeof thrown.code === 'string' ? thrown.code : undefined
}
