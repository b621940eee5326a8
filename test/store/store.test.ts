import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DuckDBInstance } from '@duckdb/node-api'
import { messageOf } from '../../agent/errors.ts'
import { columns } from '../../agent/event.ts'
import { columnSources } from '../../agent/store/part.ts'
import { memoryFile, openParquet, readEvents } from '../../agent/store/read.ts'
import type { Store } from '../../agent/store/store.ts'
import { evidenceIn } from '../../agent/verify/evidence.ts'
import type { Verification } from '../../agent/verify/report.ts'
import { verifyLog } from '../../agent/verify/verify.ts'
import { dayUs, openStore, ranRules, SampleSource } from './sample.ts'

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'meshtrail-store-'))
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

function check(vkey: string, deep = false): Promise<Verification> {
  return verifyLog(evidenceIn(root), { vkey, expectHead: null, deep, compare: () => null })
}

/** Everything on disk must verify and hold lines 0 to count - 1, each once, in order. */
async function checkEverything(store: Store, count: number): Promise<void> {
  const verification = await check(store.identity.vkey)
  expect(verification.complaints).toEqual([])
  expect(verification.size).toBe(count)
  const { segments, parts } = store.files()
  const ids: string[] = []
  for (const path of [...segments, ...parts]) {
    const opened = await openParquet(memoryFile(readFileSync(path)))
    if (!opened.ok) throw new Error(opened.problem)
    for (const event of await readEvents(opened)) ids.push(event.request_id ?? '')
  }
  expect(ids).toEqual(Array.from({ length: count }, (_, i) => `request-${i}`))
}

function withoutRaw(list: readonly object[]): unknown[] {
  return list.map((event) => ({ ...event, rawBuffer: undefined }))
}

/** The message of what it must fail with. */
function failureOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(() => 'it did not fail', messageOf)
}

