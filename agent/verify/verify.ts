/**
 * Offline verification of a log: what an auditor runs on files, with one key and no trust in us.
 *
 * In order: names, key, head and checkpoint, manifests, file hashes; then, row by row, leaves, tree,
 * tiles, and the account of bytes. Streams: one row group at a time.
 */
import { messageOf } from '../errors.ts'
import type { AuditEvent } from '../event.ts'
import { openCheckpoint } from '../log/checkpoint.ts'
import { encodeHex, sameBytes } from '../log/encoding.ts'
import { LeafHasher } from '../log/entry.ts'
import { CompactRange, hashBytes } from '../log/merkle.ts'
import { noteVerifier, parseVkey, type VerifierKey } from '../log/note.ts'
import { formatTilePath, parseTilePath, TileEdge, type TileFile, tilesOf } from '../log/tile.ts'
import {
  isTemporary,
  manifestName,
  names,
  parseManifestName,
  parsePartName,
  type PartName,
} from '../store/filenames.ts'
import { type PartMeta, parsePartMeta } from '../store/part.ts'
import { eventGroups, leafRows, type Opened, openParquet } from '../store/read.ts'
import { parseSegmentMeta, type SegmentMeta } from '../store/seal.ts'
import { type Head, type Manifest, openHead, openManifest } from '../store/statement.ts'
import type { Cursor, Provenance } from '../tail/chunk.ts'
import { ByteAccount } from './account.ts'
import type { Evidence } from './evidence.ts'
import { type Complaint, type Severity, verdictOf, type Verification } from './report.ts'

/** Says how an event's columns differ from what its raw bytes give, or null when they do not. */
export type CompareColumns = (event: AuditEvent, provenance: Provenance) => string | null

export type VerifyOptions = {
  /** The log's public key, from a source other than the evidence; null when none was given. */
  readonly vkey: string | null
  /** A checkpoint the log must contain, as signed note bytes; null when none was given. */
  readonly expectHead: Uint8Array | null
  /** Parses every line again. Without it, only the rows of damaged files are, to name them. */
  readonly deep: boolean
  readonly compare: CompareColumns
  /** Stop at the first proof of forgery, before reading rows. */
  readonly failFast?: boolean
  readonly onProgress?: (done: { readonly bytes: number; readonly total: number }) => void
}

/** Complaints about rows listed one by one before the rest is only counted. */
const rowComplaintsMax = 20

export function verifyLog(evidence: Evidence, options: VerifyOptions): Promise<Verification> {
  return new Verifier(evidence, options).run()
}

type Signed = {
  readonly head: Head | null
  readonly size: number
  readonly root: string
}

/** A head kept elsewhere, and the root that the same number of leaves has here. */
type ExpectedHead = { readonly size: number; readonly root: string; rootHere: string | null }

class Verifier {
  readonly #evidence: Evidence
  readonly #options: VerifyOptions
  readonly #complaints: Complaint[] = []
  readonly #account = new ByteAccount()
  readonly #cursors = new Map<string, Cursor>()
  #tree: CompactRange
  #edge = new TileEdge()
  #tileFiles = new Map<string, TileFile>()
  #gaps = 0
  #rawBytes = 0
  #bytesRead = 0
  #from = Number.POSITIVE_INFINITY
  #to = Number.NEGATIVE_INFINITY
  #rowComplaints = 0
  #expected: ExpectedHead | null = null

  constructor(evidence: Evidence, options: VerifyOptions) {
    this.#evidence = evidence
    this.#options = options
    this.#tree = this.#emptyTree()
  }

