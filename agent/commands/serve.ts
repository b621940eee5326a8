/** One node's HTTP interface over a running agent: what `run` and `demo` serve. */
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { hashToken, TokenAuthenticator } from '../../query/auth.ts'
import { coverageOf } from '../../query/coverage.ts'
import { QueryRunner } from '../../query/local.ts'
import { createServer } from '../../query/server.ts'
import { LocalSource, type Prepared } from '../../query/source.ts'
import { formatUs } from '../clock.ts'
import { type Config, listenAddress } from '../config.ts'
import { messageOf, OpsError } from '../errors.ts'
import { encodeBase64 } from '../log/encoding.ts'
import type { Node } from '../node.ts'
import { buildInfo } from '../runtime/build-info.ts'
import { writeDurably } from '../store/durable.ts'
import type { Tail } from '../tail/tail.ts'
import { tell } from './output.ts'
import { selfCommand, workerEnvironment } from './self.ts'
import { metricsText, nodeStatus } from './node-status.ts'

export type Served = AsyncDisposable & { readonly url: string; readonly token: string }

/**
 * @param tail null where no files are followed
 * @throws {OpsError} `configuration` when the address is taken
 */
export async function serve(config: Config, node: Node, tail: Tail | null): Promise<Served> {
  const { agent, store } = node
  const address = listenAddress(config.http.listen)
  if (address === null) throw new Error(`BUG: http.listen is ${config.http.listen}`)
  const { host, port } = address
  const token = readToken(config.data.path)
  const runner = new QueryRunner({
    command: selfCommand(),
    env: workerEnvironment(),
    memoryMb: Math.ceil(config.query.memory / (1 << 20)),
    runningMax: config.query.running,
  })
  const prepare = async (): Promise<Prepared> => {
    const reached = tail === null ? { lagging: false } : await tail.catchUp()
    const committed = await agent.commit()
    const { totals } = store
    return {
      files: store.files(),
      lagging: reached.lagging || !committed,
      coverage: coverageOf([
        {
          origin: store.identity.origin,
          status: 'answered',
          size: store.size,
          root: encodeBase64(store.rootHash),
          from: totals === null ? null : formatUs(totals.from),
          to: totals === null ? null : formatUs(totals.to),
          gaps: totals?.gaps ?? 0,
          error: null,
        },
      ]),
    }
  }
  const app = createServer({
    query: new LocalSource(runner, store.identity.origin, prepare),
    auth: new TokenAuthenticator([{ subject: 'admin', role: 'admin', sha256: hashToken(token) }]),
    onAccess: ({ subject, sql, rows, elapsedMs, status }) =>
      agent.say('access', { subject, sql, rows, elapsed_ms: Math.round(elapsedMs), status }),
    status: () => Promise.resolve(nodeStatus(node, tail)),
    checkpoint: () =>
      Promise.resolve(store.checkpoint === '' ? undefined : Buffer.from(store.checkpoint)),
    tile: (path) => Promise.resolve(readTile(config.data.path, path)),
    metrics: () => metricsText(node, tail),
    notReady: () => agent.stuck?.message,
    version: buildInfo().version,
    open: config.http.open,
    onBug: (thrown) => tell(`bug: ${messageOf(thrown)}`),
  })
  const server = startServer(host, port, app.fetch)
  // Only the first question waits for its child: capture must not.
  runner.prewarm().catch((thrown: unknown) => tell(`no query process: ${messageOf(thrown)}`))
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${server.port}`,
    token,
    [Symbol.asyncDispose]: async () => {
      await server.stop(true)
      await runner[Symbol.asyncDispose]()
    },
  }
}

function startServer(
  hostname: string,
  port: number,
  fetch: (request: Request, server: object) => Response | Promise<Response>,
): { readonly port: number | undefined; readonly stop: (force: boolean) => Promise<void> } {
  try {
    return Bun.serve({ hostname, port, fetch, idleTimeout: 30 })
  } catch (cause) {
    throw new OpsError(
      'configuration',
      `cannot listen on ${hostname}:${port}: ${messageOf(cause)}`,
      {
        hint: 'choose another http.listen, or stop what uses the port',
        cause,
      },
    )
  }
}

const tokenName = 'keys/token'

/** The administrator's token, made at the first start; readable by the agent's user only. */
function readToken(root: string): string {
  const path = join(root, tokenName)
  if (existsSync(path)) return readFileSync(path, 'utf8').trim()
  const token = randomBytes(32).toString('base64url')
  writeDurably(root, tokenName, Buffer.from(`${token}\n`))
  return token
}

function readTile(root: string, path: string): Uint8Array | undefined {
  const stored = join(root, 'log/tile', path)
  return existsSync(stored) ? readFileSync(stored) : undefined
}
