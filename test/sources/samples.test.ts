/**
 * Recorded lines, read in place because not all of them may be redistributed: skipped, with a count, on
 * a machine without them. The table was written by reading the lines.
 *
 * Columns: source kind direction verdict decided_by reason policy tls_failure principal.
 */
import { describe, expect, test } from 'bun:test'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { LineParser } from '../../agent/sources/sources.ts'
import type { Provenance } from '../../agent/tail/chunk.ts'
import { apiServer, attributesOf, gateway, parse, sidecar } from './line.ts'

const samples = join(import.meta.dir, '../../../shared/data/log-samples')

const expectations: readonly {
  readonly file: string
  readonly from: Provenance
  readonly lines: readonly string[]
}[] = [
  {
    file: 'istio-envoy-text/elastic_integrations.log',
    from: sidecar,
    lines: [
      ...times(3, 'istio.access request inbound allowed this_proxy - - - -'),
      'istio.access request outbound allowed this_proxy - - - -',
      'istio.access request inbound allowed this_proxy - - - -',
      'istio.access request outbound allowed this_proxy - - - -',
      ...times(2, 'istio.access request inbound allowed this_proxy - - - -'),
      'istio.access request outbound errored this_proxy upstream_failed - - -',
      'istio.access request outbound allowed application - - - -',
      ...times(2, 'istio.access request - errored this_proxy no_route - - -'),
      'istio.access request - errored this_proxy protocol_error - - -',
      'istio.access request outbound errored this_proxy upstream_failed - - -',
      'istio.access request inbound errored this_proxy upstream_failed - - -',
      'istio.access request inbound errored - downstream_disconnected - - -',
    ],
  },
  {
    file: 'istio-envoy-text/istio_docs_and_waypoint.log',
    from: sidecar,
    lines: [
      'istio.access request outbound allowed application - - - -',
      'istio.access request inbound allowed application - - - -',
      'istio.access request inbound allowed this_proxy - - - -',
      'istio.access request inbound denied this_proxy rbac_no_match - - -',
      ...times(2, 'istio.access request inbound allowed this_proxy - - - -'),
    ],
  },
  {
    file: 'istio-envoy-text/rbac_and_authz_denials.log',
    from: sidecar,
    lines: [
      'istio.access request outbound denied this_proxy rbac_denied istio-ingress/gateway-deny-api - -',
      'istio.access request outbound allowed this_proxy - - - -',
      'istio.access request inbound denied this_proxy rbac_denied starfleet/probe-read-only - -',
      ...times(
        2,
        'istio.access request outbound denied this_proxy rbac_denied istio-ingress/api-office-only - -',
      ),
      'istio.access request inbound denied this_proxy rbac_denied starfleet/probe-deny-status - -',
      'istio.access request outbound allowed this_proxy - - - -',
      'istio.access request outbound denied this_proxy rbac_denied istio-ingress/gateway-api-office-only - -',
      'istio.access request outbound allowed this_proxy - - - -',
      ...times(4, 'istio.access request inbound denied this_proxy rbac_no_match - - -'),
      'istio.access request inbound denied this_proxy rbac_denied - - -',
      'istio.access request inbound allowed this_proxy - - - -',
      'istio.access request inbound denied this_proxy ext_authz_denied - - -',
      ...times(2, 'istio.access request outbound denied this_proxy ext_authz_denied - - -'),
      'istio.access request outbound allowed this_proxy - - - -',
      'istio.access request outbound denied this_proxy jwt_invalid - - -',
    ],
  },
  {
    file: 'istio-envoy-text/tls_and_listener_failures.log',
    from: sidecar,
    lines: [
      ...times(2, 'istio.access handshake inbound denied this_proxy plaintext_refused - - -'),
      'istio.access request outbound errored this_proxy upstream_failed - - -',
      ...times(3, 'istio.access handshake inbound denied this_proxy plaintext_refused - - -'),
      'istio.access request inbound allowed this_proxy - - - -',
      ...times(2, 'istio.access handshake inbound denied this_proxy plaintext_refused - - -'),
      'istio.access connection outbound errored this_proxy tls_handshake_failed - PARSE_TLSEXT -',
      'istio.access connection outbound errored this_proxy upstream_failed - - -',
      'istio.access request outbound errored this_proxy upstream_failed - - -',
      'istio.access connection outbound errored this_proxy tls_handshake_failed - CERTIFICATE_VERIFY_FAILED -',
    ],
  },
  {
    file: 'istio-envoy-json/elastic_integrations.jsonl',
    from: sidecar,
    lines: [
      ...times(2, 'istio.access request inbound allowed this_proxy - - - -'),
      'istio.access request - errored this_proxy protocol_error - - -',
    ],
  },
  {
    file: 'istio-envoy-json/old_string_style_1.3.jsonl',
    from: sidecar,
    lines: [
      'istio.access connection inbound allowed this_proxy - - - -',
      'istio.access connection outbound errored this_proxy upstream_failed - - -',
    ],
  },
  {
    file: 'istio-envoy-json/waypoint_rbac_denials_COMPACTED.jsonl',
    from: sidecar,
    lines: [
      'istio.access request inbound denied this_proxy rbac_denied handson/layer7-authz - -',
      'istio.access request inbound denied this_proxy rbac_no_match - - -',
    ],
  },
  {
    file: 'envoy-gateway/default_json.jsonl',
    from: gateway,
    lines: ['envoy.access request - allowed this_proxy - - - -'],
  },
  {
    file: 'k8s-audit/RECONSTRUCTED_mesh_policy.jsonl',
    from: apiServer,
    lines: [
      ...times(
        2,
        'k8s.audit policy_change - allowed api_server - prod/allow-frontend - alice@example.com',
      ),
      'k8s.audit policy_change - allowed api_server - prod/deny-external - alice@example.com',
      'k8s.audit policy_change - allowed api_server - istio-system/default - alice@example.com',
      'k8s.audit policy_change - allowed api_server - prod/web-http - alice@example.com',
      'k8s.audit policy_change - allowed api_server - prod/web - alice@example.com',
      'k8s.audit policy_change - allowed api_server - prod/default-deny - alice@example.com',
      'k8s.audit policy_change - denied api_server forbidden prod/allow-frontend - system:serviceaccount:prod:default',
      'k8s.audit policy_change - denied api_server admission_rejected rev.validation.istio.io - alice@example.com',
    ],
  },
  {
    file: 'k8s-audit/elastic_test-audit.jsonl',
    from: apiServer,
    lines: [
      'k8s.audit api_call - allowed api_server - - - system:serviceaccounts:default:default',
      'k8s.audit api_call - allowed api_server - - - system:serviceaccount:kube-system:elastic-agent',
      // GKE: another schema altogether
      'unknown other - - - unparsed - - -',
      // AKS: the event is a string inside a wrapper
      'unknown other - - - unparsed - - -',
    ],
  },
  {
    file: 'k8s-audit/falco_all.jsonl',
    from: apiServer,
    lines: [
      'k8s.audit api_call - allowed api_server - - - system:anonymous',
      'k8s.audit config_change - allowed api_server - - - minikube-user',
      'k8s.audit api_call - allowed api_server - - - minikube-user',
      ...times(6, 'k8s.audit config_change - allowed api_server - - - minikube-user'),
      ...times(9, 'k8s.audit api_call - allowed api_server - - - minikube-user'),
      'k8s.audit api_call - allowed api_server - - - admin',
      ...times(
        8,
        'k8s.audit api_call - allowed api_server - - - system:serviceaccount:kube-system:replicaset-controller',
      ),
      'k8s.audit api_call - allowed api_server - - - system:node:minikube',
      ...times(2, 'k8s.audit api_call - allowed api_server - - - minikube-user'),
      ...times(
        2,
        'k8s.audit api_call - allowed api_server - - - system:serviceaccount:kube-system:replicaset-controller',
      ),
      ...times(2, 'k8s.audit api_call - allowed api_server - - - minikube-user'),
      'k8s.audit api_call - allowed api_server - - - system:kube-controller-manager',
      ...times(3, 'k8s.audit api_call - allowed api_server - - - minikube-user'),
      ...times(3, 'k8s.audit config_change - allowed api_server - - - minikube-user'),
      ...times(7, 'k8s.audit api_call - allowed api_server - - - minikube-user'),
      // {"kind":0}, malformed on purpose
      'unknown other - - - unparsed - - -',
      'k8s.audit api_call - allowed api_server - - - minikube-user',
      'k8s.audit config_change - allowed api_server - - - minikube-user',
      'k8s.audit api_call - allowed api_server - - - some-user',
    ],
  },
  {
    file: 'k8s-audit/openshift_oauth.jsonl',
    from: apiServer,
    lines: [
      'k8s.audit api_call - denied api_server forbidden - - system:anonymous',
      'k8s.audit api_call - allowed api_server - - - system:anonymous',
    ],
  },
  {
    file: 'k8s-audit/tryhackme_wareville.jsonl',
    from: apiServer,
    lines: [
      'k8s.audit api_call - - - - - - mayor-malware',
      'k8s.audit api_call - denied api_server forbidden - - mayor-malware',
      ...times(9, 'k8s.audit api_call - allowed api_server - - - mayor-malware'),
      'k8s.audit api_call - denied api_server forbidden - - mayor-malware',
      ...times(3, 'k8s.audit api_call - allowed api_server - - - mayor-malware'),
    ],
  },
]

