/** Quoting for DuckDB: the only two functions through which a rule's text reaches SQL. */

/**
 * A string literal. Quotes are doubled (DuckDB's plain literals know no backslash escapes), and NUL,
 * which would end the statement's text in C, is spelled `chr(0)`.
 *
 * @param text well-formed UTF-16; the loader refuses lone surrogates
 */
export function quoteText(text: string): string {
  if (!text.includes('\0')) return `'${text.replaceAll("'", "''")}'`
  const pieces = text.split('\0').map((piece) => `'${piece.replaceAll("'", "''")}'`)
  return `(${pieces.join(' || chr(0) || ')})`
}

/** An identifier, always in double quotes. */
export function quoteName(name: string): string {
  if (name === '' || name.includes('\0')) throw new Error('BUG: not an SQL identifier')
  return `"${name.replaceAll('"', '""')}"`
}
