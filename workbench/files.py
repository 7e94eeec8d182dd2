"""Files that are written whole or not at all: under a temporary name first, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import UserError


def data_dir() -> Path:
    """Folder of shipped files: `data/` next to the package in a checkout, `_data/` inside it in a wheel."""
    package = Path(__file__).parent
    return package / "_data" if (package / "_data").is_dir() else package.parent / "data"


def make_folder(path: Path) -> Path:
    """Create a folder and its parents, and check that files can be written to it.

    Returns:
        `path` itself.

    Raises:
        UserError: The folder cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"Folder {path} cannot be written ({error.strerror}); choose another with --out.") from None
    return path


def ensure_parent(file: Path) -> Path:
    """Create the folder of a file that will be written.

    Returns:
        `file` itself.

    Raises:
        UserError: The folder cannot be written to, or `file` is a folder.
    """
    make_folder(file.absolute().parent)
    if file.is_dir():
        raise UserError(f"{file} is a folder, not a file; choose another --out.")
    return file


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Context manager that replaces a file or folder only if its block succeeds.

    Args:
        path: The file or folder to write; an older one is replaced.

    Yields:
        A temporary path in the same folder, at which the block creates the file or folder.

    Raises:
        UserError: The parent folder cannot be written to, or the block made a file where `path` is a folder.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    older = path.with_name(f".{path.name}.{os.getpid()}.older")
    try:
        yield temporary
        if path.is_dir() and not temporary.is_dir():
            raise UserError(f"{path} is a folder, not a file; choose another --out.")
        if path.is_dir():
            path.rename(older)  # a folder cannot be replaced at once; removing it here would take its time
        temporary.replace(path)
        if older.is_dir():
            shutil.rmtree(older)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_write(ensure_parent(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
