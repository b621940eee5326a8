/**
 * What an answer covers: which logs of those expected took part, up to where, with which gaps. Every
 * answer carries one, whatever its format; an answer that is partial can so never pass for a whole one.
 */

export type AgentStatus = 'answered' | 'lagging' | 'unreachable' | 'timeout' | 'refused' | 'forged'

export type AgentCoverage = {
  readonly origin: string
  readonly status: AgentStatus
  /** Leaves of the signed checkpoint the answer goes up to; null when the agent did not answer. */
  readonly size: number | null
  /** Root hash of that checkpoint, base64. */
  readonly root: string | null
  /** First and last `time` of what was read, RFC 3339; null for an empty log. */
  readonly from: string | null
  readonly to: string | null
  /** Declared gaps in the log. */
  readonly gaps: number
  readonly error: string | null
}

export type Coverage = {
  /** True when every expected agent answered up to the moment of the question. */
  readonly complete: boolean
  readonly agents: readonly AgentCoverage[]
}

/** Coverage of several agents: complete only when each of them answered. */
export function coverageOf(agents: readonly AgentCoverage[]): Coverage {
  return {
    complete: agents.length > 0 && agents.every((agent) => agent.status === 'answered'),
    agents,
  }
}
