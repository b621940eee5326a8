/**
 * Loads the embedded libraries from memory where no directory can be written to or executed from.
 *
 * The price is memory: the whole library (71 MB) is charged to the process's cgroup instead of to the
 * page cache, once per process. That is why this comes last.
 */

import { dlopen, ptr } from 'bun:ffi'
import { closeSync, readFileSync } from 'node:fs'
import { type EmbeddedFile, writeAll } from './unpack.ts'

const closeOnExec = 0x1
/** MFD_EXEC: said aloud since Linux 6.3, where `vm.memfd_noexec=1` else takes it away; older kernels refuse it. */
const executable = 0x10
const resolveNow = 0x2
const visibleToLaterLibraries = 0x100

/**
 * @param files libraries in the order of their dependencies; the last one is the Node-API addon
 * @returns what the addon exports
 * @throws {Error} when the kernel refuses an executable memory file, or the linker a library
 */
export function loadFromMemory(files: readonly EmbeddedFile[]): object {
  const addon = files.at(-1)
  if (addon === undefined) throw new Error('BUG: no embedded library')
  const libc = dlopen('libc.so.6', {
    memfd_create: { args: ['ptr', 'u32'], returns: 'i32' },
    dlopen: { args: ['ptr', 'i32'], returns: 'ptr' },
    dlerror: { args: [], returns: 'cstring' },
  })
  const descriptors: number[] = []
  const inMemory = (file: EmbeddedFile): string => {
    const name = terminated(file.name)
    let descriptor = libc.symbols.memfd_create(ptr(name), closeOnExec | executable)
    if (descriptor < 0) descriptor = libc.symbols.memfd_create(ptr(name), closeOnExec)
    if (descriptor < 0) throw new Error('the kernel refused a memory file (memfd_create)')
    descriptors.push(descriptor)
    const bytes = readFileSync(file.source)
    if (Bun.SHA256.hash(bytes, 'hex') !== file.sha256) {
      throw new Error(`${file.name} inside this program is damaged`)
    }
    writeAll(descriptor, bytes)
    return `/proc/self/fd/${descriptor}`
  }
  try {
    // Loaded first and for everybody, a dependency satisfies the addon by its SONAME: the linker then
    // does not look for a file beside the addon, where there is none.
    for (const file of files.slice(0, -1)) {
      const path = terminated(inMemory(file))
      if (libc.symbols.dlopen(ptr(path), resolveNow | visibleToLaterLibraries) === null) {
        throw new Error(libc.symbols.dlerror()?.toString() ?? 'the linker refused the library')
      }
    }
    const module: { exports: object } = { exports: {} }
    process.dlopen(module, inMemory(addon))
    return module.exports
  } finally {
    // The mappings keep the memory; the descriptors are not needed any more.
    for (const descriptor of descriptors) closeSync(descriptor)
    libc.close()
  }
}

function terminated(text: string): Buffer {
  return Buffer.from(`${text}\0`)
}
