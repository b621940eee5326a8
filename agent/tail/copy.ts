/**
 * Whether one file is a copy of another, or of its beginning: what `copytruncate` makes before it
 * truncates, and what compressing a rotated file makes.
 */

import { readSync } from 'node:fs'
import { compareBytesMax } from '../limits.ts'
import { readRange } from './open-file.ts'
import type { ByteStream } from './stream-reader.ts'

const stepBytes = 1 << 20

/**
 * Whether everything in one plain file is what another begins with. Files longer than
 * `compareBytesMax` are compared up to there and in their last MiB.
 *
 * @throws the system's error
 */
export function isPrefix(fd: number, sizeBytes: number, ofFd: number): boolean {
  const isSameAt = (offset: number): boolean => {
    const length = Math.min(stepBytes, sizeBytes - offset)
    const bytes = readRange(fd, offset, length)
    return bytes.length === length && bytes.equals(readRange(ofFd, offset, length))
  }
  const end = Math.min(sizeBytes, compareBytesMax)
  for (let offset = 0; offset < end; offset += stepBytes) if (!isSameAt(offset)) return false
  return end === sizeBytes || isSameAt(Math.max(end, sizeBytes - stepBytes))
}

/**
 * Whether everything in a stream is what a plain file begins with.
 *
 * @throws the stream's or the system's error
 */
export async function isPrefixStream(stream: ByteStream, ofFd: number): Promise<boolean> {
  let offset = 0
  while (stream.buffered.length > 0 || (await stream.more())) {
    const bytes = stream.take(stream.buffered.length)
    if (!bytes.equals(readRange(ofFd, offset, bytes.length))) return false
    offset += bytes.length
  }
  return true
}

/**
 * The length a gzip file says its content has, modulo 2^32: right for files of one member, which is
 * what kubelet, Docker and logrotate write.
 *
 * @returns -1 when the file is too short to say
 */
export function gzipLength(fd: number, sizeBytes: number): number {
  const trailer = Buffer.alloc(4)
  if (sizeBytes < 18 || readSync(fd, trailer, 0, 4, sizeBytes - 4) !== 4) return -1
  return trailer.readUInt32LE(0)
}
