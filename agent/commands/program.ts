/** The command line: every command with its options and examples. What a command does is in its own file. */
import { Argument, Command, InvalidArgumentError, Option } from 'commander'
import { buildInfo } from '../runtime/build-info.ts'
import { completionScript, type Shell, shells } from '../terminal/completion.ts'
import { parseDuration } from '../terminal/units.ts'
import { writeOut } from './output.ts'

const trusts = ['proxy', 'control_plane', 'api_server', 'none']
const defaultData = './meshtrail-data'

export function createProgram(): Command {
  const { version, commit } = buildInfo()
  const program = new Command('meshtrail')
    .description(
      'The audit trail of a service mesh: proxy logs in, signed evidence and SQL answers out.',
    )
    .version(`meshtrail ${version} (${commit})`, '-V, --version')
    .helpCommand('help [command]', 'show the help of a command')
    .showHelpAfterError('(meshtrail help shows what there is)')
    .exitOverride()
    .addHelpText(
      'after',
      examples(
        'meshtrail demo',
        'meshtrail import /var/log/pods/*/*/*.log --data ./d',
        "meshtrail query 'select verdict, count(*) from events group by all' --data ./d",
      ),
    )

  program.addCommand(demoCommand())
  program.addCommand(runCommand())
  program.addCommand(importCommand())
  program.addCommand(queryCommand())
  program.addCommand(verifyCommand())
  program.addCommand(statusCommand())
  program.addCommand(rulesCommand())
  program.addCommand(configCommand())
  program.addCommand(completionCommand(program))
  program.addCommand(
    hidden('__query', 'one SQL statement, from standard input to standard output', async () => {
      const { runQueryWorker } = await import('../../query/worker.ts')
      await runQueryWorker()
    }),
    { hidden: true },
  )
  program.addCommand(
    hidden('__selfcheck', 'loads what is packed inside the binary', async () => {
      const { selfCheck } = await import('../runtime/self-check.ts')
      writeOut(`${JSON.stringify(await selfCheck())}\n`)
    }),
    { hidden: true },
  )
  for (const command of program.commands) inheritErrors(command)
  return program
}

function inheritErrors(command: Command): void {
  command.exitOverride()
  for (const child of command.commands) inheritErrors(child)
}

function hidden(name: string, description: string, action: () => Promise<void>): Command {
  return new Command(name).description(description).action(action)
}

function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join('\n')}\n`
}

function demoCommand(): Command {
  return new Command('demo')
    .description(
      'a temporary node fed with recorded logs of a real mesh: what it finds, and that tampering shows',
    )
    .option('--exit', 'end after the tour instead of serving the API (default without a terminal)')
    .option('--data <dir>', 'keep the data in this directory, which must be empty')
    .addHelpText('after', examples('meshtrail demo', 'meshtrail demo --exit'))
    .action(async (options: { exit?: boolean; data?: string }) => {
      const { demo } = await import('./demo.ts')
      await demo({ exit: options.exit ?? !process.stdout.isTTY, data: options.data ?? null })
    })
}

function runCommand(): Command {
  return new Command('run')
    .description("the agent: follow this node's logs until told to stop")
    .option('-c, --config <file>', 'configuration; without one the defaults apply')
    .option('--data <dir>', 'data directory; overrides data.path')
    .addHelpText(
      'after',
      examples('meshtrail run --config /etc/meshtrail/config.yaml', 'meshtrail run --data ./d'),
    )
    .action(async (options: { config?: string; data?: string }) => {
      const { run } = await import('./run.ts')
      await run({ config: options.config ?? null, data: options.data ?? null })
    })
}

function importCommand(): Command {
  return new Command('import')
    .description('read log files (or - for standard input) to the end, commit, seal, exit')
    .argument('<file...>', 'log files, .gz too; - is standard input')
    .option('--data <dir>', 'data directory', defaultData)
    .option('-c, --config <file>', 'configuration, for cluster and node names, rules and sizes')
    .addOption(
      new Option(
        '--trust <who>',
        'what the files may claim, where their path does not say it',
      ).choices(trusts),
    )
    .option('--json', 'print the summary as JSON')
    .addHelpText(
      'after',
      `
