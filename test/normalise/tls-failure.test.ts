/** TLS failure texts of old and new Envoys, with blanks and with underscores. */
import { expect, test } from 'bun:test'
import { parseTlsFailure } from '../../agent/normalise/tls-failure.ts'

const cases: readonly [string, string | null, string | null, string | null][] = [
  [
    'TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_verify_SAN_list:TLS_error_end',
    'CERTIFICATE_VERIFY_FAILED',
    'verify cert failed: verify SAN list',
    'here',
  ],
  [
    'TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:certificate has expired:TLS_error_end',
    'CERTIFICATE_VERIFY_FAILED',
    'certificate has expired',
    'here',
  ],
  [
    'upstream_reset_before_response_started{remote_connection_failure|TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_X509_verify_cert:_unable_to_get_local_issuer_certificate:TLS_error_end}',
    'CERTIFICATE_VERIFY_FAILED',
    'verify cert failed: X509_verify_cert: unable to get local issuer certificate',
    'here',
  ],
  [
    'TLS error: 268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER',
    'WRONG_VERSION_NUMBER',
    null,
    'here',
  ],
  [
    'upstream_reset_before_response_started{connection_failure,TLS_error:_268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER}',
    'WRONG_VERSION_NUMBER',
    null,
    'here',
  ],
  [
    'TLS error: 268435588:SSL routines:OPENSSL_internal:CLIENTHELLO_TLSEXT 268435646:SSL routines:OPENSSL_internal:PARSE_TLSEXT',
    'PARSE_TLSEXT',
    'CLIENTHELLO_TLSEXT',
    'here',
  ],
  [
    'TLS_error:|67108971:RSA_routines:OPENSSL_internal:BLOCK_TYPE_IS_NOT_01|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end',
    'CERTIFICATE_VERIFY_FAILED',
    'BLOCK_TYPE_IS_NOT_01',
    'here',
  ],
  [
    'TLS_error:|268436502:SSL_routines:OPENSSL_internal:SSLV3_ALERT_CERTIFICATE_UNKNOWN:TLS_error_end',
    'SSLV3_ALERT_CERTIFICATE_UNKNOWN',
    null,
    'peer',
  ],
  [
    'TLS error: 33554536:system library:OPENSSL_internal:Connection reset by peer',
    'CONNECTION_RESET_BY_PEER',
    null,
    'transport',
  ],
  ['TLS_error:_Secret_is_not_supplied_by_SDS', 'SECRET_NOT_SUPPLIED_BY_SDS', null, 'transport'],
  ['delayed_connect_error:_Connection_refused', null, null, null],
  ['via_upstream', null, null, null],
  ['TLS_error:', null, null, null],
]

for (const [text, token, detail, refusedBy] of cases) {
  test(`${text.slice(0, 60)}… is ${token ?? 'no TLS failure'}`, () => {
    const failure = parseTlsFailure(text)
    expect(
      failure === null ? [null, null, null] : [failure.token, failure.detail, failure.refusedBy],
    ).toEqual([token, detail, refusedBy])
  })
}

test('a mebibyte of it is cut, not chewed', () => {
  const before = performance.now()
  for (const text of ['TLS_error:|', 'TLS_error:|1:a:b:C', ' 2684355:', 'TLS error: _']) {
    parseTlsFailure(`TLS_error:${text.repeat((1 << 20) / text.length)}`)
  }
  expect(performance.now() - before).toBeLessThan(1000)
})
