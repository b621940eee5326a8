/** How this program starts itself as a child, and what that child may know. */
import { fileURLToPath } from 'node:url'
import { buildInfo } from '../runtime/build-info.ts'
import { nativeLocation } from '../runtime/native-library.ts'

/** The binary, or Bun with our entry when run from source. */
export function selfCommand(): readonly string[] {
  if (buildInfo().compiled) return [process.execPath]
  return [process.execPath, fileURLToPath(new URL('../main.ts', import.meta.url))]
}

/** Where the child finds what the binary has unpacked; nothing else of our environment. */
export function workerEnvironment(): Readonly<Record<string, string>> {
  const location = nativeLocation()
  if (location?.kind !== 'directory') return {}
  return { MESHTRAIL_CACHE_DIR: location.parent }
}
