"""How far two judges agree about the same answers: Cohen's κ, and who says what where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from workbench.data.readers import Example, digest
from workbench.errors import UserError
from workbench.judges import rules as judges

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES = (*judges.OUTCOMES, judges.UNPARSED)


class Agreement(NamedTuple):
    """kappa: queries (all, harmful, harmless), kappa, ci_low, ci_high (95%, bootstrapped over pictures), agreed (share), n (answers).
    confusion: queries, first, second (outcomes), count."""

    kappa: pd.DataFrame
    confusion: pd.DataFrame


def judged(answers: pd.DataFrame, examples: Sequence[Example], judge: str) -> pd.DataFrame:
    """The same answers with the outcomes of another judge (of judges.py).

    Raises UserError for an unknown judge, or where an answer is to none of these examples.
    """
    known = {e.id: e for e in examples if e.id in set(answers.id)}
    about = {name: (e.kind, digest(e.picture())) for name, e in known.items()}
    for row in answers.itertuples():
        if about.get(row.id) != (row.queries, row.picture):
            raise UserError(f"The answer to {row.id!r} is about none of these data; give those that were asked (--data, --split, --seed).")
    asked = [known[name] for name in answers.id]
    return answers.assign(outcome=judges.judge(judge, asked)(asked, list(answers.answer)))


def compare_judges(first: pd.DataFrame, second: pd.DataFrame, seed: int = 0) -> Agreement:
    """How far two judges of the same answers agree; κ is 1 where they always do, 0 where no more than by chance.

    first, second: answers with outcomes, in the same order (`judged`). seed: of the bootstrap.
    """
    import pandas as pd

    table = first.assign(first=first.outcome.to_numpy(), second=second.outcome.to_numpy())
    kinds = [("all", table), *table.groupby("queries", sort=False)]
    rows = [(kind, *_kappa(some, seed), (some["first"] == some["second"]).mean(), len(some)) for kind, some in kinds]
    counts = table.groupby(["queries", "first", "second"], sort=False).size().rename("count").reset_index()
    return Agreement(pd.DataFrame(rows, columns=["queries", "kappa", "ci_low", "ci_high", "agreed", "n"]), counts)


def _kappa(table: pd.DataFrame, seed: int) -> tuple[float, float, float]:
    """Cohen's κ with its interval, answers about one picture drawn together; NaN where both judges say one thing throughout.

    Where they never differ, a bootstrap would be sure of it: Wilson's interval of their agreement then stands for as many pictures.
    """
    import numpy as np
    import pandas as pd
    from statsmodels.stats.inter_rater import cohens_kappa

    from workbench.intervals import resampled, wilson

    pictures = pd.factorize(table.picture)[0]
    said = [pd.Categorical(table[judge], OUTCOMES).codes for judge in ("first", "second")]
    counts = np.zeros((pictures.max() + 1, len(OUTCOMES), len(OUTCOMES)))  # a confusion matrix each picture
    np.add.at(counts, (pictures, *said), 1)

    def kappa(chosen: np.ndarray) -> float:
        with np.errstate(invalid="ignore"):
            return cohens_kappa(counts[chosen].sum(axis=0), return_results=False)

    every, total = np.arange(len(counts)), counts.sum(axis=0)
    if len(every) < 2 or np.isnan(kappa(every)):
        return kappa(every), float("nan"), float("nan")
    if np.trace(total) == total.sum():
        chance = ((total.sum(axis=0) / total.sum()) ** 2).sum()
        return 1.0, float((wilson(len(every), len(every))[0] - chance) / (1 - chance)), 1.0
    return kappa(every), *resampled(kappa, len(every), seed)
