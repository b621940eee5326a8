import { describe, expect, test } from 'bun:test'
import {
  appendFileSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { sha256Hex } from '../../agent/tail/identity.ts'
import { never, TestNode } from './node.ts'

const rotatedName = '0.log.20260101-120000'

function sortedContents(node: TestNode): string[] {
  return node.ledger.contents().toSorted()
}

describe('rename rotation', () => {
  test('rotation during a partial line loses nothing', async () => {
    using node = new TestNode()
    const path = node.log()
    const rotated = node.log(rotatedName)
    writeFileSync(path, 'one\ntw')
    await using tail = node.tail()
    await node.drain(tail)
    renameSync(path, rotated)
    await node.drain(tail)
    appendFileSync(rotated, 'o\nthree\n')
    await node.drain(tail)
    writeFileSync(path, 'four\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'two', 'three', 'four'])
    expect(node.ledger.gaps).toEqual([])
    expect(node.cursorOf(rotated).finished).toBeTrue()
    expect(node.cursorOf(path).finished).toBeFalse()
    node.ledger.checkConservation()
  })

  test('what is written to the old file after the new one exists is read', async () => {
    using node = new TestNode()
    const path = node.log()
    const rotated = node.log(rotatedName)
    writeFileSync(path, 'one\n')
    await using tail = node.tail({ finishQuietMs: 1000 })
    await node.drain(tail, 300)
    renameSync(path, rotated)
    writeFileSync(path, 'new\n')
    await node.drain(tail, 300)
    appendFileSync(rotated, 'late\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(sortedContents(node)).toEqual(['late', 'new', 'one'])
  })

  test('a line completed soon after the new file appeared is one line', async () => {
    using node = new TestNode()
    const path = node.log()
    const rotated = node.log(rotatedName)
    writeFileSync(path, 'one\ntw')
    await using tail = node.tail({ finishQuietMs: 5000 })
    await node.drain(tail, 300)
    renameSync(path, rotated)
    writeFileSync(path, 'new\n')
    await node.drain(tail, 2000)
    appendFileSync(rotated, 'o\n')
    await node.drain(tail, 7000)
    node.ledger.commit()
    expect(sortedContents(node)).toEqual(['new', 'one', 'two'])
    expect(node.cursorOf(rotated).finished).toBeTrue()
  })

  test('an unterminated last line is handed out when the file is final, and not before', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\ntw')
    await using tail = node.tail()
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one'])
    expect(node.cursorOf(path).offset).toBe(4)
    renameSync(path, node.log(rotatedName))
    writeFileSync(path, 'next\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.lines.map(({ line }) => [line.content, line.unterminated])).toContainEqual([
      'tw',
      true,
    ])
    node.ledger.checkConservation()
  })

  test('a final file that grows all the same is taken up again, its line as a continuation', async () => {
    using node = new TestNode()
    const path = node.log()
    const rotated = node.log(rotatedName)
    writeFileSync(path, 'one\ntw')
    await using tail = node.tail()
    renameSync(path, rotated)
    writeFileSync(path, 'next\n')
    await node.drain(tail)
    appendFileSync(rotated, 'o\nthree\n')
    await node.drain(tail)
    node.ledger.commit()
    const lines = node.ledger.lines.map(({ line }) => [line.content, line.continuation ?? false])
    expect(lines.filter(([content]) => content !== 'next')).toEqual([
      ['one', false],
      ['tw', false],
      ['o', true],
      ['three', false],
    ])
    node.ledger.checkConservation(() => undefined)
  })

  test('a file rotated and compressed while the agent was down goes on where it was left', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\n')
    await node.readAll()
    const content = 'one\ntwo\nthree\n'
    unlinkSync(path)
    writeFileSync(node.log(`${rotatedName}.gz`), gzipSync(content))
    writeFileSync(path, 'four\n')
    await node.readAll()
    expect(node.ledger.contents()).toEqual(['one', 'four', 'two', 'three'])
    expect(node.ledger.gaps).toEqual([])
    node.ledger.checkConservation()
    const again = await node.readAll()
    expect(again.flatMap((chunk) => chunk.lines)).toEqual([])
  })

  test('a compressed file of another generation that begins alike is read from its beginning', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'banner\none\n')
    await node.readAll()
    writeFileSync(node.log(`${rotatedName}.gz`), gzipSync('banner\nother line, longer than that\n'))
    await node.readAll()
    expect(node.ledger.contents()).toEqual([
      'banner',
      'one',
      'banner',
      'other line, longer than that',
    ])
    node.ledger.checkConservation()
  })

  test('rotated and compressed files never seen before are read when asked for the beginning', async () => {
    using node = new TestNode()
    writeFileSync(node.log(), 'c\n')
    writeFileSync(node.log(rotatedName), 'b\n')
    writeFileSync(node.log('0.log.20251231-120000.gz'), gzipSync('a\n'))
    writeFileSync(node.log('0.log.20251231-130000.tmp'), 'half compressed')
    await node.readAll()
    expect(sortedContents(node)).toEqual(['a', 'b', 'c'])
    expect([...node.ledger.cursors.values()].filter((cursor) => cursor.finished)).toHaveLength(2)
  })

  test('a rotated file that was found, and deleted before its turn while the agent crashed, is a gap', async () => {
    using node = new TestNode()
    const older = node.log('0.log.20251231-120000.gz')
    writeFileSync(node.log(), 'c\n')
    writeFileSync(node.log(rotatedName), 'b\n')
    writeFileSync(older, gzipSync('a\n'))
    {
      await using tail = node.tail()
      // The scan makes both rotated files known; nothing of them is read before the crash.
      for (let found = 0; found < 2; found++) node.ledger.take(await tail.next(never))
      node.ledger.commit()
      expect(node.ledger.lines).toEqual([])
    }
    unlinkSync(older)
    unlinkSync(node.log(rotatedName))
    await node.readAll()
    expect(sortedContents(node)).toEqual(['c'])
    const gaps = node.ledger.gaps.map(({ path, from, to }) => ({ path, from, to }))
    expect(gaps.toSorted((a, b) => (a.path < b.path ? -1 : 1))).toEqual([
      { path: older, from: 0, to: null },
      { path: node.log(rotatedName), from: 0, to: null },
    ])
    node.ledger.checkConservation()
  })

  test('the oldest compressed file is read first, whosever it is', async () => {
    using node = new TestNode()
    const names = ['shop_a_1', 'shop_b_2', 'shop_c_3']
    for (const [age, pod] of names.entries()) {
      const path = node.log('0.log.20251231-120000.gz', 'istio-proxy', pod)
      writeFileSync(path, gzipSync(`${pod}\n`))
      utimesSync(path, 1_700_000_000 - age, 1_700_000_000 - age)
    }
    await node.readAll()
    expect(node.ledger.contents()).toEqual(names.toReversed())
  })

  test('compressing and unlinking a file that is open repeats nothing', async () => {
    using node = new TestNode()
    const path = node.log()
    const rotated = node.log(rotatedName)
    writeFileSync(path, 'one\ntwo\n')
    await using tail = node.tail()
    await node.drain(tail, 200)
    renameSync(path, rotated)
    writeFileSync(path, 'three\n')
    writeFileSync(`${rotated}.gz`, gzipSync(readFileSync(rotated)))
    unlinkSync(rotated)
    await node.drain(tail)
    node.ledger.commit()
    expect(sortedContents(node)).toEqual(['one', 'three', 'two'])
    expect(node.ledger.gaps).toEqual([])
  })

  test('a restarted container finishes the file of the run before', async () => {
    using node = new TestNode()
    writeFileSync(node.log('0.log'), 'one\npart')
    await using tail = node.tail()
    await node.drain(tail)
    writeFileSync(node.log('1.log'), 'two\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(sortedContents(node)).toEqual(['one', 'part', 'two'])
    expect(node.cursorOf(node.log('0.log')).finished).toBeTrue()
  })
})

