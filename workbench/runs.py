"""Long work: where it is kept, how it is resumed, and how it shows its progress."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from workbench.errors import UserError
from workbench.files import write_text

if TYPE_CHECKING:
    from tqdm.auto import tqdm

_CLAIMS: dict[str, filelock.FileLock] = {}  # the folders that this process writes to
log = logging.getLogger("workbench")  # one line per finished phase; the command line prints them


def bar(items: Iterable | None = None, desc: str = "", show: bool = True, **options: Any) -> tqdm:
    """A progress bar that disappears when the work is done.

    TQDM_DISABLE=1 switches it off everywhere: in notebooks, tqdm itself does not read that variable.

    Args:
        items: What to iterate over; without it, the bar is updated by hand.
        desc: What is being done.
        show: False for no bar, e.g. in all processes but the first.
        options: Further arguments of `tqdm`, e.g. total.
    """
    from tqdm.auto import tqdm

    disabled = not show or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    line = int(os.environ.get("WORKBENCH_BAR", "0"))  # of the terminal, for a process beside others (parallel.py)
    return tqdm(items, desc, leave=False, disable=disabled, position=line or None, **options)


def runs_dir() -> Path:
    """The folder for finished work.

    Returns:
        $WORKBENCH_RUNS unless it is empty; else `runs/` at the root of a checkout, or in the working folder.
    """
    if named := os.environ.get("WORKBENCH_RUNS", "").strip():
        return Path(named).expanduser()
    root = Path(__file__).parent.parent
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "runs"


def claim(folder: Path) -> Path:
    """Keep other processes on this machine from writing to a folder until this one ends.

    The lock lies among the system's temporary files, so that the folder holds results alone. Of several
    processes that train together, the first holds it.

    Returns:
        `folder` itself.

    Raises:
        UserError: Another process holds it.
    """
    if int(os.environ.get("RANK", "0")):
        return folder
    name = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=16).hexdigest()
    lock = _CLAIMS.setdefault(name, filelock.FileLock(Path(tempfile.gettempdir()) / f"workbench-{name}.lock"))
    if not lock.is_locked:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise UserError(
                f"Another process is writing to {folder}; wait until it has ended, or choose another --out."
            ) from None
    return folder


@contextlib.contextmanager
def runs_in(folder: Path) -> Iterator[None]:
    """Context manager within which finished work is kept elsewhere: `runs_dir` is this folder."""
    before = os.environ.get("WORKBENCH_RUNS")
    os.environ["WORKBENCH_RUNS"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("WORKBENCH_RUNS")
        if before is not None:
            os.environ["WORKBENCH_RUNS"] = before


def kept(
    label: str, path: Path, make: Callable[[Path], object], finished: Callable[[Path], bool] = Path.exists
) -> Path:
    """Make something once: what an earlier run has finished is kept. Logs which of the two happened.

    Two processes that want the same thing do not make it twice: the second waits for the first.

    Args:
        label: What is made, for the log.
        path: Where it is kept.
        make: Called with `path`; it must write whole or not at all, or resume what it left there.
        finished: Whether what lies at `path` is complete.

    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        if finished(path):
            log.info("%s: kept from an earlier run", label)
            return path
        started = time.monotonic()
        make(path)
    log.info("%s: %.0f s", label, time.monotonic() - started)
    return path


def same_settings(file: Path, settings: dict[str, Any], write: bool = True) -> None:
    """Write the settings of a run that can be interrupted; when it is resumed, insist on the same.

    Args:
        file: Where they are kept, as JSON.
        settings: What must not change.
        write: False in all but one of several processes.

    Raises:
        UserError: The file holds other settings; the message names them.
    """
    settings = json.loads(json.dumps(settings))
    if file.exists():
        old = read_settings(file)
        changed = [
            _change(name, old.get(name), settings[name])
            for name in settings
            if (name in old or not old) and old.get(name) != settings[name]
        ]
        if changed:
            raise UserError(
                f"The run in {file.parent} has other settings ({', '.join(changed)}); use the same, or remove it."
            )
    if write:
        write_text(file, json.dumps(settings, indent=2) + "\n")


def _change(name: str, old: object, new: object) -> str:
    """A setting that differs, with both values if they are short."""
    values = [json.dumps(value, ensure_ascii=False) for value in (old, new)]
    return f"{name} {values[0]}, now {values[1]}" if max(map(len, values)) <= 40 else name


def read_settings(file: Path) -> dict[str, Any]:
    """What `same_settings` wrote; empty if the file is missing or cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
