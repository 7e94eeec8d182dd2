"""Intervals beside every rate."""

from __future__ import annotations


def wilson(count, n):
    """The Wilson 95% interval of the rate count / n: (low, high) in [0, 1], numbers or arrays as given.

    Rounded to six decimals, so that arithmetic's last digit puts no bound on the wrong side of its rate.
    """
    import numpy as np
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, n, method="wilson")
    return np.round(np.maximum(low, 0.0), 6), np.round(np.minimum(high, 1.0), 6)
