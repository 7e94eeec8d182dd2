"""Is this machine ready? One line per check, without loading what is not needed."""

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

from packaging.requirements import Requirement
from packaging.version import Version

from workbench.errors import first_line
from workbench.files import data_dir

OK, WARN, FAIL = "OK", "WARN", "FAIL"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "pandas", "matplotlib", "statsmodels", "typer")
MIN_PYTHON, MIN_GIB = (3, 11), 4
DISTRIBUTION = "safety-mirage-workbench"
PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def checks() -> Iterator[tuple[str, str]]:
    """(status, sentence) for each check; status is OK, WARN or FAIL."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield (OK if sys.version_info >= MIN_PYTHON else FAIL), f"Python {python} (3.11 or later is needed)"
    lowest = _lowest_versions()
    for package in PACKAGES:
        yield _package(package, lowest[package])
    yield from _known_to_break()
    yield _device()
    yield _memory()
    yield _base()
    kernel = importlib.util.find_spec("ipykernel") is not None
    yield (
        (OK, "the notebook kernel is installed")
        if kernel
        else (WARN, "ipykernel is missing: for notebooks, pip install -e '.[test]'")
    )


def _lowest_versions() -> dict[str, str]:
    """{package: the lowest version that was tried}, from pyproject.toml where this is a checkout, else from what was installed."""
    if PYPROJECT.is_file():
        needed = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        needed = importlib.metadata.requires(DISTRIBUTION)
    versions = ((Requirement(line).name, spec) for line in needed for spec in Requirement(line).specifier)
    return {name: spec.version for name, spec in versions if spec.operator == ">="}


def _package(package: str, lowest: str) -> tuple[str, str]:
    try:
        here = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return FAIL, f"{package} is missing: pip install -e . -c constraints.txt"
    if Version(here) >= Version(lowest):
        return OK, f"{package} {here}"
    return (
        WARN,
        f"{package} {here} is older than {lowest}, the lowest that was tried: pip install -U '{package}>={lowest}'",
    )


def _known_to_break() -> Iterator[tuple[str, str]]:
    """What is installed beside these packages and does not go with them."""
    if importlib.util.find_spec("torchvision"):
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError, OSError) as error:  # a build for another torch
            yield (
                FAIL,
                f"torchvision does not go with this torch ({first_line(error)}): pip uninstall torchvision, which is not needed",
            )
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("workbench")
        yield (
            FAIL,
            f"the package workbench, of another project, has the same import name as {DISTRIBUTION}: pip uninstall workbench",
        )


def _device() -> tuple[str, str]:
    try:
        import torch

        from workbench.models.vlm import best_device, best_dtype
    except ImportError as error:
        return FAIL, f"torch or transformers cannot be imported ({error})"
    device = best_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores"
    return OK, f"device {device.type} ({name}), precision {str(best_dtype(device)).removeprefix('torch.')}"


def _memory() -> tuple[str, str]:
    import psutil  # comes with accelerate

    gib = psutil.virtual_memory().available / 2**30
    status = OK if gib >= MIN_GIB else WARN
    return status, f"{gib:.0f} GiB of memory free" + ("" if status == OK else f"; {MIN_GIB} are advised")


def _base() -> tuple[str, str]:
    folder = data_dir() / "miniguard-base"
    try:
        json.loads((folder / "config.json").read_text())
        size = (folder / "model.safetensors").stat().st_size
    except (OSError, ValueError) as error:
        return FAIL, f"the base checkpoint in {folder.name} cannot be read ({error}); run workbench build-base"
    return OK, f"base checkpoint, {size / 1e6:.1f} MB"
