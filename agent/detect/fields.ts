/**
 * What the field names and log sources of Sigma rules mean in the `events` table: our own columns,
 * the names that proxies and the Kubernetes audit log use for them, and the rest in `attributes`.
 * Which rows a log source names is decided by `source` alone.
 */

import type {
  Field,
  FieldMap,
  FieldResolution,
  LogsourceMap,
  Target,
} from '../../rules/engine/compile.ts'
import { nearestNames } from '../../rules/engine/nearest.ts'
import { quoteName, quoteText } from '../../rules/engine/sql.ts'
import { type Column, columns, type Source, sources } from '../event.ts'
import { jsonField } from './json-field.ts'

/** Broken JSON in one row must not stop the scan that all rules share. */
const attributesSql =
  'CASE WHEN json_valid(CAST(attributes AS VARCHAR)) THEN CAST(attributes AS VARCHAR) END'
const changeSql = 'CASE WHEN json_valid(CAST(change AS VARCHAR)) THEN CAST(change AS VARCHAR) END'

const requestUri = "path || CASE WHEN query IS NULL THEN '' ELSE '?' || query END"

/** Names used by proxies, log taxonomies and the audit log, for what we keep in a column. */
const aliases: ReadonlyMap<string, string> = new Map([
  // Envoy and Istio access logs
  ['authority', 'host'],
  ['response_code', 'status'],
  ['requested_server_name', 'sni'],
  ['bytes_received', 'bytes_in'],
  ['bytes_sent', 'bytes_out'],
  ['downstream_remote_address', 'client_ip'],
  ['downstream_local_address', 'server_ip'],
  ['downstream_peer_uri_san', 'principal'],
  ['downstream_tls_version', 'tls_version'],
  ['downstream_transport_failure_reason', 'tls_detail'],
  ['grpc_status_number', 'grpc_status'],
  ['start_time', 'ts'],
  // ztunnel, and the neutral names of the same things
  ['src.addr', 'client_ip'],
  ['src.identity', 'principal'],
  ['src.principal', 'principal'],
  ['src.namespace', 'src_namespace'],
  ['src.ns', 'src_namespace'],
  ['src.workload', 'src_workload'],
  ['dst.addr', 'server_ip'],
  ['dst.identity', 'dst_principal'],
  ['dst.principal', 'dst_principal'],
  ['dst.namespace', 'dst_namespace'],
  ['dst.ns', 'dst_namespace'],
  ['dst.service', 'dst_service'],
  ['dst.workload', 'dst_workload'],
  ['authz.policy', 'policy'],
  // Kubernetes audit log
  ['verb', 'method'],
  ['auditID', 'request_id'],
  ['user.username', 'principal'],
  ['username', 'principal'],
  ['impersonatedUser.username', 'on_behalf_of'],
  ['userAgent', 'user_agent'],
  ['sourceIPs', 'client_ip'],
  ['responseStatus.code', 'status'],
  ['objectRef.apiGroup', 'api_group'],
  ['apiGroup', 'api_group'],
  ['objectRef.resource', 'resource'],
  ['objectRef.subresource', 'subresource'],
  ['objectRef.namespace', 'object_namespace'],
  ['objectRef.name', 'object_name'],
  // W3C names of Sigma's web server rules
  ['cs-method', 'method'],
  ['cs-uri-stem', 'path'],
  ['cs-uri-query', 'query'],
  ['cs-host', 'host'],
  ['cs-version', 'protocol'],
  ['cs-user-agent', 'user_agent'],
  ['c-useragent', 'user_agent'],
  ['cs-username', 'end_user'],
  ['c-ip', 'client_ip'],
  ['src_ip', 'client_ip'],
  ['s-ip', 'server_ip'],
  ['s-port', 'server_port'],
  ['sc-status', 'status'],
  ['sc-bytes', 'bytes_out'],
  ['cs-bytes', 'bytes_in'],
])

