"""Intervals beside every rate, and how small a difference can be seen at all."""

from __future__ import annotations


def wilson(count, n):
    """The Wilson 95% interval of the rate count / n: (low, high) in [0, 1], numbers or arrays as given.

    Rounded to six decimals, so that arithmetic's last digit puts no bound on the wrong side of its rate.
    """
    import numpy as np
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, n, method="wilson")
    return np.round(np.maximum(low, 0.0), 6), np.round(np.minimum(high, 1.0), 6)


def cluster_bootstrap(values, clusters, seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """The percentile bootstrap's 95% interval of a mean, where values (n,) of the same cluster are drawn together: (low, high).

    One cluster alone tells nothing of the spread between them: both ends are NaN.
    """
    import numpy as np
    import pandas as pd
    from scipy.stats import bootstrap

    groups = pd.Series(np.asarray(values, dtype=float)).groupby(np.asarray(clusters))
    sums, counts = groups.sum().to_numpy(), groups.size().to_numpy()  # (clusters,) each
    if len(sums) < 2:
        return float("nan"), float("nan")
    drawn = bootstrap(
        (sums, counts),
        lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=draws,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def resampled(statistic, clusters: int, seed: int = 0, draws: int = 1000) -> tuple[float, float]:
    """The percentile bootstrap's 95% interval of any statistic: a function of the numbers, (clusters,), of which clusters are drawn.

    Draws in which it is not defined (NaN) are left out.
    """
    import warnings

    import numpy as np
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        rng = np.random.default_rng(seed)
        drawn = bootstrap(
            (np.arange(clusters),), statistic, vectorized=False, n_resamples=draws, method="percentile", rng=rng
        )
    low, high = np.nanpercentile(drawn.bootstrap_distribution, [2.5, 97.5])
    return float(low), float(high)


def rate_interval(counted, clusters) -> tuple[float, float]:
    """The 95% interval of a rate, as (low, high) in [0, 1]: Wilson's, or where several queries are about one picture, and so tell less than
    as many independent ones, bootstrapped over the pictures.

    counted: (n,) bools. clusters: (n,), which picture each is about. Where all or none count, a bootstrap knows no spread: Wilson's then
    stands for as many queries as there are pictures.
    """
    import numpy as np

    counted, several = np.asarray(counted), len(set(clusters))
    if several == len(counted):
        return wilson(counted.sum(), len(counted))
    if counted.all() or not counted.any():
        return wilson(several if counted.any() else 0, several)
    return cluster_bootstrap(counted, clusters)


def difference(one: tuple[float, float, float], other: tuple[float, float, float]) -> tuple[float, float, float]:
    """one − other with its 95% interval, of two independent figures with theirs: (value, low, high) each.

    Newcombe's way (Statistics in Medicine 17, 1998, method 10), which takes any two intervals.
    """
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    low = ((a - a_low) ** 2 + (b_high - b) ** 2) ** 0.5
    high = ((a_high - a) ** 2 + (b - b_low) ** 2) ** 0.5
    return a - b, a - b - low, a - b + high


def detectable(n: int, rate: float = 0.5, power: float = 0.8) -> float:
    """By how much a second rate must lie above it for n queries each to tell them apart, at the 5% level, with this power: in [0, 1]."""
    import numpy as np
    from statsmodels.stats.power import NormalIndPower

    effect = NormalIndPower().solve_power(nobs1=n, alpha=0.05, power=power)  # Cohen's h = 2 asin √p₂ − 2 asin √p₁
    return float(np.sin(min(np.arcsin(np.sqrt(rate)) + effect / 2, np.pi / 2)) ** 2 - rate)
