"""function_app.py: thin, importable by the worker, with bindings that the worker accepts.

The worker imports the file as a top-level module, allows one FunctionApp, and reads annotations at load time: one bad
annotation fails the whole app (measured with azure-functions-runtime 1.3.0). ADR 0001 has the layout.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from twin.packaging.checks.problem import Problem, Rule

MAX_LINES: Final = 60
_IMPORTABLE: Final = ("__future__", "typing", "azure.functions", "shared.bootstrap", "shared.entrypoints")
_BUILTIN_GENERICS: Final = frozenset({"dict", "frozenset", "list", "set", "tuple", "type"})
_AUTH_LEVELS: Final = frozenset({"ANONYMOUS", "FUNCTION", "ADMIN"})
_AUTH_ARGUMENTS: Final = frozenset({"auth_level", "http_auth_level"})
_SETTING: Final = re.compile(r"%([^%]+)%")
_CRON_FIELDS: Final = 6

type _Function = ast.FunctionDef | ast.AsyncFunctionDef
type _Finding = tuple[Rule, str, int]


def check_function_app(app_dir: Path, settings: AbstractSet[str] | None) -> list[Problem]:
    """Check the one Python file of an app's folder, and that it is the only one.

    Args:
        app_dir: The folder.
        settings: Known names of settings and connections; None leaves them unchecked.
    """
    path = app_dir / "function_app.py"
    problems = [
        Problem(other, "one-file", "function_app.py is the only Python file of an app: the worker imports it top-level")
        for other in sorted(app_dir.glob("*.py"))
        if other != path
    ]
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError) as error:
        return [*problems, Problem(path, "function-app", f"cannot be read: {error}")]
    lines = len(text.splitlines())
    if lines > MAX_LINES:
        problems.append(
            Problem(path, "length", f"{lines} lines, at most {MAX_LINES}: logic belongs to shared.entrypoints")
        )
    found = [*_structure(tree), *_imports(tree), *_names(tree), *_bindings(tree), *_decorators(tree, settings)]
    return problems + [
        Problem(path, rule, message, line) for rule, message, line in sorted(found, key=lambda item: item[2])
    ]


def _structure(tree: ast.Module) -> Iterator[_Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.TryStar):
            yield "no-try", "errors are answered in shared.entrypoints, in one place", node.lineno
    apps = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and _last_name(call.func) == "FunctionApp"]
    if len(apps) != 1:
        line = apps[1].lineno if apps else 1
        yield "one-app", f"{len(apps)} FunctionApp objects; the worker wants exactly one", line


def _imports(tree: ast.Module) -> Iterator[_Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "no-relative-import", "the worker imports the file top-level: relative imports fail", node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for module in _imported(node):
                if not any(module == root or module.startswith(f"{root}.") for root in _IMPORTABLE):
                    yield "imports", f"{module}: only {', '.join(_IMPORTABLE)}", node.lineno


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = node.module or ""
    # `from shared import bootstrap` and `from azure import functions` name their module in the second part.
    return [f"{module}.{alias.name}" for alias in node.names] if module in ("shared", "azure") else [module]


def _names(tree: ast.Module) -> Iterator[_Finding]:
    seen: dict[str, str] = {}
    for function in _registered(tree):
        name = _function_name(function)
        first = seen.setdefault(name.lower(), function.name)
        if first != function.name:
            yield "unique-names", f"two functions are called {name}; the host does not tell case apart", function.lineno
    defined = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for index, function in enumerate(defined):
        if function.name in {other.name for other in defined[:index]}:
            yield "unique-names", f"{function.name} is defined twice", function.lineno


def _function_name(function: _Function) -> str:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and _last_name(decorator.func) == "function_name":
            values = [*decorator.args, *(keyword.value for keyword in decorator.keywords)]
            if values and isinstance(values[0], ast.Constant):
                return str(values[0].value)
    return function.name


def _bindings(tree: ast.Module) -> Iterator[_Finding]:
    for function in _registered(tree):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        for argument in arguments:
            if argument.annotation is None:
                yield "binding-type", f"{function.name}({argument.arg}) has no annotation", argument.lineno
            else:
                yield from _generics(f"{function.name}({argument.arg})", argument.annotation)
        if function.returns is not None:
            yield from _generics(f"{function.name}() ->", function.returns)


def _generics(where: str, annotation: ast.expr) -> Iterator[_Finding]:
    expression: ast.AST = annotation
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            expression = ast.parse(annotation.value, mode="eval")
        except SyntaxError:
            yield "binding-type", f"{where}: {annotation.value!r} is no annotation", annotation.lineno
            return
    for node in ast.walk(expression):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in _BUILTIN_GENERICS:
            generic = node.value.id
            yield (
                "binding-type",
                f"{where}: the worker refuses {generic}[...] in bindings; use typing.{generic.capitalize()}",
                annotation.lineno,
            )


def _decorators(tree: ast.Module, settings: AbstractSet[str] | None) -> Iterator[_Finding]:
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        for keyword in call.keywords:
            if keyword.arg in _AUTH_ARGUMENTS:
                yield from _auth_level(keyword.value)
            if keyword.arg == "schedule":
                yield from _schedule(keyword.value)
            if settings is not None:
                yield from _setting(keyword, settings)


def _auth_level(value: ast.expr) -> Iterator[_Finding]:
    level = value.value if isinstance(value, ast.Constant) else value.attr if isinstance(value, ast.Attribute) else None
    if level not in _AUTH_LEVELS:
        yield "auth-level", f"{level!r}: must be {', '.join(sorted(_AUTH_LEVELS))}, in upper case", value.lineno


def _schedule(value: ast.expr) -> Iterator[_Finding]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and not _SETTING.fullmatch(value.value):
        fields = len(value.value.split())
        if fields != _CRON_FIELDS:
            yield "schedule", f"{value.value!r} has {fields} fields, the host wants six, seconds first", value.lineno


def _setting(keyword: ast.keyword, settings: AbstractSet[str]) -> Iterator[_Finding]:
    if not isinstance(keyword.value, ast.Constant) or not isinstance(keyword.value.value, str):
        return
    text = keyword.value.value
    names = [text] if keyword.arg == "connection" else _SETTING.findall(text)
    for name in names:
        if name not in settings:
            yield "setting", f"{keyword.arg}: {name} is not a setting of the app", keyword.value.lineno


def _registered(tree: ast.Module) -> list[_Function]:
    """Functions with a decorator of the app."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [function for function in functions if any(isinstance(node, ast.Call) for node in function.decorator_list)]


def _last_name(expression: ast.expr) -> str | None:
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else None
