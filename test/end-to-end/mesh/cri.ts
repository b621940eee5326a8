/**
 * Writes a container's log file as containerd does: every line of stdout and stderr behind
 * `<RFC 3339 nano> <stream> <F|P> `, lines longer than 16 KiB cut into `P` pieces and a last `F`.
 *
 * It never rotates, and a file that exists is appended to.
 *
 * @see containerd, internal/cri/io/logger.go, redirectLogs
 */
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

/** containerd's `max_container_log_line_size`. */
export const criLineBytesMax = 16_384

export type ContainerStream = 'stdout' | 'stderr'

export class CriFile {
  private readonly fd: number
  /** Whole lines written, by stream: a line in several pieces counts once. */
  readonly lines: Record<ContainerStream, number> = { stdout: 0, stderr: 0 }

  constructor(path: string) {
    mkdirSync(dirname(path), { recursive: true })
    this.fd = openSync(path, 'a')
  }

  /** Copies one stream of the container until it ends. */
  async copy(stream: ContainerStream, bytes: ReadableStream<Uint8Array>): Promise<void> {
    let rest: Uint8Array = new Uint8Array(0)
    for await (const chunk of bytes) {
      let data: Uint8Array = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      const out: Uint8Array[] = []
      for (let end = data.indexOf(lineFeed); end !== -1; end = data.indexOf(lineFeed)) {
        this.frame(out, stream, data.subarray(0, end))
        data = data.subarray(end + 1)
      }
      if (out.length > 0) writeSync(this.fd, Buffer.concat(out))
      rest = data.slice()
    }
    // What the container left unterminated stays a partial line for ever, as in containerd.
    if (rest.length > 0) writeSync(this.fd, Buffer.concat(entry(stream, 'P', rest)))
  }

  close(): void {
    closeSync(this.fd)
  }

  private frame(out: Uint8Array[], stream: ContainerStream, line: Uint8Array): void {
    let rest = line
    while (rest.length > criLineBytesMax) {
      out.push(...entry(stream, 'P', rest.subarray(0, criLineBytesMax)))
      rest = rest.subarray(criLineBytesMax)
    }
    out.push(...entry(stream, 'F', rest))
    this.lines[stream]++
  }
}

const lineFeed = 0x0a

function entry(stream: ContainerStream, tag: 'F' | 'P', content: Uint8Array): Uint8Array[] {
  return [Buffer.from(`${rfc3339Nano()} ${stream} ${tag} `), content, Buffer.from([lineFeed])]
}

/** The time of day in nanoseconds, UTC, without trailing zeros, as Go's `time.RFC3339Nano` has it. */
function rfc3339Nano(): string {
  const now = startNs + process.hrtime.bigint()
  const whole = new Date(Number(now / 1_000_000n)).toISOString().slice(0, 19)
  const fraction = String(now % 1_000_000_000n)
    .padStart(9, '0')
    .replace(/0+$/, '')
  return fraction === '' ? `${whole}Z` : `${whole}.${fraction}Z`
}

const startNs =
  BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n -
  process.hrtime.bigint()
