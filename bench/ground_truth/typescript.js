// Every import of a file as TypeScript parses it, and the file that its resolver gives; one JSON pair a line.
// Arguments: the compiler, the folder, and "js" where files of JavaScript are read too.
const path = require("path");
const fs = require("fs");
const [, , compiler, top, kinds] = process.argv;
const ts = require(compiler);
const root = fs.realpathSync(top);
const sources = kinds === "js" ? /\.[mc]?[jt]sx?$/ : /\.[mc]?tsx?$/;

function* walk(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory() && entry.name !== "node_modules") yield* walk(full);
    else if (sources.test(entry.name)) yield full;
  }
}

const read = new Map();
function optionsFor(file) {
  const config = ts.findConfigFile(path.dirname(file), ts.sys.fileExists);
  if (!read.has(config)) {
    const parsed = config
      ? ts.parseJsonConfigFileContent(ts.readConfigFile(config, ts.sys.readFile).config, ts.sys, path.dirname(config))
      : { options: {} };
    const options = parsed.options;
    if (options.moduleResolution === undefined) options.moduleResolution = ts.ModuleResolutionKind.Bundler;
    if (options.module === undefined) options.module = ts.ModuleKind.ESNext;
    options.allowJs = true;
    options.resolveJsonModule = true;
    read.set(config, options);
  }
  return read.get(config);
}

function specifiers(source) {
  const found = [];
  const visit = (node) => {
    let name;
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) name = node.moduleSpecifier;
    else if (ts.isExternalModuleReference(node)) name = node.expression;
    else if (ts.isImportTypeNode(node)) name = node.argument.literal;
    else if (ts.isCallExpression(node) && node.arguments.length) {
      const called = node.expression;
      if (called.kind === ts.SyntaxKind.ImportKeyword || called.getText(source) === "require") name = node.arguments[0];
    }
    if (name && ts.isStringLiteralLike(name)) found.push(name.text);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

for (const file of walk(root)) {
  const source = ts.createSourceFile(file, fs.readFileSync(file, "utf8"), ts.ScriptTarget.Latest, true);
  const options = optionsFor(file);
  const targets = specifiers(source).map((name) => {
    const found = ts.resolveModuleName(name, file, options, ts.sys).resolvedModule;
    return found && found.resolvedFileName;
  });
  targets.push(...source.referencedFiles.map((one) => path.resolve(path.dirname(file), one.fileName)));
  for (const target of targets) {
    if (!target || !fs.existsSync(target)) continue;
    const real = fs.realpathSync(target);
    if (real.startsWith(root + path.sep) && real !== file)
      console.log(JSON.stringify([path.relative(root, file), path.relative(root, real)]));
  }
}
