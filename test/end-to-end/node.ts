/**
 * A node with the built binary on it: `meshtrail run` over a folder of pod logs, asked over HTTP.
 *
 * A folder is one node: it keeps its data directory, configuration and logs, however often its agent is
 * stopped, killed and started again. Nothing outlives the test: leaving `await using` kills the agent.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { stringify } from 'yaml'
import { z } from 'zod'
import { testEnvironment } from '../commands/command.ts'
import { meshtrailBinary } from '../packaging/built-binary.ts'

/** How long a start may take on a busy machine before the test gives up, ms. */
const readyMs = 30_000

/** A folder with everything one node has; removed when disposed of. */
export class NodeFolder implements Disposable {
  readonly path: string
  readonly data: string
  /** The root of `<namespace>_<pod>_<uid>/<container>/0.log`. */
  readonly pods: string
  #isKept = false

  constructor(name: string) {
    this.path = mkdtempSync(join(tmpdir(), `meshtrail-${name}-`))
    this.data = join(this.path, 'data')
    this.pods = join(this.path, 'var/log/pods')
    mkdirSync(this.pods, { recursive: true })
  }

  /** The log file of a pod's sidecar; its directory is made. */
  podLog(pod: string): string {
    const path = join(this.pods, `prod_${pod}_uid-${pod}`, 'istio-proxy/0.log')
    mkdirSync(dirname(path), { recursive: true })
    return path
  }

  /** Leaves everything where it is, for somebody to look at. */
  keep(): void {
    this.#isKept = true
  }

  [Symbol.dispose](): void {
    if (!this.#isKept) rmSync(this.path, { recursive: true, force: true })
  }
}

export type NodeConfig = {
  readonly dataPath?: string
  readonly bytesMax?: string
  readonly commitAge?: string
  readonly query?: Readonly<Record<string, string | number>>
}

const answerSchema = z.object({
  columns: z.array(z.object({ name: z.string(), type: z.string() })),
  rows: z.array(z.array(z.json())),
  row_count: z.number(),
  coverage: z.object({
    complete: z.boolean(),
    agents: z.array(z.object({ status: z.string(), size: z.number(), gaps: z.number() })),
  }),
})
export type NodeAnswer = z.infer<typeof answerSchema>

const statusSchema = z.object({
  size: z.number(),
  buffered: z.number(),
  lag_bytes: z.number(),
  parts: z.number(),
  segments: z.number(),
  gaps: z.number(),
  lines: z.number(),
  unparsed: z.number(),
  stuck: z.string().nullable(),
  bytes_used: z.number(),
  bytes_max: z.number(),
})
export type StatusOfNode = z.infer<typeof statusSchema>

/** An agent that was started, and may not be ready yet. */
export class RunningNode implements AsyncDisposable {
  readonly #child: Bun.Subprocess<'ignore', 'ignore', 'pipe'>
  readonly #data: string
  readonly #url = Promise.withResolvers<string>()
  #complaints = ''
  #base = ''
  #token = ''

  constructor(child: Bun.Subprocess<'ignore', 'ignore', 'pipe'>, data: string) {
    this.#child = child
    this.#data = data
    // Whoever kills an agent while it starts never asks whether it was ready.
    this.#url.promise.catch(() => {})
    void this.#listen()
  }

  async #listen(): Promise<void> {
    const decoder = new TextDecoder()
    for await (const bytes of this.#child.stderr) {
      this.#complaints += decoder.decode(bytes, { stream: true })
      const url = /^meshtrail \S+: .* (http:\/\/\S+)$/m.exec(this.#complaints)?.[1]
      if (url !== undefined) this.#url.resolve(url)
    }
    await this.#child.exited
    this.#url.reject(new Error(`the agent ended with ${this.end}:\n${this.#complaints}`))
  }

  get pid(): number {
    return this.#child.pid
  }

