import { describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createProgram } from '../../agent/commands/program.ts'
import { meshtrail, meshtrailOk } from './command.ts'

/** Every command there is, as the words that call it. */
const commands: readonly string[][] = createProgram()
  .commands.filter((command) => !command.name().startsWith('__'))
  .flatMap((command) => [
    [command.name()],
    ...command.commands.map((child) => [command.name(), child.name()]),
  ])

describe('help', () => {
  test('lists every command, and none of the hidden ones', async () => {
    const text = await meshtrailOk(['--help'])
    for (const [name = ''] of commands) expect(text).toMatch(new RegExp(`^  ${name}\\b`, 'm'))
    expect(text).not.toContain('__query')
    expect(text).toContain('Examples:')
    expect(await meshtrailOk(['help'])).toBe(text)
  })

  for (const words of commands) {
    test(`of ${words.join(' ')} has a description, its options and examples`, async () => {
      const text = await meshtrailOk([...words, '--help'])
      expect(text).toStartWith(`Usage: meshtrail ${words.join(' ')}`)
      // Of a command that only has others below it, those have the examples.
      const isGroup = commands.some((other) => other.length === 2 && other[0] === words.join(' '))
      if (!isGroup) {
        expect(text).toContain('Examples:\n  $ ')
        expect(text).toContain(`meshtrail ${words.join(' ')}`)
      }
    })
  }

  test('every example names options that exist', async () => {
    for (const words of commands) {
      const text = await meshtrailOk([...words, '--help'])
      const [options = '', examples = ''] = text.split('Examples:')
      for (const [option] of examples.matchAll(/(?<=\s)--[a-z-]+/g)) {
        expect([words, option, options.includes(option)]).toEqual([words, option, true])
      }
    }
  }, 30_000)
})

describe('a mistake in the arguments ends with exit status 2 and says what there is:', () => {
  const mistakes: readonly (readonly [args: readonly string[], named: string])[] = [
    [['nosuch'], 'nosuch'],
    [['import'], 'file'],
    [['query'], 'sql'],
    [['verify'], 'dir'],
    [['query', 'SELECT 1', '--nosuch'], '--nosuch'],
    [['query', 'SELECT 1', '--format', 'xml'], 'xml'],
    [['query', 'SELECT 1', '--limit', 'many'], 'many'],
    [['query', 'SELECT 1', '--timeout', 'soon'], 'soon'],
    [['import', '-', '--trust', 'everybody'], 'everybody'],
    [['completion', 'tcsh'], 'tcsh'],
    [['rules', 'nosuch'], 'nosuch'],
    [['config', 'check'], 'file'],
    [['demo', 'extra'], 'demo'],
  ]
  for (const [args, named] of mistakes) {
    test(args.join(' '), async () => {
      const { status, stdout, stderr } = await meshtrail(args)
      expect([status, stdout]).toEqual([2, ''])
      expect(stderr).toContain(named)
    })
  }

  test('no arguments at all print the help', async () => {
    const { stdout, stderr } = await meshtrail([])
    expect(stdout + stderr).toContain('Examples:')
  })
})

describe('completion', () => {
  const shells = [
    ['bash', ['bash', '-n']],
    ['zsh', ['zsh', '-n']],
    ['fish', ['fish', '--no-execute']],
  ] as const
  for (const [shell, check] of shells) {
    test(`for ${shell} is a script that knows the commands, and parses where that shell is`, async () => {
      const script = await meshtrailOk(['completion', shell])
      for (const word of ['import', 'query', 'verify', 'explain', 'expect-head']) {
        expect(script).toContain(word)
      }
      expect(script).not.toContain('__selfcheck')
      if (Bun.which(shell) === null) return
      const folder = mkdtempSync(join(tmpdir(), 'meshtrail-completion-'))
      try {
        const path = join(folder, 'script')
        writeFileSync(path, script)
        const { exitCode, stderr } = Bun.spawnSync([...check, path])
        expect([exitCode, stderr.toString()]).toEqual([0, ''])
      } finally {
        rmSync(folder, { recursive: true })
      }
    })
  }
})
