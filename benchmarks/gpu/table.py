"""Fill in the column "measured" of the table of GPUs in docs/memory.md: python -m benchmarks.gpu.table.

It reads benchmarks/gpu_results.json, which `python -m benchmarks.gpu` writes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from workbench.files import write_text

ROOT = Path(__file__).parent.parent.parent
PAGE, RESULTS = ROOT / "docs" / "memory.md", ROOT / "benchmarks" / "gpu_results.json"
MODEL = "llava-hf/llava-1.5-7b-hf"  # the model whose shape is measured

Row = dict[str, Any]  # one result of a section


def read(file: Path = RESULTS) -> list[Row]:
    """The results; none if nothing has been measured."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def measured(results: list[Row], gib: int) -> str:
    """What was measured of the 7B shape on a GPU of this size, e.g. "NPO 15.9, RMU 20.8".

    Args:
        results: Rows of all sections. If an objective was measured several times, the last one counts.
        gib: The GPU's memory.

    Returns:
        Peak memory in GiB for each objective, or "does not fit"; empty if nothing was measured.
    """
    peaks = {}
    for row in results:
        if row["section"] == "training" and row.get("cap_gib") == gib and "fits" in row:
            objective = row["what"].split()[-1].upper()
            peaks[objective] = f"{row['peak_gib']:.1f}" if row["fits"] else "does not fit"
    return ", ".join(f"{objective} {peak}" for objective, peak in sorted(peaks.items()))


def filled(page: str, results: list[Row]) -> str:
    """The page with the column as the results have it."""

    def line(match: re.Match[str]) -> str:
        cell = measured(results, int(match["gib"]))
        return match["predicted"] + (f" {cell} |" if cell else " |")

    row = rf"^(?P<predicted>\| `{MODEL}` \| (?P<gib>\d+) GiB \|[^|]+\|[^|]+\|)[^|]*\|$"
    return re.sub(row, line, page, flags=re.MULTILINE)


if __name__ == "__main__":
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), read()))
