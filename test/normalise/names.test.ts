/** The grammars of names: principals, addresses, clusters, policies, flags, certificates' headers. */
import { describe, expect, test } from 'bun:test'
import { parseAddress } from '../../agent/normalise/address.ts'
import { remember } from '../../agent/normalise/memo.ts'
import { principalOfUriSan, principalOfUser } from '../../agent/normalise/principal.ts'
import { parsePolicyId, parseRbacDenial } from '../../agent/normalise/rbac.ts'
import { parseResponseFlags } from '../../agent/normalise/response-flags.ts'
import { parseUpstreamCluster, serviceOfMeshSni } from '../../agent/normalise/upstream-cluster.ts'
import { parseXfcc } from '../../agent/normalise/xfcc.ts'

describe('principals', () => {
  const cases: readonly [string, 'spiffe' | null, string | null, string | null][] = [
    ['spiffe://cluster.local/ns/shop/sa/cart', 'spiffe', 'shop', 'cart'],
    ['spiffe://td/other/form', 'spiffe', null, null],
    ['spiffe://td', 'spiffe', null, null],
    ['https://id.example/x', null, null, null],
  ]
  for (const [uri, kind, namespace, name] of cases) {
    test(`${uri} is its own principal`, () => {
      expect(principalOfUriSan(uri)).toEqual({
        id: uri,
        kind,
        namespace,
        name,
      })
    })
  }

  test('of several URIs the only SPIFFE ID counts, and of two none', () => {
    expect(principalOfUriSan('https://a/b,spiffe://td/ns/a/sa/b')?.id).toBe('spiffe://td/ns/a/sa/b')
    expect(principalOfUriSan('spiffe://td/ns/a/sa/b,spiffe://td/ns/a/sa/c')).toBeNull()
  })

  test('what is no URI is no principal', () => {
    for (const text of ['cart', '', 'spiffe://', 'spiffe:x', 'spiffe://td/ns/a b/sa/c', 'x"y']) {
      expect(principalOfUriSan(text)).toBeNull()
    }
    expect(principalOfUriSan(`spiffe://td/${'x'.repeat(3000)}`)).toBeNull()
  })

  test('only the exact service account grammar is a service account', () => {
    expect(principalOfUser('system:serviceaccount:shop:cart')).toEqual({
      id: 'system:serviceaccount:shop:cart',
      kind: 'service_account',
      namespace: 'shop',
      name: 'cart',
    })
    for (const user of [
      'system:anonymous',
      'system:node:n1',
      'system:serviceaccounts:a:b',
      'system:serviceaccount:a',
      'system:serviceaccount:a:b:c',
      'alice@example.com',
    ]) {
      expect(principalOfUser(user)).toMatchObject({ kind: 'user', namespace: null, name: user })
    }
  })
})

test('addresses are split without brackets, and what has no IP is null', () => {
  const cases: readonly [string, string | null, number | null, boolean][] = [
    ['10.0.0.1:80', '10.0.0.1', 80, true],
    ['10.0.0.1:080', '10.0.0.1', 80, false],
    ['10.0.0.1:0', '10.0.0.1', null, false],
    ['10.0.0.1', '10.0.0.1', null, false],
    ['[2a02:cf40::7]:3000', '2a02:cf40::7', 3000, true],
    ['[fe80::1%eth0]:1', 'fe80::1%eth0', 1, true],
    ['[::1]', '::1', null, false],
    ['2a02:cf40::7', '2a02:cf40::7', null, false],
    ['envoy://connect_originate/10.0.0.1:80', '10.0.0.1', 80, false],
    ['envoy://internal_client_address/', null, null, false],
    ['envoy://a/envoy://b/10.0.0.1:80', null, null, false],
    ['envoy://inbound-pod|9080||10.244.2.9/', null, null, false],
    ['/var/run/x.sock', null, null, false],
    ['@abstract', null, null, false],
    ['host.example:80', null, null, false],
    ['10.0.0.256:80', null, null, false],
    ['10.0.0:80', null, null, false],
    ['10.0.0.1:65536', null, null, false],
    ['10.0.0.1:8a', null, null, false],
    ['10.0.0.1:', null, null, false],
    ['[::1]80', null, null, false],
    ['[', null, null, false],
    ['', null, null, false],
  ]
  for (const [text, ip, port, exact] of cases) {
    expect({ text, address: parseAddress(text) }).toEqual({
      text,
      address: ip === null ? null : { ip, port, exact },
    })
  }
})

function clusterOf(text: string): unknown[] {
  const c = parseUpstreamCluster(text)
  return [c.istio, c.direction, c.waypoint, c.blackHole, c.service, c.namespace]
}

