/** What verification found: complaints, and the one verdict they add up to. */

export type Severity =
  /** Changed, missing, extra, rolled back or unexplained. */
  | 'forged'
  /** Not everything could be checked, and it says so openly. */
  | 'incomplete'

/** From, up to but without. */
export type LeafRange = readonly [number, number]

export type Complaint = {
  readonly severity: Severity
  readonly path: string
  readonly problem: string
  readonly leaves?: LeafRange
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
  /** When its events were observed, µs; null for an empty log. */
  readonly from: number | null
  readonly to: number | null
  /** A head kept elsewhere was given: a rollback would have shown. */
  readonly anchored: boolean
  readonly complaints: readonly Complaint[]
}

/** Gathers complaints. `forged` wins over `incomplete`, `incomplete` over `verified`. */
export class Complaints {
  readonly #list: Complaint[] = []

  forged(path: string, problem: string, leaves?: LeafRange): void {
    this.#add('forged', path, problem, leaves)
  }

  incomplete(path: string, problem: string, leaves?: LeafRange): void {
    this.#add('incomplete', path, problem, leaves)
  }

  addAll(complaints: readonly Complaint[]): void {
    this.#list.push(...complaints)
  }

  #add(severity: Severity, path: string, problem: string, leaves?: LeafRange): void {
    this.#list.push({ severity, path, problem, ...(leaves === undefined ? {} : { leaves }) })
  }

  get all(): readonly Complaint[] {
    return this.#list
  }

  get verdict(): Verdict {
    if (this.#list.some((complaint) => complaint.severity === 'forged')) return 'forged'
    return this.#list.length > 0 ? 'incomplete' : 'verified'
  }

  suspects(path: string): boolean {
    return this.#list.some(
      (complaint) => complaint.path === path && complaint.severity === 'forged',
    )
  }
}
