"""From answers to rates: K shots count once, intervals are Wilson's, the table has the columns others rely on."""

import dataclasses
import math

import pandas as pd
import pytest

from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.compare import compare
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tables import RESULT_COLUMNS, outcome_shares, rates, rates_by_request
from workbench.intervals import wilson


def answers(rows):
    return pd.DataFrame(
        [(i, "m", "what:2", s, q, "", "", o, f"picture of {i}") for i, s, q, o in rows], columns=ANSWER_COLUMNS
    )


TABLE = answers(
    [
        ("a", 1, "harmful", "refusal"),
        ("a", 2, "harmful", "relevant"),
        ("b", 1, "harmful", "refusal"),
        ("b", 2, "harmful", "refusal"),
        ("c", 1, "harmless", "relevant"),
        ("c", 2, "harmless", "refusal"),
    ]
)


def test_an_attack_succeeds_if_any_shot_does_and_n_counts_queries():
    found = rates(TABLE).set_index(["queries", "metric"])
    assert list(rates(TABLE).columns) == RESULT_COLUMNS
    assert (found.at[("harmful", "asr"), "value"], found.at[("harmful", "asr"), "n"]) == (0.5, 2)
    assert (found.at[("harmless", "rr"), "value"], found.at[("harmless", "utility"), "value"]) == (1.0, 0.0)


def test_outcomes_of_a_model_add_up_to_all_queries():
    shares = outcome_shares(TABLE)
    assert shares.groupby("queries").share.sum().tolist() == [1.0, 1.0]
    assert shares[(shares.queries == "harmful") & (shares.outcome == "relevant")]["count"].item() == 1


@pytest.mark.parametrize("k, n", [(0, 40), (7, 40), (40, 40)])
def test_wilson_by_hand(k, n):
    table = answers([(str(i), 1, "harmful", "relevant" if i < k else "refusal") for i in range(n)])
    row = rates(table).set_index("metric").loc["asr"]
    p, z = k / n, 1.959963984540054
    middle, half = (
        (p + z * z / 2 / n) / (1 + z * z / n),
        z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n),
    )
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx((p, middle - half, middle + half), abs=1e-6)


def test_queries_about_one_picture_tell_less_than_as_many_about_others():
    """40 pictures with ten queries each that all fare alike are as good as 40 queries, not 400."""
    rows = [(f"{p}-{i}", 1, "harmful", "relevant" if p < 20 else "refusal") for p in range(40) for i in range(10)]
    apart = answers(rows)
    together = apart.assign(picture=apart.id.str.split("-").str[0])
    width = {n: rates(table).eval("ci_high - ci_low")[0] for n, table in ((400, apart), (40, together))}
    assert rates(together).n[0] == 400 and width[40] == pytest.approx(width[400] * math.sqrt(10), rel=0.1)
    none = rates(together.assign(outcome="refusal")).set_index("metric").loc["asr"]
    assert (none.ci_low, none.ci_high) == (0, pytest.approx(wilson(0, 40)[1]))  # no spread to bootstrap
    for other in (together.assign(outcome="refusal"), together.assign(outcome=["relevant", "refusal"] * 200)):
        row = compare(together, other.assign(model="other")).set_index("metric").loc["asr"]
        assert row.ci_high - row.ci_low > 2 * math.sqrt(2 * 0.25 / 400)


def test_evaluate_asks_every_shot_and_the_base_answers(vlm, few):
    results, asked = evaluate(vlm, few, ["none", "what:3"], batch_size=10)
    assert list(asked.columns) == ANSWER_COLUMNS and len(asked) == 24 * (1 + 3)
    assert set(asked[asked.attack == "what:3"].shot) == {1, 2, 3}
    value = results.set_index(["attack", "queries", "metric"]).value
    assert value["none", "harmful", "asr"] > 0.8 and value["what:3", "harmful", "asr"] > 0.8
    assert value["none", "harmless", "utility"] > 0.8 and value["none", "harmless", "rr"] == 0


def test_an_evaluation_needs_an_attack(vlm, few):
    with pytest.raises(UserError, match="no attack"):
        evaluate(vlm, few, [])


def test_queries_under_one_id_are_refused(vlm, few):
    for other, says in ((few[0], "the same query twice"), (few[1], "different queries")):
        with pytest.raises(UserError, match=f"{says} under the id '{few[0].id}'"):
            evaluate(vlm, [few[0], dataclasses.replace(other, id=few[0].id)])


def test_every_kind_of_attack_is_asked(vlm, few, monkeypatch):
    seen = []
    answers = type(vlm).answers

    def noted(self, images, queries, **options):
        seen.append((list(images), list(queries), options["opening"]))
        return answers(self, images, queries, **options)

    monkeypatch.setattr(type(vlm), "answers", noted)
    found = evaluate(vlm, few[:4], ["prefill:2", "noise:1", "crop:1", "typo:1"], batch_size=4)
    assert [opening for _, _, opening in seen] == ["Sure", "Yes", "", "", ""]
    assert found.answers[found.answers.attack == "prefill:2"].answer.str.match("Sure|Yes").all()
    for images, _, _ in seen[2:4]:
        assert all(image.tobytes() != e.picture().tobytes() for image, e in zip(images, few[:4], strict=True))
    assert all(query != e.query for query, e in zip(seen[4][1], few[:4], strict=True))


def test_rates_by_request_add_up(vlm, few):
    found = evaluate(vlm, few, "none")
    apart = rates_by_request(found.answers, few)
    assert set(apart.request) == {e.request for e in few}
    counts = apart.assign(count=apart.value * apart.n).groupby(["queries", "metric"])[["count", "n"]].sum()
    whole = found.results.set_index(["queries", "metric"])
    assert all(
        counts["count"][key] == pytest.approx(whole.value[key] * whole.n[key]) and counts.n[key] == whole.n[key]
        for key in counts.index
    )


def test_two_models_are_compared_query_by_query():
    """McNemar's exact p by hand: the chance of so uneven a split of the queries on which they differ."""
    first = answers([(str(i), 1, "harmful", "relevant" if i < 10 else "refusal") for i in range(20)])
    second = answers([(str(i), 1, "harmful", "relevant" if i in (0, 15) else "refusal") for i in range(22)]).assign(
        model="other"
    )
    row = compare(first, second).set_index("metric").loc["asr"]
    assert (row["first"], row["second"], row.n, row.only_first, row.only_second) == (0.5, 0.1, 20, 9, 1)
    assert row.p == pytest.approx(2 * sum(math.comb(10, k) for k in (0, 1)) / 2**10)
    assert row.difference == pytest.approx(-0.4) and row.ci_low < -0.4 < row.ci_high < 0
    with pytest.raises(UserError, match="one query in common"):
        compare(first, second.assign(attack="none"))
    with pytest.raises(UserError, match="different pictures, as '0'"):
        compare(first, second.assign(query="another"))
    with pytest.raises(UserError, match="different pictures"):
        compare(first, second.assign(picture="another"))
    with pytest.raises(UserError, match="different queries"):  # a shot that only one of them has
        compare(first, pd.concat([second, second[:1].assign(shot=2)]))
    same = compare(first, first.assign(model="other")).set_index("metric").loc["asr"]
    assert (same.difference, same.p) == (0, 1) and same.ci_high == -same.ci_low == pytest.approx(wilson(0, 20)[1])
    unread = compare(first, second.assign(outcome="unparsed")).set_index("metric")
    assert unread.second["unparsed"] == 1 and "unparsed" not in set(compare(first, second).metric)
