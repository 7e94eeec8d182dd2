"""One place for versions.

Pyproject's ranges, constraints.txt and environment.yml agree, and importing is quick.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def pins(lines):
    found = dict(line.strip().removeprefix("- ").split("==") for line in lines if re.match(r"\s*(- )?[\w.-]+==", line))
    return {canonicalize_name(name): version for name, version in found.items()}


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text().splitlines())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIRED = [
    Requirement(r)
    for group in (PROJECT["dependencies"], EXTRAS["test"], EXTRAS["gpu"], EXTRAS["browser"], EXTRAS["web"])
    for r in group
]


@pytest.mark.parametrize("requirement", REQUIRED, ids=str)
def test_every_range_holds_its_pin(requirement):
    assert requirement.specifier.contains(CONSTRAINTS[canonicalize_name(requirement.name)])


def test_the_conda_environment_has_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    theirs = pins(pip)
    assert set(theirs) == {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"] + EXTRAS["test"]}
    assert all(CONSTRAINTS[name] == version for name, version in theirs.items())
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python"))
    assert Requirement(python.replace("=", "==", 1) + ".*").specifier.contains("3.11.7")


def test_what_runs_here_is_what_is_pinned():
    from importlib.metadata import version

    for requirement in REQUIRED[: len(PROJECT["dependencies"])]:
        assert version(requirement.name).split("+")[0] == CONSTRAINTS[canonicalize_name(requirement.name)], (
            requirement.name
        )


def test_import_is_quick_and_brings_no_torch():
    code = (
        "import time; t = time.perf_counter(); import workbench; s = time.perf_counter() - t; "
        "import sys; print(s, 'torch' in sys.modules)"
    )
    best = min(
        (
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
            for _ in range(3)
        ),
        key=lambda r: float(r[0]),
    )
    assert float(best[0]) < 1 and best[1] == "False"


@pytest.mark.slow
def test_functions_keep_their_names_whatever_was_imported_before():
    code = (
        "import workbench.studies.headline, workbench.cli, workbench as wb; "
        "from workbench.evaluation.tables import rates; "
        "assert all(callable(getattr(wb, n)) or n == 'plots' for n in wb.__all__), wb.__all__; "
        "print(wb.evaluate.__name__, wb.audit.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["evaluate", "audit"]
