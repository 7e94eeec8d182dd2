"""Intervals contain their rate to the last digit, respect clusters, and detectable differences are indeed detected."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.intervals import cluster_bootstrap, detectable, rate_interval, wilson


@settings(deadline=None)  # the first call imports statsmodels
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_contains_the_rate(pair):
    """At the ends too: a figure's error bars must not be negative."""
    count, n = pair
    low, high = wilson(count, n)
    assert 0 <= low <= count / n <= high <= 1


def test_the_cluster_bootstrap_is_as_wide_as_clusters_are_few():
    """Ten equal values in each of 40 clusters say no more than one each: as wide as the plain interval of 40 values."""
    each = np.random.default_rng(0).normal(size=40)
    values, clusters = np.repeat(each, 10), np.repeat(np.arange(40), 10)
    low, high = cluster_bootstrap(values, clusters)
    assert low < each.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * each.std() / np.sqrt(40), rel=0.15)
    alone = cluster_bootstrap(values, np.arange(400))
    assert alone[1] - alone[0] < 0.4 * (high - low)
    assert cluster_bootstrap(values, clusters) == (low, high)  # the same seed
    assert np.isnan(cluster_bootstrap([1.0, 2.0], ["a", "a"])).all()


def test_clusters_of_different_sizes_weigh_by_their_values():
    low, high = cluster_bootstrap([1.0] * 9 + [0.0], ["a"] * 9 + ["b"])
    assert (low, high) == (0.0, 1.0)  # one of two clusters may be drawn twice


def test_a_rate_of_independent_queries_has_wilsons_interval_and_none_is_narrower():
    counted = np.arange(30) < 7
    assert rate_interval(counted, np.arange(30)) == wilson(7, 30)
    low, high = rate_interval(counted, np.repeat(np.arange(10), 3))
    assert low < 7 / 30 < high and high - low > np.subtract(*wilson(7, 30)[::-1])
    assert rate_interval(np.ones(30, bool), np.repeat(np.arange(10), 3)) == wilson(10, 10)


def test_a_detectable_difference_is_detected_four_times_in_five():
    """In a simulation, two rates this far apart differ at the 5% level in four of five pairs of samples."""
    rng = np.random.default_rng(0)
    for n, rate in ((400, 0.02), (400, 0.5), (100, 0.3)):
        higher = rate + detectable(n, rate)
        one, other = (rng.binomial(n, p, 4000) / n for p in (rate, higher))
        pooled = (one + other) / 2
        z = (other - one) / np.sqrt(np.maximum(pooled * (1 - pooled), 1e-9) * 2 / n)
        assert abs((np.abs(z) > 1.96).mean() - 0.8) < 0.04
    assert detectable(400, 0.5) > detectable(1600, 0.5) and detectable(50, 0.99) == pytest.approx(0.01)
