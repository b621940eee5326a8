/**
 * A bounded memory of what short strings parse to. It forgets everything when full, and never changes
 * an answer: only pure functions of their text may be remembered.
 */

/** Longer texts repeat too rarely to be worth a place. */
const keyLengthMax = 512

/** `compute`, remembered for at most `entriesMax` texts. */
export function remember<T>(entriesMax: number, compute: (text: string) => T): (text: string) => T {
  const known = new Map<string, T>()
  return (text) => {
    const hit = known.get(text)
    if (hit !== undefined) return hit
    if (text.length > keyLengthMax) return compute(text)
    // A slice keeps the whole line it was cut from alive; a re-joined copy does not.
    const own = ` ${text}`.slice(1)
    const value = compute(own)
    if (known.size >= entriesMax) known.clear()
    known.set(own, value)
    return value
  }
}
