/**
 * Golden pairs: `<name>.log` and, in `<name>.json`, the columns of each line. The lines were composed
 * by hand from the documented formats. `UPDATE_GOLDEN=1` rewrites the expectations: read the difference.
 */
import { describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { LineParser } from '../../agent/sources/sources.ts'
import type { Provenance } from '../../agent/tail/chunk.ts'
import { anyPod, apiServer, columnsOf, gateway, parse, sidecar } from './line.ts'

const folder = join(import.meta.dir, '../golden/sources')
const names = readdirSync(folder)
  .filter((file) => file.endsWith('.log'))
  .map((file) => file.slice(0, -4))

function provenanceOf(name: string): Provenance {
  if (name.startsWith('k8s-audit')) return apiServer
  if (name.startsWith('envoy-gateway')) return gateway
  return name.startsWith('untrusted-pod') ? anyPod : sidecar
}

describe('golden pairs', () => {
  test('there are some', () => {
    expect(names.length).toBeGreaterThanOrEqual(6)
  })

  for (const name of names) {
    test(`${name}.log reads as ${name}.json says`, () => {
      const parser = new LineParser({ cluster: 'c1', node: 'n1' })
      const lines = readFileSync(join(folder, `${name}.log`), 'utf8')
        .trimEnd()
        .split('\n')
      const events = lines.map((line) => columnsOf(parse(parser, line, provenanceOf(name))))
      const path = join(folder, `${name}.json`)
      if (process.env['UPDATE_GOLDEN'] === '1') {
        writeFileSync(path, `${JSON.stringify(events, null, 1)}\n`)
      }
      const expected: unknown = JSON.parse(readFileSync(path, 'utf8'))
      if (!Array.isArray(expected)) throw new Error(`${path} is no list`)
      expect(events.length).toBe(expected.length)
      for (const [index, event] of events.entries()) {
        const found: unknown = { line: index + 1, event }
        const wanted: unknown = expected[index]
        expect(found).toEqual({ line: index + 1, event: wanted })
      }
    })
  }
})
