"""Hyper-parameters chosen on validation.

Every combination once, kept; one rule for all; and the shipped table holds what the study uses.
"""

import pandas as pd
import pytest

from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.files import data_dir
from workbench.studies import sweep
from workbench.studies.methods import CONTROL, TRAINED
from workbench.training.settings import Settings


def shipped():
    return pd.read_csv(data_dir() / "sweep.csv")


@pytest.mark.slow
def test_every_combination_is_measured_once_and_kept(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    grid = {"steps": [1, 2], "lr": [2e-3], "c": [3.0]}
    with caplog.at_level("INFO", logger="workbench"):
        table = sweep.sweep(["rmu-repaired"], grid)
    assert list(table.settings) == [f"lr=0.002 steps={n} forget=16 retain=16 layer=2 c=3 alpha=10" for n in (1, 2)]
    assert (table.utility > 90).all() and (table.asr > 50).all()  # in two steps nothing is unlearned
    assert sum(message.startswith("rmu-repaired, seed 0") for message in caplog.messages) == 2
    monkeypatch.setattr(sweep, "train_method", None)  # what is kept is not trained again
    assert sweep.sweep(["rmu-repaired"], grid).equals(table)
    cells = [("miniguard", "rmu-repaired", 0, {"steps": n, "lr": 2e-3, "c": 3.0}) for n in (1, 2)]
    monkeypatch.setattr(sweep, "planned", lambda: cells)
    assert sweep.stale(table) == [] and sweep.stale(table.assign(fingerprint="x")) == cells
    older = table.assign(fingerprint=["gone", table.fingerprint[1]])
    assert sweep.stale(older) == cells[:1]
    assert sweep.make(older, cells[:1]).equals(table)  # what is out of date is replaced, the rest stays in its place
    answers = pd.read_csv(next(tmp_path.glob("sweep-*/answers.csv")))
    assert set(answers.id) == {e.id for e in miniguard_split("validation")}  # never the test


def test_what_decides_is_measured_as_asked():
    rows = [("none", "harmful", "asr", 0.1), ("none", "harmless", "rr", 0.2), ("none", "harmless", "utility", 0.9)]
    rows += [("what:3", "harmful", "asr", 0.4), ("share:1", "harmless", "rr", 0.3)]
    rows += [("share:1", "harmless", "utility", 0.6)]
    found = sweep.measured(pd.DataFrame(rows, columns=["attack", "queries", "metric", "value"]))
    assert {name: round(value) for name, value in found.items()} == {
        **{"asr": 10, "rr": 20, "utility": 90, "score": 60},
        **{"asr_attacked": 40, "rr_attacked": 30, "utility_attacked": 60, "score_attacked": -10},
    }


def test_sft_and_its_control_share_a_recipe():
    """Each alone would choose another."""
    scores = {"sft": (90, 60, 10), CONTROL: (10, 60, 90), "npo": (1, 2, 3)}
    rows = [
        (method, name, value) for method, values in scores.items() for name, value in zip("abc", values, strict=True)
    ]
    chosen = sweep.choose(pd.DataFrame(rows, columns=["method", "settings", "score"]))
    assert chosen == {"sft": "b", CONTROL: "b", "npo": "c"}


def test_every_recipe_of_the_study_is_the_choice_by_the_rule():
    """The whole grid was tried for every method, at one batch size, and the recipes are what it says."""
    table = shipped()
    assert set(table.method) == set(sweep.SWEPT)
    chosen = sweep.choose(table)
    for name, rows in table.groupby("method"):
        assert len(rows) == len(sweep.GRID["lr"]) * len(sweep.GRID["steps"])
        assert rows.settings.str.contains("forget=16 retain=16").all()
        method = TRAINED[name]
        recipe = Settings.of(method.objective, **method.settings)
        used = {key: getattr(recipe, key) for key in sweep.SETTINGS} | recipe.hyper
        assert " ".join(f"{key}={value:g}" for key, value in used.items()) == chosen[name], name


def test_mistakes():
    with pytest.raises(UserError, match="no method 'x' to sweep"):
        sweep.sweep(["x"], {})
    with pytest.raises(
        UserError, match="rmu has no setting beta to vary; it has lr, steps, forget, retain, layer, c, alpha"
    ):
        sweep.sweep(["rmu"], {"beta": [1.0]})
    for value in (0, -5, float("inf"), float("nan")):
        with pytest.raises(UserError, match=r"steps=.+: steps must be a whole number above 0"):
            sweep.sweep(["npo"], {"steps": [value]})
    with pytest.raises(UserError, match=r"steps=2\.5: steps must be a whole number"):
        sweep.sweep(["rmu"], {"steps": [2.5]})