The same content again adds nothing, also under another name or compressed. A path such as
.../<namespace>_<pod>_<uid>/<container>/0.log says whose log it is; for other files give --trust.
${examples("meshtrail import 'logs/var/log/pods'/*/*/*.log --data ./d", 'zcat access.log.gz | meshtrail import - --trust proxy --data ./d')}`,
    )
    .action(
      async (
        files: string[],
        options: { data: string; config?: string; trust?: string; json?: boolean },
      ) => {
        const { importFiles } = await import('./import.ts')
        await importFiles(files, {
          data: options.data,
          config: options.config ?? null,
          trust: options.trust ?? null,
          json: options.json ?? false,
        })
      },
    )
}

function queryCommand(): Command {
  return new Command('query')
    .description('SQL over local data, or through a running agent')
    .argument('<sql>', 'one SELECT; - reads it from standard input')
    .option('--data <dir>', 'data directory to read', defaultData)
    .option('--url <url>', 'ask a running agent instead, e.g. http://127.0.0.1:7575')
    .option('--token-file <file>', 'bearer token for --url (or the variable MESHTRAIL_TOKEN)')
    .addOption(
      new Option('-f, --format <format>', 'how to print the rows').choices([
        'table',
        'json',
        'ndjson',
        'csv',
      ]),
    )
    .option('--json', 'the same as --format json')
    .option('--limit <rows>', 'most rows to print', wholeNumber)
    .option('--timeout <duration>', 'give up after this long, e.g. 30s', durationMs)
    .addHelpText(
      'after',
      examples(
        "meshtrail query 'select verdict, reason, policy, count(*) from events group by all order by 4 desc'",
        "meshtrail query 'describe events'",
        "meshtrail query 'from findings' --url http://127.0.0.1:7575 --token-file d/keys/token",
      ),
    )
    .action(
      async (
        sql: string,
        options: {
          data: string
          url?: string
          tokenFile?: string
          format?: string
          json?: boolean
          limit?: number
          timeout?: number
        },
      ) => {
        const { query } = await import('./query.ts')
        await query(sql, {
          data: options.data,
          url: options.url ?? null,
          tokenFile: options.tokenFile ?? null,
          format: options.format ?? (options.json === true ? 'json' : 'table'),
          limit: options.limit ?? null,
          timeoutMs: options.timeout ?? null,
        })
      },
    )
}

function verifyCommand(): Command {
  return new Command('verify')
    .description('check everything a log claims, offline: exit 0 verified, 3 forged, 4 incomplete')
    .argument('<dir>', 'a data directory, or a copy of one')
    .option(
      '--key <file>',
      "the log's public key (its vkey line), kept elsewhere; without it nothing is authenticated",
    )
    .option(
      '--expect-head <file>',
      'a checkpoint the log must contain, kept elsewhere: shows a rollback',
    )
    .option('--deep', 'parse every stored line again and compare the columns')
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      examples(
        'meshtrail verify ./d --key payments-node.vkey',
        'meshtrail verify ./d --key k --expect-head yesterday.checkpoint --deep',
      ),
    )
    .action(
      async (
        dir: string,
        options: { key?: string; expectHead?: string; deep?: boolean; json?: boolean },
      ) => {
        const { verify } = await import('./verify.ts')
        await verify(dir, {
          key: options.key ?? null,
          expectHead: options.expectHead ?? null,
          deep: options.deep ?? false,
          json: options.json ?? false,
        })
      },
    )
}

function statusCommand(): Command {
  return new Command('status')
    .description('what a log holds; of a running agent also lag, disk, last commit')
    .option('--data <dir>', 'data directory to look at', defaultData)
    .option('--url <url>', 'ask a running agent instead')
    .option('--token-file <file>', 'bearer token for --url (or the variable MESHTRAIL_TOKEN)')
    .option('--json', 'print as JSON')
    .addHelpText(
      'after',
      examples(
        'meshtrail status --data ./d',
        'meshtrail status --url http://127.0.0.1:7575 --token-file d/keys/token',
      ),
    )
    .action(async (options: { data: string; url?: string; tokenFile?: string; json?: boolean }) => {
      const { status } = await import('./status.ts')
      await status({
        data: options.data,
        url: options.url ?? null,
        tokenFile: options.tokenFile ?? null,
        json: options.json ?? false,
      })
    })
}

function rulesCommand(): Command {
  const rules = new Command('rules').description('Sigma rules: check, try and explain them')
  rules
    .command('check')
    .description('say which rules run here, and what is wrong with the others')
    .argument('[rule...]', 'Sigma files or folders; without any, the shipped rules')
    .option('--json', 'print as JSON')
    .addHelpText('after', examples('meshtrail rules check', 'meshtrail rules check ./my-rules'))
    .action(async (paths: string[], options: { json?: boolean }) => {
      const { checkCommand } = await import('./rules.ts')
      await checkCommand(paths, options.json ?? false)
    })
  rules
    .command('match')
    .description(
      'match events on standard input, one JSON object a line; prints {"rule","event"} a match',
    )
    .argument('<rule...>', 'Sigma files or folders')
    .option('--raw', "take the JSON as it is, without the mesh's field names and log sources")
    .addHelpText(
      'after',
      examples(
        'meshtrail rules match my.yml < events.ndjson',
        'meshtrail rules match --raw my.yml < anything.ndjson',
      ),
    )
    .action(async (paths: string[], options: { raw?: boolean }) => {
      const { matchCommand } = await import('./rules.ts')
      await matchCommand(paths, options.raw ?? false)
    })
  rules
    .command('explain')
    .description('print the SQL a rule means')
    .argument('<rule...>', 'Sigma files or folders')
    .option('--json', 'print as JSON')
    .addHelpText('after', examples('meshtrail rules explain my.yml'))
    .action(async (paths: string[], options: { json?: boolean }) => {
      const { explainCommand } = await import('./rules.ts')
      await explainCommand(paths, options.json ?? false)
    })
  return rules
}

function configCommand(): Command {
  const config = new Command('config').description(
    'the configuration: check it, or print it with its defaults',
  )
  config
    .command('check')
    .description(
      'read a configuration and say what this node would capture; exit 78 if it is wrong',
    )
    .argument('<file>')
    .option('--json', 'print as JSON')
    .addHelpText('after', examples('meshtrail config check /etc/meshtrail/config.yaml'))
    .action(async (file: string, options: { json?: boolean }) => {
      const { checkConfig } = await import('./config.ts')
      await checkConfig(file, options.json ?? false)
    })
  config
    .command('show')
    .description('print the configuration that applies, defaults included')
    .argument('[file]')
    .addHelpText('after', examples('meshtrail config show', 'meshtrail config show my.yaml'))
    .action(async (file: string | undefined) => {
      const { showConfig } = await import('./config.ts')
      showConfig(file ?? null)
    })
  return config
}

function completionCommand(program: Command): Command {
  return new Command('completion')
    .description('print a completion script for a shell')
    .addArgument(new Argument('<shell>', 'whose script').choices(shells))
    .addHelpText(
      'after',
      examples(
        'source <(meshtrail completion bash)',
        'meshtrail completion fish > ~/.config/fish/completions/meshtrail.fish',
      ),
    )
    .action((shell: Shell) => writeOut(completionScript(program, shell)))
}

function wholeNumber(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError('a whole number from 1')
  return value
}

function durationMs(text: string): number {
  const ms = parseDuration(text)
  if (ms === undefined || ms <= 0)
    throw new InvalidArgumentError('a duration such as 500ms, 30s or 2m')
  return ms
}
