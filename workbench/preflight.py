"""Is this machine ready? One line for each check; no model is loaded."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from workbench.errors import first_line
from workbench.files import data_dir

OK, WARN, FAIL = "OK", "WARN", "FAIL"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "pandas", "matplotlib", "statsmodels", "typer")
MIN_PYTHON, MIN_GIB = (3, 11), 4
DISTRIBUTION = "safety-mirage-workbench"
PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"

Check = tuple[str, str]  # (OK, WARN or FAIL; a sentence)


def checks() -> Iterator[Check]:
    """Run all checks, each when its result is asked for.

    Yields:
        (status, sentence), where status is OK, WARN or FAIL.
    """
    python = ".".join(map(str, sys.version_info[:3]))
    yield (OK if sys.version_info >= MIN_PYTHON else FAIL), f"Python {python} (3.11 or later is needed)"
    lowest = _lowest_versions()
    for package in PACKAGES:
        yield _package(package, lowest[package])
    yield from _conflicts()
    yield _device()
    yield _memory()
    yield _base_checkpoint()
    yield _notebook_kernel()


def _lowest_versions() -> dict[str, str]:
    """{package: lowest version required}, from pyproject.toml in a checkout, else from package metadata."""
    if PYPROJECT.is_file():
        lines = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    lowest = {}
    for requirement in map(Requirement, lines):
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                lowest[requirement.name] = specifier.version
    return lowest


def _package(package: str, lowest: str) -> Check:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return FAIL, f"{package} is missing: pip install -e . -c constraints.txt"
    if Version(version) >= Version(lowest):
        return OK, f"{package} {version}"
    return WARN, f"{package} {version} is older than {lowest}, the lowest tested: pip install -U '{package}>={lowest}'"


def _conflicts() -> Iterator[Check]:
    """Installed packages that break the workbench."""
    if importlib.util.find_spec("torchvision"):
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError, OSError) as error:  # built for another torch
            yield (
                FAIL,
                f"torchvision does not work with this torch ({first_line(error)}): "
                "pip uninstall torchvision, which is not needed",
            )
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("workbench")
        yield (
            FAIL,
            "the package workbench, from another project, has the same import name as "
            f"{DISTRIBUTION}: pip uninstall workbench",
        )


def _device() -> Check:
    try:
        import torch

        from workbench.models.vlm import best_device, best_dtype
    except ImportError as error:
        return FAIL, f"torch or transformers cannot be imported ({error})"
    device = best_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    return OK, f"device {device.type} ({name}), precision {str(best_dtype(device)).removeprefix('torch.')}"


def _memory() -> Check:
    gib = psutil.virtual_memory().available / 2**30
    if gib >= MIN_GIB:
        return OK, f"{gib:.0f} GiB of memory free"
    return WARN, f"{gib:.0f} GiB of memory free; at least {MIN_GIB} are recommended"


def _base_checkpoint() -> Check:
    folder = data_dir() / "bases" / "miniguard"
    try:
        json.loads((folder / "config.json").read_text())
        size = (folder / "model.safetensors").stat().st_size
    except (OSError, ValueError) as error:
        return FAIL, f"the base checkpoint in {folder.name} cannot be read ({error}); run workbench build-base"
    return OK, f"base checkpoint, {size / 1e6:.1f} MB"


def _notebook_kernel() -> Check:
    if importlib.util.find_spec("ipykernel") is None:
        return WARN, "ipykernel is missing: for notebooks, pip install -e '.[test]'"
    return OK, "the notebook kernel is installed"
