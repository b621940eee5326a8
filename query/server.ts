/**
 * The HTTP interface of one agent: queries, evidence and status, as a Hono app.
 *
 * No token, no answer, except for the routes that carry no line of any log (`open`). The app binds no port
 * and reads no file: whoever starts it passes functions for what it shows. Every failure leaves through one
 * `onError`, as problem+json.
 */
import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { z } from 'zod'
import { type Clock, systemClock } from '../agent/clock.ts'
import { messageOf, OpsError } from '../agent/errors.ts'
import type { Authenticator, Caller, Role } from './auth.ts'
import type { Coverage } from './coverage.ts'
import { csvText, jsonText, ndjsonError, ndjsonText, type Report } from './formats.ts'
import { isParams, type JsonValue, type Params } from './frames.ts'
import { bodyBytesMax, rowsMax, timeoutMsMax } from './limits.ts'
import type { Answer } from './local.ts'
import { problem, problemOf, problemResponse } from './problem.ts'
import type { Answered, QueryRequest, QuerySource } from './source.ts'

/** One query somebody ran, or tried to: becomes an event in the log it asked. */
export type Access = {
  readonly subject: string
  readonly sql: string
  /** Rows that left the agent. */
  readonly rows: number
  readonly elapsedMs: number
  /** `ok`, or the code of the error. */
  readonly status: string
}

export type ServerOptions = {
  readonly query: QuerySource
  readonly auth: Authenticator
  readonly onAccess: (access: Access) => void
  /** The body of `GET /v1/status`. */
  readonly status: () => Promise<JsonValue>
  /** The newest checkpoint, a signed note; undefined before the first. */
  readonly checkpoint: () => Promise<Uint8Array | undefined>
  /** A tile by its path below `/v1/tile/`; undefined when there is none. */
  readonly tile?: (path: string) => Promise<Uint8Array | undefined>
  /** Prometheus text. */
  readonly metrics: () => string | Promise<string>
  /** Undefined when ready, else what is missing. */
  readonly notReady: () => string | undefined
  readonly version: string
  /** False: even `/healthz`, `/version` and the checkpoint need a token. Default true. */
  readonly open?: boolean
  /** Where bugs are written: their text is not sent to clients. */
  readonly onBug?: (thrown: unknown) => void
  readonly clock?: Clock
}

type Env = { Variables: { caller: Caller } }

/**
 * Serve it with `Bun.serve({ fetch: app.fetch })`: the app then sees the server, and lifts the idle timeout
 * for queries, which may be silent for longer than Bun's 10 s.
 */
export function createServer(options: ServerOptions): Hono<Env> {
  const app = new Hono<Env>()
  const clock = options.clock ?? systemClock

  app.onError((thrown) => {
    if (!(thrown instanceof OpsError)) options.onBug?.(thrown)
    return problemResponse(problemOf(thrown))
  })
  app.notFound((c) =>
    problemResponse(
      problemOf(
        new OpsError('not_found', `there is no ${c.req.method} ${c.req.path}`, {
          hint: 'see the HTTP interface in the README',
        }),
      ),
    ),
  )

  const require = (...roles: readonly Role[]) => {
    return async (c: Context<Env>, next: () => Promise<void>): Promise<void> => {
      const caller = await options.auth.authenticate(c.req.header('authorization'))
      if (caller === null) {
        throw new OpsError('unauthenticated', 'this route needs a valid bearer token', {
          hint: 'send Authorization: Bearer <token>; the agent keeps its token in <data>/keys/token',
        })
      }
      if (!roles.includes(caller.role)) {
        throw new OpsError('permission', `a ${caller.role} token may not ${c.req.method} this`, {
          hint: `use a token with the role ${roles.join(' or ')}`,
        })
      }
      c.set('caller', caller)
      await next()
    }
  }

  if (options.open === false) {
    for (const path of ['/healthz', '/readyz', '/version', '/v1/checkpoint', '/v1/tile/*']) {
      app.use(path, require('metrics', 'reader', 'admin'))
    }
  }

  app.get('/healthz', (c) => c.text('ok\n'))
  app.get('/readyz', (c) => {
    const lack = options.notReady()
    return lack === undefined ? c.text('ready\n') : c.text(`not ready: ${lack}\n`, 503)
  })
  app.get('/version', (c) => c.json({ version: options.version }))

  app.get('/v1/checkpoint', async () => {
    const note = await options.checkpoint()
    if (note === undefined) throw missing('no checkpoint has been signed yet', 'ask again later')
    return bytesResponse(note, 'text/plain; charset=utf-8', 'no-cache')
  })
  app.get('/v1/tile/*', async (c) => {
    const path = c.req.path.slice('/v1/tile/'.length)
    // <L>/<N>[.p/<W>] and entries/<N>, N in groups of three digits: nothing that could leave a folder.
    const wellFormed = /^(?:\d{1,2}|entries)\/(?:x\d{3}\/){0,6}\d{3}(?:\.p\/\d{1,3})?$/.test(path)
    const tile = wellFormed ? await options.tile?.(path) : undefined
    if (tile === undefined) throw missing(`there is no tile ${path}`, 'see C2SP tlog-tiles')
    return bytesResponse(tile, 'application/octet-stream', 'max-age=31536000, immutable')
  })

  app.get('/v1/status', require('reader', 'admin'), async (c) => {
    c.header('cache-control', 'no-store')
    return c.json(await options.status())
  })
  app.get('/metrics', require('metrics', 'reader', 'admin'), async () =>
    textResponse(await options.metrics(), 'text/plain; version=0.0.4; charset=utf-8'),
  )

  app.post(
    '/v1/query',
    require('reader', 'admin'),
    bodyLimit({
      maxSize: bodyBytesMax,
      onError: () =>
        problemResponse(
          problem('too_large', 413, 'The body is too large', `more than ${bodyBytesMax} bytes`, {
            hint: 'shorten the statement or its parameters',
          }),
        ),
    }),
    async (c) => {
      const format = negotiate(c.req.header('accept'))
      if (typeof format !== 'string') return format
      liftIdleTimeout(c)
      const access = accessRecorder(options, clock, c.get('caller').subject)
      let request: QueryRequest
      try {
        request = await parseRequest(c)
      } catch (thrown) {
        access.done(0, codeOf(thrown))
        throw thrown
      }
      access.sql = request.sql
      try {
        const answered = await options.query.query(request)
        return await respond(answered, format, access)
      } catch (thrown) {
        access.done(0, codeOf(thrown))
        throw thrown
      }
    },
  )
  return app
}

