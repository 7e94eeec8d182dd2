"""The headline study: the mirage and its cure on MiniGuard, compared with the paper's figures.

Every model except the base is trained, and all are evaluated. What is finished is kept under `runs/`, in a
folder named after a hash of everything that it depends on: a second run reads it, and a killed one resumes
from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers
from workbench.evaluation.tables import outcome_shares, rates
from workbench.files import data_dir
from workbench.parallel import call_each
from workbench.runs import log
from workbench.studies.methods import CONTROL, METHODS, answers_file, make_answers, study_curves


class Study(NamedTuple):
    """results: rates with intervals. answers: every answer. curves: rates on validation while training."""

    results: pd.DataFrame
    answers: pd.DataFrame
    curves: pd.DataFrame

    @property
    def outcomes(self) -> pd.DataFrame:
        """The four outcomes of every model under every attack, as shares."""
        return outcome_shares(self.answers)


def headline(seed: int = 0, methods: Sequence[str] = ("npo",), processes: int = 1) -> Study:
    """Base, SFT, SFT on balanced data and each of `methods`, under every attack in HEADLINE.

    Args:
        seed: Of safety data, training and test pictures; the base model is always the shipped one.
        methods: Names in METHODS.
        processes: How many models are trained at once (parallel.process_count); with more than one, each
            process uses one thread.

    Raises:
        UserError: An unknown method.
    """
    for method in methods:
        if method not in METHODS:
            raise UserError(f"There is no method {method!r} to compare; choose from {', '.join(METHODS)}, or all.")
    names = list(dict.fromkeys(["base", "sft", CONTROL, *methods]))
    ready = [name for name in names if answers_file(name, seed).exists()]
    for name in ready:
        make_answers(name, seed)  # logs that it is kept
    # The longest first, so that the last process to end does not end alone.
    call_each(make_answers, [(name, seed) for name in reversed(names) if name not in ready], processes)
    answers = [whole_answers(answers_file(name, seed)) for name in names]
    curves = [study_curves(name, seed) for name in names[1:]]
    return Study(pd.concat([rates(table) for table in answers]), pd.concat(answers), pd.concat(curves))


def shipped_study() -> Study:
    """The study of seed 0 with all of METHODS as it ships: `workbench demo --methods all` made it."""
    folder = data_dir() / "all_methods"
    answers = pd.read_csv(folder / "answers.csv.gz", keep_default_na=False)
    return Study(rates(answers), answers, pd.read_csv(folder / "curves.csv", keep_default_na=False))


def over_seeds(seeds: Sequence[int], methods: Sequence[str] = ("npo",), processes: int = 1) -> pd.DataFrame:
    """The results of `headline` for several seeds, with a column `seed` in front; same arguments."""
    tables = []
    for seed in seeds:
        log.info("seed %s", seed)
        results = headline(seed, methods, processes).results
        results.insert(0, "seed", seed)
        tables.append(results)
    return pd.concat(tables, ignore_index=True)
