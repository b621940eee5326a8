/** Which meshtrail this is: what the build wrote into the binary, or the manifest when run from source. */

import manifest from '../../package.json' with { type: 'json' }

/** Replaced by `dist/build.ts`; absent from source. */
declare const MESHTRAIL_VERSION: string
declare const MESHTRAIL_COMMIT: string

export type BuildInfo = {
  readonly version: string
  /** The commit that was checked out when the binary was built, `unknown` without one, `source` from source. */
  readonly commit: string
  readonly compiled: boolean
}

export function buildInfo(): BuildInfo {
  return {
    version: typeof MESHTRAIL_VERSION === 'undefined' ? manifest.version : MESHTRAIL_VERSION,
    commit: typeof MESHTRAIL_COMMIT === 'undefined' ? 'source' : MESHTRAIL_COMMIT,
    compiled: Bun.isStandaloneExecutable,
  }
}
