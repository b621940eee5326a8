/** `meshtrail config check | show`. */
import { hostname } from 'node:os'
import { stringify } from 'yaml'
import { type Config, defaultConfig, followConfig, loadConfig } from '../config.ts'
import { listFiles } from '../tail/discover.ts'
import { formatBytes, type Size } from '../terminal/units.ts'
import { facts, tell, writeJson, writeOut } from './output.ts'

export async function checkConfig(path: string, json: boolean): Promise<void> {
  const config = loadConfig(path, hostname())
  const { files } = listFiles(followConfig(config), (problem) =>
    tell(`${problem.path}: ${problem.message}`),
  )
  const captured = files.map((file) => ({
    path: file.path,
    trust: file.provenance.trust,
    bytes: file.size,
  }))
  if (json) {
    writeJson({ ok: true, cluster: config.cluster, node: config.node, files: captured })
    return
  }
  writeOut(
    facts([
      ['cluster', config.cluster],
      ['node', config.node],
      ['data', config.data.path],
      ['listen', config.http.listen],
      ['files', `${captured.length} would be followed now`],
    ]),
  )
  for (const file of captured) {
    writeOut(`  ${file.trust.padEnd(13)} ${formatBytes(file.bytes).padStart(9)}  ${file.path}\n`)
  }
  writeOut('configuration is valid\n')
}

export function showConfig(path: string | null): void {
  const config = path === null ? defaultConfig(hostname()) : loadConfig(path, hostname())
  writeOut(stringify(asWritten(config)))
}

/** Durations and sizes as a configuration file has them: what is printed can be saved and used. */
function asWritten(config: Config): object {
  const { data, query, commitAge } = config
  return {
    ...config,
    data: { ...data, bytesMax: sizeText(data.bytesMax) },
    query: {
      ...query,
      timeout: inUnits(query.timeout, durationUnits),
      memory: inUnits(query.memory, byteUnits),
    },
    commitAge: inUnits(commitAge, durationUnits),
  }
}

function sizeText(size: Size): string {
  if (size.kind === 'bytes') return inUnits(size.bytes, byteUnits)
  return `${Number((size.fraction * 100).toPrecision(12))}%`
}

type Units = readonly (readonly [unit: string, size: number])[]
const durationUnits: Units = [
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
]
const byteUnits: Units = [
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
  ['B', 1],
]

/** In the largest unit of which it is a whole number. */
function inUnits(value: number, units: Units): string {
  const [unit, size] = units.find(([, each]) => value % each === 0) ?? units.at(-1) ?? ['', 1]
  return `${value / size}${unit}`
}
