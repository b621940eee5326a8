/**
 * A disk without room: nothing is committed, the agent says so, reading stays where it is, and when there is
 * room again everything goes on by itself with every line in it once.
 */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { NodeFolder, type RunningNode, startNode, until } from '../end-to-end/node.ts'
import { accountOf, nothingWrong } from '../faults/account.ts'
import { criLine } from '../faults/lines.ts'
import { meshtrail } from './command.ts'

let folder: NodeFolder
let written = 0
let mounted: string | null = null

beforeEach(() => {
  folder = new NodeFolder('full-disk')
  written = 0
})
afterEach(() => {
  if (mounted !== null) Bun.spawnSync(['umount', '--lazy', mounted])
  mounted = null
  folder[Symbol.dispose]()
})

/** Appends so many lines to the pod's log. */
function append(count: number): void {
  const lines = Array.from({ length: count }, (_, i) => criLine(written + i)).join('')
  appendFileSync(folder.podLog('payments-1'), lines)
  written += count
}

function rotate(): void {
  const path = folder.podLog('payments-1')
  renameSync(path, `${path}.20260101-00000${written % 10}`)
}

async function captured(node: RunningNode): Promise<number> {
  const [row] = await node.rows(`SELECT count(*) FROM events WHERE request_id LIKE 'line-%'`)
  return Number(row?.[0])
}

async function expectStuck(node: RunningNode): Promise<void> {
  await until(
    'the agent says it is stuck',
    async () => (await node.status()).stuck !== null,
    10_000,
  )
  const ready = await fetch(new URL('/readyz', node.url))
  expect([ready.status, await ready.text()]).toEqual([503, expect.stringContaining('not ready')])
  const metrics = await fetch(new URL('/metrics', node.url), {
    headers: { authorization: `Bearer ${node.token}` },
  })
  expect(await metrics.text()).toContain('meshtrail_commit_stuck 1')
}

async function expectAllThere(): Promise<void> {
  expect(await accountOf(folder.data, written)).toMatchObject(nothingWrong)
  const key = join(folder.path, 'node.vkey')
  writeFileSync(key, readFileSync(join(folder.data, 'log/vkey')))
  const { status, stdout } = await meshtrail(['verify', folder.data, '--key', key])
  expect([status, stdout]).toEqual([0, expect.stringContaining('gaps      0 declared')])
}

/** A file system of its own for the data directory; false where this process may not mount. */
function mountSmall(): boolean {
  mkdirSync(folder.data)
  const { success } = Bun.spawnSync(['mount', '-t', 'tmpfs', '-o', 'size=6m', 'tmpfs', folder.data])
  if (success) mounted = folder.data
  return success
}

/** Takes all the room there is, to the last byte. */
function fill(path: string): void {
  for (let block = 64 * 1024; block >= 1; block = Math.floor(block / 8)) {
    for (;;) {
      try {
        appendFileSync(path, Buffer.alloc(block))
      } catch {
        break
      }
    }
  }
  expect(statfsSync(folder.data).bavail).toBe(0)
}

const canMount = process.getuid?.() === 0

describe('a file system without room', () => {
  test.skipIf(!canMount)(
    'stops committing, and goes on by itself when there is room',
    async () => {
      if (!mountSmall()) return
      await using node = await startNode(folder, { commitAge: '100ms' })
      append(100)
      expect(await captured(node)).toBe(100)
      const filler = join(folder.data, 'filler')
      fill(filler)
      const before = await node.status()

      append(200)
      await expectStuck(node)
      expect((await node.status()).stuck).toContain('no space left')
      expect(node.stderr).toContain('no space left')
      // Rotation goes on while nobody can commit.
      rotate()
      append(300)
      await Bun.sleep(1500)
      expect((await node.status()).size).toBe(before.size)
      // A question is answered from what is there, and says that it is not everything.
      const { rows, coverage } = await node.query(
        `SELECT count(*) FROM events WHERE request_id LIKE 'line-%'`,
      )
      expect(rows).toEqual([[100]])
      expect(coverage).toMatchObject({ complete: false, agents: [{ status: 'lagging' }] })
      // Said once, not once a second.
      expect(node.stderr.split('no space left').length).toBe(2)

      rmSync(filler)
      await until('it goes on', async () => (await node.status()).stuck === null, 10_000)
      expect(node.stderr).toContain('there is room again')
      await until('everything is there', async () => (await captured(node)) === written, 10_000)
      expect((await fetch(new URL('/readyz', node.url))).status).toBe(200)
      await node.stop()
      await expectAllThere()
    },
    60_000,
  )

  test.skipIf(!canMount)(
    'that gets no room before the agent is killed loses nothing either',
    async () => {
      if (!mountSmall()) return
      const filler = join(folder.data, 'filler')
      {
        await using node = await startNode(folder, { commitAge: '100ms' })
        append(100)
        expect(await captured(node)).toBe(100)
        fill(filler)
        append(200)
        await expectStuck(node)
        await node.kill()
      }
      rotate()
      append(50)
      rmSync(filler)
      await using node = await startNode(folder)
      expect(await captured(node)).toBe(written)
      await node.stop()
      await expectAllThere()
    },
    60_000,
  )
})

describe('data.bytesMax used up', () => {
  test('stops committing until it is raised, and nothing is lost in between', async () => {
    {
      await using node = await startNode(folder, { bytesMax: '60KiB', commitAge: '100ms' })
      append(2000)
      await expectStuck(node)
      const { stuck, bytes_used: used, bytes_max: max } = await node.status()
      expect(stuck).toContain('data.bytesMax')
      expect([used <= max, max]).toEqual([true, 60 * 1024])
      expect(node.stderr).toContain('data.bytesMax')
      rotate()
      append(100)
      // It is told to stop while it cannot commit: what it holds is not lost, it is read again.
      node.signal('SIGTERM')
      expect(await node.exited()).toBe('0')
    }
    await using node = await startNode(folder, { bytesMax: '1GiB' })
    expect(await captured(node)).toBe(written)
    expect((await node.status()).stuck).toBeNull()
    await node.stop()
    await expectAllThere()
  }, 60_000)

  test('ends an import with exit status 74, and the next with more room completes it', async () => {
    append(3000)
    const file = folder.podLog('payments-1')
    const config = (bytesMax: string): string => {
      const path = join(folder.path, 'import.yaml')
      writeFileSync(path, `data: {bytesMax: ${bytesMax}}\n`)
      return path
    }
    const args = ['import', file, '--data', folder.data]
    const full = await meshtrail([...args, '--config', config('60KiB')])
    expect([full.status, full.stderr]).toEqual([74, expect.stringContaining('data.bytesMax')])
    expect(full.stderr).toContain('hint:')
    const { status } = await meshtrail([...args, '--config', config('1GiB')])
    expect(status).toBe(0)
    await expectAllThere()
  }, 60_000)
})
