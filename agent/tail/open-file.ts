/**
 * Opens log files, and nothing else: no pipe, no device, no link out of the allowed directories.
 *
 * A pod that may write to the node's log directory must not be able to have the agent read
 * /etc/shadow for it, or to stop it on a pipe that nobody writes to.
 */

import { closeSync, constants, fstatSync, openSync, readlinkSync, readSync } from 'node:fs'
import { errnoOf } from '../errors.ts'

export type OpenFile = {
  /** Owned by the caller. */
  readonly fd: number
  readonly dev: number
  readonly ino: number
  readonly size: number
  readonly mtimeMs: number
}

export type Refusal = 'not_a_file' | 'symlink_refused'

/**
 * @param path resolved: its last component must not be a link
 * @param below directories, resolved, of which one must hold the file; undefined allows any
 * @throws the system's error when the file cannot be opened
 */
export function openLogFile(path: string, below?: readonly string[]): OpenFile | Refusal {
  // O_NONBLOCK: opening a pipe without a writer would block the whole process.
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW
  const fd = openSync(path, flags)
  try {
    const { dev, ino, size, mtimeMs, ...stats } = fstatSync(fd)
    const refusal: Refusal | null = !isRegular(stats.mode)
      ? 'not_a_file'
      : below !== undefined && !isBelow(placeOf(fd, path), below)
        ? 'symlink_refused'
        : null
    if (refusal === null) return { fd, dev, ino, size, mtimeMs }
    closeSync(fd)
    return refusal
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

export function isBelow(path: string, directories: readonly string[]): boolean {
  return directories.some((directory) =>
    path.startsWith(directory.endsWith('/') ? directory : `${directory}/`),
  )
}

/**
 * Reads what there is of a range.
 *
 * @returns a buffer of its own; shorter than `length` only where the file ends
 * @throws the system's error
 */
export function readRange(fd: number, offset: number, length: number): Buffer {
  const buffer = Buffer.allocUnsafeSlow(length)
  let filled = 0
  while (filled < length) {
    const count = readSync(fd, buffer, filled, length - filled, offset + filled)
    if (count === 0) break
    filled += count
  }
  return filled === length ? buffer : buffer.subarray(0, filled)
}

function isRegular(mode: number): boolean {
  return (mode & constants.S_IFMT) === constants.S_IFREG
}

/** Where the open file really is: directories above it may have been swapped for links meanwhile. */
function placeOf(fd: number, path: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch (error) {
    // No /proc: the check before opening has to do.
    if (errnoOf(error) === 'ENOENT') return path
    throw error
  }
}
