/** `meshtrail query`: SQL over a data directory, or through a running agent. */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { coverageOf } from '../../query/coverage.ts'
import { csvText, jsonText, ndjsonText, parseFormat, spool } from '../../query/formats.ts'
import { type Answer, QueryRunner } from '../../query/local.ts'
import { renderTable } from '../../query/table.ts'
import { systemClock } from '../clock.ts'
import { setNativeCacheDirectory } from '../runtime/native-library.ts'
import { names } from '../store/filenames.ts'
import { listLog } from '../store/list.ts'
import { isLocked } from '../store/lock.ts'
import { tell, writeOut } from './output.ts'
import { askAgent, tokenFrom } from './remote.ts'
import { selfCommand, workerEnvironment } from './self.ts'

export type QueryCommandOptions = {
  readonly data: string
  readonly url: string | null
  readonly tokenFile: string | null
  readonly format: string
  readonly limit: number | null
  readonly timeoutMs: number | null
}

export async function query(text: string, options: QueryCommandOptions): Promise<void> {
  const sql = text === '-' ? await Bun.stdin.text() : text
  const format = parseFormat(options.format)
  if (options.url !== null) {
    const token = tokenFrom(options.tokenFile)
    await askAgent(options.url, token, sql, format, options.limit, options.timeoutMs)
    return
  }
  const root = resolve(options.data)
  const { origin, files } = listLog(root)
  if (isLocked(root)) {
    tell(
      'an agent is running on this directory: lines it has not committed yet are absent (--url asks it)',
    )
  }
  setNativeCacheDirectory(join(root, names.cache))
  const interrupted = new AbortController()
  process.once('SIGINT', () => interrupted.abort())
  await using runner = new QueryRunner({
    command: selfCommand(),
    env: existsSync(join(root, names.cache))
      ? { MESHTRAIL_CACHE_DIR: join(root, names.cache), ...workerEnvironment() }
      : workerEnvironment(),
    spareIdleMs: 0,
  })
  const startedMs = systemClock.monotonicMs()
  await using answer = await runner.run(
    {
      sql,
      files,
      origin,
      ...(options.limit === null ? {} : { limit: options.limit }),
      ...(options.timeoutMs === null ? {} : { timeoutMs: options.timeoutMs }),
    },
    interrupted.signal,
  )
  const elapsedMs = (): number => systemClock.monotonicMs() - startedMs
  await print(answer, format, origin, elapsedMs)
}

async function print(
  answer: Answer,
  format: ReturnType<typeof parseFormat>,
  origin: string,
  elapsedMs: () => number,
): Promise<void> {
  const coverage = coverageOf([
    {
      origin,
      status: 'answered',
      size: null,
      root: null,
      from: null,
      to: null,
      gaps: 0,
      error: null,
    },
  ])
  switch (format) {
    case 'table': {
      const { rows, end } = await spool(answer)
      const width = process.stdout.columns ?? 120
      writeOut(renderTable({ columns: answer.columns, rows, end, width }))
      return
    }
    case 'json':
      writeOut(`${(await jsonText(answer, { coverage, elapsedMs })).text}\n`)
      return
    case 'csv':
      writeOut((await csvText(answer)).text)
      return
    case 'ndjson':
      for await (const piece of ndjsonText(answer, { coverage, elapsedMs })) writeOut(piece)
  }
}
