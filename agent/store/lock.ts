/**
 * One agent per data directory, by `flock`: it dies with the process, which a pid file does not,
 * and process ids repeat between containers.
 */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { dlopen, FFIType } from 'bun:ffi'
import { errnoOf, messageOf, OpsError } from '../errors.ts'
import { names } from './filenames.ts'

const exclusiveNonBlocking = 2 | 4
const sharedNonBlocking = 1 | 4

/** @throws {OpsError} `in_use` when another process holds it, `permission` when it cannot be opened */
export function lockDataDirectory(root: string): Disposable {
  const path = join(root, names.lock)
  let fd: number
  try {
    fd = openSync(path, 'a', 0o640)
  } catch (cause) {
    throw new OpsError(
      errnoOf(cause) === 'ENOENT' ? 'configuration' : 'permission',
      `the data directory ${root} is not writable: ${messageOf(cause)}`,
      { hint: 'give a directory that this user may write with --data', detail: { path }, cause },
    )
  }
  if (flock(fd, exclusiveNonBlocking) !== 0) {
    closeSync(fd)
    throw new OpsError('in_use', `the data directory ${root} is in use by another agent`, {
      hint: 'stop the other agent, or give this one a directory of its own with --data',
      detail: { path },
    })
  }
  return { [Symbol.dispose]: () => closeSync(fd) }
}

/** Whether an agent holds the directory now. Reads only. */
export function isLocked(root: string): boolean {
  let fd: number
  try {
    fd = openSync(join(root, names.lock), 'r')
  } catch {
    return false
  }
  try {
    return flock(fd, sharedNonBlocking) !== 0
  } finally {
    closeSync(fd)
  }
}

function flock(fd: number, operation: number): number {
  const library = dlopen('libc.so.6', {
    flock: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  })
  try {
    return library.symbols.flock(fd, operation)
  } finally {
    library.close()
  }
}