/** Names for something computed from columns. */
const expressions: ReadonlyMap<string, Field> = new Map<string, Field>([
  ['requestURI', { sql: `(${requestUri})`, type: 'text' }],
  ['c-uri', { sql: `(${requestUri})`, type: 'text' }],
  ['cs-uri', { sql: `(${requestUri})`, type: 'text' }],
  // Envoy and the audit log count milliseconds.
  ['duration', { sql: '(duration_us // 1000)', type: 'integer' }],
])

/** Source fields that have no column, by the names their sources give them. */
const attributeNames: ReadonlySet<string> = new Set([
  'connection_termination_details',
  'response_code_details',
  'route_name',
  'upstream_cluster',
  'upstream_host',
  'upstream_local_address',
  'upstream_service_time',
  'upstream_transport_failure_reason',
  'x_forwarded_for',
  'x_forwarded_client_cert',
  'stage',
  'level',
  'annotations',
  'user.groups',
  'user.uid',
  'requestObject',
  'responseObject',
  'hostPath',
  'cs-referer',
  'cs-cookie',
  'referer',
  'rule_id',
  'rule_title',
  'event',
  'tags',
])

const attributeAliases: ReadonlyMap<string, string> = new Map([
  ['cs-referer', 'referer'],
  ['cs-cookie', 'cookie'],
])

/** Columns whose text a keyword is looked for in, beside the raw line. */
const keywordColumns = columns
  .filter((column) => !column.hidden && isTextual(column))
  .map(({ name, type }) => (type === 'json' ? textOfJson(quoteName(name)) : quoteName(name)))

function isTextual(column: Column): boolean {
  return column.type === 'utf8' || column.type === 'json'
}

/** DuckDB would take text compared with a JSON column for JSON as well, and fail on what is none. */
function textOfJson(name: string): string {
  return `CAST(${name} AS VARCHAR)`
}

function columnField(column: Column): Field | undefined {
  const name = quoteName(column.name)
  switch (column.type) {
    case 'utf8':
      return { sql: name, type: 'text' }
    case 'json':
      return { sql: textOfJson(name), type: 'text' }
    case 'u32':
    case 'u64':
    case 'i64':
      return { sql: name, type: 'integer' }
    case 'time':
      return { sql: `strftime(${name} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')`, type: 'text' }
    case 'bytes':
      return { sql: `try(decode(${name}))`, type: 'text' }
  }
}

const columnsByName: ReadonlyMap<string, Column> = new Map(
  columns.filter((column) => !column.hidden).map((column) => [column.name, column]),
)

function resolveField(name: string): FieldResolution {
  const column = columnsByName.get(aliases.get(name) ?? name)
  const field = column === undefined ? expressions.get(name) : columnField(column)
  if (field !== undefined) return { kind: 'known', field }
  if (name.startsWith('change.')) {
    return { kind: 'known', field: jsonField(changeSql, name.slice('change.'.length)) }
  }
  const inner = name.startsWith('attributes.') ? name.slice('attributes.'.length) : name
  const rest = jsonField(attributesSql, attributeAliases.get(inner) ?? inner)
  const names = [
    ...columnsByName.keys(),
    ...aliases.keys(),
    ...expressions.keys(),
    ...attributeNames,
  ]
  const nearest = nearestNames(name, names)
  const [outermost = ''] = inner.split('.')
  const isNamed = inner !== name || attributeNames.has(inner) || attributeNames.has(outermost)
  // A dotted name is a source's own field, unless it is nearly one we know.
  const isKnown = isNamed || (name.includes('.') && nearest.length === 0)
  return isKnown ? { kind: 'known', field: rest } : { kind: 'assumed', field: rest, nearest }
}

export const eventFields: FieldMap = {
  resolve: resolveField,
  keywords: {
    sql: `[try(decode(raw)), ${keywordColumns.join(', ')}]`,
    type: 'list',
  },
}

