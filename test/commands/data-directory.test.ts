import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { NodeFolder, startNode } from '../end-to-end/node.ts'
import { criLine } from '../faults/lines.ts'
import { meshtrail, meshtrailOk } from './command.ts'

let folder: NodeFolder
beforeEach(() => {
  folder = new NodeFolder('data')
})
afterEach(() => folder[Symbol.dispose]())

const asSomebody = ['setpriv', '--reuid', '12345', '--regid', '12345', '--clear-groups']
const isRoot = process.getuid?.() === 0

function logFile(): string {
  const path = folder.podLog('payments-1')
  writeFileSync(path, Array.from({ length: 20 }, (_, number) => criLine(number)).join(''))
  return path
}

describe('a data directory', () => {
  test('in use by an agent is refused to the next with exit status 77, and the first goes on', async () => {
    const file = logFile()
    await using node = await startNode(folder)
    for (const args of [
      ['run', '--data', folder.data],
      ['import', file, '--data', folder.data],
    ]) {
      const { status, stderr } = await meshtrail(args)
      expect(status).toBe(77)
      expect(stderr).toContain(`the data directory ${folder.data} is in use by another agent`)
      expect(stderr).toMatch(/hint: +stop the other agent, or give this one a directory of its own/)
    }
    expect(await node.rows(`SELECT count(*) FROM events WHERE request_id IS NOT NULL`)).toEqual([
      [20],
    ])
    // Reading beside it is no conflict, and says what it cannot see.
    const beside = await meshtrail(['query', 'SELECT 1', '--data', folder.data])
    expect([beside.status, beside.stderr]).toEqual([0, expect.stringContaining('--url')])
    await node.stop()
    await meshtrailOk(['import', file, '--data', folder.data])
  }, 30_000)

  test('left behind by an agent that was killed is free', async () => {
    await using node = await startNode(folder)
    await node.kill()
    await meshtrailOk(['import', logFile(), '--data', folder.data])
  }, 30_000)

  test.skipIf(!isRoot)(
    'that this user may not write is refused with exit status 77',
    async () => {
      const file = logFile()
      chmodSync(folder.path, 0o755)
      mkdirSync(folder.data, { mode: 0o755 })
      for (const data of [folder.data, join(folder.data, 'below')]) {
        for (const args of [
          ['import', file, '--data', data],
          ['run', '--data', data],
        ]) {
          const { status, stderr } = await meshtrail(args, { through: asSomebody })
          expect([args[0], status]).toEqual([args[0], 77])
          expect(stderr).toContain(data)
          expect(stderr).toContain('hint:')
        }
      }
    },
    30_000,
  )

  test.skipIf(!isRoot)(
    'is made and kept by an ordinary user, its keys closed to others',
    async () => {
      const file = logFile()
      chmodSync(folder.path, 0o777)
      const options = {
        through: asSomebody,
        env: { HOME: folder.path, MESHTRAIL_CACHE_DIR: '' },
      }
      await meshtrailOk(['import', file, '--data', folder.data], options)
      const { stdout } = Bun.spawnSync([
        'find',
        folder.data,
        '-path',
        '*keys*',
        '-printf',
        '%m %u %y\n',
      ])
      expect(new Set(stdout.toString().trim().split('\n'))).toEqual(
        new Set(['700 12345 d', '600 12345 f']),
      )
      const other = await meshtrail(['import', file, '--data', folder.data], {
        through: ['setpriv', '--reuid', '23456', '--regid', '23456', '--clear-groups'],
      })
      expect([other.status, other.stderr]).toEqual([77, expect.stringContaining('hint:')])
    },
    30_000,
  )

  test.skipIf(!isRoot)(
    'whose log file may not be read says so once and follows the others',
    async () => {
      const closed = logFile()
      const open = folder.podLog('ledger-1')
      writeFileSync(open, criLine(100))
      chmodSync(closed, 0o600)
      chmodSync(folder.path, 0o755)
      mkdirSync(folder.data)
      chownSync(folder.data, 12_345, 12_345)
      const { status, stderr } = await meshtrail(['import', closed, '--data', folder.data], {
        through: asSomebody,
        env: { HOME: folder.data },
      })
      expect([status, stderr]).toEqual([77, expect.stringContaining(closed)])
      await meshtrailOk(['import', open, '--data', folder.data], {
        through: asSomebody,
        env: { HOME: folder.data },
      })
    },
    30_000,
  )

  test('that holds no log is named by every command that reads one', async () => {
    for (const args of [
      ['query', 'SELECT 1', '--data', folder.data],
      ['status', '--data', folder.data],
    ]) {
      const { status, stderr } = await meshtrail(args)
      expect([status, stderr]).toEqual([2, expect.stringContaining(folder.data)])
      expect(stderr).toContain('hint:')
    }
  })
})