  /** What it has written to standard error so far. */
  get stderr(): string {
    return this.#complaints
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  get end(): string {
    return String(this.#child.signalCode ?? this.#child.exitCode)
  }

  /** Resolves when it answers. @throws {Error} with its standard error when it ends, or takes too long */
  async ready(): Promise<this> {
    const tooLate = Bun.sleep(readyMs).then(() => {
      throw new Error(`the agent is not ready after ${readyMs} ms:\n${this.#complaints}`)
    })
    this.#base = await Promise.race([this.#url.promise, tooLate])
    this.#token = readFileSync(join(this.#data, 'keys/token'), 'utf8').trim()
    const response = await fetch(new URL('/readyz', this.#base))
    if (response.status !== 200) throw new Error(`/readyz: ${await response.text()}`)
    return this
  }

  get url(): string {
    return this.#base
  }

  get token(): string {
    return this.#token
  }

  /** Posts a statement as it is and hands back whatever comes. */
  ask(
    sql: string,
    options: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<Response> {
    const { timeoutMs, signal } = options
    return fetch(new URL('/v1/query', this.#base), {
      method: 'POST',
      headers: {
        authorization: `Bearer ${this.#token}`,
        'content-type': 'application/json',
      },
      body: JSON.stringify({
        sql,
        limit: 1_000_000,
        ...(timeoutMs === undefined ? {} : { timeout_ms: timeoutMs }),
      }),
      ...(signal === undefined ? {} : { signal }),
    })
  }

  /** @throws {Error} when the answer is a problem */
  async query(sql: string): Promise<NodeAnswer> {
    const response = await this.ask(sql)
    const text = await response.text()
    if (!response.ok) throw new Error(`${response.status} for ${sql}: ${text}\n${this.stderr}`)
    return answerSchema.parse(JSON.parse(text))
  }

  async rows(sql: string): Promise<NodeAnswer['rows']> {
    return (await this.query(sql)).rows
  }

  async status(): Promise<StatusOfNode> {
    const response = await fetch(new URL('/v1/status', this.#base), {
      headers: { authorization: `Bearer ${this.#token}` },
    })
    return statusSchema.parse(await response.json())
  }

  signal(name: 'SIGTERM' | 'SIGINT' | 'SIGKILL'): void {
    this.#child.kill(name)
  }

  async exited(): Promise<string> {
    await this.#child.exited
    return this.end
  }

  /** SIGTERM, and the end. @throws {Error} with its standard error when that is not exit status 0 */
  async stop(): Promise<void> {
    this.signal('SIGTERM')
    if ((await this.exited()) !== '0') {
      throw new Error(`the agent ended with ${this.end} after SIGTERM:\n${this.stderr}`)
    }
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL')
    await this.exited()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isRunning) await this.kill()
  }
}

/** Starts the agent of a folder and returns at once. */
export async function launch(folder: NodeFolder, config: NodeConfig = {}): Promise<RunningNode> {
  const file = join(folder.path, 'config.yaml')
  const data = config.dataPath ?? folder.data
  const content = {
    cluster: 'test',
    node: 'node-1',
    data: { path: data, bytesMax: config.bytesMax ?? '4GiB' },
    logs: { pods: [folder.pods], kubernetesAudit: [] },
    // The kernel chooses a free port, and the agent says which.
    http: { listen: '127.0.0.1:0' },
    ...(config.query === undefined ? {} : { query: config.query }),
    ...(config.commitAge === undefined ? {} : { commitAge: config.commitAge }),
  }
  writeFileSync(file, stringify(content))
  const child = Bun.spawn([await meshtrailBinary(), 'run', '--config', file], {
    cwd: folder.path,
    env: testEnvironment(),
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'pipe',
  })
  return new RunningNode(child, data)
}

/** Starts the agent of a folder and waits until it answers. */
export async function startNode(folder: NodeFolder, config: NodeConfig = {}): Promise<RunningNode> {
  const node = await launch(folder, config)
  try {
    return await node.ready()
  } catch (error) {
    await node[Symbol.asyncDispose]()
    throw error
  }
}

/** Runs a test's body on a started node; a failure comes with what the agent wrote. */
export async function withNode(
  folder: NodeFolder,
  config: NodeConfig,
  body: (node: RunningNode) => Promise<void>,
): Promise<void> {
  await using node = await startNode(folder, config)
  try {
    await body(node)
  } catch (error) {
    console.error(`the agent's standard error:\n${node.stderr}`)
    throw error
  }
}

/** Waits until something is so. @throws {Error} naming it when it takes too long */
export async function until(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  timeoutMs: number,
): Promise<void> {
  const endMs = performance.now() + timeoutMs
  while (!(await isSo())) {
    if (performance.now() > endMs) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await Bun.sleep(20)
  }
}
