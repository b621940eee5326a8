/** What happened since the start, for `status`, `/metrics` and the summary of an import. */
import type { AuditEvent } from './event.ts'

export class Counters {
  events = 0
  /** Lines of files; the agent's own events are not among them. */
  lines = 0
  rawBytes = 0
  unparsed = 0
  untrusted = 0
  gaps = 0
  findings = 0
  commits = 0
  seals = 0
  readonly verdicts = { allowed: 0, denied: 0, errored: 0, would_deny: 0 }
  /** Event time seen, µs. */
  from = Number.POSITIVE_INFINITY
  to = Number.NEGATIVE_INFINITY

  event(event: AuditEvent): void {
    this.events++
    const time = event.ts ?? event.observed_ts
    if (time < this.from) this.from = time
    if (time > this.to) this.to = time
    if (event.gen === '') return
    this.lines++
    this.rawBytes += event.rawEnd - event.rawStart
    if (event.verdict !== null) this.verdicts[event.verdict]++
    if (event.reason === 'unparsed') this.unparsed++
    else if (event.reason === 'untrusted_source') this.untrusted++
  }
}
