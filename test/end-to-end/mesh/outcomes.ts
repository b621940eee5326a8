/**
 * What a line of the mesh's logs means: the decision that meshtrail must report for it. The one place to
 * change when the meaning of a verdict does.
 */
import type { AuditEvent } from '../../../agent/event.ts'

/** The part of an event that says what was decided. */
export type Outcome = Pick<
  AuditEvent,
  | 'kind'
  | 'direction'
  | 'verdict'
  | 'decided_by'
  | 'reason'
  | 'policy'
  | 'policy_rule'
  | 'principal'
>

const none = { reason: null, policy: null, policy_rule: null, principal: null } as const

export const outcome = {
  calledAndAllowed: {
    ...none,
    kind: 'request',
    direction: 'outbound',
    verdict: 'allowed',
    decided_by: 'this_proxy',
  },
  /** The application's own 403 or 500, seen by the caller. */
  calledAndAnsweredByApplication: {
    ...none,
    kind: 'request',
    direction: 'outbound',
    verdict: 'allowed',
    decided_by: 'application',
  },
  calledAndDeniedByPeer: {
    ...none,
    kind: 'request',
    direction: 'outbound',
    verdict: 'errored',
    decided_by: 'peer_proxy',
    reason: 'denied_by_peer',
  },
  upstreamFailed: {
    ...none,
    kind: 'request',
    direction: 'outbound',
    verdict: 'errored',
    decided_by: 'this_proxy',
    reason: 'upstream_failed',
  },
  serverRefused: {
    ...none,
    kind: 'request',
    direction: 'outbound',
    verdict: 'errored',
    decided_by: 'this_proxy',
    reason: 'tls_handshake_failed',
  },
  /** Nothing in such a line says which way the request went. */
  noRoute: {
    ...none,
    kind: 'request',
    direction: null,
    verdict: 'errored',
    decided_by: 'this_proxy',
    reason: 'no_route',
  },
  egressBlocked: {
    ...none,
    kind: 'request',
    direction: 'outbound',
    verdict: 'denied',
    decided_by: 'this_proxy',
    reason: 'egress_blocked',
  },
  protocolError: {
    ...none,
    kind: 'request',
    direction: null,
    verdict: 'errored',
    decided_by: 'this_proxy',
    reason: 'protocol_error',
  },
  tcpCalled: {
    ...none,
    kind: 'connection',
    direction: 'outbound',
    verdict: 'allowed',
    decided_by: 'this_proxy',
  },
  /** The certificate was refused, so what it says about who called is not a principal. */
  handshakeRefused: {
    ...none,
    kind: 'handshake',
    direction: 'inbound',
    verdict: 'denied',
    decided_by: 'this_proxy',
    reason: 'tls_handshake_failed',
  },
  /** JSON or text: a connection without a filter chain and without a server name. A mesh peer sends one. */
  plaintextRefused: {
    ...none,
    kind: 'handshake',
    direction: 'inbound',
    verdict: 'denied',
    decided_by: 'this_proxy',
    reason: 'plaintext_refused',
  },
} satisfies Record<string, Outcome>

/** @param principal null for the text format, which has none */
export function served(principal: string | null): Outcome {
  return {
    ...none,
    kind: 'request',
    direction: 'inbound',
    verdict: 'allowed',
    decided_by: 'this_proxy',
    principal,
  }
}
export function answeredByApplication(principal: string | null): Outcome {
  return { ...served(principal), decided_by: 'application' }
}
export function tcpServed(principal: string | null): Outcome {
  return { ...served(principal), kind: 'connection' }
}
export function denied(policy: string, rule: string, principal: string | null): Outcome {
  return {
    ...served(principal),
    verdict: 'denied',
    reason: 'rbac_denied',
    policy,
    policy_rule: rule,
  }
}
export function deniedByNoMatch(principal: string | null): Outcome {
  return { ...served(principal), verdict: 'denied', reason: 'rbac_no_match' }
}
export function wouldDeny(policy: string, rule: string, principal: string | null): Outcome {
  return {
    ...served(principal),
    verdict: 'would_deny',
    reason: 'rbac_denied',
    policy,
    policy_rule: rule,
  }
}
