/** What a log file's name says: which file it was before it was rotated, and whether it is compressed. */

export type LogName = {
  /** The name under which it is (or was) written. */
  readonly live: string
  readonly rotated: boolean
  readonly gzip: boolean
}

/** `$1$2` of each is the live name. */
const rotations: readonly RegExp[] = [
  // kubelet: 0.log.20260101-120000
  /^(.+)\.\d{8}-\d{6}()$/,
  // logrotate, Docker: audit.log.1
  /^(.+)\.\d{1,4}()$/,
  // logrotate with dateext: audit.log-20260101
  /^(.+)-\d{8}(?:-\d{1,10})?()$/,
  // the API server (lumberjack): audit-2026-01-01T12-00-00.000.log
  /^(.+)-\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d{3})?(\.[^.]+)?$/,
  // Consul: audit-1767225600000000000.json
  /^(.+)-\d{10,19}(\.[^.]+)$/,
]

/** @param name without its directory */
export function readLogName(name: string): LogName {
  // Most names, in every scan: `0.log`.
  if (name.endsWith('.log') && !name.includes('-')) {
    return { live: name, rotated: false, gzip: false }
  }
  const gzip = name.endsWith('.gz')
  const plain = gzip ? name.slice(0, -3) : name
  for (const rotation of rotations) {
    const match = rotation.exec(plain)
    if (match !== null) {
      return { live: `${match[1] ?? ''}${match[2] ?? ''}`, rotated: true, gzip }
    }
  }
  return { live: plain, rotated: gzip, gzip }
}
