/** One line, one event: recognition, provenance, hostile JSON, and what the event keeps of its line. */
import { describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { LineParser } from '../../agent/sources/sources.ts'
import type { Provenance } from '../../agent/tail/chunk.ts'
import {
  anyPod,
  apiServer,
  attributesOf,
  columnsOf,
  gateway,
  gen,
  lineOf,
  objectOf,
  observedUs,
  parse,
  sidecar,
} from './line.ts'

const folder = join(import.meta.dir, '../golden/sources')
const goldenLines = readdirSync(folder)
  .filter((file) => file.endsWith('.log'))
  .flatMap((file) => readFileSync(join(folder, file), 'utf8').trimEnd().split('\n'))

function newParser(): LineParser {
  return new LineParser({ cluster: 'c1', node: 'n1' })
}

function firstLine(name: string): string {
  return readFileSync(join(folder, `${name}.log`), 'utf8').split('\n')[0] ?? ''
}

const envoyLine = firstLine('envoy-json')
const auditLine = firstLine('k8s-audit')

function envoyWith(extra: string): string {
  return `${envoyLine.slice(0, -1)},${extra}}`
}

describe('the event of a line', () => {
  test('borrows the raw bytes and carries ranges, generation, stream and reporter', () => {
    const line = lineOf(envoyLine, { ranges: [100, 900, 1100, 60], stream: 'stderr' })
    const event = newParser().parse(line, sidecar, gen, observedUs)
    expect(event.rawBuffer).toBe(line.rawBuffer)
    expect([event.rawStart, event.rawEnd]).toEqual([line.rawStart, line.rawEnd])
    expect(event.ranges).toEqual([100, 900, 1100, 60])
    expect(event.stream).toBe('stderr')
    expect(event.gen).toBe(gen)
    expect(event.observed_ts).toBe(observedUs)
    expect([event.cluster, event.node]).toEqual(['c1', 'n1'])
    expect([event.namespace, event.pod, event.container, event.workload]).toEqual([
      'shop',
      'cart-7d4f8b9c5-x2x7k',
      'istio-proxy',
      'cart',
    ])
  })

  test('of an unknown format is unparsed, keeps its bytes, and takes the time of the wrapper', () => {
    for (const content of [
      '',
      'hello',
      '{',
      '[',
      '{}',
      '[]',
      'null',
      '{"a":1}',
      '[x] "GET / HTTP/1.1"',
    ]) {
      const line = lineOf(content, { wrapperUs: 42 })
      const event = newParser().parse(line, sidecar, gen, observedUs)
      expect(columnsOf(event)).toEqual({
        ts: 42,
        source: 'unknown',
        kind: 'other',
        reason: 'unparsed',
      })
      expect(event.rawBuffer).toBe(line.rawBuffer)
    }
  })

  test('does not depend on the lines before it', () => {
    const alone = goldenLines.map((line) => columnsOf(parse(newParser(), line, sidecar)))
    const parser = newParser()
    const forward = goldenLines.map((line) => columnsOf(parse(parser, line, sidecar)))
    const backward = goldenLines
      .toReversed()
      .map((line) => columnsOf(parse(parser, line, sidecar)))
      .toReversed()
    expect(forward).toEqual(alone)
    expect(backward).toEqual(alone)
  })

  test('does not depend on the order of keys', () => {
    const object = objectOf(envoyLine)
    const turned = JSON.stringify(Object.fromEntries(Object.entries(object).toReversed()))
    expect(columnsOf(parse(newParser(), turned, sidecar))).toEqual(
      columnsOf(parse(newParser(), envoyLine, sidecar)),
    )
  })
})

describe('provenance', () => {
  const identity = [
    'verdict',
    'decided_by',
    'policy',
    'policy_kind',
    'policy_rule',
    'principal',
    'principal_kind',
    'principal_namespace',
    'principal_name',
    'end_user',
    'end_user_issuer',
    'on_behalf_of',
    'src_namespace',
    'src_workload',
    'dst_principal',
    'change',
  ] as const
  const trusts = ['proxy', 'control_plane', 'api_server', 'none'] as const

  test('every known line from a place that may not claim it has no verdict and no identity', () => {
    const parser = newParser()
    let untrusted = 0
    for (const line of goldenLines) {
      for (const trust of trusts) {
        const from: Provenance = { ...sidecar, trust }
        const event = parse(parser, line, from)
        if (event.reason === 'unparsed') continue
        const mayClaim =
          event.source === 'k8s.audit'
            ? trust === 'api_server'
            : trust === 'proxy' || trust === 'control_plane'
        expect(event.reason === 'untrusted_source').toBe(!mayClaim)
        if (mayClaim) continue
        untrusted += 1
        for (const column of identity) expect(`${column}=${event[column]}`).toBe(`${column}=null`)
        expect(['policy_change', 'config_change']).not.toContain(event.kind)
      }
    }
    expect(untrusted).toBeGreaterThan(100)
  })

  test('what an untrusted line claimed stays in its attributes', () => {
    const audit = attributesOf(parse(newParser(), auditLine, sidecar))
    expect(audit['user']).toEqual({
      username: 'alice@example.com',
      groups: ['system:authenticated'],
    })
    expect(audit['responseObject']).toBeDefined()
    const envoy = attributesOf(parse(newParser(), envoyLine, anyPod))
    expect(envoy['downstream_peer_uri_san']).toBe('spiffe://cluster.local/ns/web/sa/front')
  })

  test('X-Forwarded-Client-Cert counts on an inbound sidecar, not on a gateway or outbound', () => {
    const xfcc =
      '"x_forwarded_client_cert":"By=spiffe://td/ns/shop/sa/cart;URI=spiffe://td/ns/a/sa/b"'
    const { downstream_peer_uri_san: _, ...object } = objectOf(envoyLine)
    const plain = JSON.stringify(object)
    const inbound = `${plain.slice(0, -1)},${xfcc}}`
    expect(parse(newParser(), inbound, sidecar).principal).toBe('spiffe://td/ns/a/sa/b')
    expect(parse(newParser(), inbound, gateway).principal).toBeNull()
    for (const cluster of ['outbound|80||x.y.svc.cluster.local', 'inbound-vip|80|http|x.y.svc.a']) {
      const line = inbound.replace('"inbound|8080||"', JSON.stringify(cluster))
      expect(parse(newParser(), line, sidecar).principal).toBeNull()
    }
  })

  test('an SNI names no service of another namespace', () => {
    const line = envoyLine.replaceAll('cart.shop.svc', 'vault.bank.svc')
    expect(parse(newParser(), line, sidecar).dst_service).toBeNull()
    expect(parse(newParser(), envoyLine, sidecar).dst_service).toBe('cart.shop.svc.cluster.local')
  })
})

describe('hostile JSON', () => {
  test('never throws, never pollutes a prototype, always gives one event', () => {
    const deep = 200_000
    const bombs = [
      `${'{"a":'.repeat(deep)}1${'}'.repeat(deep)}`,
      envoyWith(`"x":${'['.repeat(deep)}${']'.repeat(deep)}`),
      envoyWith(`"x":${'{"a":'.repeat(deep)}1${'}'.repeat(deep)}`),
      `${auditLine.slice(0, -1)},"requestObject":${'{"a":'.repeat(deep)}1${'}'.repeat(deep)}}`,
      `${auditLine.slice(0, -1)},"responseStatus":${'{"a":'.repeat(deep)}{}${'}'.repeat(deep)}}`,
      envoyWith('"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}'),
      `${auditLine.slice(0, -1)},"__proto__":{"polluted":1},"user":{"__proto__":{"polluted":1},"username":"u"}}`,
      envoyWith('"bytes_sent":1e999,"duration":-1e308,"response_code":99999999999999999999'),
      envoyWith('"method":{"toString":1},"path":["/"],"response_flags":7,"start_time":{}'),
      envoyWith('"toString":null,"hasOwnProperty":1,"valueOf":"x"'),
      `{${Array.from({ length: 50_000 }, (_, i) => `"k${i}":${i}`).join(',')}}`,
      `{"auditID":"a","verb":"get","stage":"ResponseComplete","user":7,"objectRef":[],"sourceIPs":[1,{}],"responseStatus":"x","annotations":3}`,
    ]
    const parser = newParser()
    for (const bomb of bombs) {
      const before = performance.now()
      for (const from of [sidecar, apiServer, anyPod]) {
        const event = parse(parser, bomb, from)
        expect(event.source.length).toBeGreaterThan(0)
        if (event.attributes !== null) JSON.parse(event.attributes)
      }
      // JSON.stringify alone needs two seconds to overflow on the deep ones.
      expect(performance.now() - before, bomb.slice(0, 60)).toBeLessThan(1500)
    }
    expect('polluted' in {}).toBeFalse()
  })

  test('a body nested too deep costs its depths, not the event', () => {
    const body = `${'{"a":'.repeat(5000)}1${'}'.repeat(5000)}`
    const line = `${auditLine.slice(0, -1)},"requestObject":{"spec":${body}},"responseObject":null}`
    const event = parse(newParser(), line, apiServer)
    expect(event.kind).toBe('policy_change')
    expect(event.principal).toBe('alice@example.com')
    expect(event.change).toContain('nested too deep')
  })

  test('values out of range leave their column null and stay in attributes', () => {
    const line = envoyWith(
      '"response_code":-5,"bytes_sent":1.5,"duration":"12x","bytes_received":"007"',
    )
    const event = parse(newParser(), line, sidecar)
    expect([event.status, event.bytes_out, event.duration_us]).toEqual([null, null, null])
    expect(event.bytes_in).toBe(7)
    expect(attributesOf(event)).toMatchObject({
      response_code: -5,
      bytes_sent: 1.5,
      duration: '12x',
      bytes_received: '007',
    })
  })

  test('response flags of nothing but commas leave the column null, not empty', () => {
    const event = parse(newParser(), envoyWith('"response_flags":","'), sidecar)
    expect(event.response_flags).toBeNull()
    expect(attributesOf(event)['response_flags']).toBe(',')
  })

  test('of repeated keys the last counts, as JSON.parse has it', () => {
    expect(parse(newParser(), envoyWith('"method":"PUT"'), sidecar).method).toBe('PUT')
  })

  test('lone surrogates become replacement characters in columns and in attributes', () => {
    const event = parse(newParser(), envoyWith('"user_agent":"a\\ud800b"'), sidecar)
    expect(event.user_agent).toBe('a\ufffdb')
    expect(attributesOf(event)['user_agent']).toBe('a\ufffdb')
    const escaped = parse(
      newParser(),
      envoyWith('"user_agent":"a\\\\ud800b\\ud800\\ud801"'),
      sidecar,
    )
    expect(attributesOf(escaped)['user_agent']).toBe('a\\ud800b\ufffd\ufffd')
    const audit = auditLine.replace('"kubectl/v1.31.0"', '"\\udfff"').replace('alice', '\\ud83d')
    const call = parse(newParser(), audit, apiServer)
    expect([call.user_agent, call.principal]).toEqual(['\ufffd', '\ufffd@example.com'])
    expect(attributesOf(call)['user']).toMatchObject({ username: '\ufffd@example.com' })
    // The name of a webhook comes out of a message, and is a column too.
    const rejected = goldenLines
      .find((line) => line.includes('rev.validation.istio.io'))
      ?.replace('rev.validation', '\\ud800')
    expect(parse(newParser(), rejected ?? '', apiServer).policy).toBe('\ufffd.istio.io')
  })

  test('values of Secrets and tokens reach neither change nor attributes, whoever prints them', () => {
    const parser = newParser()
    let secrets = 0
    for (const line of goldenLines.filter((text) => text.includes('SECRETVALUE'))) {
      secrets += 1
      for (const from of [apiServer, sidecar, anyPod]) {
        const event = parse(parser, line, from)
        expect(event.source).toBe('k8s.audit')
        expect(`${event.change} ${event.attributes}`).not.toContain('SECRETVALUE')
      }
    }
    expect(secrets).toBeGreaterThanOrEqual(4)
  })
})

describe('attributes', () => {
  /** Every scalar of the line is in a column or, unchanged, in attributes. */
  test('hold whatever no column holds, unchanged but for half characters', () => {
    const parser = newParser()
    for (const line of goldenLines.filter((text) => text.startsWith('{"start_time"'))) {
      const event = parse(parser, line, sidecar)
      const columns = columnsOf(event)
      const attributes = attributesOf(event)
      const held = new Set(Object.values(columns).map(String))
      held.add(`${event.path}?${event.query}`)
      held.add(`${event.client_ip}:${event.client_port}`)
      held.add(`[${event.client_ip}]:${event.client_port}`)
      held.add(`${event.server_ip}:${event.server_port}`)
      held.add(`[${event.server_ip}]:${event.server_port}`)
      held.add(String((event.duration_us ?? 0) / 1000))
      if (event.ts !== null) held.add(new Date(event.ts / 1000).toISOString())
      if (event.status === null) held.add('0')
      for (const [key, value] of Object.entries(objectOf(line))) {
        if (value === null || value === '-' || value === '') continue
        const text = typeof value === 'string' ? value : JSON.stringify(value)
        const kept = typeof value === 'string' ? value.toWellFormed() : value
        if (key in attributes) expect(attributes[key]).toEqual(kept)
        else expect(held.has(text) ? '' : `${key}=${text} in ${line}`).toBe('')
      }
    }
  })

  test('are null when every field has its column', () => {
    const event = parse(
      newParser(),
      '[2026-11-20T09:12:31.004Z] "GET / HTTP/1.1" 200 - 1 2 3 - "-" "a" "b" "c" "10.0.0.1:80"',
      gateway,
    )
    expect(event.source).toBe('envoy.access')
    expect(event.attributes).toBeNull()
  })
})

test('the rest of a line that was handed out unterminated is kept, never believed', () => {
  const line = { ...lineOf(auditLine), continuation: true as const }
  const event = newParser().parse(line, apiServer, 'ab'.repeat(16), 1)
  expect([event.reason, event.principal, event.verdict]).toEqual(['unparsed', null, null])
})