function times(count: number, line: string): string[] {
  return Array.from({ length: count }, () => line)
}

const present = expectations.filter(({ file }) => existsSync(join(samples, file)))
if (present.length < expectations.length) {
  console.log(`recorded lines absent: ${expectations.length - present.length} files not read`)
}

describe('recorded lines', () => {
  for (const { file, from, lines } of present) {
    test(`${file} reads as its lines say`, () => {
      const parser = new LineParser({ cluster: null, node: null })
      const text = readFileSync(join(samples, file), 'utf8').trimEnd().split('\n')
      const found = text.map((line) => {
        const e = parse(parser, line, from)
        return [
          e.source,
          e.kind,
          e.direction,
          e.verdict,
          e.decided_by,
          e.reason,
          e.policy,
          e.tls_failure,
          e.principal,
        ]
          .map((value) => value ?? '-')
          .join(' ')
      })
      expect(found).toEqual([...lines])
    })
  }

  const forged = join(samples, 'istio-envoy-text/SYNTHETIC_forged_headers.txt')
  test.skipIf(!existsSync(forged))(
    'forged headers leave the verdict, and no forged value stands',
    () => {
      const parser = new LineParser({ cluster: null, node: null })
      const lines = readFileSync(forged, 'utf8')
        .trimEnd()
        .split('\n')
        .filter((line) => line.startsWith('['))
      expect(lines.length).toBe(5)
      for (const line of lines) {
        const event = parse(parser, line, sidecar)
        expect(event.status).toBe(403)
        expect(event.reason).toBe('rbac_no_match')
        expect(['real.host', null]).toContain(event.host)
        expect(['10.0.0.2', null]).toContain(event.client_ip)
        expect(attributesOf(event)['ambiguous']).toContain('user_agent')
      }
    },
  )
})
