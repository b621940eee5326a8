/** Shows a progress line and waits to be interrupted. */

import { startProgress } from '../../agent/terminal/progress.ts'

const progress = startProgress({ label: 'working', total: 10, unit: 'steps' })
progress.advance(1)
setTimeout(() => progress.finish(), 10_000)
