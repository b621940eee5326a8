/**
 * Writing so that it is still there after a power cut: temporary file, fsync, rename, fsync of the folder.
 *
 * A failed fsync leaves unknown bytes on disk and in the page cache, so it is never retried: its code
 * is `disk`, and the process must stop.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { errnoOf, messageOf, OpsError } from '../errors.ts'

/** Writes and syncs `<path>.tmp`; the rename is the caller's, because its moment matters. */
export function stage(root: string, path: string, bytes: Uint8Array): void {
  const temporary = join(root, `${path}.tmp`)
  let fd: number
  try {
    fd = openSync(temporary, 'w', 0o640)
  } catch (cause) {
    throw writeFailure(temporary, cause)
  }
  try {
    writeAll(fd, bytes)
    syncFd(fd, temporary)
  } catch (cause) {
    closeSync(fd)
    rmSync(temporary, { force: true })
    throw cause instanceof OpsError ? cause : writeFailure(temporary, cause)
  }
  closeSync(fd)
}

/** Renames a staged file to its name; durable only after `syncFolder`. */
export function publish(root: string, path: string, staged = `${path}.tmp`): void {
  try {
    renameSync(join(root, staged), join(root, path))
  } catch (cause) {
    throw writeFailure(path, cause)
  }
}

/** Makes the names in a folder durable. */
export function syncFolder(root: string, folder: string): void {
  const path = join(root, folder)
  const fd = openSync(path, 'r')
  try {
    syncFd(fd, path)
  } finally {
    closeSync(fd)
  }
}

/** Stage, publish, sync: for files that commit nothing by themselves. */
export function writeDurably(root: string, path: string, bytes: Uint8Array): void {
  stage(root, path, bytes)
  publish(root, path)
  syncFolder(root, dirname(path))
}

export function syncFile(root: string, path: string): void {
  const fd = openSync(join(root, path), 'r')
  try {
    syncFd(fd, path)
  } finally {
    closeSync(fd)
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  let written = 0
  while (written < bytes.length) written += writeSync(fd, bytes, written, bytes.length - written)
}

function syncFd(fd: number, path: string): void {
  try {
    fsyncSync(fd)
  } catch (cause) {
    if (isFull(cause)) throw writeFailure(path, cause)
    throw new OpsError('disk', `fsync of ${path} failed: ${messageOf(cause)}`, {
      hint: 'check the disk; start the agent again and it re-reads everything after the last commit',
      detail: { path },
      cause,
    })
  }
}

function isFull(cause: unknown): boolean {
  const errno = errnoOf(cause)
  return errno === 'ENOSPC' || errno === 'EDQUOT'
}

function writeFailure(path: string, cause: unknown): OpsError {
  if (isFull(cause)) {
    return new OpsError('disk_full', `no space left to write ${path}`, {
      hint: 'free space on the disk, or give the agent a larger one; it goes on by itself',
      detail: { path },
      cause,
    })
  }
  const errno = errnoOf(cause)
  if (errno === 'EACCES' || errno === 'EPERM' || errno === 'EROFS') {
    return new OpsError('permission', `${path} is not writable: ${messageOf(cause)}`, {
      hint: 'give the agent a data directory that its user may write',
      detail: { path },
      cause,
    })
  }
  return new OpsError('disk', `writing ${path} failed: ${messageOf(cause)}`, {
    hint: 'check the disk and the permissions of the data directory',
    detail: { path },
    cause,
  })
}

/** Makes a folder and those above it. */
export function makeFolder(root: string, folder: string): void {
  try {
    mkdirSync(join(root, folder), { recursive: true, mode: 0o750 })
  } catch (cause) {
    throw writeFailure(folder, cause)
  }
}
