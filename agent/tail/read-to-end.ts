/**
 * Reads given files once, to the end they have now: what `import` does.
 *
 * Content is told apart as in the tail, but wherever it lies: the same content given twice, under
 * another name or compressed, yields nothing the second time. The last line is handed out even
 * without a terminator, and the cursor stands behind it, finished. A file that has grown when it is
 * given again goes on there: what completes that line comes first, as a `continuation`.
 *
 * Standard input and pipes are read as they come. Only when their beginning is known already, or is
 * compressed, are they first written to a temporary file, whose name is removed at once: whether they
 * go on where they were left can be told only by reading them up to there. Nothing of an input that
 * never ends is then handed out.
 */

import {
  closeSync,
  constants,
  createReadStream,
  fstatSync,
  openSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '../clock.ts'
import type { Decoded } from '../decode/decoder.ts'
import { errnoOf, messageOf, OpsError } from '../errors.ts'
import { fingerprintBytesMax } from '../limits.ts'
import type { Chunk, Cursor, Gap, GapCause, Generation, Provenance } from './chunk.ts'
import { KnownCursors } from './cursors.ts'
import { defaultReadLimits, FileReader, type ReadLimits } from './file-reader.ts'
import { fingerprintLength, Head, isFullFingerprint, sha256Hex } from './identity.ts'
import { readRange } from './open-file.ts'
import type { OnProblem } from './problem.ts'
import { ByteStream, gunzipFile, StreamReader } from './stream-reader.ts'

export type GivenFile = {
  /** `-` is standard input. */
  readonly path: string
  readonly provenance: Provenance
}

export type Progress = {
  readonly path: string
  /** Of the content, uncompressed. */
  readonly bytes: number
  /** Null where nobody knows: compressed files and pipes. */
  readonly bytesTotal: number | null
}

export type ReadToEndOptions = {
  readonly cursors: readonly Cursor[]
  readonly clock: Clock
  readonly onProblem: OnProblem
  readonly onProgress?: (progress: Progress) => void
  /** What `-` reads. */
  readonly stdin?: AsyncIterable<Uint8Array>
  readonly limits?: ReadLimits
}

type Import = Omit<ReadToEndOptions, 'cursors'> & {
  readonly known: KnownCursors
  readonly limits: ReadLimits
}

/**
 * Chunks of each file in turn. Commit their cursors with their lines; reading can be broken off
 * anywhere and repeated with the committed ones.
 *
 * @throws {OpsError} `not_found`, `permission` or `corrupt_input` when a file cannot be opened or read
 */
export async function* readToEnd(
  files: Iterable<GivenFile>,
  options: ReadToEndOptions,
): AsyncGenerator<Chunk, void, undefined> {
  const { cursors, limits = defaultReadLimits, ...rest } = options
  const run: Import = { ...rest, limits, known: new KnownCursors(cursors) }
  for (const file of files) {
    if (file.path === '-') yield* readPipe(file, run.stdin ?? process.stdin, run)
    else yield* readFile(file, run)
  }
}

async function* readFile(given: GivenFile, run: Import): AsyncGenerator<Chunk, void, undefined> {
  const fd = openGiven(given.path)
  try {
    const stats = fstatSync(fd)
    const kind = stats.mode & constants.S_IFMT
    if (kind === constants.S_IFREG) {
      yield* readOpenFile(given, fd, run)
    } else if (kind === constants.S_IFIFO) {
      yield* readPipe(given, createReadStream('', { fd, autoClose: false }), run)
    } else {
      throw new OpsError('usage', `${given.path} is neither a file nor a pipe`, {
        hint: 'name log files, or - for standard input',
      })
    }
  } finally {
    closeSync(fd)
  }
}

function openGiven(path: string): number {
  try {
    return openSync(path, 'r')
  } catch (error) {
    const isDenied = errnoOf(error) === 'EACCES' || errnoOf(error) === 'EPERM'
    throw new OpsError(
      isDenied ? 'permission' : 'not_found',
      `cannot open ${path}: ${messageOf(error)}`,
      {
        hint: 'check the path and who may read it',
        cause: error,
      },
    )
  }
}

async function* readOpenFile(
  given: GivenFile,
  fd: number,
  run: Import,
): AsyncGenerator<Chunk, void, undefined> {
  const magic = readRange(fd, 0, 2)
  if (magic[0] === 0x1f && magic[1] === 0x8b) yield* readGzip(given, fd, run)
  else yield* readPlain(given, fd, run)
}

async function* readPlain(
  given: GivenFile,
  fd: number,
  run: Import,
): AsyncGenerator<Chunk, void, undefined> {
  const { known, limits } = run
  const file = fstatSync(fd)
  const bytes = readRange(fd, 0, fingerprintBytesMax)
  if (bytes.length === 0) return
  const head = new Head(bytes)

  let reader: FileReader | null = null
  for (const cursor of candidates(given, file, head, known)) {
    if (file.size < cursor.offset) continue
    const generation = generationOf(given, cursor.gen)
    const candidate = new FileReader(
      { fd, dev: file.dev, ino: file.ino },
      generation,
      bytes.subarray(0, cursor.fingerprintBytes),
      limits,
    )
    if (!candidate.resume(cursor)) continue
    if (cursor.finished && cursor.offset === file.size) return
    reader = candidate
    break
  }
  if (reader === null) {
    const fingerprint = bytes.subarray(0, fingerprintLength(bytes) ?? bytes.length)
    const generation = generationOf(given, known.newId(given.provenance, sha256Hex(fingerprint)))
    reader = new FileReader({ fd, dev: file.dev, ino: file.ino }, generation, fingerprint, limits)
  }

  const finish = (out: Decoded): Chunk => take(reader, out, true, run)
  if (reader.poll() === 'replaced') {
    yield finish({
      lines: [],
      gaps: [gapAfter(reader, 'truncated', 'it changed while it was read')],
    })
    return
  }
  for (;;) {
    const out: Decoded = { lines: [], gaps: [] }
    let outcome: 'read' | 'nothing' | 'replaced'
    try {
      outcome = reader.read(out)
      if (outcome === 'nothing' && reader.scannedTo >= reader.size) {
        reader.finish(out)
        yield finish(out)
        break
      }
    } catch (error) {
      throw readFailure(given.path, error)
    }
    if (outcome === 'replaced') {
      reader.abandon(out)
      out.gaps.push(gapAfter(reader, 'truncated', 'it was truncated while it was read'))
      yield finish(out)
      break
    }
    run.onProgress?.({ path: given.path, bytes: reader.scannedTo, bytesTotal: reader.size })
    if (out.lines.length > 0 || out.gaps.length > 0) yield take(reader, out, false, run)
    // Overlong lines are looked through in steps: let others have the processor.
    else await Bun.sleep(0)
  }
}

async function* readGzip(
  given: GivenFile,
  fd: number,
  run: Import,
): AsyncGenerator<Chunk, void, undefined> {
  const { known, limits } = run
  const file = fstatSync(fd)
  let bytes: Buffer
  try {
    await using stream = gunzipFile(fd)
    bytes = Buffer.from(await stream.peek(fingerprintBytesMax))
  } catch (error) {
    if (errnoOf(error) === undefined) throw error
    throw new OpsError(
      'corrupt_input',
      `${given.path} cannot be decompressed: ${messageOf(error)}`,
      {
        hint: 'take the file from its source again, or leave it out',
        cause: error,
      },
    )
  }
  if (bytes.length === 0) return
  const head = new Head(bytes)
  for (const cursor of candidates(given, file, head, known)) {
    const fingerprint = { digest: cursor.fingerprint, bytes: cursor.fingerprintBytes }
    const generation = generationOf(given, cursor.gen)
    await using reader = new StreamReader(gunzipFile(fd), generation, fingerprint, file, limits)
    if (!(await resumed(reader, cursor))) continue
    yield* readStream(given, reader, cursor.finished, run)
    return
  }
  const length = fingerprintLength(bytes) ?? bytes.length
  const fingerprint = { digest: sha256Hex(bytes.subarray(0, length)), bytes: length }
  const generation = generationOf(given, known.newId(given.provenance, fingerprint.digest))
  await using reader = new StreamReader(gunzipFile(fd), generation, fingerprint, file, limits)
  yield* readStream(given, reader, false, run)
}

async function resumed(reader: StreamReader, cursor: Cursor): Promise<boolean> {
  try {
    return await reader.resume(cursor)
  } catch (error) {
    // Damaged before the cursor: whoever wrote that cursor read another file.
    if (errnoOf(error) === undefined) throw error
    return false
  }
}

async function* readPipe(
  given: GivenFile,
  source: AsyncIterable<Uint8Array>,
  run: Import,
): AsyncGenerator<Chunk, void, undefined> {
  const { known, limits } = run
  await using stream = new ByteStream(source)
  let bytes: Buffer
  try {
    bytes = await stream.peek(fingerprintBytesMax)
  } catch (error) {
    throw readFailure(given.path, error)
  }
  if (bytes.length === 0) return
  const place = { dev: 0, ino: 0 }
  const isGzip = bytes[0] === 0x1f && bytes[1] === 0x8b
  if (isGzip || candidates(given, place, new Head(bytes), known).length > 0) {
    const fd = await spool(stream)
    try {
      yield* readOpenFile(given, fd, run)
    } finally {
      closeSync(fd)
    }
    return
  }
  const length = fingerprintLength(bytes) ?? bytes.length
  const fingerprint = { digest: sha256Hex(bytes.subarray(0, length)), bytes: length }
  const generation = generationOf(given, known.newId(given.provenance, fingerprint.digest))
  await using reader = new StreamReader(stream, generation, fingerprint, place, limits)
  yield* readStream(given, reader, false, run)
}

/** @param wasFinished what the reader resumed from said so: nothing more is no news */
async function* readStream(
  given: GivenFile,
  reader: StreamReader,
  wasFinished: boolean,
  run: Import,
): AsyncGenerator<Chunk, void, undefined> {
  let hasMore = true
  for (;;) {
    const out: Decoded = { lines: [], gaps: [] }
    try {
      hasMore = await reader.read(out)
    } catch (error) {
      if (errnoOf(error) === undefined) throw error
      run.onProblem({ code: 'corrupt_gzip', path: given.path, message: messageOf(error) })
      reader.abandon(out)
      // Said already, when its cursor is finished.
      if (!wasFinished) out.gaps.push(gapAfter(reader, 'read_error', messageOf(error)))
      if (out.lines.length > 0 || out.gaps.length > 0) yield take(reader, out, true, run)
      return
    }
    const isNews = out.lines.length > 0 || out.gaps.length > 0
    run.onProgress?.({ path: given.path, bytes: reader.offset, bytesTotal: null })
    if (isNews || (!hasMore && !wasFinished)) yield take(reader, out, !hasMore, run)
    if (!hasMore) return
  }
}

/** Cursors whose content the given file may hold, those read furthest first. */
function candidates(
  given: GivenFile,
  place: { readonly dev: number; readonly ino: number },
  head: Head,
  known: KnownCursors,
): Cursor[] {
  return known
    .of(given.provenance)
    .filter((cursor) => {
      if (!head.matches(cursor)) return false
      // A beginning that is neither a line nor a KiB identifies only the very same file.
      const isSame =
        cursor.path === given.path || (cursor.dev === place.dev && cursor.ino === place.ino)
      return isSame || isFullFingerprint(head.bytes.subarray(0, cursor.fingerprintBytes))
    })
    .toSorted((a, b) => b.offset - a.offset)
}

function generationOf(given: GivenFile, id: string): Generation {
  return { id, path: given.path, provenance: given.provenance }
}

function take(
  reader: FileReader | StreamReader,
  out: Decoded,
  isFinished: boolean,
  run: Import,
): Chunk {
  const cursor = reader.cursor(run.clock.nowUs(), isFinished)
  run.known.set(cursor)
  return { generation: reader.generation, lines: out.lines, gaps: out.gaps, cursor }
}

function gapAfter(reader: FileReader | StreamReader, cause: GapCause, detail: string): Gap {
  const { id, path } = reader.generation
  return { gen: id, path, cause, from: reader.offset, to: null, detail }
}

function readFailure(path: string, error: unknown): unknown {
  if (errnoOf(error) === undefined) return error
  return new OpsError('corrupt_input', `cannot read ${path}: ${messageOf(error)}`, {
    hint: 'what was read before is kept; give the file again to go on',
    cause: error,
  })
}

/** Writes the rest of a stream to a file without a name. @returns its descriptor, owned by the caller */
async function spool(stream: ByteStream): Promise<number> {
  const path = join(tmpdir(), `meshtrail-import-${process.pid}-${crypto.randomUUID()}`)
  const fd = openSync(path, 'wx+', 0o600)
  rmSync(path)
  try {
    do {
      const bytes = stream.take(stream.buffered.length)
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
    } while (await stream.more())
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}
