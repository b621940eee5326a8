/**
 * Reads Envoy's response flags: a set, in no stable order, open to extensions.
 *
 * Unknown flags are kept in the column and decide nothing.
 */
import type { Reason } from '../event.ts'
import { remember } from './memo.ts'

export type ResponseFlags = {
  /** Sorted, without repetition, comma separated: what the column holds. */
  readonly sorted: string
  /** The text was already that. */
  readonly exact: boolean
  /** The flag that says most about why the request failed, with its meaning; null when none does. */
  readonly failure: FlagMeaning | null
  readonly codes: ReadonlySet<string>
}

export type FlagMeaning = {
  readonly verdict: 'denied' | 'errored'
  /** Null: nobody decided, the caller went away. */
  readonly decidedBy: 'this_proxy' | null
  readonly reason: Reason | null
}

const refused = (reason: Reason): FlagMeaning => ({
  verdict: 'denied',
  decidedBy: 'this_proxy',
  reason,
})
const failed = (reason: Reason | null): FlagMeaning => ({
  verdict: 'errored',
  decidedBy: 'this_proxy',
  reason,
})

/**
 * Most telling first: a refusal outweighs the failures it is printed with.
 * DI, RFCF are left out: a delay and an answer from the cache refuse nothing.
 * @see envoy source/common/stream_info/utility.h
 */
const meanings: readonly (readonly [string, FlagMeaning])[] = [
  ['UAEX', refused('ext_authz_denied')],
  ['RL', refused('rate_limited')],
  // The rate limit service failed and the filter is set to refuse then: fail closed is a refusal.
  ['RLSE', refused('rate_limited')],
  ['NR', failed('no_route')],
  ['NC', failed('no_route')],
  ['NFCF', failed(null)],
  ['OM', failed('overloaded')],
  ['DO', failed('overloaded')],
  ['UO', failed('overloaded')],
  ['FI', failed('fault_injected')],
  ['IH', failed('protocol_error')],
  ['DPE', failed('protocol_error')],
  ['UPE', failed('protocol_error')],
  ['UT', failed('timeout')],
  ['SI', failed('timeout')],
  ['DT', failed('timeout')],
  ['UMSDR', failed('timeout')],
  ['UF', failed('upstream_failed')],
  ['UH', failed('upstream_failed')],
  ['LH', failed('upstream_failed')],
  ['UC', failed('upstream_failed')],
  ['UR', failed('upstream_failed')],
  ['LR', failed('upstream_failed')],
  ['DF', failed('upstream_failed')],
  ['URX', failed('upstream_failed')],
  ['DC', { verdict: 'errored', decidedBy: null, reason: 'downstream_disconnected' }],
]

export const parseResponseFlags: (text: string) => ResponseFlags = remember(1024, (text) => {
  const codes = new Set(text.split(/[,\s]+/).filter((code) => code !== ''))
  const sorted = [...codes].toSorted().join(',')
  const failure = meanings.find(([code]) => codes.has(code))?.[1] ?? null
  return { sorted, exact: sorted === text, failure, codes }
})
