import { describe, expect, test } from 'bun:test'
import { matchesOf, ruleOf, selects } from './rule-under-test.ts'

const values = (...list: readonly unknown[]): readonly unknown[] => list.map((f) => ({ f }))

describe('escapes mean on DuckDB what Sigma says', () => {
  // written value, texts that match, texts that do not
  const table: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    [String.raw`a\b`, [String.raw`a\b`, String.raw`A\B`], [String.raw`a\\b`, 'ab']],
    [String.raw`a\\b`, [String.raw`a\b`], [String.raw`a\\b`]],
    [String.raw`a\*b`, ['a*b'], ['axb', 'ab', String.raw`a\*b`]],
    [String.raw`a\?b`, ['a?b'], ['axb']],
    [String.raw`a\\*`, [String.raw`a\x`, 'a\\'], ['a*', 'ax']],
    [String.raw`a\\\*`, [String.raw`a\*`], [String.raw`a\x`, 'a*']],
    [String.raw`\\\b`, [String.raw`\\b`], [String.raw`\b`, String.raw`\\\b`]],
    [String.raw`\\\\b`, [String.raw`\\b`], [String.raw`\b`, String.raw`\\\\b`]],
    ['C:\\Windows\\', ['C:\\Windows\\', 'c:\\windows\\'], ['C:\\Windows', 'C:\\Windows\\x']],
    [String.raw`C:\Windows\*`, ['C:\\Windows*'], ['C:\\Windows\\x']],
    ['a*b', ['ab', 'a\nb', 'axxb'], ['ab ', 'xab']],
    ['a?b', ['axb', 'aéb', 'a\nb', 'a😀b'], ['ab', 'axxb']],
    ['100%', ['100%'], ['100', '100x']],
    ['a_b', ['a_b'], ['axb']],
    ['*%*_*x', ['50% a_ x', '%_x'], ['50 a_ x']],
    ['a_*b%*c', ['a_xb%yc', 'a_b%c'], ['axxb%yc', 'a_xbzyc']],
    ['*\\', ['\\', 'x\\'], ['x']],
    ['*', ['', 'x'], []],
    ['', [''], ['x', ' ']],
    ["it's", ["it's", "IT'S"], ["it''s", 'its']],
  ]
  for (const [written, matching, other] of table) {
    test(JSON.stringify(written), async () => {
      const all = [...matching, ...other]
      expect(await selects({ f: written }, values(...all))).toEqual([...matching.keys()])
    })
  }

  test('contains on a value that ends in a backslash', async () => {
    const found = await selects(
      { 'f|contains': '\\Temp\\' },
      values('c:\\TEMP\\x', 'c:\\temp', '\\temp\\'),
    )
    expect(found).toEqual([0, 2])
  })
})

describe('case', () => {
  test('is ignored beyond ASCII, by one engine for rule and event', async () => {
    const events = values('ÄÖ', 'äö', '\u212A', 'ẞ', 'STRASSE', 'İ')
    expect(await selects({ f: 'Äö' }, events)).toEqual([0, 1])
    expect(await selects({ f: 'k' }, events)).toEqual([2])
    expect(await selects({ 'f|contains': 'ß' }, events)).toEqual([3])
    expect(await selects({ f: 'İ' }, events)).toEqual([5])
  })

  test('counts with cased, and in regular expressions', async () => {
    expect(await selects({ 'f|cased': 'Ab*' }, values('Abc', 'abc'))).toEqual([0])
    expect(await selects({ 'f|contains|cased': 'B' }, values('aB', 'ab'))).toEqual([0])
    expect(await selects({ 'f|re': 'a.c$' }, values('xabc', 'xABC', 'abcd'))).toEqual([0])
    expect(await selects({ 'f|re|i': 'a.c$' }, values('xabc', 'xABC', 'abcd'))).toEqual([0, 1])
  })

  test('m lets ^ find each line, s lets the dot cross them', async () => {
    const events = values('x\nabc', 'abc\nd')
    expect(await selects({ 'f|re|m': '^abc' }, events)).toEqual([0, 1])
    expect(await selects({ 'f|re': '^abc' }, events)).toEqual([1])
    expect(await selects({ 'f|re|s': 'c.d' }, events)).toEqual([1])
    expect(await selects({ 'f|re': 'c.d' }, events)).toEqual([])
  })
})

