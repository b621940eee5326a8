/** What verification found: complaints, and the one verdict they add up to. */

export type Severity =
  /** Changed, missing, extra, rolled back or unexplained. */
  | 'forged'
  /** Not everything could be checked, and it says so openly. */
  | 'incomplete'
  /** Worth knowing; decides nothing. */
  | 'note'

export type Complaint = {
  readonly severity: Severity
  readonly path: string
  readonly problem: string
  /** Leaves concerned: from, up to but without. */
  readonly leaves?: readonly [number, number]
}

export type Verdict = 'verified' | 'incomplete' | 'forged'

export type Verification = {
  readonly verdict: Verdict
  readonly origin: string
  readonly size: number
  /** Hex. */
  readonly root: string
  readonly segments: number
  readonly parts: number
  readonly rawBytes: number
  /** Gap events in the log: declared losses. */
  readonly gaps: number
  /** Event time covered, µs; null for an empty log. */
  readonly from: number | null
  readonly to: number | null
  readonly anchored: boolean
  readonly complaints: readonly Complaint[]
}

export function verdictOf(complaints: readonly Complaint[]): Verdict {
  if (complaints.some((complaint) => complaint.severity === 'forged')) return 'forged'
  if (complaints.some((complaint) => complaint.severity === 'incomplete')) return 'incomplete'
  return 'verified'
}
