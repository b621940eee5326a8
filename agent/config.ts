/**
 * The configuration: every field with its unit, default and danger. This type is its documentation.
 *
 * Durations are written `900ms`, `5m`, `1h`; sizes `512MiB`, or `10%` of the file system where said.
 */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { LineCounter, parseDocument } from 'yaml'
import { z } from 'zod'
import { errnoOf, messageOf, OpsError } from './errors.ts'
import { type FollowConfig, defaultFollowConfig } from './tail/discover.ts'
import { parseBytes, parseDuration, parseSize, type Size } from './terminal/units.ts'

const duration = z.string().transform((text, context) => {
  const ms = parseDuration(text)
  if (ms !== undefined && ms > 0) return ms
  context.addIssue({ code: 'custom', message: 'a duration such as 900ms, 30s or 5m', input: text })
  return z.NEVER
})

const bytes = z.string().transform((text, context) => {
  const parsed = parseBytes(text)
  if (parsed !== undefined && parsed > 0) return parsed
  context.addIssue({ code: 'custom', message: 'a size such as 512MiB', input: text })
  return z.NEVER
})

const share = z.string().transform((text, context): Size => {
  const parsed = parseSize(text)
  if (parsed !== undefined) return parsed
  context.addIssue({
    code: 'custom',
    message: 'a size such as 20GiB, or a share such as 10%',
    input: text,
  })
  return z.NEVER
})

const listen = z.string().refine((text) => listenAddress(text) !== null, {
  message:
    'a loopback address with a port, such as 127.0.0.1:7575 or [::1]:7575, until TLS is configured',
})

const trust = z.enum(['proxy', 'control_plane', 'api_server', 'none'])

const schema = z.strictObject({
  /** Names that every event carries and the log's origin is made of. */
  cluster: z.string().min(1).default('default'),
  /** Default: the variable NODE_NAME, else the host name. */
  node: z.string().min(1).optional(),
  data: z
    .strictObject({
      /** Where everything is kept; the one directory that must be writable. */
      path: z.string().min(1).default('/var/lib/meshtrail'),
      /** When this is used up nothing is committed and reading waits. Too small: capture stops. */
      bytesMax: share.default({ kind: 'share', fraction: 0.1 }),
    })
    .prefault({}),
  logs: z
    .strictObject({
      /** Directories of `<namespace>_<pod>_<uid>/<container>/<n>.log`. */
      pods: z.array(z.string()).default(() => [...defaultFollowConfig.podRoots]),
      /** Globs of API server audit logs. Whoever can write there can state who did what. */
      kubernetesAudit: z.array(z.string()).default(() => [...defaultFollowConfig.auditPaths]),
      /** Further files, each with what it may claim; `none` keeps lines without verdict or principal. */
      files: z.array(z.strictObject({ glob: z.string(), trust: trust.optional() })).default([]),
      /** Containers that are a pod's own proxy; their lines attest that pod only. */
      proxyContainers: z.array(z.string()).default(() => [...defaultFollowConfig.proxyContainers]),
      /** Where symbolic links of log files may lead, beside the directories above. */
      symlinkRoots: z.array(z.string()).default(() => [...defaultFollowConfig.symlinkRoots]),
      /** Files there before the agent was ever started: read them, or declare them a gap. */
      from: z.enum(['beginning', 'now']).default('beginning'),
    })
    .prefault({}),
  rules: z
    .strictObject({
      /** The rules that come with meshtrail. */
      shipped: z.boolean().default(true),
      /** Files or directories of Sigma rules. */
      paths: z.array(z.string()).default([]),
    })
    .prefault({}),
  http: z
    .strictObject({
      /** `host:port`; anything but a loopback address is refused until TLS is configured. */
      listen: listen.default('127.0.0.1:7575'),
      /** Whether health, version, checkpoint and tiles need no token. None of them carries a line. */
      open: z.boolean().default(true),
    })
    .prefault({}),
  query: z
    .strictObject({
      timeout: duration.prefault('30s'),
      /** Of one query's child process, which is killed above it. */
      memory: bytes.prefault('512MiB'),
      /** Children at a time; more queries wait, then are refused. */
      running: z.number().int().min(1).max(64).default(2),
    })
    .prefault({}),
  /**
   * The longest a line waits for its commit once it was read. More means less work on a quiet node, and
   * more to re-read. With a poll before it, another after it and the writing, 800 ms make it one second.
   */
  commitAge: duration.prefault('800ms'),
})

export type Config = z.infer<typeof schema> & { readonly node: string }

/** The defaults, for commands that need no file. */
export function defaultConfig(hostname: string): Config {
  return withNode(schema.parse({}), hostname)
}

