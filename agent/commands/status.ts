/** `meshtrail status`: of a directory what it holds, of an agent how it is doing. */
import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { z } from 'zod'
import { listLog } from '../store/list.ts'
import { isLocked } from '../store/lock.ts'
import { formatBytes, formatCount } from '../terminal/units.ts'
import { facts, writeJson, writeOut } from './output.ts'
import { request, tokenFrom } from './remote.ts'

export type StatusOptions = {
  readonly data: string
  readonly url: string | null
  readonly tokenFile: string | null
  readonly json: boolean
}

export async function status(options: StatusOptions): Promise<void> {
  if (options.url !== null) {
    await agentStatus(options.url, tokenFrom(options.tokenFile), options.json)
    return
  }
  const root = resolve(options.data)
  const { origin, vkey, files } = listLog(root)
  const bytes = [...files.segments, ...files.parts].reduce(
    (sum, path) => sum + statSync(path).size,
    0,
  )
  const summary = {
    origin,
    vkey,
    data: root,
    agent_running: isLocked(root),
    segments: files.segments.length,
    parts: files.parts.length,
    bytes,
  }
  if (options.json) {
    writeJson(summary)
    return
  }
  writeOut(
    facts([
      ['log', origin],
      ['key', vkey],
      ['data', root],
      [
        'agent',
        summary.agent_running ? 'running on this directory (--url asks it)' : 'not running',
      ],
      ['files', `${summary.segments} segments, ${summary.parts} parts, ${formatBytes(bytes)}`],
    ]),
  )
}

const statusSchema = z.looseObject({
  origin: z.string(),
  version: z.string(),
  size: z.number(),
  buffered: z.number(),
  lag_bytes: z.number(),
  open_files: z.number(),
  segments: z.number(),
  parts: z.number(),
  bytes_used: z.number(),
  bytes_max: z.number(),
  gaps: z.number(),
  unparsed: z.number(),
  findings: z.number(),
  rules: z.number(),
  stuck: z.string().nullable(),
})

async function agentStatus(url: string, token: string, json: boolean): Promise<void> {
  const response = await request(url, '/v1/status', token, {})
  const body = statusSchema.parse(await response.json())
  if (json) {
    writeJson(body)
    return
  }
  writeOut(
    facts([
      ['log', body.origin],
      ['version', body.version],
      ['events', `${formatCount(body.size)} committed, ${formatCount(body.buffered)} waiting`],
      ['lag', `${formatBytes(body.lag_bytes)} in ${body.open_files} files`],
      ['files', `${body.segments} segments, ${body.parts} parts`],
      ['disk', `${formatBytes(body.bytes_used)} of ${formatBytes(body.bytes_max)}`],
      ['gaps', formatCount(body.gaps)],
      ['unparsed', `${formatCount(body.unparsed)} since the start`],
      ['findings', `${formatCount(body.findings)} since the start, ${body.rules} rules`],
      ['commits', body.stuck ?? 'going through'],
    ]),
  )
}
