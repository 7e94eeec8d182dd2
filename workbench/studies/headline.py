"""The headline study: the mirage and its cure on MiniGuard, compared with the paper's figures.

Every model except the base is trained, and all are evaluated. What is finished is kept under `runs/`, in a
folder named after a hash of everything that it depends on: a second run reads it, and a killed one resumes
from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers
from workbench.evaluation.tables import outcome_shares, rates
from workbench.parallel import call_each
from workbench.runs import log
from workbench.studies.methods import CONTROL, CURES, TRAINED, answers_file, make_answers, study_curves

EARLY = ("sft-early", f"{CONTROL}-early", "npo-early")  # stop when they look safe: what the demo trains
COMPARED = (*EARLY, "sft", CONTROL, *CURES)  # what the shipped study compares


class Study(NamedTuple):
    """results: rates with intervals. answers: every answer. curves: rates on validation while training."""

    results: pd.DataFrame
    answers: pd.DataFrame
    curves: pd.DataFrame

    @property
    def outcomes(self) -> pd.DataFrame:
        """The outcomes of every model under every attack, as shares."""
        return outcome_shares(self.answers)


def headline(
    seed: int = 0,
    methods: Sequence[str] = ("npo-early",),
    base: str = "miniguard",
    processes: int = 1,
    queries: int | None = None,
) -> Study:
    """Base, SFT, its control and each of `methods`, under every attack in HEADLINE.

    SFT and its control stop as soon as they look safe on validation (`methods.looks_safe`).

    Args:
        seed: Of safety data, training and test pictures.
        methods: Names in COMPARED.
        base: The base model, as for `methods.trained`.
        processes: How many models are trained at once (parallel.process_count); with more than one, each
            process uses one thread.
        queries: Ask only the first N harmful and the first N harmless test queries.

    Raises:
        UserError: An unknown method.
    """
    for method in methods:
        if method not in TRAINED:
            raise UserError(f"There is no method {method!r} to compare; choose from {', '.join(COMPARED)}, or all.")
    names = list(dict.fromkeys(["base", *EARLY[:2], *methods]))
    make_all([(name, seed, base) for name in names], processes, queries)
    answers = [whole_answers(answers_file(name, seed, base, queries=queries)) for name in names]
    curves = [study_curves(name, seed, base) for name in names[1:]]
    return Study(pd.concat([rates(table) for table in answers]), pd.concat(answers), pd.concat(curves))


def make_all(runs: Sequence[tuple[str, int, str]], processes: int = 1, queries: int | None = None) -> None:
    """`make_answers` for each (name, seed, base): first whole runs of which early ones are steps."""
    ready = [run for run in runs if answers_file(*run, queries=queries).exists()]
    for run in ready:
        make_answers(*run, queries=queries)  # logs that it is kept
    missing = [run for run in runs if run not in ready]
    steps = [run for run in missing if (run[0].removesuffix("-early"), *run[1:]) in set(missing) - {run}]
    for group in ([run for run in missing if run not in steps], steps):
        # The longest first, so that the last process to end does not end alone.
        call_each(make_answers, [(*run, False, queries) for run in reversed(group)], processes)


def over_seeds(
    seeds: Sequence[int],
    methods: Sequence[str] = ("npo-early",),
    bases: Iterable[str] = ("miniguard",),
    processes: int = 1,
    queries: int | None = None,
) -> pd.DataFrame:
    """The results of `headline` for several seeds and bases, with columns `base` and `seed` in front."""
    tables = []
    for base in bases:
        for seed in seeds:
            log.info("base %s, seed %s", base, seed)
            results = headline(seed, methods, base, processes, queries).results
            results.insert(0, "base", Path(base).name)
            results.insert(1, "seed", seed)
            tables.append(results)
    return pd.concat(tables, ignore_index=True)
