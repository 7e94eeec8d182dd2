"""Is this machine ready? One line per check, without loading what is not needed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .data import data_dir

OK, WARN, FAIL = "OK", "WARN", "FAIL"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "pandas", "matplotlib", "statsmodels", "typer")
MIN_PYTHON, MIN_GIB = (3, 11), 4


def checks() -> Iterator[tuple[str, str]]:
    """(status, sentence) for each check; status is OK, WARN or FAIL."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield (OK if sys.version_info >= MIN_PYTHON else FAIL), f"Python {python} (3.11 or later is needed)"
    tested = _tested_versions()
    for package in PACKAGES:
        yield _package(package, tested.get(package))
    yield _device()
    yield _memory()
    yield _base()
    kernel = importlib.util.find_spec("ipykernel") is not None
    yield (OK, "the notebook kernel is installed") if kernel else (WARN, "ipykernel is missing: for notebooks, pip install -e '.[test]'")


def _tested_versions() -> dict[str, str]:
    """{package: version} from constraints.txt, where this is a checkout."""
    file = Path(__file__).parent.parent / "constraints.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    return dict(line.split("==", 1) for line in lines if re.match(r"[\w.-]+==", line))


def _package(package: str, tested: str | None) -> tuple[str, str]:
    try:
        here = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return FAIL, f"{package} is missing: pip install -e . -c constraints.txt"
    if tested is None or here.split("+")[0] == tested:
        return OK, f"{package} {here}"
    return WARN, f"{package} {here}, tested with {tested}"


def _device() -> tuple[str, str]:
    try:
        import torch

        from .models import best_device, best_dtype
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
