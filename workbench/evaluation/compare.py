"""Comparisons on the same queries: of two models, and of two judges of the same answers."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa

from workbench.errors import UserError
from workbench.evaluation.tables import grouped, metrics, outcomes
from workbench.intervals import cluster_bootstrap, paired_difference, resampled, wilson
from workbench.judges.outcomes import UNPARSED, WITHOUT_TRUTH, without_truth

_PAIRED_COLUMNS = ["first", "second", "difference", "ci_low", "ci_high", "only_first", "only_second", "p", "n"]
VERDICTS = (*WITHOUT_TRUTH, UNPARSED)  # all that two judges are compared by


def compare(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Compare two models query by query. Queries that only one of them was asked are left out.

    Args:
        first: Judged answers (answers.ANSWER_COLUMNS) of one model.
        second: Judged answers of another model.

    Returns:
        One row per rate: attack, queries, metric; first, second (rates in [0, 1]); difference
        (second − first); ci_low, ci_high (of the difference, 95%, by Newcombe's method for pairs, or
        bootstrapped over pictures if there are several queries about one); only_first,
        only_second (number of queries that count for one of them only); p (of McNemar's exact test, which
        assumes that queries are independent); n (queries).

    Raises:
        UserError: They share no query, or one id stands for different queries or pictures.
    """
    _check_same_queries(first, second)
    keys = ["attack", "queries", "id", "picture"]
    both = outcomes(first).merge(outcomes(second), on=keys, suffixes=("_first", "_second"))
    if both.empty:
        raise UserError(
            "The two models were asked no query in common; evaluate both on the same data, under the same attacks."
        )
    rows = []
    for (attack, queries), group in grouped(both, keys[:2]):
        one, other = group["outcome_first"], group["outcome_second"]
        for metric, outcome in metrics(queries, [*one, *other]).items():
            rows.append((attack, queries, metric, *_paired(one == outcome, other == outcome, group["picture"])))
    return pd.DataFrame(rows, columns=[*keys[:2], "metric", *_PAIRED_COLUMNS])


def _check_same_queries(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Raises UserError unless what both models were asked under one id and attack is the same."""
    shots = [
        answers.groupby(["attack", "queries", "id"])[["query", "picture"]].agg(list) for answers in (first, second)
    ]
    one, other = shots[0].align(shots[1], join="inner")
    differing = (one != other).any(axis=1)
    if differing.any():
        attack, _, name = min(one.index[differing])
        raise UserError(
            f"Under attack {attack!r}, the id {name!r} stands for different queries or pictures in the two "
            "evaluations; evaluate both models on the same data."
        )


def _paired(first: pd.Series, second: pd.Series, pictures: pd.Series) -> tuple[float, ...]:
    """What two models do on the same queries.

    Args:
        first: Whether each query counts for the first model, bools (n,).
        second: The same for the second model.
        pictures: The picture of each query, (n,).

    Returns:
        The values of _PAIRED_COLUMNS.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    difference = second.astype(int) - first.astype(int)
    if pictures.is_unique:
        _, low, high = paired_difference(only_first, only_second, int((first & second).sum()), len(first))
    elif difference.any():
        low, high = cluster_bootstrap(difference, pictures)
    else:  # a bootstrap would be certain that they never differ
        high = wilson(0, pictures.nunique())[1]
        low = -high
    test: Any = mcnemar([[0, only_first], [only_second, 0]], exact=True)
    rates = first.mean(), second.mean(), difference.mean()
    return *rates, low, high, only_first, only_second, test.pvalue, len(difference)


class Agreement(NamedTuple):
    """How far two judges agree.

    Attributes:
        kappa: queries (all, harmful, harmless), kappa, ci_low, ci_high (95%, bootstrapped over pictures),
            agreed (share of the answers), n (answers).
        confusion: queries, first, second (outcomes), count.
    """

    kappa: pd.DataFrame
    confusion: pd.DataFrame


def compare_judges(first: pd.DataFrame, second: pd.DataFrame, seed: int = 0) -> Agreement:
    """Compare two judges of the same answers by Cohen's κ: 1 if they always agree, 0 if only by chance.

    A wrong answer counts as an irrelevant one, since only the exact judge tells them apart.

    Args:
        first: Answers with the outcomes of one judge (`judged`).
        second: The same answers, in the same order, with those of another judge.
        seed: Of the bootstrap.
    """
    verdicts = {
        name: table["outcome"].map(without_truth).to_numpy() for name, table in (("first", first), ("second", second))
    }
    table = first.assign(**verdicts)
    rows = []
    for queries, group in [("all", table), *table.groupby("queries", sort=False)]:
        agreed = (group["first"] == group["second"]).mean()
        rows.append((queries, *_kappa(group, seed), agreed, len(group)))
    kappa = pd.DataFrame(rows, columns=["queries", "kappa", "ci_low", "ci_high", "agreed", "n"])
    pairs = table.groupby(["queries", "first", "second"], sort=False)
    confusion = pairs.agg(count=("outcome", "size")).reset_index()
    return Agreement(kappa, confusion)


def _kappa(table: pd.DataFrame, seed: int) -> tuple[float, float, float]:
    """Cohen's κ with its 95% interval, from bootstrap samples of pictures with all their answers.

    If the judges never differ, a bootstrap would be certain of it: the lower bound then follows from Wilson's
    interval of their agreement, for as many answers as there are pictures.

    Returns:
        (κ, low, high). All are NaN if both judges say one thing throughout, and the bounds are NaN if there
        is a single picture.
    """
    counts = _confusion_matrices(table)
    pictures, total = len(counts), counts.sum(axis=0)

    def kappa(drawn: NDArray[np.int64]) -> float:
        with np.errstate(invalid="ignore"):  # 0 / 0 if both judges say one thing throughout
            return cast(float, cohens_kappa(counts[drawn].sum(axis=0), return_results=False))

    value = kappa(np.arange(pictures))
    if pictures < 2 or np.isnan(value):
        return value, float("nan"), float("nan")
    if np.trace(total) == total.sum():
        by_chance = ((total.sum(axis=0) / total.sum()) ** 2).sum()
        agreed_low = wilson(pictures, pictures)[0]
        return 1.0, float((agreed_low - by_chance) / (1 - by_chance)), 1.0
    return value, *resampled(kappa, pictures, seed)


def _confusion_matrices(table: pd.DataFrame) -> NDArray[np.float64]:
    """How often two judges gave which outcomes, for each picture: (pictures, first, second), by VERDICTS."""
    pictures, names = pd.factorize(table["picture"])
    verdicts = [pd.Categorical(table[judge], VERDICTS).codes for judge in ("first", "second")]
    counts = np.zeros((len(names), len(VERDICTS), len(VERDICTS)))
    np.add.at(counts, (pictures, *verdicts), 1)
    return counts