const envoySources: readonly Source[] = ['istio.access', 'envoy.access', 'consul.access']
const requestSources: readonly Source[] = [...envoySources, 'linkerd.access', 'nginx.access']
const networkSources: readonly Source[] = ['istio.ztunnel', 'linkerd.proxy', 'cilium.flow']

/** For each product, its services and their sources; '' is the product without a service. */
const products: ReadonlyMap<string, Readonly<Record<string, readonly Source[]>>> = new Map([
  [
    'istio',
    {
      '': ['istio.access', 'istio.ztunnel', 'istio.istiod'],
      access: ['istio.access'],
      proxy: ['istio.access', 'istio.ztunnel'],
      ztunnel: ['istio.ztunnel'],
      istiod: ['istio.istiod'],
      pilot: ['istio.istiod'],
    },
  ],
  ['envoy', { '': envoySources, access: envoySources, proxy: envoySources }],
  [
    'linkerd',
    {
      '': ['linkerd.access', 'linkerd.proxy', 'linkerd.control'],
      access: ['linkerd.access'],
      proxy: ['linkerd.proxy'],
      control: ['linkerd.control'],
    },
  ],
  [
    'consul',
    {
      '': ['consul.access', 'consul.audit', 'consul.agent'],
      access: ['consul.access'],
      audit: ['consul.audit'],
      agent: ['consul.agent'],
    },
  ],
  ['cilium', { '': ['cilium.flow'], flow: ['cilium.flow'], hubble: ['cilium.flow'] }],
  ['nginx', { '': ['nginx.access'], access: ['nginx.access'] }],
  ['kubernetes', { '': ['k8s.audit'], audit: ['k8s.audit'] }],
  ['meshtrail', { '': ['meshtrail'] }],
])

const categories: ReadonlyMap<string, readonly Source[]> = new Map([
  ['webserver', requestSources],
  ['mesh_access', [...requestSources, ...networkSources]],
  ['application', ['k8s.audit']],
])

/** Services that stand alone, without a product. */
const services: ReadonlyMap<string, readonly Source[]> = new Map([
  ['access', requestSources],
  ['ztunnel', ['istio.ztunnel']],
])

/**
 * Rows of `source`s that satisfy every attribute the rule sets. The agent's own events are only
 * there when the rule names them.
 */
export const eventLogsources: LogsourceMap = ({ category, product, service }) => {
  const captured = [...products.keys()].filter((name) => name !== 'meshtrail').join(', ')
  const hint = `captured are product ${captured}, and category ${[...categories.keys()].join(', ')}`
  const ofProduct = product === undefined ? undefined : products.get(product)
  if (product !== undefined && ofProduct === undefined) return { kind: 'absent', hint }
  let named: readonly Source[] = sources.filter((source) => source !== 'meshtrail')
  if (ofProduct !== undefined) {
    const ofService = ofProduct[service ?? '']
    if (ofService === undefined) {
      const known = Object.keys(ofProduct).filter((name) => name !== '')
      return { kind: 'absent', hint: `services of ${product} are ${known.join(', ') || 'none'}` }
    }
    named = ofService
  } else if (service !== undefined) {
    const ofService = services.get(service)
    if (ofService === undefined) return { kind: 'absent', hint: 'set the product as well' }
    named = ofService
  }
  if (category !== undefined) {
    // `application` alone would name every Kubernetes request for rules about Django and the like.
    const isTooWide = category === 'application' && product === undefined
    const ofCategory = isTooWide ? undefined : categories.get(category)
    if (ofCategory === undefined) return { kind: 'absent', hint }
    named = named.filter((source) => ofCategory.includes(source))
  }
  if (named.length === 0) return { kind: 'absent', hint }
  return { kind: 'rows', sql: `source IN (${named.map(quoteText).join(', ')})` }
}

/** Rules over the `events` table. */
export const eventTarget: Target = { fields: eventFields, logsources: eventLogsources }
