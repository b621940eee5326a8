/**
 * The columns of `events` as the README shows them. Run directly, it writes them there:
 *
 *   bun test/readme/tables.ts
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { reasons } from '../../agent/event.ts'
import { eventsColumns } from '../../query/views.ts'

export const readmePath = join(import.meta.dir, '../../README.md')

/** The text between `<!-- name… -->` and `<!-- /name -->`, without the lines around it. */
export function section(readme: string, name: string): string {
  return parts(readme, name).inner.trim()
}

export function columnsTable(): string {
  const rows = eventsColumns.map(
    (column) => `| \`${column.name}\` | ${column.type} | ${column.meaning} |`,
  )
  const list = reasons.map((reason) => `\`${reason}\``).join(', ')
  return [
    '| column | type | meaning |',
    '| --- | --- | --- |',
    ...rows,
    '',
    `\`reason\` is one of ${list}.`,
  ].join('\n')
}

export function withColumns(readme: string): string {
  const { before, after } = parts(readme, 'columns')
  return `${before}\n\n${columnsTable()}\n\n${after}`
}

function parts(readme: string, name: string): { before: string; inner: string; after: string } {
  const begin = new RegExp(`<!-- ${name}\\b[^\\n]* -->`).exec(readme)
  const end = readme.indexOf(`<!-- /${name} -->`)
  if (begin === null || end < begin.index) throw new Error(`README.md has no section ${name}`)
  const from = begin.index + begin[0].length
  return { before: readme.slice(0, from), inner: readme.slice(from, end), after: readme.slice(end) }
}

if (import.meta.main) writeFileSync(readmePath, withColumns(readFileSync(readmePath, 'utf8')))
