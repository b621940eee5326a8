/** `meshtrail config check | show`. */
import { hostname } from 'node:os'
import { stringify } from 'yaml'
import { configFile, defaultConfig, followConfig, loadConfig } from '../config.ts'
import { listFiles } from '../tail/discover.ts'
import { formatBytes } from '../terminal/units.ts'
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
  writeOut(stringify(configFile(config)))
}
