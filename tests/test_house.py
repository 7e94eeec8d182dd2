"""The house keeps its order where ruff and import-linter do not look: sizes of files and functions."""

import ast
import subprocess
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "workbench"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = {"file": 400, "function": 50}


@pytest.mark.slow
def test_format_style_imports_and_types_are_as_agreed():
    done = subprocess.run(["make", "-o", ".venv/.ready", "check"], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def name(file):
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_no_file_is_long(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES["file"]


def lines_of_code(function):
    """From its first line to its last, without the docstring, whose length is a virtue."""
    length = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        length -= docstring.end_lineno - docstring.lineno + 1
    return length


@pytest.mark.parametrize("file", FILES, ids=name)
def test_no_function_is_long(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: lines_of_code(f) for f in functions if lines_of_code(f) > MOST_LINES["function"]}
    assert not long


@pytest.mark.parametrize("folder", [f for f in PACKAGE.iterdir() if (f / "__init__.py").is_file()], ids=name)
def test_every_chapter_says_what_it_is_about(folder):
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
