"""95% intervals reported with every rate, and the smallest difference that can be detected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


@overload
def wilson(count: float, n: float) -> tuple[float, float]: ...
@overload
def wilson(count: pd.Series, n: pd.Series) -> tuple[pd.Series, pd.Series]: ...
@overload
def wilson(count: NDArray[np.number], n: NDArray[np.number]) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def wilson(count: ArrayLike, n: ArrayLike) -> tuple[object, object]:
    """Wilson's score interval of a rate.

    Args:
        count: Number of successes, or an array of them.
        n: Number of trials, of the same shape.

    Returns:
        (low, high) in [0, 1], of the same shape. Rounded to six decimals, so that rounding errors cannot put
        a bound on the wrong side of its rate.
    """
    import numpy as np
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, n, method="wilson")
    return np.round(np.maximum(low, 0.0), 6), np.round(np.minimum(high, 1.0), 6)


def cluster_bootstrap(
    values: ArrayLike, clusters: Collection[Hashable], seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean, where values of the same cluster are drawn together.

    Args:
        values: The values, (n,).
        clusters: The cluster of each value, (n,).
        seed: Seed of the draws.
        draws: Number of bootstrap samples.

    Returns:
        (low, high); both NaN for a single cluster, which says nothing about the spread between clusters.
    """
    import numpy as np
    import pandas as pd
    from scipy.stats import bootstrap

    groups = pd.Series(np.asarray(values, dtype=float)).groupby(np.asarray(clusters))
    sums, counts = np.asarray(groups.sum()), np.asarray(groups.size())  # (clusters,) each
    if len(sums) < 2:
        return float("nan"), float("nan")
    result = bootstrap(
        (sums, counts),
        lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=draws,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def resampled(
    statistic: Callable[[NDArray[np.int64]], float], clusters: int, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """Percentile bootstrap interval of any statistic of clustered data.

    Args:
        statistic: Computes the statistic from the numbers of the drawn clusters, (clusters,), each in
            [0, clusters). Draws for which it is NaN are left out.
        clusters: Number of clusters.
        seed: Seed of the draws.
        draws: Number of bootstrap samples.

    Returns:
        (low, high).
    """
    import warnings

    import numpy as np
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(
            (np.arange(clusters),),
            statistic,
            vectorized=False,
            n_resamples=draws,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = np.nanpercentile(result.bootstrap_distribution, [2.5, 97.5])
    return float(low), float(high)


def rate_interval(counted: ArrayLike, clusters: Collection[Hashable]) -> tuple[float, float]:
    """Interval of a rate, allowing for several queries about one picture, which are not independent.

    Wilson's interval if every query has its own picture; else bootstrapped over pictures. If all or none of
    the queries count, a bootstrap sees no spread, so Wilson's interval for as many queries as there are
    pictures is used instead.

    Args:
        counted: Whether each query counts, bools (n,).
        clusters: The picture of each query, (n,).

    Returns:
        (low, high) in [0, 1].
    """
    import numpy as np

    counted = np.asarray(counted)
    n_clusters = len(set(clusters))
    if n_clusters == len(counted):
        return wilson(int(counted.sum()), len(counted))
    if counted.all() or not counted.any():
        return wilson(n_clusters if counted.any() else 0, n_clusters)
    return cluster_bootstrap(counted, clusters)


def difference(one: tuple[float, float, float], other: tuple[float, float, float]) -> tuple[float, float, float]:
    """Difference of two independent estimates with its interval, by Newcombe's method.

    Statistics in Medicine 17 (1998), 873–890, method 10, which works with any two intervals.

    Args:
        one: (value, low, high).
        other: (value, low, high).

    Returns:
        (value, low, high) of one − other.
    """
    one_value, one_low, one_high = one
    other_value, other_low, other_high = other
    value = one_value - other_value
    below = ((one_value - one_low) ** 2 + (other_high - other_value) ** 2) ** 0.5
    above = ((one_high - one_value) ** 2 + (other_value - other_low) ** 2) ** 0.5
    return value, value - below, value + above


def paired_difference(only_first: int, only_second: int, both: int, n: int) -> tuple[float, float, float]:
    """Difference of two rates over the same queries with its interval, by Newcombe's method for pairs.

    Statistics in Medicine 17 (1998), 2635–2650, method 10: Wilson's intervals of both rates, and the
    correlation of the pairs with a correction for continuity.

    Args:
        only_first: Queries that count for the first alone.
        only_second: Queries that count for the second alone.
        both: Queries that count for both.
        n: All queries.

    Returns:
        (value, low, high) of second − first.
    """
    neither = n - both - only_first - only_second
    first, second = (both + only_first) / n, (both + only_second) / n
    first_low, first_high = map(float, wilson(both + only_first, n))
    second_low, second_high = map(float, wilson(both + only_second, n))
    product = both * neither - only_first * only_second
    if product > 0:
        product = max(product - n / 2, 0)
    margins = (both + only_first) * (n - both - only_first) * (both + only_second) * (n - both - only_second)
    correlation = product / margins**0.5 if margins else 0.0

    def width(one: float, other: float) -> float:
        return (one**2 - 2 * correlation * one * other + other**2) ** 0.5

    value = second - first
    below = width(second - second_low, first_high - first)
    above = width(second_high - second, first - first_low)
    return value, value - below, value + above


def replicated(
    values: ArrayLike, groups: Collection[Hashable], within: tuple[float, float] = (0.0, 1.0)
) -> tuple[float, float, float]:
    """Mean of a rate over groups, with an interval for what another group would give.

    The groups are the unit of replication, e.g. base models with several training seeds each: the interval is
    Student's t over their means. A bootstrap of as few as three groups is far too narrow.

    Args:
        values: Rates, (n,).
        groups: The group of each rate, (n,).
        within: The lowest and highest value that there can be, at which bounds are cut.

    Returns:
        (mean of the groups' means, low, high). The bounds are NaN for a single group, and where all groups
        agree: three times nothing does not show that it is never more.
    """
    import numpy as np
    import pandas as pd
    from scipy.stats import t

    means = pd.Series(np.asarray(values, dtype=float)).groupby(np.asarray(groups)).mean().to_numpy()
    mean, count = float(means.mean()), len(means)
    if count < 2 or means.min() == means.max():
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.975, count - 1) * means.std(ddof=1) / count**0.5)
    return mean, max(mean - half, within[0]), min(mean + half, within[1])


def crossed_bootstrap(
    statistic: Callable[[NDArray[np.int64], NDArray[np.int64]], float],
    rows: int,
    columns: int,
    seed: int = 0,
    draws: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of a table whose rows and columns are both drawn.

    Args:
        statistic: Computes the statistic from the numbers of the drawn rows and columns.
        rows: Number of rows, e.g. datasets.
        columns: Number of columns, e.g. words.
        seed: Seed of the draws.
        draws: Number of bootstrap samples. Those for which the statistic is NaN are left out.

    Returns:
        (low, high).
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(rows, size=rows), rng.integers(columns, size=columns)) for _ in range(draws)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def detectable_in_pairs(n: int, discordant: float, power: float = 0.8) -> float:
    """Smallest difference that n queries asked of two models can detect (McNemar's test at the 5% level).

    Args:
        n: Number of queries that both models are asked.
        discordant: Share of queries on which the models differ, in (0, 1].
        power: Probability of detecting the difference.

    Returns:
        The difference of their rates, in (0, discordant]; NaN if not even the largest can be detected.
    """
    from statistics import NormalDist

    from scipy.optimize import bisect

    alpha, beta = NormalDist().inv_cdf(0.975), NormalDist().inv_cdf(power)

    def lacking(difference: float) -> float:
        """Queries that the test needs, minus n (Miettinen's formula)."""
        spread = max(discordant - difference**2, 0.0) ** 0.5
        return (alpha * discordant**0.5 + beta * spread) ** 2 / difference**2 - n

    if lacking(discordant) > 0:
        return float("nan")
    difference: Any = bisect(lacking, 1e-6, discordant)
    return float(difference)


def detectable(n: int, rate: float = 0.5, power: float = 0.8) -> float:
    """Smallest increase over `rate` that n queries per model can detect (two-sided test at the 5% level).

    Args:
        n: Number of queries for each of the two models.
        rate: The lower rate, in [0, 1].
        power: Probability of detecting the increase.

    Returns:
        The increase, in [0, 1 − rate].
    """
    import numpy as np
    from statsmodels.stats.power import NormalIndPower

    effect = NormalIndPower().solve_power(nobs1=n, alpha=0.05, power=power)  # Cohen's h = 2 asin √p₂ − 2 asin √p₁
    return float(np.sin(min(np.arcsin(np.sqrt(rate)) + effect / 2, np.pi / 2)) ** 2 - rate)