describe('copies and files that begin alike', () => {
  test('a short file compressed and unlinked before it was looked at again is read once', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'on')
    await using tail = node.tail()
    await node.drain(tail)
    appendFileSync(path, 'e\n')
    writeFileSync(node.log(`${rotatedName}.gz`), gzipSync(readFileSync(path)))
    unlinkSync(path)
    node.clock.ms += 60_000
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one'])
  })

  test('a file truncated, written anew, compressed and unlinked between two looks is read once', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\ntwo\n')
    await using tail = node.tail()
    await node.drain(tail)
    truncateSync(path, 0)
    appendFileSync(path, 'three\n')
    writeFileSync(node.log(`${rotatedName}.gz`), gzipSync(readFileSync(path)))
    unlinkSync(path)
    node.clock.ms += 60_000
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'two', 'three'])
  })

  test('after a restart the original goes on, not the copy beside it', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\ntwo\n')
    await node.readAll()
    copyFileSync(path, node.log(rotatedName))
    appendFileSync(path, 'three\n')
    await node.readAll()
    expect(node.ledger.contents()).toEqual(['one', 'two', 'three'])
    expect(node.ledger.gaps).toEqual([])
  })

  test('a shorter file with the same first line is not taken for a copy', async () => {
    using node = new TestNode()
    writeFileSync(node.log(), 'banner\none\ntwo\n')
    await using tail = node.tail()
    await node.drain(tail)
    writeFileSync(node.log(rotatedName), 'banner\nx\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['banner', 'one', 'two', 'banner', 'x'])
    node.ledger.checkConservation()
  })

  test('a compressed file with the same first line does not continue one that is gone', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'banner\none\n')
    await node.readAll()
    unlinkSync(path)
    writeFileSync(node.log(`${rotatedName}.gz`), gzipSync('banner\nTWO\nthree\n'))
    await node.readAll()
    expect(node.ledger.contents()).toEqual(['banner', 'one', 'banner', 'TWO', 'three'])
    expect(node.ledger.gaps).toMatchObject([{ cause: 'deleted_unread', from: 11, to: null }])
    node.ledger.checkConservation()
  })

  test('a file found again while another directory is missing is not declared lost later', async () => {
    using node = new TestNode()
    const path = node.log()
    const second = node.path('second/pods')
    const follow = { podRoots: [node.pods, second] }
    writeFileSync(path, 'one\n')
    await node.readAll({ follow })
    renameSync(path, node.log(rotatedName))
    writeFileSync(path, 'two\n')
    await using tail = node.tail({ follow })
    await node.drain(tail)
    expect(node.problems).toMatchObject([{ code: 'unlistable', path: second }, {}])
    mkdirSync(second)
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'two'])
    expect(node.ledger.gaps).toEqual([])
  })
})

