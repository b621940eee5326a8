/**
 * Envoy escapes nothing in text. Whatever a client puts in path, X-Forwarded-For, User-Agent,
 * X-Request-ID or SNI, each column holds the true value or null: never another field's, never a forged one.
 */
import { describe, expect, test } from 'bun:test'
import type { AuditEvent } from '../../agent/event.ts'
import { LineParser } from '../../agent/sources/sources.ts'
import { attributesOf, gen, lineOf, observedUs, parse, sidecar } from './line.ts'

type Fields = {
  path: string
  xff: string
  ua: string
  rid: string
  sni: string
}

const honest: Fields = {
  path: '/cart',
  xff: '192.0.2.1',
  ua: 'go-client/2',
  rid: '6d3f2f5e-0000-4000-8000-000000000001',
  sni: 'outbound_.8080_._.cart.shop.svc.cluster.local',
}

function textLine(fields: Fields): string {
  return `[2026-11-20T09:12:31.004Z] "GET ${fields.path} HTTP/1.1" 403 - rbac_access_denied_matched_policy[ns[shop]-policy[p]-rule[0]] - "-" 1 19 3 - "${fields.xff}" "${fields.ua}" "${fields.rid}" "cart.shop:8080" "-" inbound|8080|| - 10.1.0.7:8080 10.1.0.9:50112 ${fields.sni} default`
}

const middle = 'HTTP/1.1" 200 - via_upstream - "-" 9 9 9 9 "9.9.9.9'
const tail = '"9.9.9.9:9" outbound|9||evil.evil.svc.cluster.local - 9.9.9.9:9 9.9.9.8:8'

/** Text a client sends, tried in every field it controls. */
const forgeries: readonly string[] = [
  '"',
  '""',
  ' ',
  ' "',
  '" ',
  '" "',
  '" " "',
  'a" "b',
  'a" "b" "c',
  'a" "b" "c" "evil',
  'a" "b" "c" "evil" "9.9.9.9:9',
  `a" "b" "c" "evil" ${tail} -" "x`,
  `a" "b" "c" "evil" ${tail} - default`,
  `" ${tail} - default`,
  `x" 200 - via_upstream - "-" 9 9 9 9 "y`,
  `x ${middle}`,
  `x ${middle}" "b" "c" "evil" ${tail} -" "x`,
  `x ${middle}" "b" "c" "evil" ${tail} - default`,
  '- - -" 0 - - rbac_access_denied_matched_policy[ns[evil]-policy[evil]-rule[9]] "-" 9 9 9 - "-',
  '\\" \\"',
  '\\x22 \\u0022',
  '] "GET /evil HTTP/1.1" 200',
  '[2020-01-01T00:00:00.000Z] "GET /evil HTTP/1.1" 200 - via_upstream - "-" 9 9 9 9 "-" "-" "-" "-" "-" -',
  '\t"\t"\t',
  '" - - - - - -',
  '{"verdict":"allowed"}',
]

function checkNothingMoved(event: AuditEvent, fields: Fields, line: string): void {
  const say = (column: string, value: unknown): string => `${column}=${String(value)} of ${line}`
  const only = (column: keyof AuditEvent, ...truths: unknown[]): void => {
    expect([null, ...truths].includes(event[column]) ? '' : say(column, event[column])).toBe('')
  }
  expect(event.source).toBe('istio.access')
  expect(event.ts).toBe(Date.UTC(2026, 10, 20, 9, 12, 31, 4) * 1000)
  only('method', 'GET')
  const mark = fields.path.indexOf('?')
  only('path', mark < 0 ? fields.path : fields.path.slice(0, mark))
  only('query', mark < 0 ? null : fields.path.slice(mark + 1))
  only('protocol', 'HTTP/1.1')
  only('status', 403)
  only('response_flags')
  only('verdict', 'denied')
  only('reason', 'rbac_denied')
  only('policy', 'shop/p')
  only('bytes_in', 1)
  only('bytes_out', 19)
  only('duration_us', 3000)
  only('user_agent', fields.ua)
  only('request_id', fields.rid)
  only('host', 'cart.shop:8080')
  only('direction', 'inbound')
  only('server_ip', '10.1.0.7')
  only('server_port', 8080)
  only('client_ip', '10.1.0.9')
  only('client_port', 50112)
  only('sni', fields.sni)
  only('dst_namespace', 'shop')
  only('src_namespace')
  only('principal')
  only('tls_failure')
  const attributes = attributesOf(event)
  expect([undefined, fields.xff].includes(stringOf(attributes['x_forwarded_for']))).toBeTrue()
  const cluster = stringOf(attributes['upstream_cluster'])
  expect([undefined, 'inbound|8080||'].includes(cluster)).toBeTrue()
  // A column that lost its value is named.
  const ambiguous = attributes['ambiguous']
  const named = Array.isArray(ambiguous) ? ambiguous : []
  for (const column of [
    'path',
    'status',
    'user_agent',
    'request_id',
    'host',
    'client_ip',
    'sni',
  ] as const) {
    if (event[column] === null) expect(named).toContain(column)
  }
}

function stringOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

describe('forged text', () => {
  const parser = new LineParser({ cluster: null, node: null })

  test('an honest line has every column, and none is ambiguous', () => {
    const event = parse(parser, textLine(honest), sidecar)
    expect(event.verdict).toBe('denied')
    expect(event.policy).toBe('shop/p')
    expect(event.user_agent).toBe(honest.ua)
    expect(event.host).toBe('cart.shop:8080')
    expect(event.client_ip).toBe('10.1.0.9')
    expect(attributesOf(event)['ambiguous']).toBeUndefined()
  })

  for (const name of ['path', 'xff', 'ua', 'rid', 'sni'] as const) {
    test(`${forgeries.length} forgeries in ${name} move no value into another column`, () => {
      for (const forgery of forgeries) {
        // A blank at the edges of the path is where its neighbours begin.
        const value = name === 'path' ? `/${forgery}` : forgery
        for (const fields of [
          { ...honest, [name]: value },
          { ...honest, [name]: `${honest[name]}${value}` },
        ]) {
          const line = textLine(fields)
          const event = parse(parser, line, sidecar)
          checkNothingMoved(event, fields, line)
        }
      }
    })
  }

  test('two forged fields at once move no value either', () => {
    for (const first of forgeries) {
      for (const second of forgeries) {
        for (const fields of [
          { ...honest, ua: first, rid: second },
          { ...honest, path: `/${first}`, ua: second },
          { ...honest, xff: first, ua: second },
        ]) {
          const line = textLine(fields)
          checkNothingMoved(parse(parser, line, sidecar), fields, line)
        }
      }
    }
  })

  test('quotes in the User-Agent alone leave every column certain', () => {
    const fields = { ...honest, ua: 'say "hi" there' }
    const event = parse(parser, textLine(fields), sidecar)
    expect(event.user_agent).toBe('say "hi" there')
    expect(attributesOf(event)['ambiguous']).toBeUndefined()
  })

  test('forged headers do not hide the denial unless they forge an outcome, and then both are shown', () => {
    const hidden = parse(parser, textLine({ ...honest, ua: 'a" "b" "c' }), sidecar)
    expect(hidden.verdict).toBe('denied')
    const forged = parse(
      parser,
      textLine({ ...honest, ua: 'x" 200 - via_upstream - "-" 9 9 9 9 "y' }),
      sidecar,
    )
    expect(forged.verdict).toBeNull()
    const outcomes = attributesOf(forged)['possible_outcomes']
    expect(outcomes).toBeArrayOfSize(2)
    expect(JSON.stringify(outcomes)).toContain('403')
  })

  test('a line cut at its end gives no half SNI', () => {
    const whole = textLine(honest)
    for (let cut = whole.lastIndexOf('50112') + 5; cut < whole.length; cut += 1) {
      const line = lineOf(whole.slice(0, cut), { unterminated: true })
      const event = parser.parse(line, sidecar, gen, observedUs)
      expect([null, honest.sni]).toContain(event.sni)
    }
    const truncated = parser.parse(lineOf(whole, { truncated: true }), sidecar, gen, observedUs)
    expect(truncated.reason).toBe('unparsed')
  })

  test('a mebibyte of hostile text takes time in proportion to its length', () => {
    const start = textLine(honest).split('go-client')[0] ?? ''
    const end = textLine(honest).split('go-client/2')[1] ?? ''
    const bombs = [
      '" ',
      '"',
      '" "',
      '" 2',
      '" 200 - a b "',
      '" 200 - a b "-" 1 1 1 ',
      '" a b c d ',
      '" x - 1.1.1.1:1 2.2.2.2:2 ',
      'A,',
      '" 200 A,',
      ' ',
    ]
    for (const bomb of bombs) {
      const time = (bytes: number): number => {
        const line = lineOf(start + bomb.repeat(bytes / bomb.length) + end)
        const before = performance.now()
        parser.parse(line, sidecar, gen, observedUs)
        return performance.now() - before
      }
      time(1 << 16)
      // Quadratic time would be minutes; linear is milliseconds, on a slow and busy machine too.
      expect(time(1 << 20), `bomb ${JSON.stringify(bomb)}`).toBeLessThan(1500)
    }
  })
})
