"""Fills in the column "measured" of the README's table of GPUs from benchmarks/gpu_results.json: python -m benchmarks.gpu.table."""

from __future__ import annotations

import json
import re
from pathlib import Path

from workbench.files import write_text

ROOT = Path(__file__).parent.parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "gpu_results.json"
MODEL = "llava-hf/llava-1.5-7b-hf"  # whose shape is measured


def read(file: Path = RESULTS) -> list[dict]:
    """The results, none where nothing has been measured."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def measured(results: list[dict], gib: int) -> str:
    """What was measured of the 7B shape on a GPU of this size, as the README says it: "NPO 15.9, RMU 20.8"; of several runs the last."""
    found = {}
    for row in results:
        if row["section"] == "training" and row.get("cap_gib") == gib and "fits" in row:
            objective = row["what"].split()[-1].upper()
            found[objective] = f"{row['peak_gib']:.1f}" if row["fits"] else "does not fit"
    return ", ".join(f"{objective} {peak}" for objective, peak in sorted(found.items()))


def filled(readme: str, results: list[dict]) -> str:
    """The README with the column as the results have it."""

    def row(match: re.Match) -> str:
        cell = measured(results, int(match["gib"]))
        return match["kept"] + (f" {cell} |" if cell else " |")

    return re.sub(
        rf"^(?P<kept>\| `{MODEL}` \| (?P<gib>\d+) GiB \|[^|]+\|[^|]+\|)[^|]*\|$", row, readme, flags=re.MULTILINE
    )


if __name__ == "__main__":
    write_text(README, filled(README.read_text(encoding="utf-8"), read()))