function missing(message: string, hint: string): OpsError {
  return new OpsError('not_found', message, { hint })
}

type WireFormat = 'json' | 'ndjson' | 'csv'

const formatOfType: Readonly<Record<string, WireFormat | 'later'>> = {
  'application/json': 'json',
  'application/*': 'json',
  '*/*': 'json',
  'application/x-ndjson': 'ndjson',
  'application/ndjson': 'ndjson',
  'application/jsonl': 'ndjson',
  'text/csv': 'csv',
  'text/*': 'csv',
  'application/vnd.apache.arrow.stream': 'later',
  'application/vnd.apache.parquet': 'later',
}

/** The acceptable format with the highest weight, the first of equals; a 406 answer if there is none. */
function negotiate(accept: string | undefined): WireFormat | Response {
  const wanted = (accept ?? '').trim() === '' ? '*/*' : (accept ?? '')
  let best: { format: WireFormat; weight: number } | undefined
  let later = false
  for (const part of wanted.split(',')) {
    const [type = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase())
    const q = parameters.find((parameter) => parameter.startsWith('q='))
    const weight = q === undefined ? 1 : Number(q.slice(2))
    const format = formatOfType[type]
    if (format === 'later') later = true
    else if (format !== undefined && weight > (best?.weight ?? 0)) best = { format, weight }
  }
  if (best !== undefined) return best.format
  return problemResponse(
    problem(
      'not_acceptable',
      406,
      'No such format',
      later ? 'Arrow and Parquet answers are not available yet' : `no format for Accept: ${wanted}`,
      { hint: 'accept application/json, application/x-ndjson or text/csv' },
    ),
  )
}

const bodySchema = z.strictObject({
  sql: z.string(),
  params: z.custom<Params>(isParams, 'scalars, or flat lists of strings or numbers').optional(),
  scope: z.enum(['mesh', 'node']).optional(),
  limit: z.int().min(1).max(rowsMax).optional(),
  timeout_ms: z.int().min(1).max(timeoutMsMax).optional(),
})

