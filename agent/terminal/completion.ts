/**
 * Completion scripts for bash, zsh and fish, made from the same tree of commands that parses the
 * arguments, so that they cannot disagree.
 *
 * The scripts are complete in themselves: pressing Tab never starts the program. What depends on data
 * (principals, policies, paths in the log) is therefore not completed.
 */

import type { Command, Option } from 'commander'

export const shells = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof shells)[number]

type Flag = {
  /** `--format`, `-f`. */
  readonly names: readonly string[]
  readonly description: string
  readonly takesValue: boolean
  readonly choices: readonly string[]
  readonly wantsFile: boolean
}

type Node = {
  /** The commands on the way, program first: `meshtrail rules check`. */
  readonly path: string
  readonly children: readonly {
    readonly names: readonly string[]
    readonly description: string
    readonly node: Node
  }[]
  readonly flags: readonly Flag[]
  readonly choices: readonly string[]
  readonly wantsFile: boolean
}

/** Placeholders whose value is a path: `--config <file>`, `[path]`, `--data <directory>`. */
const filePlaceholder =
  /^(?:files?|paths?|dirs?|director(?:y|ies)|data|config|key|policy|out(?:put)?|target|f|d)\b/i

/** What can be a word of a script without quoting; anything else is left out rather than escaped wrongly. */
const plainWord = /^[A-Za-z0-9_.:@%+,/=-]+$/

/**
 * @param program the root command; its name is what the script completes
 * @returns a script to be sourced by the shell, or saved where the shell looks for completions
 */
export function completionScript(program: Command, shell: Shell): string {
  const tree = describeCommand(program, program.name(), [])
  switch (shell) {
    case 'bash':
      return bashScript(tree)
    case 'zsh':
      return zshScript(tree)
    case 'fish':
      return fishScript(tree)
  }
}

function describeCommand(command: Command, path: string, inherited: readonly Flag[]): Node {
  const help = command.createHelp()
  const own = help.visibleOptions(command).map(describeOption)
  const known = new Set(own.flatMap((flag) => flag.names))
  const flags = [...own, ...inherited.filter((flag) => !flag.names.some((name) => known.has(name)))]
  // Options of a command count for those below it too, but `--version` belongs to the program alone.
  const below = flags.filter((flag) => !flag.names.includes('--version'))
  const [first] = command.registeredArguments
  return {
    path,
    children: help
      .visibleCommands(command)
      .filter((child) => plainWord.test(child.name()))
      .map((child) => ({
        names: [child.name(), ...child.aliases().filter((alias) => plainWord.test(alias))],
        description: firstSentence(child.summary() || child.description()),
        node: describeCommand(child, `${path} ${child.name()}`, below),
      })),
    flags,
    choices: (first?.argChoices ?? []).filter((choice) => plainWord.test(choice)),
    wantsFile: command.registeredArguments.some((argument) =>
      filePlaceholder.test(argument.name()),
    ),
  }
}

function describeOption(option: Option): Flag {
  const placeholder = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1] ?? ''
  return {
    names: [option.long, option.short].filter((name) => name !== undefined && name !== null),
    description: firstSentence(option.description),
    takesValue: option.required || option.optional,
    choices: (option.argChoices ?? []).filter((choice) => plainWord.test(choice)),
    wantsFile: filePlaceholder.test(placeholder),
  }
}

function firstSentence(text: string): string {
  const line = text.split('\n')[0] ?? ''
  return (line.split(/[.;] /)[0] ?? '').slice(0, 80)
}

function allNodes(node: Node): Node[] {
  return [node, ...node.children.flatMap((child) => allNodes(child.node))]
}

function functionName(tree: Node): string {
  return `_${tree.path.replaceAll(/[^A-Za-z0-9]/g, '_')}`
}

/** Single quotes are the one quoting all three shells read almost alike. */
function quoted(text: string, shell: Shell): string {
  if (shell === 'fish') return `'${text.replaceAll(/[\\']/g, String.raw`\$&`)}'`
  return `'${text.replaceAll("'", String.raw`'\''`)}'`
}

/** `case` arms that walk from one command to the next; the same for bash and zsh. */
function walkArms(tree: Node): string[] {
  return allNodes(tree).flatMap((node) =>
    node.children.map(
      (child) =>
        `      ${child.names.map((name) => `'${node.path} ${name}'`).join('|')}) here='${child.node.path}' ;;`,
    ),
  )
}

/** `case` arms for options that swallow the next word, so that a value is not taken for a command. */
function valueArms(tree: Node): string[] {
  return allNodes(tree).flatMap((node) => {
    const names = node.flags.filter((flag) => flag.takesValue).flatMap((flag) => flag.names)
    if (names.length === 0) return []
    return [`      ${names.map((name) => `'${node.path} ${name}'`).join('|')}) skip=1 ;;`]
  })
}

/** One `case` arm per option with a value: what may follow it. */
function followArms(
  tree: Node,
  words: (choices: readonly string[]) => string,
  files: string,
): string[] {
  return allNodes(tree).flatMap((node) =>
    node.flags
      .filter((flag) => flag.takesValue)
      .map((flag) => {
        const pattern = flag.names.map((name) => `'${node.path} ${name}'`).join('|')
        const action = flag.choices.length > 0 ? words(flag.choices) : flag.wantsFile ? files : ':'
        return `    ${pattern}) ${action}; return ;;`
      }),
  )
}

function bashWords(list: readonly string[]): string {
  return `COMPREPLY=($(compgen -W '${list.join(' ')}' -- "$current"))`
}