/**
 * @param path a YAML file
 * @throws {OpsError} `configuration`, naming the line, the field, its value and what is allowed
 */
export function loadConfig(path: string, hostname: string): Config {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    const missing = errnoOf(cause) === 'ENOENT'
    throw new OpsError('configuration', `cannot read ${path}: ${messageOf(cause)}`, {
      hint: missing
        ? 'give an existing file with --config; without one the defaults apply'
        : 'make the file readable for this user',
      cause,
    })
  }
  return parseConfig(text, path, hostname)
}

/** @throws {OpsError} `configuration` */
export function parseConfig(text: string, path: string, hostname: string): Config {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true })
  const [syntax] = document.errors
  if (syntax !== undefined) {
    const { line, col } = lines.linePos(syntax.pos[0])
    const [message = ''] = syntax.message.split('\n')
    throw refusal(`${path}:${line}:${col}: ${message}`, 'correct the YAML')
  }
  const value: unknown = document.toJS() ?? {}
  const parsed = schema.safeParse(value)
  if (parsed.success) return withNode(parsed.data, hostname)
  const problems = parsed.error.issues.map((issue) => {
    const at = positionOf(document, lines, issue.path)
    const field = issue.path.join('.')
    return `${path}:${at}: ${describe(issue, field, valueAt(value, issue.path))}`
  })
  throw refusal(
    problems.join('\n'),
    'meshtrail config show prints every field with its default, the README what each means',
  )
}

function refusal(message: string, hint: string): OpsError {
  return new OpsError('configuration', message, { hint })
}

function describe(issue: z.core.$ZodIssue, field: string, value: unknown): string {
  const shown = JSON.stringify(value) ?? 'nothing'
  switch (issue.code) {
    case 'unrecognized_keys': {
      const keys = issue.keys.map((key) => (field === '' ? key : `${field}.${key}`))
      return `${keys.join(', ')}: no such field`
    }
    case 'invalid_value':
      return `${field} is ${shown}, allowed: ${issue.values.map(String).join(', ')}`
    case 'invalid_type':
      return `${field} is ${shown}, allowed: a ${issue.expected}`
    case 'custom':
      return `${field} is ${shown}, allowed: ${issue.message}`
    case 'too_small':
    case 'too_big':
    case 'invalid_format':
    case 'not_multiple_of':
    case 'invalid_union':
    case 'invalid_key':
    case 'invalid_element':
      return `${field} is ${shown}: ${issue.message}`
  }
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value
  for (const key of path) {
    if (typeof at !== 'object' || at === null) return undefined
    at = new Map<PropertyKey, unknown>(Object.entries(at)).get(String(key))
  }
  return at
}

/** Of the value, or of the nearest thing around it that the file has. */
function positionOf(
  document: ReturnType<typeof parseDocument>,
  lines: LineCounter,
  path: readonly PropertyKey[],
): string {
  for (let length = path.length; length > 0; length--) {
    const node: unknown = document.getIn(path.slice(0, length), true)
    if (typeof node !== 'object' || node === null || !('range' in node)) continue
    const { range } = node
    if (!Array.isArray(range) || typeof range[0] !== 'number') continue
    const { line, col } = lines.linePos(range[0])
    return `${line}:${col}`
  }
  return '1:1'
}

function withNode(config: z.infer<typeof schema>, hostname: string): Config {
  return { ...config, node: config.node ?? process.env['NODE_NAME'] ?? hostname }
}

/** @returns null for anything but a loopback address with a port: without TLS tokens would travel readable */
export function listenAddress(
  text: string,
): { readonly host: string; readonly port: number } | null {
  const match = /^(?:\[([0-9a-f:]+)\]|([^:]+)):(\d{1,5})$/i.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (host === undefined || port > 65_535) return null
  const isLoopback = host === '::1' || host === 'localhost' || /^127\.\d+\.\d+\.\d+$/.test(host)
  return isLoopback ? { host, port } : null
}

/** What the tail is told; paths become absolute. */
export function followConfig(config: Config): FollowConfig {
  const { logs } = config
  return {
    ...defaultFollowConfig,
    podRoots: logs.pods.map((path) => resolve(path)),
    auditPaths: logs.kubernetesAudit.map((path) => resolve(path)),
    named: logs.files.map(({ glob, trust: claimed }) => ({
      glob: resolve(glob),
      ...(claimed === undefined ? {} : { trust: claimed }),
    })),
    proxyContainers: logs.proxyContainers,
    symlinkRoots: logs.symlinkRoots.map((path) => resolve(path)),
  }
}
