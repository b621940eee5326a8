/**
 * Announces new pods and containers sooner than the periodic scan would find them.
 *
 * Only a hint: it misses things, and log files themselves are not watched at all, since a busy proxy
 * would wake it for every write. Whatever it misses, the scan finds.
 */

import { watch } from 'chokidar'
import { messageOf } from '../errors.ts'
import type { OnProblem } from './problem.ts'

/**
 * @param roots directories of pod directories
 * @param onChange called for a directory that came or went below them
 * @returns what to dispose of when no more announcements are wanted
 */
export function watchPods(
  roots: readonly string[],
  onChange: () => void,
  onProblem: OnProblem,
): AsyncDisposable {
  const fail = (error: unknown): void => {
    onProblem({ code: 'watch_failed', path: roots.join(':'), message: messageOf(error) })
  }
  try {
    const watcher = watch([...roots], {
      // Pods and their containers, not what containers write.
      depth: 1,
      ignored: (_path, stats) => stats?.isFile() ?? false,
      ignoreInitial: true,
      followSymlinks: false,
    })
    let failed = false
    const stop = async (): Promise<void> => {
      await watcher.close()
    }
    watcher.on('addDir', onChange)
    watcher.on('unlinkDir', onChange)
    watcher.on('error', (error) => {
      // EACCES, ENOSPC (no watches left), EMFILE: once is enough, then polling has to do.
      if (failed) return
      failed = true
      fail(error)
      void stop()
    })
    return { [Symbol.asyncDispose]: stop }
  } catch (error) {
    fail(error)
    return { [Symbol.asyncDispose]: async () => {} }
  }
}
