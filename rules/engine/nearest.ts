/** The names most like one that was probably mistyped. */

/**
 * @returns at most three names, nearest first, whose edit distance is at most a third of the length
 */
export function nearestNames(name: string, known: Iterable<string>): readonly string[] {
  const wanted = fold(name)
  const bound = Math.max(1, Math.floor(wanted.length / 3))
  const found: { name: string; distance: number }[] = []
  for (const candidate of known) {
    const distance = editDistance(wanted, fold(candidate), bound)
    if (distance <= bound) found.push({ name: candidate, distance })
  }
  found.sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
  return found.slice(0, 3).map((entry) => entry.name)
}

/** `responseCode`, `response-code` and `response_code` are one name to a person. */
function fold(name: string): string {
  return name.slice(0, 100).toLowerCase().replaceAll(/[-_.]/g, '')
}

/** Levenshtein distance, or anything above `bound` as soon as it is known to be above. */
function editDistance(a: string, b: string, bound: number): number {
  if (Math.abs(a.length - b.length) > bound) return bound + 1
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      current.push(Math.min(substitution, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1))
    }
    previous = current
  }
  return previous[b.length] ?? 0
}
