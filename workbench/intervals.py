"""95% intervals reported with every rate, and the smallest difference that can be detected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import TYPE_CHECKING, overload

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
