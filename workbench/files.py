"""Writing so that nothing is ever half-written: to a temporary name first, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import UserError


def data_dir() -> Path:
    """The folder of what ships with the workbench: `data/` beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).parent
    return here / "_data" if (here / "_data").is_dir() else here.parent / "data"


def make_folder(path: Path) -> Path:
    """Make a folder, and its parents, that can be written to. Raises UserError that names it where this fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"The folder {path} cannot be written ({error.strerror}); choose another with --out.") from None
    return path


def ensure_parent(file: Path) -> Path:
    """Make the folder of a file that is to be written. Raises UserError where that fails, or the file's name is a folder's."""
    make_folder(file.absolute().parent)
    if file.is_dir():
        raise UserError(f"{file} is a folder, not a file; choose another --out.")
    return file


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (a file or a folder, to be made); rename it to `path` only if the block succeeds."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        if path.is_dir() and not temporary.is_dir():
            raise UserError(f"{path} is a folder, not a file; choose another --out.")
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_write(ensure_parent(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