describe('absent and null', () => {
  const events = [
    { f: 'x' },
    { f: null },
    {},
    { f: '' },
    { f: [] },
    { f: ['y', null] },
    { f: { g: 1 } },
  ]

  test('null matches both', async () => {
    expect(await selects({ f: null }, events)).toEqual([1, 2, 5])
  })
  test('exists tells them apart', async () => {
    expect(await selects({ 'f|exists': true }, events)).toEqual([0, 1, 3, 4, 5, 6])
    expect(await selects({ 'f|exists': false }, events)).toEqual([2])
  })
  test('not is true for a field that is not there', async () => {
    const rule = ruleOf({ a: { 'f|contains': 'x' }, condition: 'not a' })
    expect((await matchesOf([rule], events)).get('T')).toEqual([1, 2, 3, 4, 5, 6])
  })
  test('neq negates the whole item', async () => {
    expect(await selects({ 'f|neq': ['x', ''] }, events)).toEqual([1, 2, 4, 5, 6])
    expect(await selects({ 'f|contains|all|neq': ['a', 'b'] }, values('ab', 'a', 'c'))).toEqual([
      1, 2,
    ])
  })
  test('no kind of test is ever undecided: it or its negation matches each event', async () => {
    const tests: readonly unknown[] = [
      { f: 'x' },
      { f: ['a', 'b', 'c', 'd', 'e'] },
      { f: 'a*b?' },
      { f: 5 },
      { f: true },
      { f: null },
      { 'f|contains': 'x' },
      { 'f|re': 'x' },
      { 'f|gt': 5 },
      { 'f|cidr': '10.0.0.0/8' },
      { 'f|cidr': 'fd00::/8' },
      { 'f|exists': true },
      { 'f|cased': 'X' },
      ['word'],
      { 'a.b.c': 'x' },
      { 'f|neq': 'x' },
      { f: '*' },
    ]
    const rules = tests.flatMap((selection, index) => [
      ruleOf({ s: selection, condition: 's' }, `plain ${index}`),
      ruleOf({ s: selection, condition: 'not s' }, `negated ${index}`),
    ])
    const odd = [
      ...events,
      ...values(
        5,
        5.5,
        true,
        '10.1.2.3',
        'fd00::1',
        ':::',
        '1:2',
        'nan',
        ' 5 ',
        '1_000',
        1e21,
        '999.1.1.1',
        '1e999',
      ),
      { a: [{ b: { c: 'x' } }, { b: null }] },
      { 'a.b': { c: null } },
    ]
    const found = await matchesOf(rules, odd)
    for (const index of tests.keys()) {
      const either = [
        ...(found.get(`plain ${index}`) ?? []),
        ...(found.get(`negated ${index}`) ?? []),
      ]
      expect(either.toSorted((a, b) => a - b)).toEqual([...odd.keys()])
    }
  })
})

describe('numbers', () => {
  test('compare with numbers and with text', async () => {
    const events = values(5, '5', 5.5, '5.0', '05', 50, true)
    expect(await selects({ f: 5 }, events)).toEqual([0, 1, 3, 4])
    expect(await selects({ f: '5' }, events)).toEqual([0, 1])
    expect(await selects({ f: '5*' }, events)).toEqual([0, 1, 2, 3, 5])
  })
  test('lt, lte, gt, gte read text as a number, and nothing else as one', async () => {
    const events = values(4, '5', '6.5', 'nan', 'inf', ' 9 ', '1_000', '', null, true, '-1e3')
    expect(await selects({ 'f|gt': 4 }, events)).toEqual([1, 2])
    expect(await selects({ 'f|gte': 4 }, events)).toEqual([0, 1, 2])
    expect(await selects({ 'f|lt': 5 }, events)).toEqual([0, 10])
    expect(await selects({ 'f|lte': 5 }, events)).toEqual([0, 1, 10])
  })
  test('of columns are columns of numbers', async () => {
    const events = [{ status: 403 }, { status: 404 }, {}, { status: 40 }]
    const columns = { raw: false }
    expect(await selects({ status: 403 }, events, columns)).toEqual([0])
    expect(await selects({ status: '403' }, events, columns)).toEqual([0])
    expect(await selects({ status: '40?' }, events, columns)).toEqual([0, 1])
    expect(await selects({ status: 'nothing' }, events, columns)).toEqual([])
    expect(await selects({ 'status|gte': 404 }, events, columns)).toEqual([1])
    expect(await selects({ status: null }, events, columns)).toEqual([2])
  })
})

