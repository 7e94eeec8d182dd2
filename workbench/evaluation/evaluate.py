"""Evaluation in one call: ask, judge, count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from workbench.data.example import Example
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates

if TYPE_CHECKING:
    import pandas as pd

    from workbench.models.vlm import VLM


class Evaluation(NamedTuple):
    """results: one row per rate (RESULT_COLUMNS). answers: one row per query asked (ANSWER_COLUMNS)."""

    results: pd.DataFrame
    answers: pd.DataFrame


def evaluate(
    vlm: VLM,
    examples: Sequence[Example],
    attack: str | Sequence[str] = "none",
    judge: str = "exact",
    batch_size: int = 100,
    out: str | Path | None = None,
) -> Evaluation:
    """Ask every example's query under each attack, judge the answers, and count.

    attack: "none", "WORD:K" as in "what:3", another of attacks.py, or several. judge: of judges.py. Rates in [0, 1] have
    95% intervals (`intervals.rate_interval`); of an attack's K shots the outcome that serves the attacker best counts, and n counts queries.
    out: a folder for answers.csv, written as answers come; an evaluation that was interrupted goes on from it.
    Raises UserError for an unknown attack or judge, or where `out` holds answers to other queries.
    """
    names = [attack] if isinstance(attack, str) else list(attack)
    answers = ask(vlm, examples, names, judge, batch_size, file=Path(out) / "answers.csv" if out else None)
    return Evaluation(rates(answers), answers)
