// Checks Kusto queries against the tables of a Log Analytics workspace, offline.
// Standard input: a JSON list of queries. Standard output: a JSON list with the messages for each.
require('@kusto/language-service-next/bridge.min.js');
require('@kusto/language-service-next/Kusto.Language.Bridge.min.js');
const { readFileSync } = require('node:fs');
const { join } = require('node:path');

const { GlobalState, KustoCode, Symbols } = Kusto.Language;
const declared = JSON.parse(readFileSync(join(__dirname, 'tables.json'), 'utf8'));
const tables = Object.entries(declared).map(([name, columns]) => {
  const schema = Object.entries(columns).map(([column, type]) => `${column}:${type}`).join(', ');
  return Symbols.TableSymbol.From(`(${schema})`).WithName(name);
});
const globals = GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.ctor('workspace', tables));

const verdicts = JSON.parse(readFileSync(0, 'utf8')).map((query) => {
  const diagnostics = KustoCode.ParseAndAnalyze(query, globals).GetDiagnostics();
  const messages = [];
  for (let i = 0; i < diagnostics.Count; i += 1) messages.push(diagnostics.getItem(i).Message);
  return messages;
});
process.stdout.write(JSON.stringify(verdicts));