describe('truncation', () => {
  test('a copy of a file too short to be identified brings what was seen of it', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'abc')
    await using tail = node.tail()
    await node.drain(tail)
    copyFileSync(path, node.log(rotatedName))
    truncateSync(path, 0)
    appendFileSync(path, 'x\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(sortedContents(node)).toEqual(['abc', 'x'])
    expect(node.ledger.gaps).toEqual([])
  })

  test('a rewrite that differs only in its first line is noticed', async () => {
    using node = new TestNode()
    const path = node.log()
    const same = 'same '.repeat(40)
    writeFileSync(path, `first\n${same}\n`)
    await using tail = node.tail()
    await node.drain(tail)
    writeFileSync(path, `FIRST\n${same}\nmore\n`)
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['first', same, 'FIRST', same, 'more'])
    node.ledger.checkConservation()
  })

  test('copytruncate with the copy at hand loses nothing', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\n')
    await using tail = node.tail()
    await node.drain(tail)
    appendFileSync(path, 'two\nthr')
    copyFileSync(path, node.log(rotatedName))
    truncateSync(path, 0)
    writeFileSync(path, 'a\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(sortedContents(node)).toEqual(['a', 'one', 'thr', 'two'])
    expect(node.ledger.gaps).toEqual([])
    node.ledger.checkConservation()
  })

  test('a copy that is found before the truncation was noticed continues the original', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\n')
    await using tail = node.tail()
    await node.drain(tail)
    appendFileSync(path, 'two\n')
    copyFileSync(path, node.log(rotatedName))
    truncateSync(path, 0)
    // Both a scan and a poll are due, and the scan comes first.
    node.clock.ms += 60_000
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'two'])
    expect(node.ledger.gaps).toEqual([])
  })

  test('a file overwritten between being named and being read is not taken for the first', async () => {
    using node = new TestNode()
    const path = node.log()
    const other = node.log('0.log', 'istio-proxy', 'shop_other_1-3')
    writeFileSync(other, 'other\n')
    writeFileSync(path, 'one\n')
    await using tail = node.tail()
    // The first chunk is of the other file; by then this one has its name.
    node.ledger.take(await tail.next(never))
    writeFileSync(path, 'two\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.cursorOf(path).fingerprint).toBe(sha256Hex(Buffer.from('two\n')))
    expect(sortedContents(node)).toEqual(['other', 'two'])
    expect(node.ledger.gaps).toMatchObject([{ cause: 'truncated', from: 0, to: null }])
    node.ledger.checkConservation()
  })

  test('truncation without a copy is a gap without end', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\ntwo\n')
    await using tail = node.tail()
    await node.drain(tail)
    truncateSync(path, 0)
    appendFileSync(path, 'x\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'two', 'x'])
    expect(node.ledger.gaps).toMatchObject([{ cause: 'truncated', from: 8, to: null }])
    node.ledger.checkConservation()
  })

  test('a file truncated and rewritten longer between two polls is a new generation', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\ntwo\n')
    await using tail = node.tail()
    await node.drain(tail)
    writeFileSync(path, 'another\nfile, longer than the first\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'two', 'another', 'file, longer than the first'])
    expect(node.ledger.gaps).toMatchObject([{ cause: 'truncated', from: 8, to: null }])
  })

  test('a rewrite that keeps the first line but not what follows is noticed', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'banner\none\n')
    await using tail = node.tail()
    await node.drain(tail)
    writeFileSync(path, 'banner\nTWO\nthree\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['banner', 'one', 'banner', 'TWO', 'three'])
    expect(node.ledger.cursors.size).toBe(2)
    node.ledger.checkConservation()
  })

  test('a file too short to be identified is not lost when it is overwritten', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'abc')
    await using tail = node.tail()
    await node.drain(tail)
    writeFileSync(path, 'xyz, longer\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(sortedContents(node)).toEqual(['abc', 'xyz, longer'])
    expect(node.ledger.gaps).toMatchObject([{ cause: 'truncated', from: 3, to: null }])
    node.ledger.checkConservation()
  })

  test('a copy in the making is not read as a file of its own', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\ntwo\nthree\n')
    await using tail = node.tail()
    await node.drain(tail)
    writeFileSync(node.log(rotatedName), 'one\ntw')
    await node.drain(tail)
    appendFileSync(node.log(rotatedName), 'o\nthree\n')
    await node.drain(tail)
    truncateSync(path, 0)
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'two', 'three'])
    expect(node.ledger.gaps).toEqual([])
    expect(node.ledger.only().cursor.finished).toBeTrue()
  })
})

