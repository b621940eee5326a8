import { describe, expect, test } from 'bun:test'
import { readLogName } from '../../agent/tail/log-name.ts'
import { podLogOf, provenanceOf, workloadOf } from '../../agent/tail/provenance.ts'

describe('a path says whose log a file is', () => {
  test.each([
    ['/var/log/pods/shop_web-7d9c5b8f6-x2k4p_1b2c-3d/istio-proxy/0.log', 'proxy', 'shop', 'web'],
    [
      './recorded/var/log/pods/shop_web-0_1b2c/envoy/12.log.20260101-120000',
      'proxy',
      'shop',
      'web',
    ],
    ['var/log/pods/shop_w-x2k4p_1/linkerd-proxy/0.log.20260101-120000.gz', 'proxy', 'shop', 'w'],
    ['/var/log/pods/shop_api_1/app/0.log', 'none', 'shop', 'api'],
    [
      '/var/log/pods/istio-system_istiod-6c86784695-fgvnt_1/discovery/0.log',
      'control_plane',
      'istio-system',
      'istiod',
    ],
    ['/var/log/pods/shop_istiod-1_2/discovery/0.log', 'none', 'shop', 'istiod'],
    [
      '/var/log/pods/istio-system_ztunnel-x2k4p_1/istio-proxy/0.log',
      'control_plane',
      'istio-system',
      'ztunnel',
    ],
    [
      '/var/log/pods/istio-system_gateway-x2k4p_1/istio-proxy/0.log',
      'proxy',
      'istio-system',
      'gateway',
    ],
    ['/var/log/pods/shop_ztunnel-x2k4p_1/istio-proxy/0.log', 'proxy', 'shop', 'ztunnel'],
    [
      '/var/log/pods/linkerd_linkerd-destination-0_1/policy/0.log',
      'control_plane',
      'linkerd',
      'linkerd-destination',
    ],
    ['/var/log/kubernetes/audit/audit.log', 'api_server', null, null],
    ['recorded/kubernetes/audit.log', 'api_server', null, null],
    ['kubernetes/audit/audit-2026-01-01T12-00-00.000.log.gz', 'api_server', null, null],
    ['/var/log/kube-apiserver/audit.log', 'api_server', null, null],
    ['/home/me/audit.log', 'none', null, null],
    ['/var/log/pods/evil_pod_1/kubernetes/audit.log', 'none', null, null],
    ['/tmp/istio-proxy/0.log', 'none', null, null],
  ] as const)('%s: %s', (path, trust, namespace, workload) => {
    expect(provenanceOf(path)).toMatchObject({ trust, namespace, workload })
  })

  test('stated trust counts before the path, and the pod is still the path’s', () => {
    const path = '/var/log/pods/shop_web-0_1/app/0.log'
    expect(provenanceOf(path, undefined, 'proxy')).toMatchObject({ trust: 'proxy', pod: 'web-0' })
    expect(provenanceOf('/x/y.log', undefined, 'api_server').trust).toBe('api_server')
  })

  test('every part of a pod path is read', () => {
    expect(
      podLogOf('/a/kube-system_kube-apiserver-n1_900118300c7497e5/kube-apiserver/3.log'),
    ).toEqual({
      namespace: 'kube-system',
      pod: 'kube-apiserver-n1',
      podUid: '900118300c7497e5',
      container: 'kube-apiserver',
      restart: 3,
    })
    expect(podLogOf('/a/shop_web_1/c/0.log.tmp')).toBeNull()
    expect(podLogOf('/a/shop_web_1/c/0.log.20260101-120000.gz.tmp')).toBeNull()
    expect(podLogOf('/a/shop-web/c/0.log')).toBeNull()
  })
})

test.each([
  ['reviews-v1-6d8bc58dd7-ts8kw', 'reviews-v1'],
  ['web-7d9c5b8f6-x2k4p', 'web'],
  ['ztunnel-x2k4p', 'ztunnel'],
  ['db-0', 'db'],
  ['db-12', 'db'],
  ['standalone', 'standalone'],
  ['my-redis-cache', 'my-redis-cache'],
  ['kube-apiserver-node1', 'kube-apiserver-node1'],
])('pod %s is of workload %s', (pod, workload) => {
  expect(workloadOf(pod)).toBe(workload)
})

test.each([
  ['0.log', '0.log', false, false],
  ['0.log.20260101-120000', '0.log', true, false],
  ['0.log.20260101-120000.gz', '0.log', true, true],
  ['0.log.gz', '0.log', true, true],
  ['abc-json.log.3', 'abc-json.log', true, false],
  ['audit.log-20260101', 'audit.log', true, false],
  ['audit-2026-01-01T12-00-00.000.log.gz', 'audit.log', true, true],
  ['audit-1767225600000000000.json', 'audit.json', true, false],
  ['web-1.log', 'web-1.log', false, false],
])('the name %s: live %s, rotated %p, gzip %p', (name, live, rotated, gzip) => {
  expect(readLogName(name)).toEqual({ live, rotated, gzip })
})
