"""The paper's figures compared with ours.

The right cell with the right one, differences as statsmodels has them.
"""

import pandas as pd
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.tables import FIGURES, rates
from workbench.studies import paper


def answers(model, attack, queries, outcomes, shots=1):
    rows = []
    for number, outcome in enumerate(outcomes):
        for shot in range(1, shots + 1):
            of_shot = outcome if shot == shots else "refusal"
            name = f"{queries}{number}"
            rows.append((name, model, attack, shot, queries, "q", "a", of_shot, f"picture of {name}", 1, 0))
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS)


@pytest.fixture(scope="module")
def asked():
    """SFT answers 1 of 20 harmful queries, 11 on the third rewrite.

    It refuses 2 of 10 harmless ones, and then 9.
    """
    return pd.concat(
        [
            answers("sft", "none", "harmful", ["relevant"] + ["refusal"] * 19),
            answers("sft", "what:3", "harmful", ["relevant"] * 11 + ["refusal"] * 9, shots=3),
            answers("sft", "none", "harmless", ["refusal"] * 2 + ["relevant"] * 8),
            answers("sft", "share:1", "harmless", ["refusal"] * 9 + ["relevant"]),
        ]
    )


def test_table_1(asked):
    table = paper.table_1(rates(asked)).set_index("figure")
    assert table.here.to_dict() == pytest.approx(
        {"asr": 5.0, "asr_what3": 55.0, "rr": 20.0, "rr_share1": 90.0, "utility": 80.0}
    )
    assert table.paper.iloc[:4].tolist() == [0.23, 54.98, 4.48, 91.76]
    assert pd.isna(table.paper.utility)  # VQAv2 accuracy is something else
    assert table.n.tolist() == [20, 20, 10, 10, 10]
    # 243 of 442 is the paper's 54.98%
    low, high = confint_proportions_2indep(11, 20, 243, 442, method="newcomb", correction=False)
    row = table.loc["asr_what3"]
    assert (row.diff_low, row.difference, row.diff_high) == pytest.approx((100 * low, 0.02, 100 * high), abs=0.02)


def test_utility_on_vqa_is_compared_with_the_papers(asked):
    accuracy = pd.DataFrame(
        [("sft", "all", 0.75, 0.7, 0.8, 300)], columns=["model", "answers", "accuracy", "ci_low", "ci_high", "n"]
    )
    row = paper.table_1(rates(asked), accuracy).iloc[-1]
    assert (row.figure, row.here, row.n, row.paper) == ("VQA accuracy", 75.0, 300, 78.23)
    assert (row.difference, row.diff_low, row.diff_high) == pytest.approx((-3.23, -8.23, 1.77))


def test_table_2_counts_one_rewrite(asked):
    more = pd.concat([asked, answers("own", "what:3", "harmful", ["relevant", "irrelevant", "degenerate", "refusal"])])
    table = paper.table_2(more).set_index(["model", "figure"])
    # SFT's leaks come with the third rewrite
    assert table.here["sft"].to_dict() == {"asr": 0.0, "irrelevant": 0.0, "refusal": 100.0}
    assert table.here["own"].to_dict() == {"asr": 25.0, "irrelevant": 50.0, "refusal": 25.0}
    assert table.paper["sft"].to_dict() == {"asr": 24.66, "irrelevant": 5.20, "refusal": 70.14}
    assert table.paper["own"].isna().all()


def test_the_papers_n_goes_with_its_figures():
    """The original model's and Mixed SFT's are whole numbers of VLGuard's 442 unsafe and 558 safe test
    queries.
    """
    table = paper.paper_table().set_index("model")
    for model in ("base", "sft"):
        for figure, (_, queries, metric) in FIGURES.items():
            if metric == "utility":
                continue
            count = table.at[model, figure] * paper.N[queries] / 100
            assert count == pytest.approx(round(count), abs=0.03)


def test_a_table_as_text(asked):
    text = paper.as_text(paper.table_1(rates(asked)))
    row = text.iloc[0]
    assert row.here == "5.0 [0.9, 23.6]" and row.paper == "0.2" and row.difference.startswith("4.8 [")
    assert text.iloc[-1].paper == text.iloc[-1].difference == ""
