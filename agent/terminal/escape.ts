/**
 * Makes text from logs, rules and peers safe to print on a terminal: whoever can send a request writes
 * into the log, and a terminal obeys what it is sent.
 *
 * Promises that the result contains no control character, no escape sequence, nothing that reorders or
 * hides what is around it. It does not double backslashes, so that paths and JSON stay readable; the
 * result is for reading, not for turning back.
 */

/**
 * C0 and C1 controls, DEL; soft hyphen, zero-width and joining characters; directional marks, embeddings, overrides and
 * isolates; line and paragraph separators; invisible operators; byte-order mark; interlinear annotation;
 * language tags; surrogates without their other half.
 */
const unsafe =
  // oxlint-disable-next-line no-control-regex -- control characters are what this is about
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e007f}]|\p{Surrogate}/gu

const named: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

export type EscapeOptions = {
  /** Leave line feeds and tabs as they are: for text that is several lines by intention. Default false. */
  readonly keepLines?: boolean
}

/** Replaces everything a terminal would act on by `\n`, `\x1b`, `\u202e` or `\u{e0041}`. */
export function escapeForTerminal(text: string, options: EscapeOptions = {}): string {
  return text.replace(unsafe, (character) => {
    if (options.keepLines === true && (character === '\n' || character === '\t')) return character
    return named[character] ?? escaped(character.codePointAt(0) ?? 0)
  })
}

function escaped(codePoint: number): string {
  const hex = codePoint.toString(16)
  if (codePoint <= 0xff) return `\\x${hex.padStart(2, '0')}`
  return codePoint <= 0xffff ? `\\u${hex.padStart(4, '0')}` : `\\u{${hex}}`
}

/** Cuts text that is already safe to a number of terminal columns, wide characters counted as two. */
export function fitColumns(text: string, columnsMax: number): string {
  if (Bun.stringWidth(text) <= columnsMax) return text
  const kept: string[] = []
  let columns = 1
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    columns += Bun.stringWidth(segment)
    if (columns > columnsMax) break
    kept.push(segment)
  }
  return columnsMax < 1 ? '' : `${kept.join('')}…`
}
