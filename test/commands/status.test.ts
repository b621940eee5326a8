import { afterAll, beforeAll, expect, test } from 'bun:test'
import { appendFileSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { NodeFolder, type RunningNode, startNode } from '../end-to-end/node.ts'
import { criLine } from '../faults/lines.ts'
import { meshtrail, meshtrailOk } from './command.ts'

let folder: NodeFolder
let node: RunningNode

beforeAll(async () => {
  folder = new NodeFolder('status')
  node = await startNode(folder)
  appendFileSync(folder.podLog('payments-1'), `${criLine(0)}${criLine(1)}no access log\n`)
  await node.query('SELECT 1')
}, 60_000)
afterAll(async () => {
  await node[Symbol.asyncDispose]()
  folder[Symbol.dispose]()
})

function agentArgs(): string[] {
  return ['status', '--url', node.url, '--token-file', join(folder.data, 'keys/token')]
}

test('status of a running agent says what it holds, what it lags behind, and that commits go through', async () => {
  const text = await meshtrailOk(agentArgs())
  expect(text).toMatch(/^events +\d+ committed/m)
  expect(text).toMatch(/^lag +0 B in 1 files$/m)
  expect(text).toMatch(/^gaps +0$/m)
  expect(text).toMatch(/^unparsed +1 since the start$/m)
  expect(text).toMatch(/^commits +going through$/m)
  const json = z
    .object({ lines: z.number(), unparsed: z.number(), stuck: z.null(), findings: z.number() })
    .parse(JSON.parse(await meshtrailOk([...agentArgs(), '--json'])))
  expect(json).toEqual({ lines: 3, unparsed: 1, stuck: null, findings: 1 })
})

test('status of a directory says whose it is, and whether an agent runs on it', async () => {
  const schema = z.object({ agent_running: z.boolean(), origin: z.string(), vkey: z.string() })
  const ask = async (): Promise<z.infer<typeof schema>> =>
    schema.parse(JSON.parse(await meshtrailOk(['status', '--data', folder.data, '--json'])))
  const running = await ask()
  expect(running.agent_running).toBe(true)
  expect(running.vkey).toBe(readFileSync(join(folder.data, 'log/vkey'), 'utf8').trimEnd())
  expect(await meshtrailOk(['status', '--data', folder.data])).toContain('--url')
  await node.stop()
  expect(await ask()).toEqual({ ...running, agent_running: false })
}, 30_000)

test('an agent that cannot see its logs says which directory, and goes on', async () => {
  rmSync(folder.pods, { recursive: true })
  await using blind = await startNode(folder)
  await blind.query('SELECT 1')
  expect(blind.stderr).toContain(folder.pods)
  appendFileSync(folder.podLog('later-1'), criLine(7))
  const { rows } = await blind.query(`SELECT count(*) FROM events WHERE request_id = 'line-7'`)
  expect(rows).toEqual([[1]])
  await blind.stop()
}, 30_000)

test('status of an agent that is not there ends with exit status 69', async () => {
  const { status, stderr } = await meshtrail([
    'status',
    '--url',
    'http://127.0.0.1:1',
    '--token-file',
    join(folder.data, 'keys/token'),
  ])
  expect([status, stderr]).toEqual([69, expect.stringContaining('hint:')])
})
