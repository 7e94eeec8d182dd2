"""Two models on the same queries, and two judges of the same answers, as statisticians compare them.

McNemar's p and κ are computed again here; intervals are over pictures; nobody's answers are mixed up.
"""

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from tests.evaluation.by_hand import answers
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.compare import compare, compare_judges
from workbench.intervals import cluster_bootstrap, paired_difference, wilson
from workbench.judges.outcomes import WITHOUT_TRUTH

N = 240


def test_two_models_are_compared_query_by_query():
    """McNemar's exact p by hand: the chance of so uneven a split of the queries on which they differ."""
    first = answers([(str(i), 1, "harmful", "relevant" if i < 10 else "refusal") for i in range(20)])
    second = answers([(str(i), 1, "harmful", "relevant" if i in (0, 15) else "refusal") for i in range(22)])
    second = second.assign(model="other")
    row = compare(first, second).set_index("metric").loc["asr"]
    assert (row["first"], row["second"], row.n, row.only_first, row.only_second) == (0.5, 0.1, 20, 9, 1)
    assert row.p == pytest.approx(2 * sum(math.comb(10, k) for k in (0, 1)) / 2**10)
    assert row.difference == pytest.approx(-0.4) and row.ci_low < -0.4 < row.ci_high < 0
    same = compare(first, first.assign(model="other")).set_index("metric").loc["asr"]
    assert (same.difference, same.p) == (0, 1)
    unread = compare(first, second.assign(outcome="unparsed")).set_index("metric")
    assert unread.second["unparsed"] == 1 and "unparsed" not in set(compare(first, second).metric)


def test_queries_with_a_picture_each_are_compared_by_newcombes_method_for_pairs():
    """Also if the models never differ: that they do not is no certainty."""
    first = answers([(str(i), 1, "harmful", "relevant" if i < 10 else "refusal") for i in range(20)])
    second = answers([(str(i), 1, "harmful", "relevant" if i in (0, 15) else "refusal") for i in range(20)])
    for other, table in ((second, (9, 1, 1, 20)), (first, (0, 0, 10, 20))):
        row = compare(first, other.assign(model="other")).set_index("metric").loc["asr"]
        assert (row.difference, row.ci_low, row.ci_high) == pytest.approx(paired_difference(*table))
        assert row.ci_low < row.difference < row.ci_high


def test_queries_that_share_pictures_are_compared_by_a_bootstrap_over_pictures():
    """Newcombe's method is for independent queries; where models never differ, a bootstrap is too certain."""
    first = answers([(str(i), 1, "harmful", "relevant" if i < 10 else "refusal") for i in range(20)])
    first = first.assign(picture=[f"p{i // 2}" for i in range(20)])
    second = first.assign(model="other", outcome=["relevant"] * 3 + ["refusal"] * 16 + ["relevant"])
    row = compare(first, second).set_index("metric").loc["asr"]
    difference = (second.outcome == "relevant").astype(int) - (first.outcome == "relevant")
    assert (row.ci_low, row.ci_high) == cluster_bootstrap(difference, first.picture)
    same = compare(first, first.assign(model="other")).set_index("metric").loc["asr"]
    assert same.ci_high == -same.ci_low == pytest.approx(wilson(0, 10)[1])


def test_what_the_models_were_asked_must_be_the_same():
    first = answers([(str(i), 1, "harmful", "refusal") for i in range(3)])
    second = first.assign(model="other")
    with pytest.raises(UserError, match="no query in common"):
        compare(first, second.assign(attack="none"))
    a_shot_more = pd.concat([second, second[:1].assign(shot=2)])
    for other in (second.assign(query="another"), second.assign(picture="another"), a_shot_more):
        with pytest.raises(UserError, match="attack 'what:2', the id '0' stands for different queries or pictures"):
            compare(first, other)


def test_differences_on_queries_about_one_picture_tell_less():
    """40 pictures with ten queries each that all fare alike have an interval of 40 queries at least."""
    rows = [(f"{p}-{i}", 1, "harmful", "relevant" if p < 20 else "refusal") for p in range(40) for i in range(10)]
    first = answers(rows)
    first = first.assign(picture=first.id.str.split("-").str[0])
    for other in (first.assign(outcome="refusal"), first.assign(outcome=["relevant", "refusal"] * 200)):
        row = compare(first, other.assign(model="other")).set_index("metric").loc["asr"]
        assert row.ci_high - row.ci_low > 2 * math.sqrt(2 * 0.25 / 400)


