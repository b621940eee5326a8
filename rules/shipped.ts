/**
 * The rules that come with the program, as text inside it: a compiled binary has no folder to read
 * them from. A rule file that is missing here is not shipped.
 */

import type { RuleFile } from './engine/load.ts'
import authorizationPolicyChangedByPerson from './kubernetes/authorization-policy-changed-by-person.yml' with {
  type: 'text',
}
import authorizationPolicyDeleted from './kubernetes/authorization-policy-deleted.yml' with {
  type: 'text',
}
import execIntoMeshProxy from './kubernetes/exec-into-mesh-proxy.yml' with { type: 'text' }
import meshCaSecretTouched from './kubernetes/mesh-ca-secret-touched.yml' with { type: 'text' }
import meshLoggingOrWebhookChanged from './kubernetes/mesh-logging-or-webhook-changed.yml' with {
  type: 'text',
}
import peerAuthenticationWeakened from './kubernetes/peer-authentication-weakened.yml' with {
  type: 'text',
}
import proxyCodeChanged from './kubernetes/proxy-code-changed.yml' with { type: 'text' }
import rbacEscalation from './kubernetes/rbac-escalation.yml' with { type: 'text' }
import serviceAccountForbidden from './kubernetes/service-account-forbidden.yml' with {
  type: 'text',
}
import authorizationDeniedOnSensitivePath from './mesh/authorization-denied-on-sensitive-path.yml' with {
  type: 'text',
}
import externalAuthorizerFailed from './mesh/external-authorizer-failed.yml' with { type: 'text' }
import pathTraversalLetThrough from './mesh/path-traversal-let-through.yml' with { type: 'text' }
import plaintextRefused from './mesh/plaintext-refused.yml' with { type: 'text' }
import tlsCertificateRefused from './mesh/tls-certificate-refused.yml' with { type: 'text' }

/** In the order of their paths. */
export const shippedRules: readonly RuleFile[] = [
  shipped(
    'rules/kubernetes/authorization-policy-changed-by-person.yml',
    authorizationPolicyChangedByPerson,
  ),
  shipped('rules/kubernetes/authorization-policy-deleted.yml', authorizationPolicyDeleted),
  shipped('rules/kubernetes/exec-into-mesh-proxy.yml', execIntoMeshProxy),
  shipped('rules/kubernetes/mesh-ca-secret-touched.yml', meshCaSecretTouched),
  shipped('rules/kubernetes/mesh-logging-or-webhook-changed.yml', meshLoggingOrWebhookChanged),
  shipped('rules/kubernetes/peer-authentication-weakened.yml', peerAuthenticationWeakened),
  shipped('rules/kubernetes/proxy-code-changed.yml', proxyCodeChanged),
  shipped('rules/kubernetes/rbac-escalation.yml', rbacEscalation),
  shipped('rules/kubernetes/service-account-forbidden.yml', serviceAccountForbidden),
  shipped(
    'rules/mesh/authorization-denied-on-sensitive-path.yml',
    authorizationDeniedOnSensitivePath,
  ),
  shipped('rules/mesh/external-authorizer-failed.yml', externalAuthorizerFailed),
  shipped('rules/mesh/path-traversal-let-through.yml', pathTraversalLetThrough),
  shipped('rules/mesh/plaintext-refused.yml', plaintextRefused),
  shipped('rules/mesh/tls-certificate-refused.yml', tlsCertificateRefused),
]

/** The types of imported YAML are those of parsed data; with `type: 'text'` it is text. */
function shipped(path: string, text: unknown): RuleFile {
  if (typeof text !== 'string') throw new Error(`BUG: ${path} was not embedded as text`)
  return { path, text }
}
