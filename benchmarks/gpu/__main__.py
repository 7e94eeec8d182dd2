"""Measures the single-GPU path, section by section.

Python -m benchmarks.gpu --out FILE [--sections a,b] [--tiny].

Every section runs in a process of its own. Each of its results is added to FILE, a JSON list, as it comes. A
section that fails leaves its error there, and the next one runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.sections import LANGUAGE, ON_REQUEST, SECTIONS, results_of
from workbench.errors import UserError
from workbench.files import atomic_write, write_text

ROOT = Path(__file__).parent.parent.parent
LEAST_GIB = 15  # of GPU memory: a 7B in 16 bits and the smallest step
PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl", "captum", "bitsandbytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="the file for the results; what it holds already stays")
    usual = [name for name in SECTIONS if name not in ON_REQUEST]
    parser.add_argument(
        "--sections",
        help=f"which, separated by commas; without, {','.join(usual)}, and not {','.join(ON_REQUEST)}",
    )
    parser.add_argument(
        "--language",
        type=Path,
        help="the language model of `taught`: a .gguf file or a wheel that holds one, or its parts FILE.00, FILE.01 …",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="tiny shapes on the CPU: shows that the script works, measures nothing"
    )
    parser.add_argument("--commit", help="the commit that is measured, where the checkout has no git history")
    given = parser.parse_args()
    try:
        if not given.out:
            raise UserError("Say with --out where the results go, as in --out benchmarks/gpu_results.json.")
        names = chosen(given.sections)
        if given.language and "taught" not in names:
            raise UserError("--language is for --sections taught; add it, or leave --language out.")
        if given.language:
            os.environ[LANGUAGE] = str(whole(given.language))
        file = Results(given.out)
        about = machine(given.tiny) | {"commit": given.commit or commit()}
        failed = [name for name in names if not measured(name, given.tiny, about, file)]
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(f"Stopped; what was measured is in {given.out}.")
    if failed:
        sys.exit(f"Sections that failed: {', '.join(failed)}; their errors, and what was measured, are in {given.out}.")


def chosen(sections: str | None) -> list[str]:
    """The sections asked for. Raises UserError for an unknown one."""
    names = sections.split(",") if sections else [name for name in SECTIONS if name not in ON_REQUEST]
    if unknown := [name for name in names if name not in SECTIONS]:
        raise UserError(f"There is no section {', '.join(map(repr, unknown))}; choose from {', '.join(SECTIONS)}.")
    return names


def whole(file: Path) -> Path:
    """A file, put together from its parts if it came in parts. Raises UserError if there is none."""
    if not file.exists():
        parts = sorted(file.parent.glob(f"{file.name}.[0-9][0-9]"))
        numbers = [part.suffix for part in parts]
        if not parts or numbers != [f".{number:02d}" for number in range(len(parts))]:
            raise UserError(f"There is no file {file}, and its parts {file.name}.00 … are not all beside it.")
        with atomic_write(file) as together, together.open("wb") as out:
            for part in parts:
                out.write(part.read_bytes())
    return file


class Results:
    """A file of results, a JSON list of rows, written anew and whole with each row that comes.

    Raises UserError where it cannot be written, or holds something else.
    """

    def __init__(self, path: Path):
        self.path, self.rows = path, []
        if path.is_file():
            try:
                self.rows = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                self.rows = None
            if not isinstance(self.rows, list):
                raise UserError(f"{path} holds no results of this benchmark; choose another --out.")
        self._write()

    def add(self, row: dict) -> None:
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        write_text(self.path, "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in self.rows) + "\n]\n")


def machine(tiny: bool) -> dict:
    """What every row says of where it was measured.

    Raises UserError where there is no GPU to measure, or too small a one.
    """
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    if tiny:
        return {"device": "cpu, tiny shapes", "versions": versions}
    import torch

    if not torch.cuda.is_available():
        raise UserError("There is no CUDA GPU here; run this where there is one, or give --tiny.")
    card = torch.cuda.get_device_properties(0)
    if card.total_memory < LEAST_GIB * 2**30:
        size = card.total_memory / 2**30
        raise UserError(
            f"The {card.name} has {size:.0f} GiB of memory; a 7B takes {LEAST_GIB} at least, so choose a larger one."
        )
    return {"device": card.name, "device_gib": round(card.total_memory / 2**30, 1), "versions": versions}


def commit() -> str:
    """The commit of this checkout, with a + if files have changed since.

    "unknown" where git does not tell.
    """
    try:
        head, changed = (
            subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + "+" * bool(changed)


def measured(name: str, tiny: bool, about: dict, file: Results) -> bool:
    """Run a section, and add what it yields to the file as it comes. Whether it came to its end."""
    started, failed = time.monotonic(), {}
    with contextlib.closing(results_of(name, tiny)) as rows:
        for row in rows:
            if "error" in row:
                failed = row
            else:
                file.add({"section": name, **row, **about})
                show(name, row)
    end = {"what": "seconds in all", "seconds": round(time.monotonic() - started, 1)} | failed
    file.add({"section": name, **end, **about})
    show(name, end)
    return not failed


def show(name: str, row: dict) -> None:
    numbers = (
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in row.items()
        if key != "what"
    )
    print(f"{name}: {row['what']}: {', '.join(numbers)}", flush=True)


if __name__ == "__main__":
    main()
