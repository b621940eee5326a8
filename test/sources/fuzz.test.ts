/**
 * Damaged lines: whatever the bytes are, one event comes out, nothing throws, and time is bounded.
 *
 * `FUZZ_LINES` raises the number of lines (50,000), `FUZZ_SEED` repeats a run.
 */
import { expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { reasons } from '../../agent/event.ts'
import { LineParser } from '../../agent/sources/sources.ts'
import { anyPod, apiServer, gateway, gen, lineOf, observedUs, sidecar } from './line.ts'

const linesCount = Number(process.env['FUZZ_LINES'] ?? 50_000)
const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)

/** mulberry32 */
function randomOf(start: number): () => number {
  let state = start >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const tokens = [
  '"',
  '" "',
  '\\',
  '\\u0000',
  '\\ud800',
  '-',
  ' - ',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  'null',
  '0',
  '-1',
  '1e999',
  '"__proto__"',
  '|',
  '||',
  'outbound|80||a.b.svc.cluster.local',
  'inbound-vip|1|http|x',
  'rbac_access_denied_matched_policy[',
  'ns[a]-policy[b]-rule[0]',
  'TLS_error:|1:a:b:C:TLS_error_end',
  '|268435581:SSL_routines:OPENSSL_internal:',
  'spiffe://td/ns/a/sa/b',
  'By=x;URI=y,',
  'envoy://',
  '[::1]:80',
  '9999-99-99T99:99:99.999Z',
  'HTTP/1.1" 200 - via_upstream - "-" 0 0 0 0 "',
  '\u0000',
  '\ufffd',
  '😀',
  '"kind":"Event",',
  '"auditID":',
  '"requestObject":',
]

const folder = join(import.meta.dir, '../golden/sources')
const lines = readdirSync(folder)
  .filter((file) => file.endsWith('.log'))
  .flatMap((file) => readFileSync(join(folder, file), 'utf8').trimEnd().split('\n'))
const provenances = [sidecar, gateway, apiServer, anyPod]

test(`${linesCount} damaged lines give ${linesCount} events (FUZZ_SEED=${seed})`, () => {
  const random = randomOf(seed)
  const below = (limit: number): number => Math.floor(random() * limit)
  const decoder = new TextDecoder()
  const parser = new LineParser({ cluster: null, node: null })
  const known = new Set<string | null>([null, ...reasons])
  let slowestMs = 0
  let parsed = 0

  const damage = (line: string): string => {
    let text = line
    for (let times = 1 + below(4); times > 0; times -= 1) {
      const at = below(text.length + 1)
      switch (below(6)) {
        case 0: {
          const bytes = new TextEncoder().encode(text)
          const flip = below(bytes.length)
          bytes[flip] = (bytes[flip] ?? 0) ^ (1 << below(8))
          text = decoder.decode(bytes)
          break
        }
        case 1:
          text = text.slice(0, at) + (tokens[below(tokens.length)] ?? '') + text.slice(at)
          break
        case 2:
          text = text.slice(0, at) + text.slice(at + below(40))
          break
        case 3: {
          const other = lines[below(lines.length)] ?? ''
          text = text.slice(0, at) + other.slice(below(other.length))
          break
        }
        case 4:
          text = text.replace(/"[^"]*"/, `"${tokens[below(tokens.length)]?.replaceAll('"', '')}"`)
          break
        default: {
          // Swap a value of a JSON line for one of another type.
          const swapped = ['{}', '[]', 'true', '1e400', '"-"', '{"a":{"b":[1]}}'][below(6)] ?? ''
          text = text.replace(/:(?:\d+|null|"[^"\\]*")(?=,)/, `:${swapped}`)
        }
      }
    }
    return text
  }

  for (let count = 0; count < linesCount; count += 1) {
    // The decoder reads UTF-8: halves of a character come only from escapes.
    const content = damage(lines[below(lines.length)] ?? '').toWellFormed()
    const line = lineOf(content, { unterminated: below(10) === 0 })
    const from = provenances[below(provenances.length)] ?? sidecar
    const label = `seed ${seed}, line ${count}: ${JSON.stringify(content)}`
    const before = performance.now()
    let event
    try {
      event = parser.parse(line, from, gen, observedUs)
    } catch (thrown) {
      throw new Error(`threw on ${label}`, { cause: thrown })
    }
    slowestMs = Math.max(slowestMs, performance.now() - before)
    if (event.reason !== 'unparsed') parsed += 1

    const wrong = (what: string): never => {
      throw new Error(`${what}: ${label}`)
    }
    if (event.rawBuffer !== line.rawBuffer || event.ranges !== line.ranges) wrong('lost its bytes')
    if (!known.has(event.reason)) wrong(`unknown reason ${event.reason}`)
    if (from.trust === 'none' && (event.verdict !== null || event.principal !== null)) {
      wrong('an untrusted line made a claim')
    }
    if (event.source === 'k8s.audit' && from.trust !== 'api_server' && event.verdict !== null) {
      wrong('a pod spoke for the API server')
    }
    for (const [column, value] of Object.entries(event)) {
      if (typeof value === 'string') {
        if (value === '' && column !== 'stream') wrong(`${column} is empty`)
        if (!value.isWellFormed()) wrong(`${column} is not UTF-8`)
      } else if (typeof value === 'number' && !Number.isSafeInteger(value)) {
        wrong(`${column} is ${value}`)
      }
    }
    for (const json of [event.attributes, event.change]) if (json !== null) JSON.parse(json)
  }

  // A fuzzer whose every line is refused at the first byte tests nothing.
  expect(parsed).toBeGreaterThan(linesCount / 5)
  expect(slowestMs).toBeLessThan(1000)
}, 300_000)
