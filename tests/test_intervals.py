"""Intervals contain their rate to the last digit, respect clusters and bases, and cover as often as they say.

Detectable differences are indeed detected.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workbench.intervals import (
    cluster_bootstrap,
    crossed_bootstrap,
    detectable,
    detectable_in_pairs,
    paired_difference,
    rate_interval,
    replicated,
    resampled,
    wilson,
)


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


@pytest.mark.parametrize(
    "only_first, only_second, both, n, expected",
    [
        (6, 16, 59, 161, (0.0621, 0.0046, 0.1186)),  # of Cavo et al. (2012)
        (1, 7, 1, 21, (0.2857, 0.0256, 0.5069)),  # of Bentur et al. (2009)
    ],
)
def test_a_paired_difference_is_that_of_published_tables(only_first, only_second, both, n, expected):
    """Of Fagerland, Lydersen and Laake, by their R package contingencytables; the other way, mirrored."""
    value, low, high = paired_difference(only_first, only_second, both, n)
    assert (value, low, high) == pytest.approx(expected, abs=5e-5)
    assert paired_difference(only_second, only_first, both, n) == pytest.approx((-value, -high, -low))


def plain_paired_difference(only_first, only_second, both, n):
    """Newcombe's method 10 in his own letters, slowly: a, b, c, d are the four cells, φ their correlation."""
    z = 1.959963984540054
    a, b, c = both, only_second, only_first
    d = n - a - b - c

    def score(x):
        middle, half = 2 * x + z * z, z * math.sqrt(z * z + 4 * x * (n - x) / n)
        return (middle - half) / 2 / (n + z * z), (middle + half) / 2 / (n + z * z)

    (l2, u2), (l3, u3) = score(a + b), score(a + c)
    d2, e2, d3, e3 = (a + b) / n - l2, u2 - (a + b) / n, (a + c) / n - l3, u3 - (a + c) / n
    product = (a + b) * (c + d) * (a + c) * (b + d)
    numerator = a * d - b * c
    if numerator > n / 2:
        numerator -= n / 2
    elif numerator >= 0:
        numerator = 0
    phi = numerator / math.sqrt(product) if product else 0
    difference = (b - c) / n
    low = difference - math.sqrt(d2 * d2 - 2 * phi * d2 * e3 + e3 * e3)
    return difference, low, difference + math.sqrt(d3 * d3 - 2 * phi * d3 * e2 + e2 * e2)


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_a_paired_difference_is_that_of_the_plain_formula(cells):
    """Also where a model never or always does it, and the correlation is not defined."""
    table = *cells[:3], sum(cells)
    found = paired_difference(*table)
    assert found == pytest.approx(plain_paired_difference(*table), abs=1e-4)
    assert -1 <= round(found[1], 4) <= found[0] <= round(found[2], 4) <= 1


def test_a_paired_difference_covers_the_truth():
    """Of all tables of 12 queries, weighed by their probability: in 95% on average, never in many fewer."""
    n = 12
    tables = [(a, b, c) for a in range(n + 1) for b in range(n + 1 - a) for c in range(n + 1 - a - b)]
    _, low, high = np.transpose([paired_difference(*table, n) for table in tables])
    covered = []
    for p in np.random.default_rng(0).dirichlet(np.ones(4), 200):  # only first, only second, both, neither
        weights = stats.multinomial.pmf([(*table, n - sum(table)) for table in tables], n, p)
        covered.append(weights[(low <= p[1] - p[0]) & (p[1] - p[0] <= high)].sum())
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02) and np.min(covered) > 0.88


def test_pairs_tell_more_than_as_many_independent_queries_and_never_everything():
    """If models agree on most queries, the interval is narrow; if they agree on all, it still has a width."""
    _, low, high = paired_difference(2, 4, 48, 100)
    apart = 2 * 1.96 * math.sqrt(2 * 0.5 * 0.5 / 100)
    assert 0.05 < high - low < apart / 2
    assert high - low < np.diff(paired_difference(25, 27, 25, 100)[1:])[0]
    for both in (0, 10, 20):
        value, low, high = paired_difference(0, 0, both, 20)
        assert value == 0 and low < -0.05 and high == pytest.approx(-low)


def test_the_interval_over_bases_is_students_over_their_means():
    """Training seeds of one base are no replication of it, however many there are."""
    values = [0.1, 0.3, 0.2, 0.6, 0.5, 0.4, 0.4, 0.4]
    bases = ["a", "a", "a", "b", "b", "c", "c", "c"]
    means = [0.2, 0.55, 0.4]
    expected = stats.t.interval(0.95, df=2, loc=np.mean(means), scale=stats.sem(means))
    assert replicated(values, bases, (-9, 9)) == pytest.approx((np.mean(means), *expected))
    assert replicated(values, bases)[1:] == (max(expected[0], 0), pytest.approx(min(expected[1], 1)))
    often = replicated(np.repeat(values, 100), np.repeat(bases, 100), (-9, 9))
    assert often == pytest.approx(replicated(values, bases, (-9, 9)))


