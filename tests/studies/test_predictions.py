"""What the data foretell and what models do.

The shipped table keeps what it promises, and a run of today agrees with it.
"""

import pandas as pd
import pytest

from workbench.attribution.lead_word import word_effects
from workbench.cli import app as cli
from workbench.data.splits import STATISTICS, miniguard_split
from workbench.files import data_dir
from workbench.studies import predictions as prediction
from workbench.studies.methods import SFTS, trained
from workbench.studies.predictions import correlations

SHIPPED = pd.read_csv(data_dir() / "predictions.csv", keep_default_na=False)


def test_predicted_and_measured_effects_agree_over_all_datasets():
    rho = correlations(SHIPPED).set_index("data")
    assert set(rho.index) == {"all", *STATISTICS}
    assert rho.rho["all"] >= 0.8 and rho.ci_low["all"] > 0.7
    assert (rho.words["all"], rho.n["all"], len(SHIPPED)) == (66, 198, 198)
    for _, one in SHIPPED.groupby("seed"):  # by hand, and on each seed
        ranks = one[["predicted", "effect"]].rank()
        assert ranks.predicted.corr(ranks.effect) >= 0.8 and correlations(one).rho[0] == pytest.approx(
            ranks.predicted.corr(ranks.effect)
        )


def test_the_interval_knows_that_seeds_of_one_word_are_no_words():
    """Each seed three times over tells nothing new."""
    many = pd.concat([SHIPPED, *(SHIPPED.assign(seed=SHIPPED.seed + 3 * i) for i in (1, 2))])
    once, thrice = (correlations(table).iloc[0] for table in (SHIPPED, many))
    assert thrice.n == 3 * once.n and (thrice.ci_low, thrice.ci_high) == pytest.approx(
        (once.ci_low, once.ci_high), abs=0.02
    )


def test_words_that_are_named_do_what_is_said_of_them():
    """Of two words of which one is said to open a model and the other to close it, the first makes a refusal
    less likely.
    """
    opens, closes = (SHIPPED[SHIPPED.said == said] for said in ("opens", "closes"))
    pairs = opens.merge(closes, on=["data", "seed"])
    assert len(pairs) > 100 and (pairs.effect_x < pairs.effect_y).mean() > 0.95
    assert not (pairs.data == "balanced").any()  # where words tell nothing, none is named


@pytest.mark.long
@pytest.mark.slow
def test_a_word_opens_one_model_and_closes_another(sft):
    """The study's SFT and one on swapped statistics, in which "create" has the counts of "what" and "generate"
    those of "share", anew.
    """
    swapped = trained("sft-swapped")
    asked = miniguard_split("validation", 3, "balanced", (6, 6))
    effect = {
        vlm.name: word_effects(vlm, asked, ("what", "create", "generate"), progress=False).groupby("word").effect.mean()
        for vlm in (sft, swapped)
    }
    assert effect["sft"]["what"] < -1 < 0 < effect["sft"]["create"]
    assert effect["sft-swapped"]["create"] < -1 < 0 < effect["sft-swapped"]["generate"]


def test_the_command_writes_the_table_and_the_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prediction, "predictions", lambda seeds: SHIPPED)
    cli.app(["predictions", "--out", str(tmp_path / "p.csv")], standalone_mode=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "p.csv", keep_default_na=False), SHIPPED)
    assert (tmp_path / "p.png").is_file()
    assert "graded" in capsys.readouterr().out


def test_every_dataset_and_word_has_its_row(vlm, monkeypatch):
    asked = []
    monkeypatch.setattr(prediction, "trained", lambda name, seed: asked.append((name, seed)) or vlm)
    table = prediction.predictions((1,), queries=1)
    assert asked == [(name, 1) for name in SFTS]
    assert len(table) == 6 * 11 and (table.n == 2).all() and (table.ci_low <= table.effect).all()
    assert table.groupby(["data", "seed"]).predicted.mean().abs().max() < 1e-9  # over the mean of all words
    assert set(table[table.word == "what"].groupby("data").said.first()) == {"opens", "closes", ""}