describe('deletion', () => {
  test('a deleted file is read to its end, with its unterminated line', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\n')
    await using tail = node.tail()
    await node.drain(tail)
    appendFileSync(path, 'two\nthr')
    rmSync(join(path, '../..'), { recursive: true })
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['one', 'two', 'thr'])
    expect(node.ledger.gaps).toEqual([])
    expect(node.ledger.only().cursor.finished).toBeTrue()
    expect(tail.openFiles).toBe(0)
  })

  test('a file deleted while the agent was down is a gap without end, once', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, '2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stdout F two\n')
    await node.readAll()
    const { offset } = node.cursorOf(path)
    rmSync(join(path, '../..'), { recursive: true })
    await node.readAll()
    await node.readAll()
    expect(node.ledger.gaps).toMatchObject([{ cause: 'deleted_unread', from: offset, to: null }])
    node.ledger.checkConservation()
  })

  test('a part that waits to be joined becomes a gap with the file that is gone', async () => {
    using node = new TestNode()
    const path = node.log()
    const part = '2026-01-01T00:00:01Z stdout P tw\n'
    writeFileSync(
      path,
      `2026-01-01T00:00:00Z stdout F one\n${part}2026-01-01T00:00:02Z stderr F x\n`,
    )
    await node.readAll()
    expect(node.cursorOf(path).pending).toHaveLength(1)
    unlinkSync(path)
    writeFileSync(path, 'new\n')
    await node.readAll()
    expect(node.ledger.gaps).toMatchObject([
      { cause: 'rotated_unread', from: 34, to: 34 + part.length },
      { cause: 'rotated_unread', to: null },
    ])
    node.ledger.checkConservation()
  })

  test('nothing is declared lost while its directory cannot be listed', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\n')
    await node.readAll()
    renameSync(node.pods, `${node.pods}.unmounted`)
    await node.readAll()
    expect(node.ledger.gaps).toEqual([])
    expect(node.problems).toMatchObject([{ code: 'unlistable', path: node.pods }])
    renameSync(`${node.pods}.unmounted`, node.pods)
    appendFileSync(path, 'two\n')
    await node.readAll()
    expect(node.ledger.contents()).toEqual(['one', 'two'])
  })

  test('an inode used again for another file starts a new generation', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'one\ntwo\n')
    await node.readAll()
    const { ino } = statSync(path)
    // Other content in the same inode: what a file system that reuses numbers gives.
    const spare = node.path('spare')
    linkSync(path, spare)
    unlinkSync(path)
    renameSync(spare, path)
    writeFileSync(path, 'a file with more in it than the other\n')
    expect(statSync(path).ino).toBe(ino)
    await node.readAll()
    expect(node.ledger.contents()).toEqual(['one', 'two', 'a file with more in it than the other'])
    expect(node.ledger.cursors.size).toBe(2)
    node.ledger.checkConservation()
  })
})