describe('networks', () => {
  test('hold addresses of their family, and nothing that is no address', async () => {
    const events = values(
      '10.0.0.0',
      '10.255.255.255',
      '11.0.0.0',
      '::ffff:10.1.1.1',
      '10.1.1',
      '10.1.1.1.1',
      '10.1.1.256',
      '010.1.1.1',
      '10.1.1.1:80',
      'x',
      '',
      'fd00::1',
    )
    expect(await selects({ 'f|cidr': '10.0.0.0/8' }, events)).toEqual([0, 1, 3])
    expect(await selects({ 'f|cidr': '10.0.0.0' }, events)).toEqual([0])
  })
  test('of IPv6 read every way to shorten an address', async () => {
    const events = values(
      'fd00::',
      'fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
      'fe00::',
      'FD00:0:0::1',
      '::1',
      'fd00:1',
      'fd00::1::2',
      'fd00:::1',
      'fd00:0:0:0:0:0:0:0:1',
      '10.0.0.1',
      'fd00:0:0:0:0:0:0:',
      '::',
      'fd00:1:2:3::4:5:6:7',
      ':fd00::',
    )
    expect(await selects({ 'f|cidr': 'fd00::/8' }, events)).toEqual([0, 1, 3])
    expect(await selects({ 'f|cidr': '::1/128' }, events)).toEqual([4])
    expect(await selects({ 'f|cidr': '::/0' }, events)).toEqual([0, 1, 2, 3, 4, 11])
  })
})

describe('names of fields', () => {
  test('with dots are keys or paths, longest key first', async () => {
    const events = [
      { a: { b: 'x' } },
      { 'a.b': 'x' },
      { 'a.b': 'y', a: { b: 'x' } },
      { annotations: { 'authorization.k8s.io/decision': 'x' } },
      { a: { 'b"c\\d': 'x' } },
      { 'a*': 'x' },
    ]
    expect(await selects({ 'a.b': 'x' }, events)).toEqual([0, 1])
    expect(await selects({ 'annotations.authorization.k8s.io/decision': 'x' }, events)).toEqual([3])
    expect(await selects({ 'a.b"c\\d': 'x' }, events)).toEqual([4])
    expect(await selects({ 'a*': 'x' }, events)).toEqual([5])
    expect(await selects({ 'a.b.c.d.e.f.g': null }, events)).toEqual([...events.keys()])
  })
  test('reach through arrays to any member', async () => {
    const events = [
      { r: [{ v: ['get', 'list'] }, { v: ['create'] }] },
      { r: { v: 'create' } },
      { r: { v: ['x', 'create'] } },
      { r: [{ v: 'x' }, { w: 'create' }] },
      { r: ['create'] },
    ]
    expect(await selects({ 'r.v': 'create' }, events)).toEqual([0, 1, 2])
    expect(await selects({ r: 'create' }, events)).toEqual([4])
  })
})

describe('keywords', () => {
  test('are found inside any value, but not in names', async () => {
    const events = [{ a: 'say Evil' }, { evil: 'x' }, { b: { c: ['x', 'evil2'] } }, { n: 4711 }]
    expect(await selects(['evil'], events)).toEqual([0, 2])
    expect(await selects(['nothing', 47], events)).toEqual([3])
    expect(await selects({ '|all': ['say', 'evil'] }, events)).toEqual([0])
  })
  test('are found in the columns of events too', async () => {
    const events = [
      { path: '/a b' },
      { attributes: { x: 'a B' } },
      { path: '/ab' },
      { raw: 'xxa bxx' },
    ]
    expect(await selects(['a b'], events, { raw: false })).toEqual([0, 1, 3])
  })
})

describe('a value never leaves its literal', () => {
  const hostile = [
    `' OR true --`,
    `'; DROP TABLE batch; --`,
    `"`,
    `''`,
    `\\'`,
    `$$`,
    `\0`,
    `a\0b`,
    `' || chr(0) || '`,
    `*/ OR 1=1 /*`,
    `\u2028`,
    `‘’`,
    `😀'`,
    `%' ESCAPE 'x`,
    `{{x}}`,
    `?1`,
    `:name`,
    `\n--\n`,
    `E'\\x41'`,
  ]
  for (const value of hostile) {
    test(JSON.stringify(value), async () => {
      const written = value.replaceAll(/[\\*?]/g, '\\$&')
      const events = [...values(value, `x${value}y`, 'other'), {}, { [`k${value}`]: 'v' }]
      expect(await selects({ f: written }, events)).toEqual([0])
      expect(await selects({ 'f|contains': written }, events)).toEqual([0, 1])
      expect(await selects({ 'f|cased': `${written}*` }, events)).toEqual([0])
      expect(await selects({ 'f|contains': `x*${written}` }, events)).toEqual([1])
      expect(await selects({ f: [written, 'b', 'c', 'd', 'e'] }, events)).toEqual([0])
      const literal = value.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&').replaceAll('\0', '\\x00')
      expect(await selects({ 'f|re': `^${literal}$` }, events)).toEqual([0])
      // A dot would cut the name into keys, and a bar begins a modifier.
      if (/[.|\0]/.test(value)) return
      expect(await selects({ [`k${value}`]: 'v' }, events)).toEqual([4])
    })
  }
})