function bashScript(tree: Node): string {
  const name = functionName(tree)
  const files = `${name}_files`
  const arms = allNodes(tree).map((node) => {
    const flags = node.flags.flatMap((flag) => flag.names)
    const next = [...node.children.flatMap((child) => child.names), ...node.choices]
    const rest = node.wantsFile ? files : ':'
    const otherwise = next.length > 0 ? bashWords(next) : rest
    return [
      `    '${node.path}')`,
      `      if [[ $current == -* ]]; then ${bashWords(flags)}`,
      `      else ${otherwise}; fi ;;`,
    ].join('\n')
  })
  return `# bash completion for ${tree.path}
# Use: source <(${tree.path} completion bash)
${files}() {
  local file
  compopt -o filenames 2>/dev/null
  while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$current")
}
${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
  local here='${tree.path}' skip=0 i word
  COMPREPLY=()
  # Readline splits at "=": --format=js arrives as three words.
  if [[ $current == '=' ]]; then current=
  elif [[ $previous == '=' ]]; then previous=\${COMP_WORDS[COMP_CWORD-2]}; fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $word == '=' ]]; then skip=1; continue; fi
    if ((skip)); then skip=0; continue; fi
    case "$here $word" in
${[...walkArms(tree), ...valueArms(tree)].join('\n')}
    esac
  done
  case "$here $previous" in
${followArms(tree, bashWords, files).join('\n')}
  esac
  case "$here" in
${arms.join('\n')}
  esac
}
complete -F ${name} ${tree.path}
`
}

function zshWords(choices: readonly string[]): string {
  return `compadd -- ${choices.join(' ')}`
}

function zshEntries(kind: string, entries: readonly (readonly [string, string])[]): string {
  if (entries.length === 0) return ':'
  const list = entries.map(([word, description]) =>
    quoted(`${word.replaceAll(':', String.raw`\:`)}:${description}`, 'zsh'),
  )
  return `entries=(${list.join(' ')}); _describe ${kind === 'option' ? '-o ' : ''}${kind} entries`
}

function zshScript(tree: Node): string {
  const name = functionName(tree)
  const arms = allNodes(tree).map((node) => {
    const flags = node.flags.flatMap((flag) =>
      flag.names.map((flagName) => [flagName, flag.description] as const),
    )
    const children = node.children.flatMap((child) =>
      child.names.map((childName) => [childName, child.description] as const),
    )
    const otherwise = [
      ...(children.length > 0 ? [zshEntries('command', children)] : []),
      ...(node.choices.length > 0 ? [zshWords(node.choices)] : []),
      ...(node.wantsFile ? ['_files'] : []),
    ]
    return [
      `    '${node.path}')`,
      `      if [[ $current == -* ]]; then ${zshEntries('option', flags)}`,
      `      else ${otherwise.length > 0 ? otherwise.join('; ') : ':'}; fi ;;`,
    ].join('\n')
  })
  return `#compdef ${tree.path}
# zsh completion for ${tree.path}
# Use: source <(${tree.path} completion zsh), or save as _${tree.path} in a folder of $fpath
${name}() {
  local current=\${words[CURRENT]} previous=\${words[CURRENT-1]}
  local here='${tree.path}' word skip=0 i
  local -a entries
  if [[ $current == --*=* ]]; then
    previous=\${current%%=*}
    compset -P '*='
    current=\${current#*=}
  fi
  for ((i = 2; i < CURRENT; i++)); do
    word=\${words[i]}
    if ((skip)); then skip=0; continue; fi
    case "$here $word" in
${[...walkArms(tree), ...valueArms(tree)].join('\n')}
    esac
  done
  case "$here $previous" in
${followArms(tree, zshWords, '_files').join('\n')}
  esac
  case "$here" in
${arms.join('\n')}
  esac
}
if [[ \${zsh_eval_context[-1]} == loadautofunc ]]; then ${name} "$@"; else compdef ${name} ${tree.path}; fi
`
}

function fishScript(tree: Node): string {
  const at = `${functionName(tree)}_at`
  const lines = allNodes(tree).flatMap((node) => {
    const condition = `-c ${tree.path} -n ${quoted(`${at} '${node.path}'`, 'fish')}`
    const described = (text: string): string => (text === '' ? '' : ` -d ${quoted(text, 'fish')}`)
    return [
      ...node.children.map(
        (child) =>
          `complete ${condition} -a ${quoted(child.names.join(' '), 'fish')}${described(child.description)}`,
      ),
      ...(node.choices.length > 0
        ? [`complete ${condition} -a ${quoted(node.choices.join(' '), 'fish')}`]
        : []),
      ...(node.wantsFile ? [`complete ${condition} -F`] : []),
      ...node.flags.map((flag) => {
        const names = flag.names
          .map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`))
          .join(' ')
        const value =
          flag.choices.length > 0 ? ` -x -a ${quoted(flag.choices.join(' '), 'fish')}` : ''
        const file = flag.wantsFile ? ' -r -F' : ' -x'
        const argument = flag.takesValue ? value || file : ''
        return `complete ${condition} ${names}${argument}${described(flag.description)}`
      }),
    ]
  })
  return `# fish completion for ${tree.path}
# Use: ${tree.path} completion fish | source
function ${at}
  set -l here '${tree.path}'
  set -l skip 0
  for word in (commandline -opc)[2..-1]
    if test $skip -eq 1
      set skip 0
      continue
    end
    switch "$here $word"
${walkArms(tree).map(fishArm).join('\n')}
${valueArms(tree).map(fishArm).join('\n')}
    end
  end
  test "$here" = "$argv[1]"
end
complete -c ${tree.path} -f
${lines.join('\n')}
`
}

/** A `case` arm of bash as fish writes it. */
function fishArm(arm: string): string {
  const [patterns = '', action = ''] = arm.split(') ', 2)
  const assignment = action.replace(' ;;', '').replace('=', ' ')
  return `      case ${patterns.trim().replaceAll('|', ' ')}\n        set ${assignment}`
}
