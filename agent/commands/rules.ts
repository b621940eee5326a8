/** `meshtrail rules check | match | explain`. */
import { formatProblem } from '../../rules/engine/problem.ts'
import { loadRules } from '../../rules/engine/load.ts'
import { shippedRules } from '../../rules/shipped.ts'
import { checkRules, explainRules } from '../detect/check.ts'
import { matchRules } from '../detect/match.ts'
import { exitStatus } from '../errors.ts'
import { tell, writeJson, writeOut } from './output.ts'

export async function checkCommand(paths: readonly string[], json: boolean): Promise<void> {
  if (paths.length === 0) {
    const { rules, problems } = loadRules(shippedRules)
    if (json) writeJson({ rules: rules.length, problems })
    else writeOut(`${rules.length} shipped rules, ${problems.length} problems\n`)
    return
  }
  const report = await checkRules(paths)
  if (json) writeJson(report)
  else {
    for (const problem of report.problems) writeOut(`${formatProblem(problem)}\n`)
    writeOut(`${report.documents} documents, ${report.active} rules run here\n`)
  }
  if (report.problems.some((problem) => problem.severity === 'error')) {
    process.exitCode = exitStatus.corruptInput
  }
}

export async function matchCommand(paths: readonly string[], raw: boolean): Promise<void> {
  const { problems, matches } = await matchRules(paths, process.stdin, { raw })
  for (const problem of problems) tell(formatProblem(problem))
  for await (const { rule, event } of matches) writeOut(`${JSON.stringify({ rule, event })}\n`)
}

export async function explainCommand(paths: readonly string[], json: boolean): Promise<void> {
  const { explanations, problems } = await explainRules(paths)
  for (const problem of problems) tell(formatProblem(problem))
  if (json) {
    writeJson(explanations)
    return
  }
  for (const { rule, title, sql } of explanations) {
    writeOut(`-- ${rule}: ${title}\n${sql ?? '-- does not run here'};\n`)
  }
}
