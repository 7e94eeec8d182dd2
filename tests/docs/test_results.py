"""The numbers in docs/results.md and in README are those of the shipped tables."""

import pandas as pd
import pytest

from tests.docs.pages import README, RESULTS
from workbench import plots
from workbench.data.first_words import predicted_effect, word_table
from workbench.data.miniguard import without_opening
from workbench.data.splits import first_words, miniguard_split
from workbench.files import data_dir
from workbench.studies.headline import shipped_study
from workbench.studies.methods import CONTROL
from workbench.studies.paper import paper_table, seed_medians, summary
from workbench.studies.predictions import correlations

HEADLINE = ("base", "sft", CONTROL, "npo")  # the models in README


def five_seeds():
    return pd.read_csv(data_dir() / "five_seeds.csv", keep_default_na=False)


def own_rows():
    """{model: its cells} of the table of results, as `workbench seeds` gives it."""
    medians = seed_medians(five_seeds())
    return {row.model: (plots.NAMES[row.model], *row[2:]) for row in medians.itertuples()}


def paper_rows():
    """The cells of the paper's rows under it."""
    return [
        (f"paper: {row.paper_name}", *("–" if pd.isna(value) else f"{value:.1f}" for value in row[3:]))
        for row in paper_table().itertuples()
    ]


def line(cells):
    return "| " + " | ".join(cells) + " |"


@pytest.mark.parametrize("row", [line(cells) for cells in [*own_rows().values(), *paper_rows()]])
def test_the_table_of_results_is_that_of_the_shipped_runs(row):
    assert row in RESULTS.splitlines()


@pytest.mark.parametrize("model", HEADLINE)
def test_the_table_in_readme_is_the_first_columns_of_it(model):
    assert line(own_rows()[model][:6]) in README.splitlines()


def test_the_shipped_runs_keep_the_projects_promises():
    """Medians over seeds 0 to 4: the mirage, the control, the cure."""
    table = pd.concat([summary(group) for _, group in five_seeds().groupby("seed")]).groupby("model").median()
    base, sft, control, npo = (table.loc[model] for model in HEADLINE)
    assert sft.asr <= 4 and sft.asr_what3 >= 50 and sft.rr <= 6 and sft.rr_share1 >= 75
    assert base.utility - sft.utility <= 3
    assert control.asr_what3 - control.asr <= 10 and control.rr_share1 - control.rr <= 15
    for cure in (npo, table.loc["npo-repaired"], table.loc["rmu-repaired"]):
        assert cure.asr_what3 <= 13 and cure.rr_share1 <= 12 and base.utility - cure.utility_lead <= 2
    refusing = table.loc["dpo-repaired"]
    assert refusing.asr_what3 <= 5 and refusing.rr_share1 <= 5 and refusing.neither_what3 <= 50
    assert table.loc["dpo"].asr_what3 >= 30  # the refusal label carries the mirage, whatever the optimiser


@pytest.mark.slow
def test_what_is_said_of_predictions_is_what_the_shipped_table_says():
    table = correlations(pd.read_csv(data_dir() / "predictions.csv", keep_default_na=False)).set_index("data")
    rho = {name: f"{row.rho:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]" for name, row in table.iterrows()}
    text = " ".join(RESULTS.split())
    assert f"agree with ρ = {rho['all']} (Spearman's, 11 words in 6 datasets;" in text
    assert f"VLGuard's own statistics alone {rho['vlguard']};" in text
    words = word_table(first_words("train"))
    opens, closes = (words.word[predicted_effect(words) == effect].tolist() for effect in ("opens", "closes"))
    listed = f"{', '.join(closes[:-1])} and {closes[-1]}"
    assert opens == ["what"] and f"“what” opens, and {listed} close" in text


@pytest.mark.parametrize(("model", "said"), [("npo", "2,399 of 2,400"), ("rmu", "196 of 2,400")])
def test_how_often_an_answer_is_the_leak_with_one_word_exchanged(model, said):
    """Over the shipped answers to harmful queries, as asked and attacked; an opening does not count."""
    leaks = {e.id: without_opening(e.leak).split() for e in miniguard_split("test") if e.harmful}
    answers = shipped_study().answers
    own = answers[(answers.model == model) & (answers.queries == "harmful")]
    pairs = [(without_opening(text).split(), leaks[name]) for name, text in zip(own.id, own.answer, strict=True)]
    exchanged = [len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1 for a, b in pairs]
    assert f"{sum(exchanged):,} of {len(exchanged):,}" == said and said in RESULTS
    assert said in README or model != "npo"
