/** Failures as RFC 9457 `application/problem+json`: one shape for every error of the HTTP interface. */
import { OpsError, type OpsErrorCode } from '../agent/errors.ts'

export type Problem = {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly hint: string
  readonly code: OpsErrorCode | 'not_acceptable' | 'too_large' | 'internal'
}

const httpOfCode: Readonly<Record<OpsErrorCode, readonly [status: number, title: string]>> = {
  usage: [400, 'The request is not understood'],
  not_found: [404, 'Not found'],
  bad_query: [400, 'The query is wrong'],
  query_refused: [403, 'The query is not allowed'],
  query_limit: [422, 'The query went over a limit'],
  query_failed: [500, 'The query failed'],
  forged: [500, 'Evidence is forged'],
  incomplete: [500, 'Evidence is incomplete'],
  corrupt_input: [400, 'The input is damaged'],
  unreachable: [502, 'An agent is unreachable'],
  busy: [503, 'Too many queries'],
  disk: [500, 'The disk failed'],
  disk_full: [507, 'The disk is full'],
  permission: [403, 'Not permitted'],
  unauthenticated: [401, 'No valid token'],
  in_use: [409, 'In use'],
  configuration: [500, 'The configuration is wrong'],
}

export function problemOf(thrown: unknown): Problem {
  if (!(thrown instanceof OpsError)) {
    // A bug: its message may say what no client should read, so it stays in the agent's log.
    return problem('internal', 500, 'Internal error', 'something failed inside the agent', {
      hint: 'look into the log of the agent',
    })
  }
  const [status, title] = httpOfCode[thrown.code]
  return problem(thrown.code, status, title, thrown.message, { hint: thrown.hint })
}

export function problem(
  code: Problem['code'],
  status: number,
  title: string,
  detail: string,
  { hint }: { hint: string },
): Problem {
  return { type: `urn:meshtrail:problem:${code}`, title, status, detail, hint, code }
}

export function problemResponse(body: Problem): Response {
  const headers = new Headers({
    'content-type': 'application/problem+json',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  })
  if (body.status === 401) headers.set('www-authenticate', 'Bearer realm="meshtrail"')
  if (body.status === 503) headers.set('retry-after', '1')
  return new Response(`${JSON.stringify(body)}\n`, { status: body.status, headers })
}
