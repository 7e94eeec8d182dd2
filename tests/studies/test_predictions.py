"""What the data foretell and what models do: the shipped effects keep what is said of them."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from workbench.cli import app as cli
from workbench.data.first_words import audit
from workbench.data.splits import STATISTICS, miniguard_split
from workbench.studies import predictions as study
from workbench.studies.methods import BASES, SFTS
from workbench.studies.predictions import correlations, predictions
from workbench.studies.shipped import SEEDS, shipped


@pytest.fixture(scope="module")
def table():
    """What the shipped effects give."""
    return predictions(shipped("effects"))


def test_predicted_and_measured_effects_agree(table):
    rho = correlations(table).set_index("data")
    assert set(rho.index) == {"all", *STATISTICS}
    pairs = len(STATISTICS) * 11 * len(BASES) * len(SEEDS)
    assert (rho.datasets["all"], rho.words["all"], rho.n["all"], len(table)) == (6, 11, pairs, pairs)
    assert rho.rho["all"] == pytest.approx(spearmanr(table.predicted, table.effect).statistic)
    assert rho.rho["all"] >= 0.6 and rho.ci_low["all"] > 0.3
    for _, one in table.groupby("base"):  # on each base
        assert spearmanr(one.predicted, one.effect).statistic >= 0.5


def test_a_word_that_predicts_harm_raises_refusal():
    """The sign: by hand, from the data's own counts and the shipped log-odds of refusal."""
    effects = shipped("effects").query("base == 'miniguard' and data == 'vlguard' and seed == 0")
    mean = effects.groupby("word").log_odds.mean()
    harm = audit(miniguard_split("train", 0)).set_index("word").p_harmful
    assert mean["share"] > mean["what"] + 1 and harm["share"] > harm["what"]
    made = predictions(effects).set_index("word")
    assert made.predicted["share"] > 0 > made.predicted["what"]
    assert made.effect["share"] > made.effect["what"]


def test_effects_are_measured_on_validation_queries_not_on_training():
    effects = shipped("effects")
    for seed in SEEDS:
        asked = {e.digest for e in miniguard_split("validation", seed, "balanced", (study.QUERIES, study.QUERIES))}
        assert set(effects[effects.seed == seed].picture) == asked


def test_the_interval_knows_that_seeds_of_one_word_are_no_words(table):
    """Each seed three times over tells nothing new."""
    many = pd.concat([table, *(table.assign(seed=table.seed + 3 * i) for i in (1, 2))])
    once, thrice = (correlations(t).iloc[0] for t in (table, many))
    assert thrice.n == 3 * once.n
    assert (thrice.ci_low, thrice.ci_high) == pytest.approx((once.ci_low, once.ci_high), abs=0.02)


def test_words_that_are_named_do_what_is_said_of_them(table):
    """Of two words of which one is said to open a model and the other to close it, the first makes a refusal
    less likely.
    """
    opens, closes = (table[table.said == said] for said in ("opens", "closes"))
    pairs = opens.merge(closes, on=["base", "data", "seed"])
    assert len(pairs) > 100 and (pairs.effect_x < pairs.effect_y).mean() > 0.85
    assert not (pairs.data == "balanced").any()  # where words tell nothing, none is named


def test_an_effect_is_compared_with_all_words_on_the_same_query():
    effects = pd.DataFrame(
        [("what", "a", 1.0), ("can", "a", 3.0), ("what", "b", 10.0), ("can", "b", 14.0)],
        columns=["word", "picture", "log_odds"],
    ).assign(base="miniguard", data="balanced", seed=0, queries="harmful", fingerprint="")
    made = predictions(effects).set_index("word")
    assert made.effect.to_dict() == {"what": -1.5, "can": 1.5}
    assert (made.ci_low["can"], made.ci_high["can"]) == (1.0, 2.0)


@pytest.mark.slow
def test_every_dataset_and_word_is_measured_and_kept(vlm, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    monkeypatch.setattr(study, "QUERIES", 1)
    asked = []
    monkeypatch.setattr(study, "trained", lambda name, seed, base: asked.append((name, seed, base)) or vlm)
    runs = [("miniguard", 1, name) for name in SFTS]
    effects = study.effects(runs)
    assert asked == [(f"{name}-early", 1, "miniguard") for name in SFTS]
    assert len(effects) == 6 * 11 * 2 and list(effects) == study.EFFECTS
    assert study.effects(runs).equals(effects) and len(asked) == 6
    assert np.isfinite(effects.log_odds).all()
    assert set(effects.picture) == {e.digest for e in miniguard_split("validation", 1, "balanced", (1, 1))}


def test_the_command_writes_the_table_and_the_figure(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "effects", lambda runs, processes: shipped("effects"))
    cli.app(["predictions", "--out", str(tmp_path / "p.csv")], standalone_mode=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "p.csv", keep_default_na=False), table)
    assert (tmp_path / "p.png").is_file()
    assert "graded" in capsys.readouterr().out