describe('what is opened', () => {
  test('only proxies and control planes are read, until more is named', async () => {
    using node = new TestNode()
    writeFileSync(node.log('0.log', 'app'), 'app\n')
    writeFileSync(node.log('0.log', 'istio-proxy'), 'proxy\n')
    writeFileSync(node.log('0.log', 'discovery', 'istio-system_istiod-1_2'), 'istiod\n')
    writeFileSync(node.log('0.log', 'discovery', 'evil_istiod-1_2'), 'not istiod\n')
    await node.readAll()
    expect(sortedContents(node)).toEqual(['istiod', 'proxy'])
    const named = { glob: join(node.pods, 'shop_*/app/*.log'), trust: 'none' } as const
    await node.readAll({ follow: { named: [named] } })
    expect(sortedContents(node)).toEqual(['app', 'istiod', 'proxy'])
  })

  test('a link out of the allowed directories is refused, one to Docker is followed', async () => {
    using node = new TestNode()
    const secret = node.path('etc/shadow')
    writeFileSync(secret, 'root:x\n')
    symlinkSync(secret, node.log('0.log', 'istio-proxy', 'evil_a_1'))
    const docker = node.path('docker/containers/abc/abc-json.log')
    writeFileSync(docker, '{"log":"new\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n')
    writeFileSync(
      `${docker}.1`,
      '{"log":"old\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n',
    )
    symlinkSync(docker, node.log('0.log'))
    const follow = { symlinkRoots: [join(node.root, 'docker/containers')] }
    await node.readAll({ follow })
    expect(sortedContents(node)).toEqual(['new', 'old'])
    expect(node.problems).toMatchObject([{ code: 'symlink_refused' }])
  })

  test('a pipe in place of a log file is not opened and stops nothing', async () => {
    using node = new TestNode()
    const pipe = node.log('0.log', 'istio-proxy', 'evil_a_1')
    expect(Bun.spawnSync(['mkfifo', pipe]).exitCode).toBe(0)
    writeFileSync(node.log(), 'one\n')
    await node.readAll()
    expect(node.ledger.contents()).toEqual(['one'])
    expect(node.problems).toMatchObject([{ code: 'not_a_file', path: pipe }])
  })

  test('an audit log is followed with its rotated files', async () => {
    using node = new TestNode()
    const path = node.path('var/log/kubernetes/audit/audit.log')
    writeFileSync(path, '{"a":2}\n')
    const old = join(dirname(path), 'audit-2026-01-01T12-00-00.000.log')
    writeFileSync(old, '{"a":1}\n')
    mkdirSync(join(dirname(path), 'audit.log.1'))
    await node.readAll({ follow: { auditPaths: [path] } })
    expect(sortedContents(node)).toEqual(['{"a":1}', '{"a":2}'])
    expect(node.cursorOf(old).provenance.trust).toBe('api_server')
    expect(node.cursorOf(old).finished).toBeTrue()
  })

  test('from now: what was there is a declared gap, what comes is read', async () => {
    using node = new TestNode()
    const path = node.log()
    writeFileSync(path, 'old\nhal')
    writeFileSync(node.log(rotatedName), 'older\n')
    writeFileSync(node.log('0.log.20251231-120000.gz'), gzipSync('oldest\n'))
    await using tail = node.tail({ from: 'now' })
    await node.drain(tail)
    appendFileSync(path, 'f\nnew\n')
    await node.drain(tail)
    node.ledger.commit()
    expect(node.ledger.contents()).toEqual(['half', 'new'])
    expect(node.ledger.gaps.map(({ cause, from, to }) => `${cause} ${from} ${to}`)).toEqual([
      'skipped 0 6',
      'skipped 0 4',
      'skipped 0 7',
    ])
    node.ledger.checkConservation()
    await node.readAll({ from: 'now' })
    expect(node.ledger.contents()).toEqual(['half', 'new'])
  })
})
