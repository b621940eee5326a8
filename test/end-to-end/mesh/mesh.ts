/**
 * A small mesh of real Envoys on 127.0.0.1, whose containers' logs appear under `<root>/var/log/pods`
 * as on a Kubernetes node:
 *
 *   frontend (shop, JSON) ──┬──mTLS──> payments (prod, JSON) ──> application, echo
 *   batch    (shop, JSON) ──┤
 *                           ├──mTLS──> ledger   (prod, text) ──> application, echo
 *                           └──mTLS──> squatter, a server with somebody else's certificate
 *
 * `frontend` and `batch` only call, `payments` and `ledger` only answer; `batch` calls `payments` alone, with
 * a certificate that has expired. It drives no traffic of its own and stops every process it started.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls'
import type { Subprocess } from 'bun'
import { stringify } from 'yaml'
import { z } from 'zod'
import { createAuthority, type Credential, spiffeId } from './certificates.ts'
import { CriFile } from './cri.ts'
import { installEnvoy } from './install.ts'
import {
  type Authorization,
  bootstrap,
  type Inbound,
  type JsonObject,
  type LogFormat,
  type Outbound,
  outboundHttpListener,
  outboundTcpListener,
  type Sidecar,
} from './sidecar.ts'

export const workloads = ['frontend', 'batch', 'payments', 'ledger'] as const
export type Workload = (typeof workloads)[number]

export type Pod = {
  readonly namespace: string
  readonly workload: Workload
  readonly name: string
  readonly uid: string
  readonly format: LogFormat
}

export const pods: Readonly<Record<Workload, Pod>> = {
  frontend: {
    namespace: 'shop',
    workload: 'frontend',
    name: 'frontend-7d9c5b8f6d-x2x9k',
    uid: '0b8f3a52-6d1e-4c7a-9f04-5a1c2e7d9b31',
    format: 'json',
  },
  batch: {
    namespace: 'shop',
    workload: 'batch',
    name: 'batch-5c6f7f9d4b-q8w7z',
    uid: '1c9d4b63-7e2f-4d8b-8a15-6b2d3f8eac42',
    format: 'json',
  },
  payments: {
    namespace: 'prod',
    workload: 'payments',
    name: 'payments-6f5b9c7d88-lm4tn',
    uid: '2dae5c74-8f30-4e9c-9b26-7c3e409fbd53',
    format: 'json',
  },
  ledger: {
    namespace: 'prod',
    workload: 'ledger',
    name: 'ledger-84c9d6f5b7-hj6rv',
    uid: '3ebf6d85-9041-4fad-8c37-8d4f51a0ce64',
    format: 'text',
  },
}

/** Where the log of a pod's sidecar lies below the root. */
export function podLogPath(pod: Pod): string {
  return `var/log/pods/${pod.namespace}_${pod.name}_${pod.uid}/istio-proxy/0.log`
}

export const services = {
  payments: 'payments.prod.svc.cluster.local',
  ledger: 'ledger.prod.svc.cluster.local',
  /** Nothing listens there. */
  offline: 'offline.prod.svc.cluster.local',
  /** Answered by a server whose certificate names another workload. */
  vault: 'vault.prod.svc.cluster.local',
  /** Has a route for `/v1/` only. */
  reports: 'reports.prod.svc.cluster.local',
} as const

/** Identities a client outside any sidecar can present. */
export type DirectClient = 'debugShell' | 'stranger' | 'expired'

export type Mesh = {
  readonly root: string
  readonly ports: {
    readonly frontendHttp: number
    readonly frontendPaymentsTcp: number
    readonly frontendReplicationTcp: number
    readonly frontendLedgerTcp: number
    readonly batchHttp: number
    readonly paymentsHttp: number
    readonly paymentsTcp: number
    readonly ledgerHttp: number
    readonly ledgerTcp: number
  }
  readonly credentials: Readonly<Record<DirectClient, Credential>>
  /** What `envoy --version` says. */
  readonly version: string
  /** The configuration each Envoy was started with, YAML. */
  readonly configurations: Readonly<Record<Workload, string>>
  /** Access-log lines written so far. */
  readonly accessLines: (workload: Workload) => number
  /** Waits until that many access-log lines are in the files, in all; then they are complete. */
  readonly settle: (expected: Readonly<Record<Workload, number>>) => Promise<void>
  readonly stop: () => Promise<void>
  readonly [Symbol.asyncDispose]: () => Promise<void>
}

