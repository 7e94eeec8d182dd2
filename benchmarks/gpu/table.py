"""Fill in what was measured on a GPU in docs/memory.md: python -m benchmarks.gpu.table.

It reads benchmarks/gpu_results.json, which `python -m benchmarks.gpu` writes, and fills in the column
"measured" and the tables between the page's two markers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.files import write_text

ROOT = Path(__file__).parent.parent.parent
PAGE, RESULTS = ROOT / "docs" / "memory.md", ROOT / "benchmarks" / "gpu_results.json"
MODEL = "llava-hf/llava-1.5-7b-hf"  # the model whose shape is measured

BEGIN, END = "<!-- benchmarks.gpu.table -->", "<!-- end -->"

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
        if row["section"] == "training" and "fits" in row and gib == (row["cap_gib"] or _card(row)):
            objective = row["what"].split()[-1].upper()
            peaks[objective] = f"{row['peak_gib']:.1f}" if row["fits"] else "does not fit"
    return ", ".join(f"{objective} {peak}" for objective, peak in sorted(peaks.items()))


def _card(row: Row) -> int | None:
    """The size in which the card is sold, e.g. 80, for a run without a cap that saved no memory."""
    return 8 * round(row["device_gib"] / 8) if row["settings"] == "as they are" else None


def steps(results: list[Row]) -> str:
    """Steps of training, each kind once, and in 4 bits: memory beside its prediction, and speed."""
    fitting = [row for row in results if row["section"] in ("training", "four_bit") and row.get("fits")]
    rows = {(row["what"], row["settings"]): row for row in fitting}  # the last is without a cap, if there is one
    return _markdown(
        ("step", "settings", "predicted, GiB", "measured, GiB", "seconds", "sequences a second"),
        [
            (
                row["what"].split()[-1].upper() if row["section"] == "training" else "NPO",
                row["settings"],
                f"{row['predicted_gib']:.1f}",
                f"{row['peak_gib']:.1f}",
                f"{row['seconds_a_step']:.2f}",
                f"{row['samples_a_second']:.1f}",
            )
            for row in rows.values()
        ],
    )


def peers(results: list[Row]) -> str:
    """Our step as a share of trl's DPO and of SFT by peft and Trainer."""
    rows = [r for r in results if r["section"] == "peer" and "ratio_peak_gib" in r]
    return _markdown(
        ("ours / theirs", "checkpointing", "memory", "time", "time if each example is seen once"),
        [
            (
                f"{objective.upper()} by {peer}",
                "yes" if row["checkpointing"] else "no",
                f"{row['ratio_peak_gib']:.2f}",
                f"{row['ratio_seconds_a_step']:.2f}",
                f"{row.get('ratio_seconds_a_step_if_each_example_is_seen_once', row['ratio_seconds_a_step']):.2f}",
            )
            for row in rows
            for objective, peer in [row["what"].split(": ours / ")]
        ],
    )


def answers(results: list[Row]) -> str:
    """Answers a second, whether they are the same when asked again, and attribution beside Captum's loop."""
    rows = [
        (row["what"], f"{row['answers_a_second']:.1f} answers a second")
        for row in results
        if row["section"] == "answers" and "answers_a_second" in row
    ]
    shares = {
        "first_words_equal": "first words that are equal when the same batch is asked again",
        "whole_answers_equal_repeated_without_kept_features": "whole answers that are",
        "whole_answers_equal": "whole answers that are, where the pictures' features were kept",
        "share_of_the_bandwidth_limit": "writing words: share of the memory's bandwidth",
    }
    rows += [
        (title, f"{100 * row[name]:.0f} %")
        for row in results
        if row["section"] == "answers" and row["what"] != "in a batch"
        for name, title in shares.items()
        if name in row
    ]
    rows += [
        ("one query explained (ablation of words and 36 squares)", f"{row['seconds']:.1f} seconds")
        for row in results
        if row["section"] == "attribution" and "log_p" in row
    ]
    rows += [
        ("the same, a prompt: Captum's `LLMAttribution` / ours", f"{row['ratio_a_prompt']:.1f}")
        for row in results
        if row["section"] == "attribution" and "ratio_a_prompt" in row
    ]
    return _markdown(("", "measured"), rows)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def filled(page: str, results: list[Row]) -> str:
    """The page with the column and the tables as the results have them."""

    def line(match: re.Match[str]) -> str:
        cell = measured(results, int(match["gib"]))
        return match["predicted"] + (f" {cell} |" if cell else " |")

    row = rf"^(?P<predicted>\| `{MODEL}` \| (?P<gib>\d+) GiB \|[^|]+\|[^|]+\|)[^|]*\|$"
    page = re.sub(row, line, page, flags=re.MULTILINE)
    tables = "\n\n".join(make(results) for make in (steps, peers, answers))
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


if __name__ == "__main__":
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), read()))
