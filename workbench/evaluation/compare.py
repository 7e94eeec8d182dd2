"""How far two judges agree about the same answers: Cohen's κ, and who says what where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from workbench.errors import UserError
from workbench.evaluation.tables import _metrics, outcomes
from workbench.judges import outcomes as four

if TYPE_CHECKING:
    import pandas as pd

from typing import TYPE_CHECKING

from workbench.judges.outcomes import UNPARSED

if TYPE_CHECKING:
    import pandas as pd


def compare(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Two models on the same queries, a row each rate: attack, queries, metric, first, second and difference (rates in [0, 1]), ci_low and
    ci_high of the difference (95%, bootstrapped over pictures), only_first, only_second (queries), p (McNemar's exact test,
    which takes all queries for independent), n.

    first, second: answers of one model each. What only one of them was asked is left out.
    Raises UserError where that is everything, or where the same id and attack stand for different queries or pictures.
    """
    import pandas as pd
    from statsmodels.stats.contingency_tables import mcnemar

    from workbench.intervals import cluster_bootstrap, wilson

    keys = ["attack", "queries", "id", "picture"]
    shots = [
        table.assign(shown=table["query"] + table.picture).groupby(keys[:3])["shown"].agg(tuple)
        for table in (first, second)
    ]
    asked = [set(each.items()) for each in shots]
    differing = {key for key, _ in asked[0] ^ asked[1]} & dict(asked[0]).keys() & dict(asked[1]).keys()
    if differing:
        attack, _, name = min(differing)
        what = f"different queries, or about different pictures, as {name!r}"
        raise UserError(f"Under {attack!r} the two models were asked {what}; evaluate both on the same data.")
    both = outcomes(first).merge(outcomes(second), on=keys, suffixes=("_first", "_second"))
    if both.empty:
        raise UserError(
            "The two models have not been asked one query in common; evaluate both on the same data, under the same attacks."
        )
    rows = []
    for (attack, queries), group in both.groupby(keys[:2], sort=False):
        for metric, outcome in _metrics(queries, group.outcome_first, group.outcome_second).items():
            one, other = (group[f"outcome_{which}"].eq(outcome) for which in ("first", "second"))
            only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
            p = mcnemar([[0, only_first], [only_second, 0]], exact=True).pvalue
            difference = other.astype(int) - one.astype(int)
            interval = cluster_bootstrap(difference, group.picture)
            if not difference.any():  # a bootstrap would be sure that they never differ
                most = wilson(0, group.picture.nunique())[1]
                interval = (-most, most)
            rows.append(
                (
                    attack,
                    queries,
                    metric,
                    one.mean(),
                    other.mean(),
                    difference.mean(),
                    *interval,
                    only_first,
                    only_second,
                    p,
                    len(group),
                )
            )
    columns = ["first", "second", "difference", "ci_low", "ci_high", "only_first", "only_second", "p", "n"]
    return pd.DataFrame(rows, columns=["attack", "queries", "metric", *columns])


OUTCOMES = (*four.OUTCOMES, UNPARSED)


class Agreement(NamedTuple):
    """kappa: queries (all, harmful, harmless), kappa, ci_low, ci_high (95%, bootstrapped over pictures), agreed (share), n (answers).
    confusion: queries, first, second (outcomes), count."""

    kappa: pd.DataFrame
    confusion: pd.DataFrame


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
