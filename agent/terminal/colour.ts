/** Colours for people: only where a terminal shows them, never in a pipe or a file unless asked for. */

const codes = {
  bold: 1,
  dim: 2,
  red: 31,
  green: 32,
  yellow: 33,
  blue: 34,
  magenta: 35,
  cyan: 36,
} as const

export type Style = keyof typeof codes

/** Puts text in a style, or returns it unchanged where there are no colours. */
export type Paint = (style: Style, text: string) => string

type Environment = Readonly<Record<string, string | undefined>>

/**
 * Whether to colour what goes to `stream`. In this order: `FORCE_COLOR` (`0` and `false` switch off,
 * anything else switches on), `NO_COLOR` not empty, `TERM=dumb`, and whether it is a terminal at all.
 *
 * @see https://no-color.org and https://force-color.org
 */
export function wantsColour(
  stream: { isTTY?: boolean | undefined },
  environment: Environment,
): boolean {
  const forced = environment['FORCE_COLOR']
  if (forced !== undefined && forced !== '') return forced !== '0' && forced !== 'false'
  if ((environment['NO_COLOR'] ?? '') !== '') return false
  return stream.isTTY === true && environment['TERM'] !== 'dumb'
}

/** @param enabled what `wantsColour` said of the stream the text goes to */
export function painter(enabled: boolean): Paint {
  if (!enabled) return (_style, text) => text
  return (style, text) => (text === '' ? '' : `\x1b[${codes[style]}m${text}\x1b[0m`)
}
