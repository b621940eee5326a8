import { expect, test } from 'bun:test'
import { closeSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openLogFile, readRange } from '../../agent/tail/open-file.ts'
import { TestNode } from './node.ts'

test('a directory swapped for a link does not lead out of the allowed ones', () => {
  using node = new TestNode()
  const allowed = node.path('allowed/x')
  const secret = node.path('secret/0.log')
  writeFileSync(secret, 'secret\n')
  mkdirSync(join(allowed, '..'), { recursive: true })
  symlinkSync(join(secret, '..'), allowed)
  const below = [join(allowed, '..')]
  expect(openLogFile(join(allowed, '0.log'), below)).toBe('symlink_refused')
})

test('the last component is never a link, and never anything but a file', () => {
  using node = new TestNode()
  const file = node.path('a.log')
  writeFileSync(file, 'one\n')
  symlinkSync(file, node.path('link'))
  expect(() => openLogFile(node.path('link'))).toThrow('ELOOP')
  expect(openLogFile('/dev/null')).toBe('not_a_file')
  expect(openLogFile(node.root)).toBe('not_a_file')
  const open = openLogFile(file, [node.root])
  if (typeof open === 'string') throw new Error(open)
  expect(readRange(open.fd, 0, 100).toString()).toBe('one\n')
  closeSync(open.fd)
})
