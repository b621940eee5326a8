/**
 * The agent's data path, in the order a log line travels it:
 *
 *   tail -> decode -> parse -> normalise -> buffer -> commit -> detect -> seal
 *
 * Invariant: every line read ends in exactly one event, parsed or not.
 * Stages between tail and commit are synchronous; only whole chunks cross an `await`.
 */
import type { Agent } from './agent.ts'
import type { Clock } from './clock.ts'
import type { Chunk } from './tail/chunk.ts'

/** Where chunks come from: the tail, or files that are read once to their end. */
export type ChunkSource = {
  /** Resolves with an idle chunk when nothing came for a while; null when nothing can come any more. */
  readonly next: (signal: AbortSignal) => Promise<Chunk | null>
}

/** A source that reads files once. */
export function sourceOf(chunks: AsyncGenerator<Chunk, void>): ChunkSource {
  return {
    next: async () => {
      const { done, value } = await chunks.next()
      return done === true ? null : value
    },
  }
}

/** How long to wait for room on a full disk before the next try, ms. */
const fullDiskRetryMs = 1000

/**
 * Runs until `signal` is aborted or the source ends; what was read by then is committed.
 *
 * @throws {OpsError} `disk` when an fsync failed: nothing more can be promised, stop the process
 */
export async function runPipeline(
  agent: Agent,
  source: ChunkSource,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const chunk = await source.next(signal)
    if (chunk === null) break
    if (!(await makeRoom(agent, clock, signal))) return

    // Decoded by the tail, parsed and buffered here: events and the cursor after them go together.
    agent.take(chunk, clock.nowUs())

    // Rows, leaves and cursors become durable in one rename. A crash before it re-reads every line of
    // the batch; a crash after it re-reads none. Findings wait in the buffer for the next commit.
    if (agent.commitDue) await agent.commit()
  }
  await agent.commit()
}

/** Commits until the next chunk may be taken in; false when told to stop while the disk was full. */
async function makeRoom(agent: Agent, clock: Clock, signal: AbortSignal): Promise<boolean> {
  while (!agent.accepts(clock.nowUs())) {
    if (await agent.commit()) continue
    // The chunk in hand is in no event and its cursor not durable: a restart reads it again.
    if (signal.aborted) return false
    await Bun.sleep(fullDiskRetryMs)
  }
  return true
}