  #emptyTree(): CompactRange {
    return new CompactRange((subtree) => {
      if (subtree.level === 8) this.#edge.push(subtree.hash)
    })
  }

  async run(): Promise<Verification> {
    this.#checkNames()
    const key = this.#readKey()
    if (key === null) return this.#report(null, [], [], { head: null, size: 0, root: '' })

    this.#expected = this.#openExpected(key)
    const manifests = this.#readManifests(key)
    const signed = this.#readHeads(key, manifests)
    const parts = this.#listParts()
    const live = this.#liveParts(parts, manifests)
    await this.#checkHashes(manifests, parts, live, signed)
    const stop = this.#options.failFast === true && verdictOf(this.#complaints) === 'forged'
    if (!stop) {
      await this.#readRows(manifests, live, signed)
      this.#checkTree(signed)
      this.#checkTiles()
      this.#complaints.push(...this.#account.settle(this.#cursors))
    }
    return this.#report(key, manifests, live, signed)
  }

  #complain(severity: Severity, path: string, problem: string, leaves?: [number, number]): void {
    this.#complaints.push({ severity, path, problem, ...(leaves === undefined ? {} : { leaves }) })
  }

  // -------------------------------------------------------------------------------------------
  // Names and keys

  #checkNames(): void {
    const fixed = new Set<string>([
      names.vkey,
      names.checkpoint,
      names.checkpointNext,
      names.head,
      names.headNext,
    ])
    for (const path of this.#evidence.list()) {
      if (fixed.has(path) || parsePartName(path) !== null || parseManifestName(path) !== null) {
        continue
      }
      if (
        isSegmentPath(path) ||
        (path.startsWith('log/tile/') && parseTilePath(path.slice(4)).ok)
      ) {
        continue
      }
      if (isTemporary(path)) {
        this.#complain('incomplete', path, 'an interrupted write; start the agent once to clean up')
      } else this.#complain('forged', path, 'not a file of the log')
    }
    for (const path of this.#evidence.irregular) {
      this.#complain('forged', path, 'not a regular file')
    }
  }

  #readKey(): VerifierKey | null {
    const { vkey } = this.#options
    const stored = this.#evidence.has(names.vkey)
      ? Buffer.from(this.#evidence.read(names.vkey)).toString('utf8')
      : null
    if (stored === null) this.#complain('forged', names.vkey, 'missing')
    else if (vkey !== null && stored !== `${vkey}\n`) {
      this.#complain('forged', names.vkey, 'it is not the key given')
    }
    if (vkey === null) {
      this.#complain(
        'incomplete',
        names.vkey,
        'consistent at best, not authenticated: no trusted key given (--key)',
      )
    }
    const parsed = parseVkey(vkey ?? stored?.trimEnd() ?? '')
    if (parsed.ok) return parsed.key
    this.#complain('forged', names.vkey, parsed.problem)
    return null
  }

  // -------------------------------------------------------------------------------------------
  // What is signed

  #readManifests(key: VerifierKey): { manifest: Manifest; sha256: string }[] {
    const verifiers = [noteVerifier(key)]
    const manifests: { manifest: Manifest; sha256: string }[] = []
    let expectedFirst = 0
    const stored = this.#evidence.list().filter((path) => parseManifestName(path) !== null)
    for (const path of stored) {
      const seq = parseManifestName(path) ?? 0
      const bytes = this.#evidence.read(path)
      const opened = openManifest(bytes, verifiers)
      if (!opened.ok) {
        this.#complain('forged', path, opened.problem)
        continue
      }
      const manifest = opened.value
      const before = manifests.at(-1)
      if (manifest.origin !== key.name || manifest.seq !== seq) {
        this.#complain('forged', path, `it is manifest ${manifest.seq} of ${manifest.origin}`)
        continue
      }
      const next = before === undefined ? 0 : before.manifest.seq + 1
      if (seq !== next) {
        this.#complain('forged', manifestName(next), 'missing', [expectedFirst, manifest.first])
      } else if (manifest.previous !== (before?.sha256 ?? '') || manifest.first !== expectedFirst) {
        this.#complain('forged', path, 'it does not follow the manifest before it')
      }
      expectedFirst = manifest.first + manifest.count
      manifests.push({ manifest, sha256: sha256(bytes) })
    }
    return manifests
  }

  /**
   * Head note and checkpoint must agree. They may differ by one commit only while the newer twin of
   * the older one lies beside it: that is a crash between two renames, not an old copy put back.
   */
  #readHeads(
    key: VerifierKey,
    manifests: readonly { manifest: Manifest; sha256: string }[],
  ): Signed {
    const head = this.#readHead(key, names.head)
    const headNext = this.#readHead(key, names.headNext)
    const checkpoint = this.#readCheckpoint(key, names.checkpoint)
    const checkpointNext = this.#readCheckpoint(key, names.checkpointNext)
    const newestHead = newer(head, headNext, (candidate) => candidate.size)
    const newestCheckpoint = newer(checkpoint, checkpointNext, (candidate) => candidate.size)

    if (newestHead === null && newestCheckpoint === null) {
      if (manifests.length > 0) this.#complain('forged', names.head, 'missing')
      return { head: null, size: 0, root: encodeHex(this.#tree.root()) }
    }
    if (newestHead === null) {
      this.#complain('forged', names.head, 'missing or not signed by the key')
      return { head: null, size: newestCheckpoint?.size ?? 0, root: newestCheckpoint?.root ?? '' }
    }
    if (newestCheckpoint === null) {
      this.#complain('forged', names.checkpoint, 'missing or not signed by the key')
    } else if (
      newestCheckpoint.size !== newestHead.size ||
      newestCheckpoint.root !== newestHead.root
    ) {
      const [older, size] =
        newestCheckpoint.size < newestHead.size
          ? [names.checkpoint, newestCheckpoint.size]
          : [names.head, newestHead.size]
      this.#complain(
        'forged',
        older,
        `it covers ${size} events, its twin ${Math.max(newestCheckpoint.size, newestHead.size)}: an older copy was put back`,
      )
    }
    this.#checkNewestManifest(newestHead, headNext, manifests)
    return {
      head: newestHead,
      size: newestHead.size,
      root: newestHead.root,
    }
  }

  #checkNewestManifest(
    head: Head,
    headNext: Head | null,
    manifests: readonly { manifest: Manifest; sha256: string }[],
  ): void {
    const newest = manifests.at(-1)
    const stated = head.manifest
    const seq = newest?.manifest.seq ?? -1
    if ((stated?.seq ?? -1) > seq) {
      const lost = manifestName(stated?.seq ?? 0)
      // The head is staged before the manifest's rename, so a crash may leave it one ahead.
      if (headNext === head && stated?.seq === seq + 1) return
      this.#complain('forged', lost, 'the signed head names it and it is missing')
    } else if ((stated?.seq ?? -1) < seq) {
      this.#complain(
        'forged',
        names.head,
        `it counts ${(stated?.seq ?? -1) + 1} manifests, there are ${seq + 1}: an older copy was put back`,
      )
    } else if (stated !== null && newest !== undefined && stated.sha256 !== newest.sha256) {
      this.#complain('forged', manifestName(seq), 'it is not the one the signed head names')
    }
  }

  #readHead(key: VerifierKey, path: string): Head | null {
    if (!this.#evidence.has(path)) return null
    const opened = openHead(this.#evidence.read(path), [noteVerifier(key)])
    if (opened.ok && opened.value.origin === key.name) {
      if (path === names.headNext) this.#interrupted(path)
      return opened.value
    }
    this.#complain('forged', path, opened.ok ? `it is of ${opened.value.origin}` : opened.problem)
    return null
  }

  #readCheckpoint(key: VerifierKey, path: string): { size: number; root: string } | null {
    if (!this.#evidence.has(path)) return null
    const opened = openCheckpoint(this.#evidence.read(path), { origin: key.name, logKeys: [key] })
    if (opened.ok) {
      if (path === names.checkpointNext) this.#interrupted(path)
      return { size: opened.checkpoint.size, root: encodeHex(opened.checkpoint.root) }
    }
    this.#complain('forged', path, opened.problem)
    return null
  }

  #interrupted(path: string): void {
    this.#complain('incomplete', path, 'an interrupted commit; start the agent once to finish it')
  }

  // -------------------------------------------------------------------------------------------
  // Files

  #listParts(): PartName[] {
    return this.#evidence
      .list()
      .map(parsePartName)
      .filter((part) => part !== null)
  }

  #liveParts(parts: readonly PartName[], manifests: readonly { manifest: Manifest }[]): PartName[] {
    const end = endOf(manifests)
    return parts.filter((part) => part.first >= end).toSorted((a, b) => a.first - b.first)
  }

  /** Hashes every file that something signed names, and finds those nothing names. */
  async #checkHashes(
    manifests: readonly { manifest: Manifest }[],
    parts: readonly PartName[],
    live: readonly PartName[],
    signed: Signed,
  ): Promise<void> {
    const sealed = new Map<string, string>()
    const named = new Set<string>()
    for (const { manifest } of manifests) {
      const { file, first, count } = manifest
      named.add(file.path)
      for (const part of manifest.parts) sealed.set(part.path, part.sha256)
      const leaves: [number, number] = [first, first + count]
      if (!this.#evidence.has(file.path)) this.#complain('forged', file.path, 'missing', leaves)
      else if ((await this.#evidence.sha256(file.path)) !== file.sha256) {
        this.#complain('forged', file.path, 'its bytes are not those the manifest signs', leaves)
      }
    }
    for (const path of this.#evidence.list()) {
      if (!isSegmentPath(path) || named.has(path)) continue
      const first = Number(/(\d+)-\d+-[0-9a-f]+\.parquet$/.exec(path)?.[1])
      const interrupted = first >= endOf(manifests)
      this.#complain(
        interrupted ? 'incomplete' : 'forged',
        path,
        interrupted ? 'sealing was interrupted; its parts count' : 'no manifest names it',
      )
    }
    const liveNames = new Set(live.map((part) => part.path))
    for (const part of parts) {
      if (liveNames.has(part.path)) continue
      const expected = sealed.get(part.path)
      if (expected === undefined) {
        this.#complain('forged', part.path, 'no manifest names it', leavesOf(part))
      } else if ((await this.#evidence.sha256(part.path)) !== expected) {
        this.#complain('forged', part.path, 'it is not the part that was sealed', leavesOf(part))
      }
    }
    await this.#checkPartChain(manifests, live, signed)
  }

  /** The head names the newest part's hash, each part the one before: so all bytes of all parts. */
  async #checkPartChain(
    manifests: readonly { manifest: Manifest }[],
    live: readonly PartName[],
    signed: Signed,
  ): Promise<void> {
    let expected = signed.head?.part ?? null
    const signedParts = live.filter((part) => part.first < signed.size)
    const newest = signedParts.at(-1)
    if (newest !== undefined && newest.first + newest.count !== signed.size) {
      this.#complain(
        'forged',
        newest.path,
        `the signed head ends at ${signed.size}, inside of or behind it`,
      )
    }
    if (newest === undefined && signed.size > endOf(manifests)) {
      this.#complain('forged', names.parts, 'missing', [endOf(manifests), signed.size])
      return
    }
    for (const part of signedParts.toReversed()) {
      const hash = await this.#evidence.sha256(part.path)
      if (expected !== null && hash !== expected) {
        this.#complain(
          'forged',
          part.path,
          part === newest
            ? 'its bytes are not those the signed head names'
            : 'its bytes are not those the part after it names',
          leavesOf(part),
        )
      }
      const meta = await this.#partMeta(part)
      if (meta === null) return
      expected = meta.previous
    }
    const sealedEnd = manifests.at(-1)?.manifest.parts.at(-1)?.sha256 ?? ''
    if (expected !== null && expected !== sealedEnd) {
      this.#complain(
        'forged',
        signedParts[0]?.path ?? names.head,
        'it does not follow the newest sealed part',
      )
    }
    this.#checkUnsignedParts(live, signed)
  }

  #checkUnsignedParts(live: readonly PartName[], signed: Signed): void {
    const unsigned = live.filter((part) => part.first >= signed.size)
    for (const [position, part] of unsigned.entries()) {
      if (position === 0 && part.first === signed.size) {
        this.#complain(
          'incomplete',
          part.path,
          'one commit nobody signed yet; start the agent once',
          leavesOf(part),
        )
      } else this.#complain('forged', part.path, 'behind the signed end of the log', leavesOf(part))
    }
  }

  async #partMeta(part: PartName): Promise<PartMeta | null> {
    const opened = await openParquet(this.#evidence.parquet(part.path))
    const footer = opened.ok ? parsePartMeta(opened.footer) : opened
    if (footer.ok) return footer.meta
    this.#complain('forged', part.path, footer.problem, leavesOf(part))
    return null
  }

  // -------------------------------------------------------------------------------------------
  // Rows

  async #readRows(
    manifests: readonly { manifest: Manifest }[],
    live: readonly PartName[],
    signed: Signed,
  ): Promise<void> {
    for (const { manifest } of manifests) {
      const { path } = manifest.file
      const leaves: [number, number] = [manifest.first, manifest.first + manifest.count]
      if (!this.#evidence.has(path)) return
      const opened = await openParquet(this.#evidence.parquet(path))
      const footer = opened.ok ? parseSegmentMeta(opened.footer) : opened
      if (!opened.ok || !footer.ok) {
        this.#complain('forged', path, footer.ok ? 'unreadable' : footer.problem, leaves)
        return
      }
      const { meta } = footer
      await this.#readFile(path, opened, meta, manifest.first, manifest.count)
      if (encodeHex(this.#tree.root()) !== manifest.rootAfter) {
        this.#complain('forged', path, 'its rows do not give the root the manifest signs', leaves)
      }
      await this.#compareColumns(path, opened, new Map(Object.entries(meta.generations)))
    }
    for (const part of live) {
      const opened = await openParquet(this.#evidence.parquet(part.path))
      const footer = opened.ok ? parsePartMeta(opened.footer) : opened
      if (!opened.ok || !footer.ok) {
        const severity = part.first >= signed.size ? 'incomplete' : 'forged'
        this.#complain(
          severity,
          part.path,
          footer.ok ? 'unreadable' : footer.problem,
          leavesOf(part),
        )
        return
      }
      const { meta } = footer
      const salts = [{ first: meta.first, count: meta.count, key: meta.saltKey }]
      if (meta.allCursors) this.#cursors.clear()
      for (const cursor of meta.cursors) this.#cursors.set(cursor.gen, cursor)
      await this.#readFile(part.path, opened, { ...meta, salts }, part.first, part.count)
      if (encodeHex(this.#tree.root()) !== meta.root) {
        this.#complain(
          'forged',
          part.path,
          'its rows do not give the root it states',
          leavesOf(part),
        )
      }
      const provenances = new Map(
        [...this.#cursors].map(([gen, cursor]) => [gen, cursor.provenance]),
      )
      await this.#compareColumns(part.path, opened, provenances)
    }
  }

  /** Appends a file's leaves to the tree and enters its bytes into the account. */
  async #readFile(
    path: string,
    opened: Opened,
    meta: Pick<SegmentMeta, 'first' | 'count' | 'salts' | 'schema' | 'origin'>,
    first: number,
    count: number,
  ): Promise<void> {
    if (meta.first !== first || meta.count !== count || opened.rows !== count) {
      this.#complain(
        'forged',
        path,
        `it holds ${opened.rows} rows from ${meta.first}, expected ${count} from ${first}`,
        [first, first + count],
      )
      return
    }
    let salt = 0
    let hasher = hasherOf(meta, salt)
    const leaf = new Uint8Array(hashBytes)
    for await (const rows of leafRows(opened)) {
      if (!rows.ok) {
        this.#complain('forged', path, rows.problem, [this.#tree.size, first + count])
        return
      }
      for (const [row, raw] of rows.raw.entries()) {
        const index = this.#tree.size
        if (rows.index[row] !== index) {
          this.#complain(
            'forged',
            path,
            `row ${rows.firstRow + row} says it is leaf ${rows.index[row]}`,
            [index, index + 1],
          )
          return
        }
        const range = meta.salts[salt]
        if (range === undefined || index >= range.first + range.count)
          hasher = hasherOf(meta, ++salt)
        const gen = rows.gen[row] ?? ''
        const ranges = rows.ranges[row] ?? []
        const observed = rows.observed[row] ?? 0
        const kind = rows.kind[row] ?? 'other'
        const fields = {
          gen,
          ranges,
          stream: rows.stream[row] ?? '',
          observed_ts: observed,
        } as const
        try {
          hasher.leafInto(index, kind, fields, raw, 0, raw.length, leaf, 0)
        } catch (thrown) {
          this.#complain('forged', path, messageOf(thrown), [index, index + 1])
          return
        }
        this.#tree.append(leaf)
        if (this.#expected?.size === index + 1) {
          this.#expected.rootHere = encodeHex(this.#tree.root())
        }
        this.#rawBytes += raw.length
        this.#from = Math.min(this.#from, observed)
        this.#to = Math.max(this.#to, observed)
        this.#account.event(gen, ranges)
        if (kind === 'gap' && rows.source[row] === 'meshtrail') {
          this.#gaps++
          this.#account.gap(parseJson(raw))
        }
      }
      this.#collectTiles()
    }
    this.#bytesRead += this.#evidence.bytes(path)
    this.#options.onProgress?.({ bytes: this.#bytesRead, total: this.#totalBytes() })
  }

  #totalBytes(): number {
    return this.#evidence
      .list()
      .filter((path) => path.endsWith('.parquet'))
      .reduce((sum, path) => sum + this.#evidence.bytes(path), 0)
  }

  /** Parses lines again: all of them with `deep`, else only those of a file that is already suspect. */
  async #compareColumns(
    path: string,
    opened: Opened,
    provenances: ReadonlyMap<string, Provenance>,
  ): Promise<void> {
    const suspect = this.#complaints.some(
      (complaint) => complaint.path === path && complaint.severity === 'forged',
    )
    if (!this.#options.deep && !suspect) return
    const first = this.#tree.size - opened.rows
    try {
      for await (const group of eventGroups(opened)) {
        for (const [position, event] of group.events.entries()) {
          const provenance = provenances.get(event.gen)
          const difference =
            provenance === undefined ? null : this.#options.compare(event, provenance)
          if (difference === null) continue
          const row = group.firstRow + position
          this.#complainAboutRow(path, row, first + row, difference)
        }
      }
    } catch (thrown) {
      this.#complain('forged', path, messageOf(thrown))
    }
  }

  #complainAboutRow(path: string, row: number, index: number, difference: string): void {
    this.#rowComplaints++
    if (this.#rowComplaints > rowComplaintsMax) return
    this.#complain('forged', path, `row ${row}, leaf ${index}: ${difference}`, [index, index + 1])
  }

  // -------------------------------------------------------------------------------------------
  // Tree and tiles

  #checkTree(signed: Signed): void {
    // An unsigned trailing commit was appended too: its root is not signed by anyone.
    if (this.#tree.size === signed.size && encodeHex(this.#tree.root()) !== signed.root) {
      this.#complain('forged', names.head, `the ${signed.size} rows do not give the signed root`)
    }
    if (this.#tree.size < signed.size) {
      this.#complain('forged', names.parts, 'rows below the signed end are missing or unreadable', [
        this.#tree.size,
        signed.size,
      ])
    }
    if (this.#expected !== null) this.#checkExpected(this.#expected, signed)
  }

  #checkExpected(expected: ExpectedHead, signed: Signed): void {
    const { size, root } = expected
    if (size > signed.size) {
      this.#complain(
        'forged',
        names.checkpoint,
        `the log was rolled back: ${size} events were signed once, ${signed.size} are here`,
      )
    } else if (size > 0 && expected.rootHere !== root) {
      this.#complain(
        'forged',
        names.checkpoint,
        `another root was signed for ${size} events: the log forked`,
      )
    }
  }

  #openExpected(key: VerifierKey): ExpectedHead | null {
    const { expectHead } = this.#options
    if (expectHead === null) return null
    const opened = openCheckpoint(expectHead, { origin: key.name, logKeys: [key] })
    if (!opened.ok) {
      this.#complain('forged', names.checkpoint, `the expected head: ${opened.problem}`)
      return null
    }
    const { size, root } = opened.checkpoint
    return { size, root: encodeHex(root), rootHere: null }
  }

  #collectTiles(): void {
    for (const file of this.#edge.take().files) this.#tileFiles.set(file.path, file)
  }

  /** Tiles of the current size must be there; older partial ones may, and all must be right. */
  #checkTiles(): void {
    this.#collectTiles()
    const required = new Set(
      [...tilesOf(this.#tree.size, 1)].map((tile) => `log/${formatTilePath(tile)}`),
    )
    for (const path of required) {
      if (!this.#evidence.has(path)) {
        const unsigned = this.#complaints.some((complaint) => complaint.severity === 'incomplete')
        this.#complain(unsigned ? 'incomplete' : 'forged', path, 'missing')
      }
    }
    for (const path of this.#evidence.list()) {
      if (!path.startsWith('log/tile/')) continue
      const parsed = parseTilePath(path.slice(4))
      if (!parsed.ok) continue
      const { tile } = parsed
      const expected = this.#widest(tile.level, tile.index)?.subarray(0, tile.width * hashBytes)
      if (expected?.length !== tile.width * hashBytes) {
        this.#complain('forged', path, `no tile of a log of ${this.#tree.size} events`)
      } else if (!sameBytes(expected, this.#evidence.read(path))) {
        const span = 256 ** (typeof tile.level === 'number' ? tile.level : 0)
        this.#complain('forged', path, 'its hashes are not those of the rows', [
          tile.index * 256 * span,
          (tile.index * 256 + tile.width) * span,
        ])
      }
    }
  }

  #widest(level: number | 'entries', index: number): Uint8Array | undefined {
    let widest: TileFile | undefined
    for (const file of this.#tileFiles.values()) {
      if (file.tile.level !== level || file.tile.index !== index) continue
      if (widest === undefined || file.tile.width > widest.tile.width) widest = file
    }
    return widest?.bytes
  }

  #report(
    key: VerifierKey | null,
    manifests: readonly { manifest: Manifest }[],
    live: readonly PartName[],
    signed: Signed,
  ): Verification {
    if (this.#rowComplaints > rowComplaintsMax) {
      this.#complain(
        'forged',
        names.segments,
        `${this.#rowComplaints} rows in all differ from their lines`,
      )
    }
    return {
      verdict: verdictOf(this.#complaints),
      origin: key?.name ?? '',
      size: signed.size,
      root: signed.root,
      segments: manifests.length,
      parts: live.length,
      rawBytes: this.#rawBytes,
      gaps: this.#gaps,
      from: Number.isFinite(this.#from) ? this.#from : null,
      to: Number.isFinite(this.#to) ? this.#to : null,
      anchored: this.#options.expectHead !== null,
      complaints: this.#complaints,
    }
  }
}

function hasherOf(meta: Pick<SegmentMeta, 'salts' | 'schema'>, position: number): LeafHasher {
  const key = meta.salts[position]?.key ?? '00'.repeat(32)
  return new LeafHasher(Buffer.from(key, 'hex'), meta.schema)
}

function endOf(manifests: readonly { manifest: Manifest }[]): number {
  const newest = manifests.at(-1)?.manifest
  return newest === undefined ? 0 : newest.first + newest.count
}

function leavesOf(part: PartName): [number, number] {
  return [part.first, part.first + part.count]
}

function isSegmentPath(path: string): boolean {
  return /^segments\/observed_date=\d{4}-\d\d-\d\d\/\d{12,16}-[1-9]\d*-[0-9a-f]{16}\.parquet$/.test(
    path,
  )
}

function newer<T>(a: T | null, b: T | null, size: (value: T) => number): T | null {
  if (a === null || b === null) return a ?? b
  return size(b) >= size(a) ? b : a
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher('sha256').update(bytes).digest('hex')
}

function parseJson(raw: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(raw).toString('utf8'))
  } catch {
    return null
  }
}
