import { describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Argument, Command, Option } from 'commander'
import { completionScript } from '../../agent/terminal/completion.ts'

/** A small program with everything the generator has to deal with. */
function program(): Command {
  const root = new Command('meshtrail').version('1.0.0').option('--utc', 'times in UTC')
  root
    .command('query')
    .description("answer SQL; say what isn't covered")
    .argument('<sql>')
    .addOption(new Option('-f, --format <name>', 'output').choices(['table', 'json', 'ndjson']))
    .option('--data <directory>', 'where the log is')
    .option('--url <address>', 'an agent')
  root.command('import').description('read log files').argument('<files...>')
  const rules = root.command('rules').description('Sigma rules')
  rules.command('check').description('find mistakes').argument('[rules...]')
  rules.command('test').alias('try').description('run the examples')
  root
    .command('report')
    .addArgument(new Argument('<preset>', 'what for').choices(['soc2', 'pci', 'bad word $(id)']))
  root.command('__selfcheck', { hidden: true })
  return root
}

/** What bash offers for a line whose last word is being typed. */
function bashOffers(words: string[], cwd = '/'): string[] {
  const script = `
    set -u
    ${completionScript(program(), 'bash')}
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    _meshtrail
    printf '%s\\n' "\${COMPREPLY[@]-}"
  `
  const ran = Bun.spawnSync(['bash', '-c', script, 'bash', ...words], { cwd })
  expect(ran.stderr.toString()).toBe('')
  return ran.stdout.toString().trim().split('\n').filter(Boolean)
}

const hasBash = Bun.which('bash') !== null

describe.skipIf(!hasBash)('bash offers', () => {
  test('commands, but not the hidden ones', () => {
    const all = bashOffers(['meshtrail', ''])
    expect(all).toEqual(['query', 'import', 'rules', 'report', 'help'])
    expect(bashOffers(['meshtrail', 'r'])).toEqual(['rules', 'report'])
  })

  test('commands below commands, by alias too', () => {
    expect(bashOffers(['meshtrail', 'rules', ''])).toEqual(['check', 'test', 'try', 'help'])
    expect(bashOffers(['meshtrail', 'rules', 'try', '--h'])).toEqual(['--help'])
  })

  test('options of the command and of those above it', () => {
    expect(bashOffers(['meshtrail', 'query', '--'])).toEqual([
      '--format',
      '--data',
      '--url',
      '--help',
      '--utc',
    ])
    expect(bashOffers(['meshtrail', '--v'])).toEqual(['--version'])
  })

  test('choices of an option, after a space and after =', () => {
    expect(bashOffers(['meshtrail', 'query', '--format', ''])).toEqual(['table', 'json', 'ndjson'])
    expect(bashOffers(['meshtrail', 'query', '-f', 'j'])).toEqual(['json'])
    expect(bashOffers(['meshtrail', 'query', '--format', '=', 'nd'])).toEqual(['ndjson'])
    expect(bashOffers(['meshtrail', 'query', '--format', '='])).toEqual(['table', 'json', 'ndjson'])
  })

  test('choices of an argument, without those that no shell could take as they are', () => {
    expect(bashOffers(['meshtrail', 'report', ''])).toEqual(['soc2', 'pci', 'help'].slice(0, 2))
  })

  test('files where a file is meant, and nothing where it is not', () => {
    const folder = mkdtempSync(join(tmpdir(), 'meshtrail-completion-'))
    try {
      writeFileSync(join(folder, 'access log.txt'), '')
      expect(bashOffers(['meshtrail', 'import', 'acc'], folder)).toEqual(['access log.txt'])
      expect(bashOffers(['meshtrail', 'query', '--data', 'acc'], folder)).toEqual([
        'access log.txt',
      ])
      expect(bashOffers(['meshtrail', 'query', '--url', 'acc'], folder)).toEqual([])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('the right command although the value of an option is named like another', () => {
    expect(bashOffers(['meshtrail', 'query', '--data', 'rules', '--fo'])).toEqual(['--format'])
  })
})

describe.skipIf(Bun.which('zsh') === null)('zsh', () => {
  test('offers commands, options with their descriptions, and choices', async () => {
    const shown = await zshOffers(['meshtrail r', 'meshtrail query --fo', 'meshtrail query -f nd'])
    expect(shown[0]).toContain('rules')
    expect(shown[0]).toContain('report')
    expect(shown[1]).toContain('meshtrail query --format')
    expect(shown[2]).toContain('meshtrail query -f ndjson')
  }, 30_000)
})

/** What a zsh on a terminal shows after each line and a Tab. */
async function zshOffers(lines: string[]): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'meshtrail-zsh-'))
  const shown: string[] = []
  try {
    writeFileSync(join(folder, 'script'), completionScript(program(), 'zsh'))
    for (const line of lines) {
      let output = ''
      const child = Bun.spawn(['zsh', '-f', '-i'], {
        cwd: folder,
        env: { ...process.env, TERM: 'dumb', HOME: folder, PS1: '> ' },
        terminal: {
          cols: 120,
          rows: 24,
          data: (_terminal, bytes) => void (output += new TextDecoder().decode(bytes)),
        },
      })
      const ready = `autoload -U compinit && compinit -u -D; source ./script; echo rea''dy\r`
      child.terminal?.write(ready)
      await until(() => output.includes('ready'))
      output = ''
      child.terminal?.write(`${line}\t`)
      await until(() => output.includes(line) && output.length > line.length + 3)
      await Bun.sleep(300)
      shown.push(output)
      child.kill('SIGKILL')
      await child.exited
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return shown
}

async function until(done: () => boolean): Promise<void> {
  for (let tries = 0; tries < 100 && !done(); tries++) await Bun.sleep(50)
}

/** What fish offers for a line, each with its description after a tab. */
function fishOffers(line: string): string[] {
  const script = `${completionScript(program(), 'fish')}\ncomplete -C ${JSON.stringify(line)}`
  const ran = Bun.spawnSync(['fish', '--no-config', '-c', script], { cwd: '/' })
  expect(ran.stderr.toString()).toBe('')
  return ran.stdout.toString().trim().split('\n').filter(Boolean)
}

describe.skipIf(Bun.which('fish') === null)('fish', () => {
  test('offers commands, options and choices for the command on the line', () => {
    expect(fishOffers('meshtrail r')).toEqual(['report', 'rules\tSigma rules'])
    expect(fishOffers('meshtrail rules ').map((line) => line.split('\t')[0])).toEqual([
      'check',
      'help',
      'test',
      'try',
    ])
    expect(fishOffers('meshtrail query --fo')).toEqual(['--format\toutput'])
    expect(fishOffers('meshtrail query -f n').map((line) => line.split('\t')[0])).toEqual([
      'ndjson',
    ])
    expect(fishOffers('meshtrail report ').map((line) => line.split('\t')[0])).toEqual([
      'pci',
      'soc2',
    ])
  })
})
