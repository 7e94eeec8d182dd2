"""What finished work depends on: code, found by following imports from a function, and the processor."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import platform
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any


@functools.cache
def code_hash(*functions: FunctionType, without: tuple[FunctionType, ...] = ()) -> str:
    """Hash of the code that functions depend on, found by following imports.

    It covers the functions themselves, what they use of their own module, and every module of this package
    that these import, directly or not. Comments, docstrings and layout do not count, nor do imports for type
    checking.

    Args:
        functions: Where to start.
        without: Functions whose bodies are left out, because the result does not depend on them.
    """
    own_code = [part for function in functions for part in _definitions(function)]
    skipped = {(function.__module__, function.__name__) for function in without}
    found: dict[str, ast.Module] = {}
    waiting = [module for part, namespace in own_code for module in _imported(part, namespace)]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = _source(module)
            waiting += _imported(found[module], module)
    digest = hashlib.sha256()
    for part, _ in own_code:
        digest.update(repr(_code(part)).encode())
    for module in sorted(found):
        digest.update(repr(_code(found[module], {name for owner, name in skipped if owner == module})).encode())
    return digest.hexdigest()


def body_hash(function: FunctionType) -> str:
    """Hash of one function's code, without its decorators and what it calls."""
    (definition,) = (s for s in _source(function.__module__).body if function.__name__ in _bound_names(s))
    undecorated = [field for field in _code(definition) if field[0] != "decorator_list"]
    return hashlib.sha256(repr(undecorated).encode()).hexdigest()


@functools.cache
def cpu() -> str:
    """The kind of processor; on another one, the last bits of a sum may differ, and with them an answer."""
    info = Path("/proc/cpuinfo")  # of Linux
    lines = info.read_text().split("\n\n")[0].splitlines() if info.exists() else []
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    parts = [known.get(name) for name in ("model name", "cpu family", "model")]
    return " ".join(filter(None, parts)) or platform.processor() or platform.machine()


def _definitions(function: FunctionType) -> Iterator[tuple[ast.AST, str]]:
    """The function, and what it uses of its own module: functions, constants, imports, directly or not."""
    module = function.__module__
    top_level: dict[str, ast.AST] = {}
    for statement in _source(module).body:
        for name in _bound_names(statement):
            top_level[name] = statement
    waiting, seen = [function.__name__], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in top_level:
            continue
        seen.add(name)
        yield top_level[name], module
        waiting += sorted({node.id for node in ast.walk(top_level[name]) if isinstance(node, ast.Name)})


def _bound_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in statement.names]
    own = [part for part in ast.walk(statement) if isinstance(part, ast.comprehension)]
    inner = {name for part in own for name in ast.walk(part.target)}  # known inside a comprehension alone
    names = (part for part in ast.walk(statement) if isinstance(part, ast.Name) and part not in inner)
    return [name.id for name in names if isinstance(name.ctx, ast.Store)]


def _imported(tree: ast.AST, module: str) -> list[str]:
    """The modules of this package that the code of a module imports."""
    package = module.split(".")[0]
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            modules.append(node.module)
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names if alias.name.split(".")[0] == package]
    return [name for name in modules if _origin(name)]


@functools.cache
def _origin(module: str) -> str | None:
    """The file of a module, or None if there is no such module."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # what looks like a submodule is a name in a module
        return None
    return spec.origin if spec else None


@functools.cache
def _source(module: str) -> ast.Module:
    """A module's code without what is imported for type checking alone."""
    tree = ast.parse(Path(_origin(module) or "").read_text(encoding="utf-8"))
    tree.body = [s for s in tree.body if not (isinstance(s, ast.If) and ast.unparse(s.test) == "TYPE_CHECKING")]
    return tree


def _code(node: ast.AST, skipped: Collection[str] = ()) -> list[Any]:
    """Code as nested lists, without comments, docstrings, layout, and the functions named in `skipped`.

    Empty fields are left out: which of them a node has differs between versions of Python, and `ast.dump`
    with them.
    """

    def plain(value: object) -> object:
        if isinstance(value, list):
            return [plain(part) for part in value if not (isinstance(part, ast.FunctionDef) and part.name in skipped)]
        return _code(value, skipped) if isinstance(value, ast.AST) else value

    fields = dict(ast.iter_fields(node))
    documented = isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    if documented and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = fields["body"][1:]
    return [type(node).__name__, *((name, plain(value)) for name, value in fields.items() if value not in (None, []))]
