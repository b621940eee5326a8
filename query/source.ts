/**
 * Where the server and the command line get answers from: a node's own log now, many nodes' logs by the
 * same interface. An answer always comes with its coverage.
 */
import { type Coverage, coverageOf } from './coverage.ts'
import type { LogFiles, Params } from './frames.ts'
import type { Answer, QueryRunner } from './local.ts'

export type Scope = 'mesh' | 'node'

export type QueryRequest = {
  readonly sql: string
  readonly params: Params
  readonly scope: Scope
  /** Undefined: the default limit, whose cut is announced. */
  readonly limit: number | undefined
  readonly timeoutMs: number | undefined
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal
}

export type Answered = { readonly answer: Answer; readonly coverage: Coverage }

export interface QuerySource {
  /** Resolves when the columns are known. @throws {OpsError} as `QueryRunner.run` */
  query(request: QueryRequest): Promise<Answered>
}

/** What the agent gives a query: its files after a commit, and how far they reach. */
export type Prepared = {
  readonly files: LogFiles
  /** True when lines written before the question are not in the files yet. */
  readonly lagging: boolean
  readonly coverage: Coverage
}

/** The log of this node alone. */
export class LocalSource implements QuerySource {
  readonly #runner: QueryRunner
  readonly #origin: string
  readonly #beforeQuery: () => Promise<Prepared>

  /** @param beforeQuery commits what is buffered and lists the files; queries may share one commit */
  constructor(runner: QueryRunner, origin: string, beforeQuery: () => Promise<Prepared>) {
    this.#runner = runner
    this.#origin = origin
    this.#beforeQuery = beforeQuery
  }

  async query(request: QueryRequest): Promise<Answered> {
    const prepared = await this.#beforeQuery()
    const answer = await this.#runner.run(
      {
        sql: request.sql,
        params: request.params,
        files: prepared.files,
        origin: this.#origin,
        ...(request.limit === undefined ? {} : { limit: request.limit }),
        ...(request.timeoutMs === undefined ? {} : { timeoutMs: request.timeoutMs }),
      },
      request.signal,
    )
    return { answer, coverage: prepared.lagging ? lagging(prepared.coverage) : prepared.coverage }
  }
}

function lagging(coverage: Coverage): Coverage {
  return coverageOf(
    coverage.agents.map((agent) =>
      agent.status === 'answered' ? { ...agent, status: 'lagging' as const } : agent,
    ),
  )
}
