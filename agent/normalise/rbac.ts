/**
 * Reads what Envoy's RBAC filter says about a refusal, and Istio's names for the policies behind it.
 *
 * Envoy names the policy only when one denied; `none` means that an allow list exists and nothing in
 * it matched, and no policy can be named.
 */
import { remember } from './memo.ts'

export type RbacDenial = {
  readonly reason: 'rbac_denied' | 'rbac_no_match'
  /** `namespace/name` */
  readonly policy: string | null
  readonly policyKind: 'AuthorizationPolicy' | 'PeerAuthentication' | null
  /** Index of the rule, or the name of a policy that is not Istio's. */
  readonly rule: string | null
}

/** istio pilot/pkg/security/authz/builder/builder.go: `%sns[%s]-policy[%s]-rule[%d]` */
const istioPolicy =
  /^(?:istio-ext-authz-(?:[^[\]]*-)?)?ns\[([^[\]]*)\]-policy\[([^[\]]*)\]-rule\[(\d{1,9})\](?:-deny-due-to-bad-CUSTOM-action)?$/
const badCustomAction = /(?:^|-)deny(?:-all)?-due-to-bad-CUSTOM-action$/
/** istio pilot/pkg/model/authentication.go */
const convertedPrefix = 'converted_peer_authentication_'

/**
 * @param details RESPONSE_CODE_DETAILS (HTTP) or CONNECTION_TERMINATION_DETAILS (TCP)
 * @returns null when these are not the words of the RBAC filter
 * @see istio pilot/pkg/security/authz/builder/builder.go
 */
export function parseRbacDenial(details: string): RbacDenial | null {
  return details.startsWith('rbac_access_denied') ? parseCached(details) : null
}

const parseCached: (details: string) => RbacDenial | null = remember(2048, (details) => {
  if (details === 'rbac_access_denied') {
    return { reason: 'rbac_denied', policy: null, policyKind: null, rule: null }
  }
  const prefix = 'rbac_access_denied_matched_policy['
  if (!details.startsWith(prefix) || !details.endsWith(']')) return null
  const matched = details.slice(prefix.length, -1)
  if (matched === 'none' || matched === '') {
    return { reason: 'rbac_no_match', policy: null, policyKind: null, rule: null }
  }
  return { reason: 'rbac_denied', ...parsePolicyId(matched) }
})

/** The policy an effective policy id names: also that of dry-run metadata. */
export function parsePolicyId(id: string): Omit<RbacDenial, 'reason'> {
  const match = istioPolicy.exec(id)
  if (match !== null) {
    const [, namespace = '', name = '', rule = null] = match
    if (name.startsWith(convertedPrefix)) {
      const original = name.slice(convertedPrefix.length)
      return { policy: `${namespace}/${original}`, policyKind: 'PeerAuthentication', rule }
    }
    const policyKind =
      name === 'istio_converted_static_strict' ? 'PeerAuthentication' : 'AuthorizationPolicy'
    return { policy: `${namespace}/${name}`, policyKind, rule }
  }
  // A CUSTOM action whose provider is misconfigured denies everything, in no policy's name.
  if (badCustomAction.test(id))
    return { policy: null, policyKind: 'AuthorizationPolicy', rule: null }
  return { policy: null, policyKind: null, rule: id }
}
