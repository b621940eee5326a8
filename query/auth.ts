/**
 * Who asks: bearer tokens, known only by their SHA-256.
 *
 * Tokens are random (`token` makes them with 256 bits), so a fast hash is enough and no salt is needed. A
 * header is compared with every known token, in constant time, whether or not one has matched.
 */
import { createHash, timingSafeEqual } from 'node:crypto'

/** `metrics` sees numbers only; `reader` may query; `admin` may also change what the agent does. */
export type Role = 'metrics' | 'reader' | 'admin'

export type Caller = { readonly subject: string; readonly role: Role }

export interface Authenticator {
  /** @param header the `Authorization` header, undefined when absent */
  authenticate(header: string | undefined): Promise<Caller | null>
}

export type Token = Caller & {
  /** SHA-256 of the token's text, 32 bytes. */
  readonly sha256: Uint8Array
}

export function hashToken(token: string): Uint8Array {
  return createHash('sha256').update(token, 'utf8').digest()
}

export class TokenAuthenticator implements Authenticator {
  #tokens: readonly Token[]

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens
  }

  /** From the next request on only these count: how a token is revoked without a restart. */
  replace(tokens: readonly Token[]): void {
    this.#tokens = tokens
  }

  async authenticate(header: string | undefined): Promise<Caller | null> {
    const token = /^Bearer +([A-Za-z0-9._~+/-]{16,512}=*) *$/i.exec(header ?? '')?.[1]
    const given = hashToken(token ?? '')
    let caller: Caller | null = null
    for (const known of this.#tokens) {
      const same = known.sha256.length === given.length && timingSafeEqual(known.sha256, given)
      if (same) caller = { subject: known.subject, role: known.role }
    }
    return Promise.resolve(token === undefined ? null : caller)
  }
}
