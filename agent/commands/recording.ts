/**
 * The recording that `demo` replays: logs of real Envoys, made by `test/end-to-end/mesh/record.ts`, and
 * an audit log composed after the schema (`SOURCES.md` there says so). They are part of the binary.
 */
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import audit from '../../test/end-to-end/recorded/var/log/kubernetes/audit/audit.log' with {
  type: 'file',
}
import ledger from '../../test/end-to-end/recorded/var/log/pods/prod_ledger-84c9d6f5b7-hj6rv_3ebf6d85-9041-4fad-8c37-8d4f51a0ce64/istio-proxy/0.log' with {
  type: 'file',
}
import payments from '../../test/end-to-end/recorded/var/log/pods/prod_payments-6f5b9c7d88-lm4tn_2dae5c74-8f30-4e9c-9b26-7c3e409fbd53/istio-proxy/0.log' with {
  type: 'file',
}
import batch from '../../test/end-to-end/recorded/var/log/pods/shop_batch-5c6f7f9d4b-q8w7z_1c9d4b63-7e2f-4d8b-8a15-6b2d3f8eac42/istio-proxy/0.log' with {
  type: 'file',
}
import frontend from '../../test/end-to-end/recorded/var/log/pods/shop_frontend-7d9c5b8f6d-x2x9k_0b8f3a52-6d1e-4c7a-9f04-5a1c2e7d9b31/istio-proxy/0.log' with {
  type: 'file',
}

const files: readonly (readonly [packed: string, path: string])[] = [
  [audit, 'var/log/kubernetes/audit/audit.log'],
  [ledger, podLog('prod_ledger-84c9d6f5b7-hj6rv_3ebf6d85-9041-4fad-8c37-8d4f51a0ce64')],
  [payments, podLog('prod_payments-6f5b9c7d88-lm4tn_2dae5c74-8f30-4e9c-9b26-7c3e409fbd53')],
  [batch, podLog('shop_batch-5c6f7f9d4b-q8w7z_1c9d4b63-7e2f-4d8b-8a15-6b2d3f8eac42')],
  [frontend, podLog('shop_frontend-7d9c5b8f6d-x2x9k_0b8f3a52-6d1e-4c7a-9f04-5a1c2e7d9b31')],
]

function podLog(pod: string): string {
  return `var/log/pods/${pod}/istio-proxy/0.log`
}

/** Writes the recording below `root` as a node has it, and returns the paths. */
export async function unpackRecording(root: string): Promise<readonly string[]> {
  const paths: string[] = []
  for (const [packed, path] of files) {
    const target = join(root, path)
    mkdirSync(dirname(target), { recursive: true })
    await Bun.write(target, Bun.file(packed))
    paths.push(target)
  }
  return paths
}
