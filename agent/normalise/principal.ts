/**
 * Who asked: the grammars of SPIFFE IDs, Kubernetes service accounts and user names.
 *
 * It reads names that something else authenticated; it authenticates nothing.
 */
import type { PrincipalKind } from '../event.ts'
import { remember } from './memo.ts'

export type Principal = {
  readonly id: string
  readonly kind: PrincipalKind | null
  readonly namespace: string | null
  /** Service account or user name. */
  readonly name: string | null
}

/** SPIFFE-ID standard, section 2.3: an ID is at most 2048 bytes. */
const spiffeLengthMax = 2048
const meshSpiffe = /^spiffe:\/\/[^/\s,"]+\/ns\/([^/\s,"]+)\/sa\/([^/\s,"]+)$/
const anySpiffe = /^spiffe:\/\/[^/\s,"]+(?:\/[^\s,"]+)?$/

/**
 * The peer named by a URI SAN as Envoy prints it. Several URIs are separated by commas: when not
 * exactly one of them is a SPIFFE ID, nobody can say which one was meant, and the answer is null.
 *
 * A URI of another scheme stays the principal, without a kind.
 *
 * @see Istio's `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`
 */
export const principalOfUriSan: (text: string) => Principal | null = remember(4096, (text) => {
  if (text.length > spiffeLengthMax) return null
  if (!text.includes(',')) return principalOfUri(text)
  const spiffe = text
    .split(',')
    .map((uri) => uri.trim())
    .filter((uri) => uri.startsWith('spiffe://'))
  const [only] = spiffe
  return spiffe.length === 1 && only !== undefined ? principalOfUri(only) : null
})

function principalOfUri(uri: string): Principal | null {
  const mesh = meshSpiffe.exec(uri)
  if (mesh !== null) {
    return { id: uri, kind: 'spiffe', namespace: mesh[1] ?? null, name: mesh[2] ?? null }
  }
  if (anySpiffe.test(uri)) return { id: uri, kind: 'spiffe', namespace: null, name: null }
  if (/^[a-z][a-z0-9+.-]*:[^\s,"]+$/i.test(uri) && !uri.startsWith('spiffe:')) {
    return { id: uri, kind: null, namespace: null, name: null }
  }
  return null
}

/**
 * The principal behind a Kubernetes user name. `system:serviceaccount:<ns>:<name>` is a service
 * account; anything else, `system:anonymous` and `system:node:…` included, is a user.
 *
 * @see k8s.io/apiserver pkg/authentication/serviceaccount: SplitUsername
 */
export const principalOfUser: (username: string) => Principal = remember(4096, (username) => {
  const account = /^system:serviceaccount:([a-z0-9.-]+):([a-z0-9.-]+)$/.exec(username)
  if (account !== null) {
    return {
      id: username,
      kind: 'service_account',
      namespace: account[1] ?? null,
      name: account[2] ?? null,
    }
  }
  return { id: username, kind: 'user', namespace: null, name: username }
})
