import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { Progress } from '../../agent/terminal/progress.ts'

/** A stream that keeps what was written, and a clock that is set by hand. */
function fixture(
  isTTY = true,
  columns = 120,
): {
  written: string[]
  stream: { isTTY: boolean; columns: number; write(text: string): void }
  clock: { nowMs: number; nowUs(): number; monotonicMs(): number }
} {
  const written: string[] = []
  const clock = { nowMs: 0, nowUs: () => clock.nowMs * 1000, monotonicMs: () => clock.nowMs }
  return { written, stream: { isTTY, columns, write: (text) => void written.push(text) }, clock }
}

const environment = { TERM: 'xterm' }

describe('a progress line', () => {
  test('shows share, amount, rate and the time left', () => {
    const { written, stream, clock } = fixture()
    using progress = new Progress({
      label: 'importing',
      total: 100 * 2 ** 20,
      unit: 'bytes',
      stream,
      clock,
      environment,
    })
    clock.nowMs = 1000
    progress.update(25 * 2 ** 20, '1,204 events')
    expect(written.at(-1)).toBe(
      '\r\x1b[2Kimporting  [#####---------------]   25 %  25 MiB of 100 MiB  25 MiB/s  ETA 3 s  1,204 events',
    )
  })

  test('is drawn at most ten times a second, however often it is told', () => {
    const { written, stream, clock } = fixture()
    using progress = new Progress({ label: 'x', unit: 'rows', stream, clock, environment })
    for (let i = 0; i < 10_000; i++) {
      clock.nowMs = i / 10
      progress.advance(1)
    }
    expect(written.length).toBeLessThanOrEqual(10)
  })

  test('forgets how fast it was more than five seconds ago', () => {
    const { written, stream, clock } = fixture()
    using progress = new Progress({ label: 'x', unit: 'rows', stream, clock, environment })
    for (let second = 1; second <= 10; second++) {
      clock.nowMs = second * 1000
      progress.advance(1000)
    }
    for (let second = 11; second <= 20; second++) {
      clock.nowMs = second * 1000
      progress.advance(10)
    }
    expect(written.at(-1)).toContain('10 rows/s')
  })

  test('is one line on a narrow terminal, and hostile labels stay text', () => {
    const { written, stream, clock } = fixture(true, 20)
    using progress = new Progress({
      label: 'a\x1b[2Jb\n',
      total: 10,
      unit: 'rows',
      stream,
      clock,
      environment,
    })
    progress.advance(1)
    const line = (written.at(-1) ?? '').replace('\r\x1b[2K', '')
    expect(Bun.stringWidth(line)).toBeLessThanOrEqual(19)
    expect(line).toStartWith(String.raw`a\x1b[2Jb\n`)
  })

  test('is gone at the end, and its handlers with it', () => {
    const { written, stream, clock } = fixture()
    const before = process.listenerCount('SIGINT') + process.listenerCount('exit')
    const progress = new Progress({ label: 'x', unit: 'rows', stream, clock, environment })
    progress.advance(1)
    progress.finish()
    progress.finish()
    progress.advance(1)
    expect(written.at(-1)).toBe('\r\x1b[2K')
    expect(process.listenerCount('SIGINT') + process.listenerCount('exit')).toBe(before)
  })

  test.each([
    ['a pipe', false, 'xterm'],
    ['a dumb terminal', true, 'dumb'],
  ])('is silent on %s', (_name, isTTY, term) => {
    const { written, stream, clock } = fixture(isTTY)
    using progress = new Progress({
      label: 'x',
      unit: 'rows',
      stream,
      clock,
      environment: { TERM: term },
    })
    progress.advance(1)
    progress.print('line')
    expect(written).toEqual([])
  })

  test('is cleared by Ctrl-C on a real terminal, and the process still dies of it', async () => {
    let shown = ''
    let interrupted = false
    const child = Bun.spawn([process.execPath, join(import.meta.dir, 'progress-program.ts')], {
      env: { ...process.env, TERM: 'xterm' },
      terminal: {
        cols: 80,
        rows: 24,
        data(terminal, bytes) {
          shown += new TextDecoder().decode(bytes)
          if (interrupted || !shown.includes('10 %')) return
          interrupted = true
          terminal.write('\x03')
        },
      },
    })
    await child.exited
    expect(child.signalCode).toBe('SIGINT')
    expect(shown).toContain('working  [##---')
    // The terminal echoes ^C itself; after that, the line is cleared and nothing follows.
    expect(shown).toEndWith('\r\x1b[2K')
  }, 20_000)
})
