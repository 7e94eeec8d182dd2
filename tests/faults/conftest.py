"""Faults that people met in other tools for the same job, replayed here.

Each test stands for one fault: its docstring gives the fault's id, its name what a user expects. A test that still
fails is a strict expected failure whose reason names the issue that will fix it. `raises=` names the error with which
it fails, so that an unrelated error is reported.
"""

import sys

import pytest

import workbench as wb
from tests.faults.helpers import Done, harmless, picture, write_vlguard
from workbench.cli import main


@pytest.fixture(autouse=True)
def own_runs(monkeypatch, tmp_path):
    """Keeps what the workbench stores between runs out of the checkout."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "kept"))


@pytest.fixture
def workbench(monkeypatch, capsys):
    """Runs `workbench …` in this process; an error that the command line does not handle is raised here."""

    def run(*arguments) -> Done:
        monkeypatch.setattr(sys, "argv", ["workbench", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        if "Usage: " in printed.err:
            raise RuntimeError(f"The test gives a command that does not exist: {printed.err}")
        return Done(code, printed.out + printed.err)

    return run


@pytest.fixture(scope="session")
def few_examples():
    """Twelve harmful and twelve harmless examples of MiniGuard's training split."""
    return wb.miniguard_split("train", sizes=(12, 12))


@pytest.fixture
def base():
    """The shipped base, loaded for one test alone, which may change it."""
    return wb.load("miniguard", device="cpu")


@pytest.fixture
def one_query(tmp_path):
    """A VLGuard folder with one harmless query."""
    record = harmless("r", "red.png", "What is the colour of this thing?")
    return write_vlguard(tmp_path / "one_query", [record], {"red.png": picture("red")})


@pytest.fixture
def two_queries(tmp_path):
    """A VLGuard folder with two harmless queries about two pictures."""
    records = [
        harmless("r", "red.png", "What is the name of this thing?"),
        harmless("b", "blue.png", "What is the colour of this thing?"),
    ]
    pictures = {"red.png": picture("red"), "blue.png": picture("blue")}
    return write_vlguard(tmp_path / "two_queries", records, pictures)
