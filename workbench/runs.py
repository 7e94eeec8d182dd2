"""Progress bars, which go when the work is done; TQDM_DISABLE=1 switches them off everywhere (in notebooks tqdm itself does not look)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import UserError
from workbench.files import write_text

if TYPE_CHECKING:
    pass


def bar(items=None, desc: str = "", show: bool = True, **options):
    """A tqdm bar over `items`, or one to be updated by hand (total=…)."""
    from tqdm.auto import tqdm

    return tqdm(
        items, desc, leave=False, disable=not show or os.environ.get("TQDM_DISABLE", "0") not in ("", "0"), **options
    )


def same_settings(file: Path, settings: dict, write: bool = True) -> None:
    """Note the settings of a run that can be interrupted, or on resuming insist on the same (on those noted then).

    write: in one of several processes.
    """
    settings = json.loads(json.dumps(settings))
    if file.exists():
        old = read_settings(file)
        changed = ", ".join(name for name in settings if (name in old or not old) and old.get(name) != settings[name])
        if changed:
            raise UserError(
                f"The run in {file.parent} has other settings ({changed}); go on with the same, or remove it."
            )
    if write:
        write_text(file, json.dumps(settings, indent=2) + "\n")


def read_settings(file: Path) -> dict:
    """What `same_settings` noted; empty where nothing was, or where it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def runs_dir() -> Path:
    """Where finished phases are kept: $WORKBENCH_RUNS, or `runs/` at the root of a checkout, in the working folder elsewhere."""
    if "WORKBENCH_RUNS" in os.environ:
        return Path(os.environ["WORKBENCH_RUNS"])
    root = Path(__file__).parent.parent
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "runs"


def phase(label: str, report: Callable[[str], None], kept: bool, make: Callable[[], object]) -> None:
    """Make something, unless it has been kept from before; report says which, and how long it took."""
    if kept:
        report(f"{label}: kept from an earlier run")
        return
    started = time.monotonic()
    make()
    report(f"{label}: {time.monotonic() - started:.0f} s")