async function parseRequest(c: Context<Env>): Promise<QueryRequest> {
  const type = (c.req.header('content-type') ?? 'text/plain').split(';')[0]?.trim().toLowerCase()
  const { signal } = c.req.raw
  const text = await c.req.text()
  if (type === 'text/plain' || type === 'application/sql') {
    return {
      sql: text,
      params: [],
      scope: 'mesh',
      limit: undefined,
      timeoutMs: undefined,
      signal,
    }
  }
  if (type !== 'application/json') {
    throw new OpsError('usage', `the body is ${type}`, {
      hint: 'send SQL as text/plain, or application/json with a member "sql"',
    })
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (thrown) {
    throw new OpsError('usage', `the body is no JSON: ${messageOf(thrown)}`, {
      hint: 'send {"sql": "SELECT …"}',
      cause: thrown,
    })
  }
  const body = bodySchema.safeParse(value)
  if (!body.success) {
    const [issue] = body.error.issues
    const where = issue?.path.join('.') ?? ''
    throw new OpsError('usage', `${where === '' ? 'the body' : where}: ${issue?.message}`, {
      hint: 'send {"sql", "params"?, "scope"?, "limit"?, "timeout_ms"?}',
    })
  }
  const { sql, params, scope, limit, timeout_ms: timeoutMs } = body.data
  return { sql, params: params ?? [], scope: scope ?? 'mesh', limit, timeoutMs, signal }
}

async function respond(
  { answer, coverage }: Answered,
  format: WireFormat,
  access: AccessRecorder,
): Promise<Response> {
  const report: Report = { coverage, elapsedMs: access.elapsedMs }
  switch (format) {
    case 'json': {
      const { text, end } = await jsonText(answer, report)
      access.done(end.rowCount, 'ok')
      return textResponse(text, 'application/json', coverageHeaders(coverage, end.cut))
    }
    case 'csv': {
      const { text, end } = await csvText(answer)
      access.done(end.rowCount, 'ok')
      const headers = coverageHeaders(coverage, end.cut)
      return textResponse(text, 'text/csv; charset=utf-8; header=present', headers)
    }
    case 'ndjson':
      return new Response(ndjsonStream(answer, report, access), {
        headers: { ...answerHeaders, 'content-type': 'application/x-ndjson' },
      })
  }
}

/** Pulls from the child only as fast as the client reads; a client that goes away kills the child. */
function ndjsonStream(
  answer: Answer,
  report: Report,
  access: AccessRecorder,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  const pieces = ndjsonText(answer, report)
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await pieces.next()
        if (!done) {
          controller.enqueue(encoder.encode(value))
          return
        }
        access.done(answer.end().rowCount, 'ok')
      } catch (thrown) {
        access.done(0, codeOf(thrown))
        if (!(thrown instanceof OpsError)) throw thrown
        // The status line has gone out long ago: the last record says that this is no answer.
        controller.enqueue(encoder.encode(ndjsonError(thrown)))
      }
      controller.close()
    },
    async cancel() {
      access.done(0, 'cancelled')
      await answer[Symbol.asyncDispose]()
    },
  })
}

const answerHeaders = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' }

/** Proxies refuse headers of more than 8 kB: a large mesh gets the sum, JSON and NDJSON carry it whole. */
const coverageHeaderBytesMax = 4096

function coverageHeaders(coverage: Coverage, cut: string | null): Record<string, string> {
  const whole = JSON.stringify(coverage)
  const answered = coverage.agents.filter((agent) => agent.status === 'answered').length
  const sum = { complete: coverage.complete, expected: coverage.agents.length, answered }
  const text = asciiJson(whole)
  return {
    'meshtrail-coverage': text.length <= coverageHeaderBytesMax ? text : JSON.stringify(sum),
    ...(cut === null ? {} : { 'meshtrail-cut': cut }),
  }
}

/** JSON text with every character a header may not hold as a `\\u` escape. */
function asciiJson(text: string): string {
  return text.replaceAll(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

function textResponse(text: string, type: string, headers: Record<string, string> = {}): Response {
  return new Response(text, { headers: { ...answerHeaders, ...headers, 'content-type': type } })
}

function bytesResponse(bytes: Uint8Array, type: string, cacheControl: string): Response {
  return new Response(new Uint8Array(bytes), {
    headers: { ...answerHeaders, 'cache-control': cacheControl, 'content-type': type },
  })
}

type AccessRecorder = {
  sql: string
  readonly elapsedMs: () => number
  /** Records the query once; later calls are ignored. */
  readonly done: (rows: number, status: string) => void
}

function accessRecorder(options: ServerOptions, clock: Clock, subject: string): AccessRecorder {
  const startedMs = clock.monotonicMs()
  const elapsedMs = (): number => clock.monotonicMs() - startedMs
  let recorded = false
  const recorder: AccessRecorder = {
    sql: '',
    elapsedMs,
    done: (rows, status) => {
      if (recorded) return
      recorded = true
      options.onAccess({ subject, sql: recorder.sql, rows, elapsedMs: elapsedMs(), status })
    },
  }
  return recorder
}

function codeOf(thrown: unknown): string {
  return thrown instanceof OpsError ? thrown.code : 'internal'
}

/** Bun passes its server as the environment; under `app.request` there is none. */
function liftIdleTimeout(c: Context<Env>): void {
  const server: unknown = c.env
  if (typeof server !== 'object' || server === null || !('timeout' in server)) return
  // The query has a deadline of its own.
  if (typeof server.timeout === 'function') server.timeout(c.req.raw, 0)
}
