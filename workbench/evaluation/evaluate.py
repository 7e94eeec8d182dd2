"""Evaluation in one call: ask, judge, count."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from workbench.data.example import Example
from workbench.evaluation.answers import write_judged
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates
from workbench.judges.judge import check_judge, judged
from workbench.models.vlm import VLM, processes


class Evaluation(NamedTuple):
    """results: one row per rate (RESULT_COLUMNS). answers: one row per shot (ANSWER_COLUMNS)."""

    results: pd.DataFrame
    answers: pd.DataFrame


def evaluate(
    vlm: VLM,
    examples: Sequence[Example],
    attack: str | Sequence[str] = "none",
    judge: str = "exact",
    batch_size: int = 100,
    out: str | Path | None = None,
    left_out: Collection[str] = (),
) -> Evaluation:
    """Ask every example's query under each attack, judge the answers, and count.

    Of an attack's K shots, the outcome that serves the attacker best counts; n counts queries, not shots.

    Args:
        vlm: The model.
        examples: What is asked.
        attack: "none", "WORD:K" such as "what:3", another attack (attacks/kinds.py), or several of them.
        judge: "exact", "keyword", or a model by folder or hub id.
        batch_size: Examples per batch.
        out: A folder for answers.csv, written as answers come; an interrupted evaluation resumes from it.
        left_out: As for `prepare_attack`.

    Returns:
        Rates in [0, 1] with 95% intervals (`intervals.rate_interval`), and the answers.

    Raises:
        UserError: An unknown attack or judge, or a folder with answers to other queries.
    """
    check_judge(judge, examples)  # before anything is asked
    file = Path(out) / "answers.csv" if out else None
    attacks = [attack] if isinstance(attack, str) else attack
    answers = judged(ask(vlm, examples, attacks, batch_size, file=file, left_out=left_out), examples, judge)
    if file and processes().is_main_process:
        write_judged(file, answers, judge)
    return Evaluation(rates(answers), answers)
