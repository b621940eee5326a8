/**
 * The child process of one query: `<binary> __query`.
 *
 * Reads one job from standard input, opens an in-memory DuckDB that can reach the job's files and nothing
 * else, checks the statement (`allow.ts`), runs it, writes frames to standard output, and ends. Holds no
 * key and no secret: its environment is empty. What it cannot bound itself (a function DuckDB does not
 * interrupt, memory DuckDB does not count) its parent bounds by killing it.
 */
import { writeFileSync, writeSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import {
  type DuckDBConnection,
  type DuckDBDataChunk,
  DuckDBInstance,
  type DuckDBResult,
} from '@duckdb/node-api'
import { errnoOf, messageOf, OpsError } from '../agent/errors.ts'
import { type Allowed, allow } from './allow.ts'
import { bindingsOf, jsonOf, losesFields, typeName } from './encode.ts'
import {
  type AnswerEnd,
  encodeFrame,
  encodeRowsFrame,
  isQueryErrorCode,
  isRecord,
  type Job,
  parseJob,
  type QueryErrorCode,
} from './frames.ts'
import { frameBytesTarget } from './limits.ts'
import {
  derivedViewsSql,
  eventsViewSql,
  type FileSet,
  quote,
  type RelationName,
  scanSql,
} from './views.ts'

/** Runs the child: returns never, the process ends with status 0 after its last frame. */
export async function runQueryWorker(): Promise<never> {
  yieldToCapture()
  const lines = jobLine()
  // Everything that does not depend on the job comes before it: a spare child waits here, warm.
  const connection = await openDuckDb()
  writeAll(encodeFrame({ kind: 'ready' }))

  const line = await lines
  if (line === undefined) process.exit(0)
  const job = parseJob(line)
  // The parent kills at the deadline; should the parent hang, the child still ends.
  setTimeout(() => process.exit(0), job.timeoutMs + 2000).unref()

  try {
    const end = await answer(connection, job)
    writeAll(encodeFrame({ kind: 'end', end }))
  } catch (thrown) {
    const failure = failureOf(thrown)
    writeAll(encodeFrame({ kind: 'error', ...failure }))
  }
  process.exit(0)
}

/** Queries run at low priority and die first: they may not slow the capture nor take its memory. */
function yieldToCapture(): void {
  try {
    setPriority(0, constants.priority.PRIORITY_BELOW_NORMAL)
    writeFileSync('/proc/self/oom_score_adj', '1000')
  } catch {
    // Not Linux, or not permitted: the watchdog still stands.
  }
}

/**
 * The first line of standard input; undefined at its end. The rest is read too: its end means that the
 * parent has died or no longer wants the answer.
 */
async function jobLine(): Promise<string | undefined> {
  const first = Promise.withResolvers<string | undefined>()
  const decoder = new TextDecoder()
  let text = ''
  let found = false
  const drain = async (): Promise<void> => {
    for await (const chunk of Bun.stdin.stream()) {
      if (found) continue
      const piece = decoder.decode(chunk, { stream: true })
      const newline = piece.indexOf('\n')
      text += newline < 0 ? piece : piece.slice(0, newline)
      if (newline < 0) continue
      found = true
      first.resolve(text)
    }
    if (found) process.exit(0)
    first.resolve(undefined)
  }
  drain().catch(() => process.exit(0))
  return first.promise
}

async function openDuckDb(): Promise<DuckDBConnection> {
  const instance = await DuckDBInstance.create(':memory:', {
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
    allow_community_extensions: 'false',
    allow_persistent_secrets: 'false',
    errors_as_json: 'true',
    // No spill: what does not fit in memory is refused, not written to the node's disk.
    temp_directory: '',
    threads: '1',
  })
  const connection = await instance.connect()
  await connection.run(`SET TimeZone = 'UTC'`)
  // Loads the JSON functions and the parser before the job comes.
  await serialize(connection, 'SELECT 1')
  return connection
}

async function answer(connection: DuckDBConnection, job: Job): Promise<AnswerEnd> {
  const allowed = allow(await serialize(connection, job.sql))
  await openFiles(connection, job, allowed.reads)
  const bounded = await boundRows(connection, job.sql, allowed, job.limit + 1)
  const { values, types } = bindingsOf(job.params)
  // Never `stream`: the client library takes an error in the middle of a streamed result for its end, and
  // the answer would be short without a word. `run` has the whole result or throws.
  const result = await connection.run(bounded.sql, values, types)
  return write(result, bounded.names ?? result.columnNames(), job)
}

/** The statement as a tree, by DuckDB's own parser; for `allow`. */
export async function serialize(connection: DuckDBConnection, sql: string): Promise<unknown> {
  const reader = await connection.runAndReadAll(
    'SELECT json_serialize_sql($1::VARCHAR, skip_null := true, skip_empty := true, skip_default := true)',
    [sql],
  )
  return JSON.parse(String(reader.getRows()[0]?.[0]))
}

/** Makes the views, then shuts the door: from here on only the job's files open, and no setting changes. */
async function openFiles(
  connection: DuckDBConnection,
  job: Job,
  reads: ReadonlySet<RelationName>,
): Promise<void> {
  const paths = [...job.files.segments, ...job.files.parts]
  for (const path of paths) {
    if (/[*?[\]]/.test(path)) {
      throw new OpsError('query_failed', `the data folder has a pattern character in ${path}`, {
        hint: 'move the data to a path without * ? [ ]',
      })
    }
  }
  await connection.run(`SET memory_limit = '${job.memoryMb}MB'`)
  await connection.run(`SET threads = ${job.threads}`)
  // Footers are read once for the columns and again for the query: files are immutable, so keep them.
  await connection.run('SET parquet_metadata_cache = true')
  await connection.run("SET validate_external_file_cache = 'NO_VALIDATION'")
  await connection.run(`SET allowed_paths = [${paths.map(quote).join(', ')}]`)
  await connection.run('SET enable_external_access = false')

  // Every view costs some milliseconds: only what the statement reads is made.
  if (reads.size > 0) {
    const sets = [
      await fileSet(connection, job.files.segments),
      await fileSet(connection, job.files.parts),
    ]
    await connection.run(eventsViewSql(job.origin, sets))
  }
  for (const name of reads) {
    if (name !== 'events') await connection.run(derivedViewsSql[name])
  }
  await connection.run('SET lock_configuration = true')
}

async function fileSet(connection: DuckDBConnection, paths: readonly string[]): Promise<FileSet> {
  if (paths.length === 0) return { paths, types: new Map() }
  try {
    const reader = await connection.runAndReadAll(`DESCRIBE SELECT * FROM ${scanSql(paths)}`)
    const types = reader.getRows().map((row) => [String(row[0]), String(row[1])] as const)
    return { paths, types: new Map(types) }
  } catch (thrown) {
    // This SQL is ours: whatever fails here is a file that is gone or damaged, not the statement.
    const { code, message } = duckDbFailure(messageOf(thrown))
    throw new OpsError(code === 'query_limit' ? code : 'query_failed', `cannot open: ${message}`, {
      hint: 'ask again; if it stays, run meshtrail verify on the data folder',
      cause: thrown,
    })
  }
}

type Bounded = {
  readonly sql: string
  /** Column names, where the bounded text would change them. */
  readonly names?: readonly string[]
}

/**
 * The statement with a LIMIT of ours, as the whole result is held in memory: behind its own text, or around
 * it when it has a LIMIT that may be larger. A text is only used when DuckDB parses it to the very tree that
 * was allowed, plus that LIMIT; so what stands at its end (a comment, a semicolon) cannot change its meaning.
 * If none does, the statement runs as it is, and its memory limit is its bound.
 */
async function boundRows(
  connection: DuckDBConnection,
  sql: string,
  { node }: Allowed,
  limit: number,
): Promise<Bounded> {
  const from = node['from_table']
  const modifiers = node['modifiers'] ?? []
  if (isRecord(from) && from['type'] === 'SHOW_REF') return { sql }
  if (!Array.isArray(modifiers)) return { sql }
  const own: unknown = modifiers.find(isLimit)
  if (own !== undefined && limitOf(own) <= limit) return { sql }

  for (const text of withoutEnd(sql)) {
    if (own === undefined) {
      const limited = `${text}\nLIMIT ${limit}`
      const other = await nodeOf(connection, limited)
      if (other !== undefined && sameTree(withoutLastLimit(other), node)) return { sql: limited }
      continue
    }
    const limited = `SELECT * FROM (\n${text}\n) LIMIT ${limit}`
    const other = await nodeOf(connection, limited)
    if (other === undefined || !sameTree(innerOf(other), node)) continue
    // A repeated name would get a suffix on the way out of the subquery.
    const prepared = await connection.prepare(text)
    const names = Array.from({ length: prepared.columnCount }, (_, i) => prepared.columnName(i))
    return { sql: limited, names }
  }
  return { sql }
}

/** The statement without what may follow it: as it stands, then cut at its last semicolons. */
function* withoutEnd(sql: string): Generator<string> {
  yield sql.replace(/[\s;]+$/, '')
  let end = sql.lastIndexOf(';')
  for (let tries = 0; tries < 4 && end > 0; tries++) {
    yield sql.slice(0, end)
    end = sql.lastIndexOf(';', end - 1)
  }
}

async function nodeOf(
  connection: DuckDBConnection,
  sql: string,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  try {
    return allow(await serialize(connection, sql)).node
  } catch (thrown) {
    if (thrown instanceof OpsError) return undefined
    throw thrown
  }
}

function isLimit(modifier: unknown): boolean {
  return isRecord(modifier) && String(modifier['type']).startsWith('LIMIT')
}

/** The rows a constant LIMIT allows; infinity for a percentage, an expression, a parameter or none. */
function limitOf(modifier: unknown): number {
  if (!isRecord(modifier) || modifier['type'] !== 'LIMIT_MODIFIER') return Infinity
  const expression = modifier['limit']
  const value = isRecord(expression) ? expression['value'] : undefined
  const rows = isRecord(value) ? value['value'] : undefined
  return typeof rows === 'number' ? rows : Infinity
}

function withoutLastLimit(node: Readonly<Record<string, unknown>>): unknown {
  const { modifiers, ...rest } = node
  if (!Array.isArray(modifiers) || !isLimit(modifiers.at(-1))) return undefined
  const others: unknown[] = modifiers.slice(0, -1)
  return others.length === 0 ? rest : { ...rest, modifiers: others }
}

/** The query in the FROM of `SELECT * FROM (…) LIMIT n`. */
function innerOf(node: Readonly<Record<string, unknown>>): unknown {
  const from = node['from_table']
  const subquery = isRecord(from) && from['type'] === 'SUBQUERY' ? from['subquery'] : undefined
  return isRecord(subquery) ? subquery['node'] : undefined
}

/** Equal but for where in the text the nodes stand. */
function sameTree(left: unknown, right: unknown): boolean {
  return left !== undefined && JSON.stringify(left, unplaced) === JSON.stringify(right, unplaced)
}

/** For `JSON.stringify`: a node with its keys in order and without its place in the text. */
function unplaced(_: string, value: unknown): unknown {
  if (!isRecord(value)) return value
  const { query_location: _location, ...rest } = value
  return Object.fromEntries(Object.entries(rest).toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

/** Writes columns and rows; stops at the row limit or the byte limit and says which. */
async function write(result: DuckDBResult, names: readonly string[], job: Job): Promise<AnswerEnd> {
  const types = result.columnTypes()
  const columns = types.map((type, index) => {
    const name = names[index]
    if (name === undefined) throw new Error('BUG: a column without a name')
    if (losesFields(type)) {
      throw new OpsError('bad_query', `the column ${name} has fields without names`, {
        hint: "name the fields: {'a': 1, 'b': 2} instead of (1, 2)",
      })
    }
    return { name, type: typeName(type) }
  })
  writeAll(encodeFrame({ kind: 'columns', columns }))

  let rowCount = 0
  let bytes = 0
  let batch: string[] = []
  let batchBytes = 0
  const flush = (): void => {
    if (batch.length > 0) writeAll(encodeRowsFrame(batch))
    batch = []
    batchBytes = 0
  }

  for (;;) {
    const chunk = await result.fetchChunk()
    if (chunk === null || chunk.rowCount === 0) break
    for (const text of rowTexts(chunk)) {
      if (rowCount === job.limit) {
        flush()
        return { rowCount, cut: 'rows' }
      }
      const size = Buffer.byteLength(text)
      if (bytes + size > job.resultBytesMax) {
        if (rowCount === 0) {
          throw new OpsError('query_limit', `one row of the answer has ${size} bytes`, {
            hint: 'select fewer columns, or aggregate less into one value',
          })
        }
        flush()
        return { rowCount, cut: 'bytes' }
      }
      batch.push(text)
      rowCount += 1
      bytes += size
      batchBytes += size
      if (batchBytes >= frameBytesTarget) flush()
    }
    flush()
  }
  return { rowCount, cut: null }
}

/** The rows of a chunk as JSON text, one at a time: a wide row may be large. */
function* rowTexts(chunk: DuckDBDataChunk): Generator<string> {
  const columns = chunk.getColumns()
  for (let row = 0; row < chunk.rowCount; row++) {
    yield JSON.stringify(columns.map((column) => jsonOf(column[row] ?? null)))
  }
}

type Failure = { readonly code: QueryErrorCode; readonly message: string; readonly hint: string }

function failureOf(thrown: unknown): Failure {
  if (thrown instanceof OpsError) {
    const { code, message, hint } = thrown
    return { code: isQueryErrorCode(code) ? code : 'query_failed', message, hint }
  }
  return duckDbFailure(messageOf(thrown))
}

/** DuckDB's errors come as JSON (`errors_as_json`), some with their kind before it. */
function duckDbFailure(text: string): Failure {
  const { kind, message, candidates } = parseDuckDbError(text)
  switch (kind) {
    case 'Out of Memory':
      return {
        code: 'query_limit',
        message: 'the query needs more memory than a query may have',
        hint: 'narrow it by time, select fewer columns, or aggregate before sorting or joining',
      }
    case 'Interrupt':
    case 'INTERRUPT':
      return { code: 'query_limit', message: 'the query was interrupted', hint: 'ask again' }
    case 'Permission':
      return {
        code: 'query_refused',
        message: `not allowed: ${message}`,
        hint: 'query events only',
      }
    case 'IO':
    case 'Fatal':
    case 'INTERNAL':
    case 'Internal':
    case 'Serialization':
      return {
        code: 'query_failed',
        message,
        hint: 'ask again; if it stays, run meshtrail verify on the data folder',
      }
    default:
      return {
        code: 'bad_query',
        message,
        hint:
          candidates === undefined
            ? 'correct the SQL; DESCRIBE events lists the columns'
            : `did you mean ${candidates}? DESCRIBE events lists the columns`,
      }
  }
}

type DuckDbError = {
  readonly kind: string
  readonly message: string
  readonly candidates: string | undefined
}

function parseDuckDbError(text: string): DuckDbError {
  const brace = text.indexOf('{')
  if (brace >= 0) {
    try {
      const value: unknown = JSON.parse(text.slice(brace))
      if (isRecord(value) && typeof value['exception_message'] === 'string') {
        const candidates = value['candidates']
        const named =
          value['error_subtype'] === 'COLUMN_NOT_FOUND' && typeof candidates === 'string'
        return {
          kind: String(value['exception_type']),
          message: value['exception_message'].trim().replaceAll(/\s*\n\s*/g, ' '),
          candidates: named && candidates !== '' ? candidates.replaceAll(',', ', ') : undefined,
        }
      }
    } catch {
      // A brace in a plain message: the text itself is the message.
    }
  }
  const plain = /^([A-Za-z ]+?) Error: ([\s\S]*)$/.exec(text)
  return { kind: plain?.[1] ?? '', message: plain?.[2] ?? text, candidates: undefined }
}

/** Writes to standard output and waits while the parent is slow: that is the back-pressure. */
function writeAll(bytes: Uint8Array): void {
  let offset = 0
  while (offset < bytes.length) {
    try {
      offset += writeSync(1, bytes, offset)
    } catch (thrown) {
      if (errnoOf(thrown) === 'EPIPE') process.exit(0)
      if (errnoOf(thrown) !== 'EAGAIN') throw thrown
      Bun.sleepSync(1)
    }
  }
}