def test_one_base_says_nothing_of_others():
    mean, low, high = replicated([0.1, 0.3], ["a", "a"])
    assert mean == 0.2 and np.isnan([low, high]).all()


def test_bases_that_agree_say_nothing_of_the_spread():
    mean, low, high = replicated([0.0] * 6, ["a", "a", "b", "b", "c", "c"])
    assert mean == 0 and np.isnan([low, high]).all()


def test_the_interval_of_three_bases_covers_the_truth():
    """In a simulation, 19 times in 20, where a bootstrap of three would miss it one time in four."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(1500):
        rates = rng.normal(0.5, 0.08, 3).repeat(4) + rng.normal(0, 0.02, 12)
        _, low, high = replicated(rates, np.repeat(["a", "b", "c"], 4))
        covered.append(low <= 0.5 <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.fixture
def crossed():
    """Values of 8 datasets by 11 words, each with an effect of its own: (8, 11)."""
    rng = np.random.default_rng(3)
    return rng.normal(0, 1, (8, 1)) + rng.normal(0, 1, (1, 11)) + rng.normal(0, 0.3, (8, 11))


def mean_of(table):
    return lambda rows, columns: table[np.ix_(rows, columns)].mean()


def test_rows_and_columns_are_both_drawn(crossed):
    """The variances of their means add up, and it does not matter which of the two is called rows."""
    low, high = crossed_bootstrap(mean_of(crossed), 8, 11)
    assert low < crossed.mean() < high
    assert crossed_bootstrap(mean_of(crossed), 8, 11) == (low, high)  # the same seed
    parts = [crossed.mean(axis=1).var() / 8, crossed.mean(axis=0).var() / 11]
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(sum(parts)), rel=0.1)
    assert high - low > 1.1 * 2 * 1.96 * math.sqrt(max(parts))
    turned = crossed_bootstrap(mean_of(crossed.T), 11, 8, seed=1)
    assert turned == pytest.approx((low, high), abs=0.1 * (high - low))
    mirrored = crossed_bootstrap(mean_of(-crossed), 8, 11)
    assert mirrored == pytest.approx((-high, -low))


def test_draws_without_a_statistic_are_left_out(crossed):
    """Such as a correlation of draws in which one word came every time."""
    kept = []

    def of_many_words(rows, columns):
        if len(set(columns)) < 7:
            return float("nan")
        kept.append(crossed[np.ix_(rows, columns)].mean())
        return kept[-1]

    interval = crossed_bootstrap(of_many_words, 8, 11, draws=500)
    assert 300 < len(kept) < 500 and interval == pytest.approx(tuple(np.percentile(kept, [2.5, 97.5])))


def test_draws_of_clusters_without_a_statistic_are_left_out():
    """Such as Cohen's κ of draws in which both judges said the same of everything; as 0, they would count."""
    values = np.random.default_rng(0).normal(5, 1, 9)

    def of_many_clusters(drawn):
        return float("nan") if len(set(drawn)) < 6 else values[drawn].mean()

    low, high = resampled(of_many_clusters, 9, draws=500)
    assert values.min() < low < values.mean() < high < values.max()


@pytest.mark.parametrize("n, discordant", [(400, 0.2), (400, 0.05), (200, 0.5), (100, 0.3)])
def test_a_difference_that_is_detectable_in_pairs_is_detected_four_times_in_five(n, discordant):
    """In a simulation, by McNemar's test: the usual one, and the more cautious exact one of `compare`."""
    difference = detectable_in_pairs(n, discordant)
    assert 0 < difference < discordant
    shares = [(discordant - difference) / 2, (discordant + difference) / 2, 1 - discordant]
    first, second, _ = np.random.default_rng(0).multinomial(n, shares, 4000).T
    z = (second - first) / np.sqrt(np.maximum(first + second, 1))
    exact = 2 * stats.binom.cdf(np.minimum(first, second), first + second, 0.5)
    assert (np.abs(z) > 1.96).mean() == pytest.approx(0.8, abs=0.05)
    assert 0.74 < (exact < 0.05).mean() < (np.abs(z) > 1.96).mean()


def test_detectable_in_pairs_grows_with_discordance_and_falls_with_queries():
    assert detectable_in_pairs(400, 0.2) < detectable_in_pairs(400, 0.4) < detectable(400, 0.5)
    assert detectable_in_pairs(1600, 0.2) == pytest.approx(detectable_in_pairs(400, 0.2) / 2, rel=0.05)
    assert detectable_in_pairs(400, 0.2, power=0.9) > detectable_in_pairs(400, 0.2)


def test_what_no_number_of_discordant_pairs_can_show_is_nan():
    """Five queries on which half the answers differ: not even if all of these differ the same way."""
    assert math.isnan(detectable_in_pairs(5, 0.5)) and math.isnan(detectable_in_pairs(3, 1.0))
    assert 0 < detectable_in_pairs(20, 0.5) <= 0.5
