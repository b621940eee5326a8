/** A running agent asked over HTTP. */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import type { Format } from '../../query/formats.ts'
import { renderTable } from '../../query/table.ts'
import { messageOf, OpsError } from '../errors.ts'
import { tell, writeOut } from './output.ts'

/** @throws {OpsError} `permission` when there is no token to be had */
export function tokenFrom(file: string | null): string {
  const variable = process.env['MESHTRAIL_TOKEN']
  if (file === null) {
    if (variable !== undefined && variable !== '') return variable
    throw new OpsError('permission', 'asking an agent needs a token', {
      hint: 'give --token-file <data>/keys/token, or set MESHTRAIL_TOKEN',
    })
  }
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (cause) {
    throw new OpsError('permission', `cannot read the token ${file}: ${messageOf(cause)}`, {
      hint: 'an agent keeps its token in <data>/keys/token, readable by its own user',
      cause,
    })
  }
}

/** @throws {OpsError} `unreachable`, or what the agent answered */
export async function request(
  url: string,
  path: string,
  token: string,
  init: RequestInit,
): Promise<Response> {
  let response: Response
  try {
    const headers = new Headers(init.headers)
    headers.set('authorization', `Bearer ${token}`)
    response = await fetch(new URL(path, url), { ...init, headers })
  } catch (cause) {
    throw new OpsError('unreachable', `no agent answers at ${url}: ${messageOf(cause)}`, {
      hint: 'check that meshtrail run is up and listens there (http.listen)',
      cause,
    })
  }
  if (!response.ok) throw await problemOf(response)
  return response
}

const problemSchema = z.object({
  detail: z.string().default('the agent refused'),
  hint: z.string().default('see its log'),
  code: z.string().default(''),
})

async function problemOf(response: Response): Promise<OpsError> {
  const body: unknown = await response.json().catch(() => ({}))
  const parsed = problemSchema.safeParse(body)
  const { detail, hint, code } = parsed.success ? parsed.data : problemSchema.parse({})
  const known = [
    'usage',
    'bad_query',
    'query_refused',
    'query_limit',
    'busy',
    'permission',
  ] as const
  const own = known.find((candidate) => candidate === code)
  return new OpsError(
    own ?? (response.status === 401 ? 'unauthenticated' : 'unreachable'),
    detail,
    {
      hint,
      detail: { status: response.status },
    },
  )
}

const answerSchema = z.object({
  columns: z.array(z.object({ name: z.string(), type: z.string() })),
  rows: z.array(z.array(z.json())),
  row_count: z.number(),
  cut: z.enum(['rows', 'bytes']).optional(),
  coverage: z.object({
    complete: z.boolean(),
    agents: z.array(z.object({ origin: z.string(), status: z.string() })),
  }),
})

const mediaTypes: Readonly<Record<Format, string>> = {
  table: 'application/json',
  json: 'application/json',
  ndjson: 'application/x-ndjson',
  csv: 'text/csv',
}

export async function askAgent(
  url: string,
  token: string,
  sql: string,
  format: Format,
  limit: number | null,
  timeoutMs: number | null,
): Promise<void> {
  const response = await request(url, '/v1/query', token, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: mediaTypes[format] },
    body: JSON.stringify({
      sql,
      ...(limit === null ? {} : { limit }),
      ...(timeoutMs === null ? {} : { timeout_ms: timeoutMs }),
    }),
  })
  if (format !== 'table') {
    writeOut(await response.text())
    if (format === 'json') writeOut('\n')
    return
  }
  const answer = answerSchema.parse(await response.json())
  const end = { rowCount: answer.row_count, cut: answer.cut ?? null }
  writeOut(
    renderTable({
      columns: answer.columns,
      rows: answer.rows,
      end,
      width: process.stdout.columns ?? 120,
    }),
  )
  for (const { origin, status } of answer.coverage.agents) {
    if (status !== 'answered') tell(`${origin}: ${status}`)
  }
}
