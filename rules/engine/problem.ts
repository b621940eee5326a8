/**
 * What is wrong with a rule file, said so that its author can mend it: where, what, and what to
 * write instead. A problem is an answer, never thrown; an `error` means that the rule is not used.
 */

/** A place in a rule file; line and column count from 1. */
export type Position = {
  readonly file: string
  readonly line: number
  readonly column: number
}

export type ProblemCode =
  | 'yaml'
  | 'document'
  | 'logsource'
  | 'detection'
  | 'condition'
  | 'modifier'
  | 'value'
  | 'field'
  | 'limit'
  | 'duplicate'
  | 'unsupported'

export type Problem = {
  readonly severity: 'error' | 'warning'
  readonly code: ProblemCode
  readonly at: Position
  readonly message: string
  /** What the author does next, as one sentence. */
  readonly hint: string
  /** For `unsupported`: which feature of Sigma this version refuses, such as `correlation`. */
  readonly feature?: string
}

/** Why a piece of a rule was refused; the place is added by whoever knows it. */
export type Refusal = {
  readonly code: ProblemCode
  readonly message: string
  readonly hint: string
  readonly feature?: string
}

export function refuse(code: ProblemCode, message: string, hint: string): Refusal {
  return { code, message, hint }
}

/** A refusal of something that is right Sigma, but that this engine cannot do. */
export function unsupported(feature: string, message: string, hint: string): Refusal {
  return { code: 'unsupported', message, hint, feature }
}

export function problemAt(
  at: Position,
  refusal: Refusal,
  severity: Problem['severity'] = 'error',
): Problem {
  return { severity, at, ...refusal }
}

/** `file:line:column: error: message (hint)`, the form that editors can jump to. */
export function formatProblem(problem: Problem): string {
  const { file, line, column } = problem.at
  return `${file}:${line}:${column}: ${problem.severity}: ${problem.message} (${problem.hint})`
}
