/**
 * IP networks: the rule's text to a number range, without any extension of DuckDB.
 * An IPv4 network also holds the IPv4-mapped IPv6 addresses (`::ffff:10.0.0.1`).
 */

export type Network = {
  readonly family: 4 | 6
  /** First address, as a number of 32 or 128 bits. */
  readonly first: bigint
  /** Last address, inclusive. */
  readonly last: bigint
}

/** Parses `10.0.0.0/8`, `fd00::/8`, or an address alone. Returns why not, as a phrase. */
export function parseNetwork(text: string): Network | string {
  const match = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text)
  const address = match?.[1]
  if (address === undefined) return 'is no IP network'
  const family = address.includes(':') ? 6 : 4
  const value = family === 4 ? parseIpv4(address) : parseIpv6(address)
  if (value === undefined) return 'is no IP network'
  const width = family === 4 ? 32 : 128
  const prefix = match?.[2] === undefined ? width : Number(match[2])
  if (prefix > width) return `has a prefix longer than ${width} bits`
  const hostMask = (1n << BigInt(width - prefix)) - 1n
  if ((value & hostMask) !== 0n) return 'has host bits set'
  return { family, first: value, last: value | hostMask }
}

function parseIpv4(text: string): bigint | undefined {
  const groups = text.split('.')
  if (groups.length !== 4) return undefined
  let value = 0n
  for (const group of groups) {
    if (!/^(?:0|[1-9]\d{0,2})$/.test(group) || Number(group) > 255) return undefined
    value = value * 256n + BigInt(group)
  }
  return value
}

function parseIpv6(text: string): bigint | undefined {
  let source = text
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  if (dotted?.[1] !== undefined && dotted[2] !== undefined) {
    const low = parseIpv4(dotted[2])
    if (low === undefined) return undefined
    source = `${dotted[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`
  }
  const halves = source.split('::')
  if (halves.length > 2) return undefined
  const left = groupsOf(halves[0])
  const right = groupsOf(halves[1])
  const missing = 8 - left.length - right.length
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined
  let value = 0n
  for (const group of [...left, ...Array<string>(Math.max(missing, 0)).fill('0'), ...right]) {
    if (!/^[0-9A-Fa-f]{1,4}$/.test(group)) return undefined
    value = value * 65536n + BigInt(`0x${group}`)
  }
  return value
}

function groupsOf(half: string | undefined): readonly string[] {
  return half === undefined || half === '' ? [] : half.split(':')
}

const ipv4Pattern = '(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])'
const ipv6Groups = '[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4})*'
const ipv6Only = `(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|(?:${ipv6Groups})?::(?:${ipv6Groups})?`
const ipv4Only = `(?:::[fF]{4}:)?${ipv4Pattern}(?:\\.${ipv4Pattern}){3}`

/**
 * An SQL test whether the text `x` is an address in the network; false for text that is none, and
 * for NULL.
 */
export function networkTest(x: string, network: Network): string {
  if (network.family === 4) {
    const dotted = `regexp_replace(${x}, '^::[fF]{4}:', '')`
    const groups = [1, 2, 3, 4].map((n) => `CAST(split_part(${dotted}, '.', ${n}) AS UBIGINT)`)
    const value = `(((${groups[0]} * 256 + ${groups[1]}) * 256 + ${groups[2]}) * 256 + ${groups[3]})`
    return (
      `CASE WHEN regexp_full_match(${x}, '${ipv4Only}') ` +
      `THEN ${value} BETWEEN ${network.first} AND ${network.last} ELSE false END`
    )
  }
  // `left::right` is filled up with at least one zero group; a wrong number is no address.
  const left = groupList(`split_part(${x}, '::', 1)`)
  const isShort = `contains(${x}, '::')`
  const right = groupList(`CASE WHEN ${isShort} THEN split_part(${x}, '::', 2) ELSE '' END`)
  const missing = `CASE WHEN ${isShort} THEN greatest(1, 8 - len(${left}) - len(${right})) ELSE 0 END`
  const groups = `list_concat(list_concat(${left}, list_resize([]::VARCHAR[], ${missing}, '0')), ${right})`
  const value =
    `list_reduce(list_transform(${groups}, ` +
    "lambda g: CAST(TRY_CAST('0x' || g AS UINTEGER) AS UHUGEINT)), " +
    'lambda sum, g: sum * 65536 + g, 0::UHUGEINT)'
  return (
    `CASE WHEN regexp_full_match(${x}, '${ipv6Only}') AND len(${groups}) = 8 ` +
    `THEN ${value} BETWEEN ${network.first}::UHUGEINT AND ${network.last}::UHUGEINT ELSE false END`
  )
}

function groupList(half: string): string {
  return `list_filter(string_split(${half}, ':'), lambda g: g <> '')`
}