@pytest.fixture
def verdicts():
    """240 answers about 60 pictures; the second judge differs from the first on a fifth of them."""
    rng = np.random.default_rng(0)
    first = rng.choice(WITHOUT_TRUTH, N, p=(0.4, 0.3, 0.2, 0.1))
    second = np.where(rng.random(N) < 0.2, rng.choice(WITHOUT_TRUTH, N), first)
    rows = [
        (f"q{i}", "m", "none", 1, ("harmful", "harmless")[i % 2], "", "", first[i], f"p{i // 4}", 1, 0)
        for i in range(N)
    ]
    table = pd.DataFrame(rows, columns=ANSWER_COLUMNS)
    return table, table.assign(outcome=second)


def test_kappa_is_that_of_the_textbook(verdicts):
    kappa = compare_judges(*verdicts).kappa.set_index("queries")
    assert list(kappa.index) == ["all", "harmful", "harmless"] and kappa.n.tolist() == [N, N / 2, N / 2]
    for name, rows in (("all", np.full(N, True)), ("harmful", verdicts[0].queries == "harmful")):
        a, b = (table.outcome[rows].to_numpy() for table in verdicts)
        agreed = (a == b).mean()
        by_chance = sum((a == o).mean() * (b == o).mean() for o in WITHOUT_TRUTH)
        assert kappa.kappa[name] == pytest.approx((agreed - by_chance) / (1 - by_chance))
        assert kappa.agreed[name] == agreed
    plain = cohens_kappa(pd.crosstab(verdicts[0].outcome, verdicts[1].outcome).to_numpy())
    row = kappa.loc["all"]
    assert row.ci_low < row.kappa < row.ci_high
    # an answer's picture says nothing about it here
    assert row.ci_high - row.ci_low == pytest.approx(plain.kappa_upp - plain.kappa_low, rel=0.3)


def test_the_confusion_matrix_counts_every_answer(verdicts):
    counts = compare_judges(*verdicts).confusion
    assert counts["count"].sum() == N
    row = counts.set_index(["queries", "first", "second"])["count"]
    a, b = verdicts
    expected = (a.queries == "harmless") & (a.outcome == "refusal") & (b.outcome == "irrelevant")
    assert row["harmless", "refusal", "irrelevant"] == expected.sum() > 0


def test_answers_about_one_picture_are_no_independent_ones(verdicts):
    """The same answers four times over: κ stays, and so does its interval, since no picture was added."""
    once = [table[::4].reset_index(drop=True) for table in verdicts]
    four_times = [pd.concat([table] * 4, ignore_index=True) for table in once]
    one, four = (compare_judges(*pair).kappa.iloc[0] for pair in (once, four_times))
    assert four.n == 4 * one.n and four.kappa == pytest.approx(one.kappa)
    assert four.ci_high - four.ci_low == pytest.approx(one.ci_high - one.ci_low, rel=0.1)


def test_unread_verdicts_count_as_disagreement(verdicts):
    first = verdicts[0]
    unread = first.assign(outcome=["unparsed"] * 20 + list(first.outcome[20:]))
    agreement = compare_judges(first, unread)
    assert agreement.kappa.kappa[0] < 1 and "unparsed" in set(agreement.confusion.second)
    assert compare_judges(first, first).kappa.kappa[0] == 1


def test_a_judge_without_the_truth_agrees_with_the_exact_one_on_wrong_answers(verdicts):
    first = verdicts[0].assign(outcome=["wrong"] * 20 + list(verdicts[0].outcome[20:]))
    second = first.assign(outcome=first.outcome.replace("wrong", "irrelevant"))
    assert compare_judges(first, second).kappa.kappa[0] == 1


def test_where_nothing_varies_there_is_no_kappa(verdicts):
    table = verdicts[0].assign(outcome="refusal")
    row = compare_judges(table, table).kappa.iloc[0]
    assert np.isnan(row.kappa) and row.agreed == 1


def test_judges_that_hardly_ever_differ_have_an_interval_all_the_same(verdicts):
    """Samples in which both say one thing throughout have no κ; those without a difference do not make it certain."""
    first = verdicts[0].assign(outcome=["relevant"] * (N - 3) + ["refusal"] * 3)
    second = first.assign(outcome=["relevant"] * (N - 2) + ["refusal"] * 2)
    row = compare_judges(first, second).kappa.iloc[0]
    assert 0.2 < row.ci_low <= row.kappa <= row.ci_high <= 1
    same = compare_judges(verdicts[0], verdicts[0]).kappa.iloc[0]
    assert same.kappa == same.ci_high == 1 and 0.8 < same.ci_low < 1