describe('store', () => {
  test('an empty log verifies, and so does one after each commit and each seal', async () => {
    await using store = await openStore(root)
    expect((await check(store.identity.vkey)).verdict).toBe('verified')
    const source = new SampleSource()
    let count = 0
    for (const size of [1, 300, 2000, 5, 1024]) {
      store.commit(source.batch(size))
      count += size
      ranRules(store)
      await checkEverything(store, count)
    }
    await store.sealAll()
    await checkEverything(store, count)
    store.commit(source.batch(10))
    ranRules(store)
    await checkEverything(store, count + 10)
    expect(readdirSync(join(root, 'parts'))).toHaveLength(1)
  })

  test('opened again, a log goes on where it stood, after parts and after seals', async () => {
    const source = new SampleSource()
    let count = 0
    for (let round = 0; round < 6; round++) {
      await using store = await openStore(root)
      expect(store.size).toBe(count)
      expect(store.repairs).toEqual([])
      if (count > 0) expect(store.cursors).toHaveLength(1)
      for (const size of [100, 260]) {
        store.commit(source.batch(size))
        count += size
      }
      ranRules(store)
      if (round % 2 === 1) await store.sealAll()
      await checkEverything(store, count)
    }
  })

  test('a segment holds what its parts held, column by column, as DuckDB reads it', async () => {
    await using store = await openStore(root)
    const source = new SampleSource()
    for (const size of [1500, 20, 30, 4000, 7]) store.commit(source.batch(size))
    ranRules(store)
    const before = store.files().parts
    const keep = join(root, 'kept')
    cpSync(join(root, 'parts'), keep, { recursive: true })
    await store.sealAll()
    const [segment] = store.files().segments
    const connection = await (await DuckDBInstance.create()).connect()
    const names = columns.map((column) => `"${column.name}"`)
    const kept = before.map((path) => `'${join(keep, path.slice(path.lastIndexOf('/') + 1))}'`)
    // Columns without any value are absent from parts: compare those that are there.
    const present = (
      await connection.runAndReadAll(
        `describe select * from read_parquet([${kept.join(',')}], union_by_name=true)`,
      )
    ).getRows()
    const shared = names.filter((name) =>
      present.some(([column]) => `"${String(column)}"` === name),
    )
    const list = shared.join(',')
    const difference = await connection.runAndReadAll(
      `(select ${list} from read_parquet([${kept.join(',')}], union_by_name=true) except all select ${list} from '${segment}')
       union all (select ${list} from '${segment}' except all select ${list} from read_parquet([${kept.join(',')}], union_by_name=true))`,
    )
    expect(difference.getRows()).toEqual([])
    const order = await connection.runAndReadAll(
      `select bool_and(leaf_index = file_row_number), count(*), count(policy), min(time)::varchar from read_parquet('${segment}', file_row_number=true)`,
    )
    expect(order.getRows()[0]?.slice(0, 3)).toEqual([true, 5557n, 1112n])
    rmSync(keep, { recursive: true })
  })

  test('parts of two days become two segments, cut at midnight UTC', async () => {
    await using store = await openStore(root)
    const source = new SampleSource()
    store.commit(source.batch(10))
    source.observedUs += dayUs
    store.commit(source.batch(20))
    ranRules(store)
    await store.sealIfDue()
    expect(store.segments.map((segment) => [segment.first, segment.count])).toEqual([[0, 10]])
    await store.sealAll()
    expect(store.files().segments.map((path) => /observed_date=([\d-]+)/.exec(path)?.[1])).toEqual([
      '2026-01-02',
      '2026-01-03',
    ])
    await checkEverything(store, 30)
  })

  test('sealing never passes what rules have looked at', async () => {
    await using store = await openStore(root)
    const source = new SampleSource()
    store.commit(source.batch(10))
    ranRules(store)
    store.commit(source.batch(10))
    await store.sealAll()
    expect(store.segments.map((segment) => segment.count)).toEqual([10])
  })

  test('a second agent on the same directory is refused', async () => {
    await using store = await openStore(root)
    expect(store.size).toBe(0)
    expect(await failureOf(openStore(root))).toContain('in use by another agent')
  })

  test('a full data.bytesMax refuses the commit, changes nothing, and resumes', async () => {
    const source = new SampleSource()
    let batch
    {
      await using store = await openStore(root, { bytesMax: 40_000 })
      store.commit(source.batch(10))
      batch = source.batch(500)
      const full = batch
      expect(() => store.commit(full)).toThrow('data.bytesMax of 40000 bytes is used up')
      expect(store.size).toBe(10)
      ranRules(store)
      await checkEverything(store, 10)
    }
    await using store = await openStore(root)
    store.commit(batch)
    ranRules(store)
    await checkEverything(store, 510)
  })

  test('a damaged or missing committed part is refused at start, never truncated away', async () => {
    const source = new SampleSource()
    {
      await using store = await openStore(root)
      store.commit(source.batch(50))
      store.commit(source.batch(50))
    }
    const part = join(root, 'parts', readdirSync(join(root, 'parts')).toSorted()[0] ?? '')
    const bytes = readFileSync(part)
    const damaged = Buffer.from(bytes)
    damaged[200] = (damaged[200] ?? 0) ^ 1
    writeFileSync(part, damaged)
    expect(await failureOf(openStore(root))).toMatch(/^parts\/0000000000\d0-50.parquet: /)
    rmSync(part)
    expect(await failureOf(openStore(root))).toMatch(/parts|head/)
    writeFileSync(part, bytes)
    await using store = await openStore(root)
    await checkEverything(store, 100)
  })

  test('every stored column has a reader and comes back as it was', async () => {
    const source = new SampleSource()
    const { events } = source.batch(3)
    expect(columnSources(events, 0).map((column) => column.name)).toEqual(
      columns.map((column) => column.name),
    )
    await using store = await openStore(root)
    const part = store.commit({ events, cursors: new Map() })
    const opened = await openParquet(memoryFile(readFileSync(join(root, part.path))))
    if (!opened.ok) throw new Error(opened.problem)
    expect(withoutRaw(await readEvents(opened))).toEqual(withoutRaw(events))
  })
})