test('clusters say direction, service and namespace', () => {
  const host = 'reviews.default.svc.cluster.local'
  expect(clusterOf(`outbound|9080|v1|${host}`)).toEqual([
    true,
    'outbound',
    false,
    false,
    host,
    'default',
  ])
  expect(clusterOf('inbound|8080||')).toEqual([true, 'inbound', false, false, null, null])
  expect(clusterOf('inbound|8080||;')).toEqual([true, 'inbound', false, false, null, null])
  expect(clusterOf(`inbound-vip|80|http/v1|${host}`)).toEqual([
    true,
    'inbound',
    true,
    false,
    host,
    'default',
  ])
  expect(clusterOf('outbound|443||pay.example')).toEqual([
    true,
    'outbound',
    false,
    false,
    'pay.example',
    null,
  ])
  expect(clusterOf('BlackHoleCluster')).toEqual([true, 'outbound', false, true, null, null])
  expect(clusterOf('PassthroughCluster')).toEqual([true, 'outbound', false, false, null, null])
  expect(clusterOf('InboundPassthroughClusterIpv6')).toEqual([
    true,
    'inbound',
    false,
    false,
    null,
    null,
  ])
  for (const other of [
    'payments',
    'httproute/a/b/rule/0',
    'outbound|x||h',
    'outbound|1|',
    'sideways|1||h',
  ]) {
    expect(clusterOf(other)).toEqual([false, null, false, false, null, null])
  }
  expect(serviceOfMeshSni('outbound_.8000_.v1_.a.b.svc.cluster.local')).toEqual({
    host: 'a.b.svc.cluster.local',
    namespace: 'b',
  })
  expect(serviceOfMeshSni('shop.example')).toBeNull()
})

function denialOf(details: string): unknown {
  const d = parseRbacDenial(details)
  return d === null ? null : [d.reason, d.policy, d.policyKind, d.rule]
}

test('RBAC words name policy, kind and rule', () => {
  const prefix = 'rbac_access_denied_matched_policy'
  expect(denialOf(`${prefix}[none]`)).toEqual(['rbac_no_match', null, null, null])
  expect(denialOf('rbac_access_denied')).toEqual(['rbac_denied', null, null, null])
  expect(denialOf(`${prefix}[ns[a]-policy[b]-rule[12]]`)).toEqual([
    'rbac_denied',
    'a/b',
    'AuthorizationPolicy',
    '12',
  ])
  expect(
    denialOf(`${prefix}[istio-ext-authz-ns[a]-policy[b]-rule[0]-deny-due-to-bad-CUSTOM-action]`),
  ).toEqual(['rbac_denied', 'a/b', 'AuthorizationPolicy', '0'])
  expect(denialOf(`${prefix}[ns[a]-policy[converted_peer_authentication_b]-rule[0]]`)).toEqual([
    'rbac_denied',
    'a/b',
    'PeerAuthentication',
    '0',
  ])
  expect(denialOf(`${prefix}[mine]`)).toEqual(['rbac_denied', null, null, 'mine'])
  for (const other of ['via_upstream', `${prefix}[x`, `x${prefix}[none]`, 'rbac_access_denied_x']) {
    expect(denialOf(other)).toBeNull()
  }
  expect(parsePolicyId('ns[a]-policy[istio_converted_static_strict]-rule[0]').policyKind).toBe(
    'PeerAuthentication',
  )
})

test('response flags are a set, and the most telling one decides', () => {
  expect(parseResponseFlags('URX,UF')).toMatchObject({ sorted: 'UF,URX', exact: false })
  expect(parseResponseFlags('UF,URX')).toMatchObject({ sorted: 'UF,URX', exact: true })
  expect(parseResponseFlags('DC,UAEX').failure?.reason).toBe('ext_authz_denied')
  expect(parseResponseFlags('UT').failure?.reason).toBe('timeout')
  expect(parseResponseFlags('DI').failure).toBeNull()
  expect(parseResponseFlags('MY_OWN')).toMatchObject({ sorted: 'MY_OWN', failure: null })
})

test('X-Forwarded-Client-Cert is read hop by hop, quotes and all', () => {
  expect(
    parseXfcc(
      'By=spiffe://a;Hash=0f;Subject="CN=x, O=\\"y;z\\"";URI=spiffe://b;DNS=d1;DNS=d2,by=c;uri=',
    ),
  ).toEqual([
    {
      by: ['spiffe://a'],
      uri: ['spiffe://b'],
      dns: ['d1', 'd2'],
      hash: '0f',
      subject: 'CN=x, O="y;z"',
    },
    { by: ['c'], uri: [''], dns: [], hash: null, subject: null },
  ])
  for (const broken of [
    '',
    'x',
    'By',
    'By="a',
    'By=a;',
    'By=a,',
    'By=a=b',
    'By=a"b',
    '=a',
    'By="a"b',
  ]) {
    expect({ broken, elements: parseXfcc(broken) }).toEqual({ broken, elements: null })
  }
  expect(parseXfcc('By=a,'.repeat(1000))).toBeNull()
})

test('remembering is bounded and changes no answer', () => {
  let computed = 0
  const length = remember(10, (text) => {
    computed += 1
    return text.length
  })
  for (let round = 0; round < 3; round += 1) expect(length('abc')).toBe(3)
  expect(computed).toBe(1)
  for (let index = 0; index < 10; index += 1) length(`k${index}`)
  expect(length('abc')).toBe(3)
  expect(computed).toBe(12)
  expect(length('x'.repeat(5000))).toBe(5000)
})
