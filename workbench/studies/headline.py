"""The headline study: the mirage and its cure on MiniGuard, from the base model to the table beside the paper's.

Every model is trained (but for the base) and evaluated. What is finished is kept under `runs/`, in a folder named after a hash of all
that it depends on, so that a second run reads it and a killed one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from workbench.attacks.kinds import HEADLINE
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers, write_answers
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import outcome_shares, rates
from workbench.runs import phase
from workbench.studies.methods import CONTROL, METHODS, _folder, run

if TYPE_CHECKING:
    pass


class Study(NamedTuple):
    """results: rates with intervals. answers: every answer. curves: validation rates while training. All as `evaluate` names columns."""

    results: pd.DataFrame
    answers: pd.DataFrame
    curves: pd.DataFrame

    @property
    def outcomes(self) -> pd.DataFrame:
        """The four outcomes of every model under every attack, as shares."""
        return outcome_shares(self.answers)


def headline(
    seed: int = 0, methods: Sequence[str] = ("npo",), report: Callable[[str], None] = lambda line: None
) -> Study:
    """Base, SFT, SFT on balanced data and every one of `methods` (names of METHODS), each under every attack of attacks.HEADLINE.

    seed: of safety data, training and test pictures; the base model stays the shipped one. report: called with a line per phase.
    Raises UserError for an unknown method.
    """
    for method in methods:
        if method not in METHODS:
            raise UserError(f"There is no method {method!r} to compare; choose from {', '.join(METHODS)}, or all.")
    answers, curves = [], []
    for name in dict.fromkeys(["base", "sft", CONTROL, *methods]):
        adapter = None if name == "base" else run(name, seed, report)
        if adapter:
            curves.append(pd.read_csv(adapter / "curves.csv", keep_default_na=False))
        file = _folder(name, seed) / "answers.csv"
        phase(f"evaluate {name}", report, file.exists(), lambda a=adapter, f=file: write_answers(f, _ask(seed, a)))
        answers.append(whole_answers(file))
    return Study(pd.concat([rates(a) for a in answers]), pd.concat(answers), pd.concat(curves))


def over_seeds(
    seeds: Sequence[int], methods: Sequence[str] = ("npo",), report: Callable[[str], None] = lambda line: None
) -> pd.DataFrame:
    """`headline`'s results for several seeds, with a column `seed` in front."""
    tables = []
    for seed in seeds:
        tables.append(headline(seed, methods, lambda line, s=seed: report(f"seed {s}: {line}")).results)
        tables[-1].insert(0, "seed", seed)
    return pd.concat(tables, ignore_index=True)


def _ask(seed: int, adapter: Path | None) -> pd.DataFrame:
    from workbench.models.load import load

    return ask(load("miniguard", adapter), miniguard_split("test", seed), HEADLINE, "exact")
