"""Two judges of the same answers: κ as statisticians define it, its interval over pictures, and nobody's answers mixed up."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from workbench.data.example import digest
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.compare import compare_judges
from workbench.judges.judge import judged
from workbench.judges.outcomes import OUTCOMES

N = 240


@pytest.fixture
def said():
    """240 answers about 60 pictures; the second judge differs from the first on a fifth of them."""
    rng = np.random.default_rng(0)
    first = rng.choice(OUTCOMES, N, p=(0.4, 0.3, 0.2, 0.1))
    second = np.where(rng.random(N) < 0.2, rng.choice(OUTCOMES, N), first)
    rows = [(f"q{i}", "m", "none", 1, ("harmful", "harmless")[i % 2], "", "", first[i], f"p{i // 4}") for i in range(N)]
    table = pd.DataFrame(rows, columns=ANSWER_COLUMNS)
    return table, table.assign(outcome=second)


def test_kappa_is_that_of_the_textbook(said):
    found = compare_judges(*said)
    kappa = found.kappa.set_index("queries")
    assert list(kappa.index) == ["all", "harmful", "harmless"] and kappa.n.tolist() == [N, N / 2, N / 2]
    for name, keep in (("all", np.full(N, True)), ("harmful", said[0].queries == "harmful")):
        a, b = (table.outcome[keep].to_numpy() for table in said)
        agreed = (a == b).mean()
        chance = sum((a == o).mean() * (b == o).mean() for o in OUTCOMES)
        assert kappa.kappa[name] == pytest.approx((agreed - chance) / (1 - chance)) and kappa.agreed[name] == agreed
    plain = cohens_kappa(pd.crosstab(said[0].outcome, said[1].outcome).to_numpy())
    row = kappa.loc["all"]
    assert row.ci_low < row.kappa < row.ci_high
    assert row.ci_high - row.ci_low == pytest.approx(
        plain.kappa_upp - plain.kappa_low, rel=0.3
    )  # pictures tell nothing here


def test_the_confusion_matrix_counts_every_answer(said):
    counts = compare_judges(*said).confusion
    assert counts["count"].sum() == N
    row = counts.set_index(["queries", "first", "second"])["count"]
    a, b = said
    kind = (a.queries == "harmless") & (a.outcome == "refusal") & (b.outcome == "irrelevant")
    assert row["harmless", "refusal", "irrelevant"] == kind.sum() > 0


def test_answers_about_one_picture_are_no_independent_ones(said):
    """The same answers four times over: κ stays, and so does its interval, since no picture was added."""
    once = [table[::4].reset_index(drop=True) for table in said]
    many = [pd.concat([table] * 4, ignore_index=True) for table in once]
    one, four = (compare_judges(*pair).kappa.iloc[0] for pair in (once, many))
    assert four.n == 4 * one.n and four.kappa == pytest.approx(one.kappa)
    assert four.ci_high - four.ci_low == pytest.approx(one.ci_high - one.ci_low, rel=0.1)


def test_unread_verdicts_count_as_disagreement(said):
    found = compare_judges(said[0], said[0].assign(outcome=["unparsed"] * 20 + list(said[0].outcome[20:])))
    assert found.kappa.kappa[0] < 1 and "unparsed" in set(found.confusion.second)
    assert compare_judges(said[0], said[0]).kappa.kappa[0] == 1


def test_where_nothing_varies_there_is_no_kappa(said):
    table = said[0].assign(outcome="refusal")
    row = compare_judges(table, table).kappa.iloc[0]
    assert np.isnan(row.kappa) and row.agreed == 1


def test_another_judge_judges_the_same_answers(few):
    texts = [few[0].response, "it is so", few[2].response]
    rows = [
        (e.id, "m", "none", 1, e.kind, e.query, text, "", digest(e.image)) for e, text in zip(few, texts, strict=False)
    ]
    table = pd.DataFrame(rows, columns=ANSWER_COLUMNS)
    assert (
        judged(table, few, "keyword").outcome[1] == "relevant"
        and judged(table, few, "exact").outcome[1] == "degenerate"
    )
    for other in (table.assign(id="zebra"), table.assign(picture="another"), table.assign(queries="harmful")):
        with pytest.raises(UserError, match="is about none of these data"):
            judged(other, few, "keyword")


def test_judges_that_hardly_ever_differ_have_an_interval_all_the_same(said):
    """Draws in which both say one thing throughout have no κ; those in which they never differ do not make it sure."""
    rare = said[0].assign(outcome=["relevant"] * (N - 3) + ["refusal"] * 3)
    row = compare_judges(rare, rare.assign(outcome=["relevant"] * (N - 2) + ["refusal"] * 2)).kappa.iloc[0]
    assert 0 <= row.ci_low <= row.kappa <= row.ci_high <= 1
    same = compare_judges(said[0], said[0]).kappa.iloc[0]
    assert same.kappa == same.ci_high == 1 and 0.8 < same.ci_low < 1