/**
 * @param root the log files go below it; it is never removed
 * @param lifetimeSeconds after this long every Envoy ends by itself, whatever became of its starter
 * @throws {Error} when Envoy cannot be installed or does not become ready in time
 */
export async function startMesh(root: string, lifetimeSeconds = 900): Promise<Mesh> {
  const binary = await installEnvoy()
  const run = mkdtempSync(join(tmpdir(), 'meshtrail-mesh-'))
  const closers: (() => Promise<void>)[] = []

  async function stop(): Promise<void> {
    for (const close of closers.splice(0).toReversed()) await close()
    rmSync(run, { recursive: true, force: true })
  }

  try {
    const nowMs = Date.now()
    const mesh = createAuthority('cluster.local', nowMs)
    const foreign = createAuthority('other.example', nowMs)
    writeCredentials(run, mesh.root, {
      frontend: mesh.issue(spiffeId('shop', 'frontend'), 1),
      batch: mesh.issue(spiffeId('shop', 'batch'), -2),
      payments: mesh.issue(spiffeId('prod', 'payments'), 1),
      ledger: mesh.issue(spiffeId('prod', 'ledger'), 1),
    })
    const squatter = await startSquatter(mesh.issue(spiffeId('dev', 'squatter'), 1), closers)
    const application = await startApplication(closers)
    const echo = startEcho(closers)

    const start = async (configured: Sidecar, pod: Pod): Promise<Running> => {
      const running = await startEnvoy({ binary, run, root, configured, pod, lifetimeSeconds })
      closers.push(running.stop)
      return running
    }

    const paymentsInbound: Inbound[] = [
      inbound('http', 8080, application, paymentsAuthorization),
      inbound('tcp', 9000, echo, tcpAuthorization('payments')),
      inbound('tcp', 9001, echo, replicationAuthorization),
    ]
    const ledgerInbound: Inbound[] = [
      inbound('http', 8080, application, ledgerAuthorization),
      inbound('tcp', 9000, echo, tcpAuthorization('ledger')),
    ]
    const [payments, ledger] = await Promise.all([
      start(sidecar(pods.payments, { inbound: paymentsInbound }), pods.payments),
      start(sidecar(pods.ledger, { inbound: ledgerInbound }), pods.ledger),
    ])
    const ports = {
      paymentsHttp: payments.port('inbound_0.0.0.0_8080'),
      paymentsTcp: payments.port('inbound_0.0.0.0_9000'),
      ledgerHttp: ledger.port('inbound_0.0.0.0_8080'),
      ledgerTcp: ledger.port('inbound_0.0.0.0_9000'),
    }

    const toPayments = outbound(services.payments, 8080, ports.paymentsHttp, 'payments')
    const replication = payments.port('inbound_0.0.0.0_9001')
    const tcp = {
      payments: outbound(services.payments, 9000, ports.paymentsTcp, 'payments'),
      replication: outbound(services.payments, 9001, replication, 'payments'),
      ledger: outbound(services.ledger, 9000, ports.ledgerTcp, 'ledger'),
    }
    const [frontend, batch] = await Promise.all([
      start(
        sidecar(pods.frontend, {
          outboundHttp: [
            toPayments,
            plaintext(toPayments),
            outbound(services.ledger, 8080, ports.ledgerHttp, 'ledger'),
            outbound(services.offline, 8080, closedPort, 'offline'),
            outbound(services.vault, 8080, squatter, 'vault'),
            { ...toPayments, service: services.reports, onlyPathPrefix: '/v1/' },
          ],
          outboundTcp: [tcp.payments, tcp.replication, tcp.ledger],
        }),
        pods.frontend,
      ),
      start(sidecar(pods.batch, { outboundHttp: [toPayments] }), pods.batch),
    ])

    const running: Record<Workload, Running> = { frontend, batch, payments, ledger }
    const accessLines = (workload: Workload): number => running[workload].file.lines.stdout

    return {
      root,
      ports: {
        ...ports,
        frontendHttp: frontend.port(outboundHttpListener),
        frontendPaymentsTcp: frontend.port(outboundTcpListener(tcp.payments)),
        frontendReplicationTcp: frontend.port(outboundTcpListener(tcp.replication)),
        frontendLedgerTcp: frontend.port(outboundTcpListener(tcp.ledger)),
        batchHttp: batch.port(outboundHttpListener),
      },
      credentials: {
        debugShell: mesh.issue(spiffeId('dev', 'debug-shell'), 1),
        stranger: foreign.issue(spiffeId('shop', 'frontend'), 1),
        expired: mesh.issue(spiffeId('shop', 'frontend'), -2),
      },
      version: frontend.version,
      configurations: {
        frontend: frontend.configuration,
        batch: batch.configuration,
        payments: payments.configuration,
        ledger: ledger.configuration,
      },
      accessLines,
      settle: async (expected) => {
        await waitFor(settleMs, () =>
          workloads.every((workload) => accessLines(workload) >= expected[workload]),
        )
        // One flush more, in which lines nobody expected would arrive.
        await Bun.sleep(3 * flushMs)
      },
      stop,
      [Symbol.asyncDispose]: stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** How often Envoy writes its access log out; a minimum size would flush earlier. */
const flushMs = 100
const readyMs = 20_000
const settleMs = 10_000
/** Longer than `timeout` takes to kill Envoy itself. */
const stopMs = 10_000
/** tcpmux: reserved, and nobody listens there; a port merely released could be taken again. */
const closedPort = 1

const paymentsAuthorization: Authorization = {
  deny: [
    { namespace: 'prod', policy: 'deny-admin', rule: 0, pathPrefix: '/admin' },
    { namespace: 'prod', policy: 'deny-admin', rule: 1, method: 'DELETE' },
  ],
  allow: [
    {
      namespace: 'prod',
      policy: 'payments-allow',
      rule: 0,
      principal: spiffeId('shop', 'frontend'),
      pathPrefix: '/v1/',
    },
  ],
  dryRunDeny: [{ namespace: 'prod', policy: 'freeze-exports', rule: 0, pathPrefix: '/v1/export' }],
}

const ledgerAuthorization: Authorization = {
  deny: [{ namespace: 'prod', policy: 'ledger-freeze', rule: 0, pathPrefix: '/v1/close' }],
  allow: [
    {
      namespace: 'prod',
      policy: 'ledger-allow',
      rule: 0,
      principal: spiffeId('shop', 'frontend'),
      pathPrefix: '/v1/',
    },
  ],
  dryRunDeny: [],
}

/** Only `ledger` may replicate, and it never does. */
const replicationAuthorization: Authorization = {
  deny: [],
  allow: [
    {
      namespace: 'prod',
      policy: 'payments-replication',
      rule: 0,
      principal: spiffeId('prod', 'ledger'),
    },
  ],
  dryRunDeny: [],
}

function tcpAuthorization(workload: string): Authorization {
  return {
    deny: [
      {
        namespace: 'prod',
        policy: `${workload}-no-shells`,
        rule: 0,
        principal: spiffeId('dev', 'debug-shell'),
      },
    ],
    allow: [
      {
        namespace: 'prod',
        policy: `${workload}-tcp`,
        rule: 0,
        principal: spiffeId('shop', 'frontend'),
      },
    ],
    dryRunDeny: [],
  }
}

function inbound(
  protocol: 'http' | 'tcp',
  servicePort: number,
  applicationPort: number,
  authorization: Authorization,
): Inbound {
  return { protocol, servicePort, applicationPort, authorization }
}

function outbound(service: string, servicePort: number, port: number, account: string): Outbound {
  const expectedServer = spiffeId('prod', account)
  return { service, servicePort, subset: '', upstreamPort: port, expectedServer }
}

/** The same service without TLS, as a DestinationRule with `tls: DISABLE` makes it. */
function plaintext(target: Outbound): Outbound {
  const { service, servicePort, upstreamPort } = target
  return { service, servicePort, upstreamPort, subset: 'plaintext' }
}

function sidecar(
  pod: Pod,
  traffic: Partial<Pick<Sidecar, 'inbound' | 'outboundHttp' | 'outboundTcp'>>,
): Sidecar {
  const { namespace, workload, name, format } = pod
  const none = { inbound: [], outboundHttp: [], outboundTcp: [] }
  return { namespace, workload, pod: name, format, ...none, ...traffic }
}

function writeCredentials(
  run: string,
  root: string,
  leaves: Readonly<Record<Workload, Credential>>,
): void {
  const directory = join(run, 'certificates')
  mkdirSync(directory, { mode: 0o700 })
  writeFileSync(join(directory, 'trust-bundle.crt'), root)
  for (const workload of workloads) {
    writeFileSync(join(directory, `${workload}.crt`), leaves[workload].certificate)
    writeFileSync(join(directory, `${workload}.key`), leaves[workload].key, { mode: 0o600 })
  }
}

/** What stands behind both inbound sidecars: it answers 403 and 500 itself when the path says so. */
async function startApplication(closers: (() => Promise<void>)[]): Promise<number> {
  const server = createHttpServer({ maxHeaderSize: 65_536 }, (request, response) => {
    const path = request.url ?? ''
    request.resume()
    if (path.startsWith('/v1/refuse')) {
      response.writeHead(403).end('{"error":"card blocked by its owner"}')
    } else if (path.startsWith('/v1/fail')) {
      response.writeHead(500).end('out of stock')
    } else {
      response.end('{"ok":true}')
    }
  })
  // A connection closed for idleness just when the sidecar reuses it would be a request that failed.
  server.keepAliveTimeout = 0
  return listen(server, closers)
}

function startEcho(closers: (() => Promise<void>)[]): number {
  const server = Bun.listen({
    hostname: '127.0.0.1',
    port: 0,
    socket: {
      data(socket, bytes) {
        socket.write(bytes)
      },
    },
  })
  closers.push(async () => {
    server.stop(true)
  })
  return server.port
}

async function startSquatter(
  credential: Credential,
  closers: (() => Promise<void>)[],
): Promise<number> {
  const server = createTlsServer(
    { cert: credential.certificate, key: credential.key },
    (socket) => {
      socket.on('error', () => socket.destroy())
      socket.end('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')
    },
  )
  server.on('tlsClientError', () => {}) // the caller hanging up is what is wanted here
  return listen(server, closers)
}

async function listen(
  server: HttpServer | TlsServer,
  closers: (() => Promise<void>)[],
): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  closers.push(async () => {
    server.close()
    if ('closeAllConnections' in server) server.closeAllConnections()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') {
    throw new Error('BUG: a server that listens on TCP has no port')
  }
  return address.port
}

type Running = {
  readonly version: string
  readonly configuration: string
  readonly file: CriFile
  /** @throws {Error} when there is no listener of that name */
  readonly port: (listener: string) => number
  readonly stop: () => Promise<void>
}

type Start = {
  readonly binary: string
  readonly run: string
  readonly root: string
  readonly configured: Sidecar
  readonly pod: Pod
  readonly lifetimeSeconds: number
}

/** As Istio starts its Envoy: application log lines are tab-separated. */
const applicationLogFormat = '%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t'

async function startEnvoy(options: Start): Promise<Running> {
  const { binary, run, root, pod } = options
  const name = pod.workload
  const configuration = yaml(bootstrap(options.configured))
  writeFileSync(join(run, `${name}.yaml`), configuration)
  const adminPath = join(run, `${name}.admin`)

  // Envoy opens /dev/stdout by name, which works on a pipe and a terminal but not on the socket Bun
  // makes of a child's output: hence the pipe, and `cat` between. `timeout` passes signals on.
  const script = 'mkfifo "$0" && { cat "$0" & } && exec "$@" > "$0"'
  const lifetime = ['timeout', '--kill-after=5', String(options.lifetimeSeconds)]
  const file = new CriFile(join(root, podLogPath(pod)))
  const child: Subprocess<'ignore', 'pipe', 'pipe'> = Bun.spawn(
    ['sh', '-c', script, `${name}.stdout`, ...lifetime, binary].concat(
      ['--config-path', `${name}.yaml`, '--use-dynamic-base-id', '--concurrency', '1'],
      ['--log-level', 'warning', '--log-format', applicationLogFormat],
      ['--file-flush-interval-msec', String(flushMs), '--admin-address-path', adminPath],
    ),
    { cwd: run, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' },
  )
  const copied = Promise.all([file.copy('stdout', child.stdout), file.copy('stderr', child.stderr)])
  const killNow = (): void => child.kill('SIGTERM')
  process.once('exit', killNow)

  async function stop(): Promise<void> {
    process.off('exit', killNow)
    child.kill('SIGTERM')
    const impatience = setTimeout(() => child.kill('SIGKILL'), stopMs)
    await child.exited
    clearTimeout(impatience)
    await copied
    file.close()
  }

  try {
    const listeners = await whenReady(child, adminPath, () => lastWords(root, pod))
    return {
      version: (await listeners.version()).trim(),
      configuration,
      file,
      port: (listener) => {
        const port = listeners.ports.get(listener)
        if (port === undefined) throw new Error(`envoy ${name} has no listener ${listener}`)
        return port
      },
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

type Listeners = {
  readonly ports: ReadonlyMap<string, number>
  readonly version: () => Promise<string>
}

const listenersAnswer = z.object({
  listener_statuses: z.array(
    z.object({
      name: z.string(),
      local_address: z.object({ socket_address: z.object({ port_value: z.number() }) }),
    }),
  ),
})
const serverInfoAnswer = z.object({ version: z.string() })

async function whenReady(
  child: Subprocess<'ignore', 'pipe', 'pipe'>,
  adminPath: string,
  said: () => string,
): Promise<Listeners> {
  const admin = (path: string): Promise<Response> =>
    fetch(`http://${readFileSync(adminPath, 'utf8').trim()}${path}`)
  const ready = await waitFor(readyMs, async () => {
    if (child.exitCode !== null) throw new Error(`envoy ended at once: ${said()}`)
    try {
      return (await admin('/ready')).ok
    } catch {
      return false // not written yet, or not listening yet
    }
  })
  if (!ready) throw new Error(`envoy was not ready within ${readyMs} ms: ${said()}`)

  const statuses = listenersAnswer.parse(await (await admin('/listeners?format=json')).json())
  const ports = new Map<string, number>()
  for (const { name, local_address: address } of statuses.listener_statuses) {
    ports.set(name, address.socket_address.port_value)
  }
  const version = async (): Promise<string> =>
    serverInfoAnswer.parse(await (await admin('/server_info')).json()).version
  return { ports, version }
}

function lastWords(root: string, pod: Pod): string {
  return readFileSync(join(root, podLogPath(pod)), 'utf8')
    .split('\n')
    .slice(-6)
    .join('\n')
}

async function waitFor(limitMs: number, done: () => boolean | Promise<boolean>): Promise<boolean> {
  const endMs = performance.now() + limitMs
  while (performance.now() < endMs) {
    if (await done()) return true
    await Bun.sleep(20)
  }
  return false
}

function yaml(configuration: JsonObject): string {
  return stringify(configuration, { lineWidth: 0, aliasDuplicateObjects: false })
}
