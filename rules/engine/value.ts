/**
 * Sigma string values: wildcards and escapes are read once into parts, and everything after works
 * on the parts. The source string is never escaped a second time.
 */

/** `any` is `*` (any length, also zero), `one` is `?` (exactly one character). */
export type Part =
  | { readonly kind: 'literal'; readonly text: string }
  | { readonly kind: 'any' }
  | { readonly kind: 'one' }

const anyPart: Part = { kind: 'any' }
const onePart: Part = { kind: 'one' }

/**
 * Reads a value as written in the rule. A backslash escapes only `*`, `?` and itself; before
 * anything else, and at the end, it is a backslash.
 *
 * @returns parts without two literals in a row; no parts for the empty string
 */
export function parseParts(source: string): readonly Part[] {
  const parts: Part[] = []
  let literal = ''
  const flush = (): void => {
    if (literal !== '') parts.push({ kind: 'literal', text: literal })
    literal = ''
  }
  for (let index = 0; index < source.length; index++) {
    const char = source.charAt(index)
    if (char === '\\') {
      const next = source.charAt(index + 1)
      if (next === '*' || next === '?' || next === '\\') {
        literal += next
        index++
      } else {
        literal += char
      }
    } else if (char === '*' || char === '?') {
      flush()
      parts.push(char === '*' ? anyPart : onePart)
    } else {
      literal += char
    }
  }
  flush()
  return parts
}

/** Puts `*` before and/or after, unless there is one already: on the parts, so nothing can escape it. */
export function widen(
  parts: readonly Part[],
  where: { readonly before: boolean; readonly after: boolean },
): readonly Part[] {
  let widened = parts
  if (where.before && widened[0]?.kind !== 'any') widened = [anyPart, ...widened]
  if (where.after && widened.at(-1)?.kind !== 'any') widened = [...widened, anyPart]
  return widened
}

/** The text of a value without wildcards, or undefined when it has one. */
export function literalOf(parts: readonly Part[]): string | undefined {
  let text = ''
  for (const part of parts) {
    if (part.kind !== 'literal') return undefined
    text += part.text
  }
  return text
}
