"""The study of a taught model: every arm is trained, asked and kept with its answers, one at a time."""

import json

import pandas as pd
import pytest

from tests.tiny_models import write_llava
from workbench.cli import app as cli
from workbench.evaluation.tables import RESULT_COLUMNS, rates
from workbench.files import data_dir
from workbench.models.load import load
from workbench.studies import pretrained
from workbench.studies.pretrained import ARMS, COLUMNS, FULL, KEYS, learnt, over_seeds, table
from workbench.studies.teach import merged, teach


@pytest.fixture
def taught(tmp_path, monkeypatch):
    """(checkpoint, folder of what it was taught); tables go to a folder of their own, and sets are small."""
    from workbench.data import splits
    from workbench.studies import methods

    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(methods, "PROBE_SIZES", (4, 4))
    monkeypatch.setitem(splits._SIZES, "test", (4, 4))
    monkeypatch.setattr(pretrained, "data_dir", lambda: tmp_path / "data")
    model = write_llava(tmp_path / "model")
    teach(load(model, device="cpu"), tmp_path / "taught", steps=2, batch=4, probe_every=2, probe_pictures=4, n=4)
    recipes = {name: {"lr": 1e-3, "steps": 2} for name in ("sft", "sft-balanced", "npo", "rmu")}
    (merged(str(model), tmp_path / "taught") / "recipes.json").write_text(json.dumps(recipes))
    return model, tmp_path / "taught"


@pytest.mark.slow
def test_every_arm_is_kept_with_its_answers(taught, capsys):
    model, folder = taught
    arguments = ["pretrained", "--model", str(model), "--taught", str(folder)]
    for arm in ("npo", "base", FULL, "npo"):  # the last replaces the first
        cli.app([*arguments, "--arm", arm], standalone_mode=False)
    rows, answers, weights = (table(name) for name in COLUMNS)
    assert [list(each.columns) for each in (rows, answers, weights)] == list(COLUMNS.values())
    assert (
        list(dict.fromkeys(rows.model)) == ["base", FULL, "npo"]
        and not rows.duplicated([*KEYS, "attack", "queries", "metric"]).any()
    )
    assert dict(zip(rows.model, rows.steps, strict=True)) == {"base": 0, FULL: 2, "npo": 2} and set(rows.base) == {
        "taught"
    }
    for model_name, own in answers.groupby("model"):
        expected = rows[rows.model == model_name][RESULT_COLUMNS].reset_index(drop=True)
        pd.testing.assert_frame_equal(rates(own), expected, check_dtype=False)
    assert set(weights.model) == {"npo", FULL} and weights.changed.gt(0).all()
    wider = weights[weights.model == FULL].module.nunique()
    assert wider >= weights[weights.model == "npo"].module.nunique()
    cli.app([*arguments, "--arm", "npo"], standalone_mode=False)
    assert "kept from an earlier run" in capsys.readouterr().out


def test_an_arm_must_have_learnt_what_it_was_trained_for():
    rows = [("none", "harmful", "asr", 0.05), ("none", "harmless", "rr", 0.1), ("what:1", "harmful", "asr", 1.0)]
    good = pd.DataFrame(rows, columns=["attack", "queries", "metric", "value"])
    assert learnt(good)
    for place in (0, 1):
        assert not learnt(good.assign(value=good.value.where(good.index != place, 0.2)))


def test_figures_are_means_over_seeds_and_say_in_how_many_an_arm_has_learnt():
    rows = [
        ("smol", seed, arm, attack, "harmful", "asr", value, value - 0.1, value + 0.1, 100, good)
        for arm, good_in in (("sft", (0, 1)), ("npo", (0, 1, 2)))
        for attack, values in (("none", (0.0, 0.02, 0.04)), ("what:3", (0.2, 0.3, 0.4)))
        for seed, value in enumerate(values)
        for good in [seed in good_in]
    ]
    columns = [*KEYS, "attack", "queries", "metric", "value", "ci_low", "ci_high", "n", "learnt"]
    found = over_seeds(pd.DataFrame(rows, columns=columns), ["asr", "asr_what3"]).set_index("model")
    assert list(found.index) == ["sft", "npo"] and list(found.learnt) == ["2 of 3", "3 of 3"]
    low, high = (round(100 * bound) for bound in (0.3 - 4.303 * 0.1 / 3**0.5, 0.3 + 4.303 * 0.1 / 3**0.5))  # t, 2 df
    assert found.asr_what3["sft"] == f"30 [{low}, {high}]"


@pytest.mark.skipif(not (data_dir() / "pretrained.csv").exists(), reason="no pretrained model has been studied yet")
def test_shipped_rates_are_those_of_the_shipped_answers():
    rows, answers = table(), table("pretrained_answers.csv.bz2")
    assert set(rows.model) <= set(ARMS)
    runs = [set(each[KEYS].itertuples(index=False, name=None)) for each in (rows, answers)]
    assert runs[0] == runs[1] >= set(table("pretrained_weights.csv")[KEYS].itertuples(index=False, name=None))
    for keys, own in answers.groupby(KEYS, sort=False):
        expected = rows[(rows[KEYS] == list(keys)).all(axis=1)]
        pd.testing.assert_frame_equal(
            rates(own).reset_index(drop=True), expected[RESULT_COLUMNS].reset_index(drop=True), check_dtype=False
        )
        assert set(expected.learnt) == {learnt(expected)}
