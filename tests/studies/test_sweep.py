"""Hyper-parameters chosen on validation.

Every combination once, kept, and the shipped table holds what the study uses.
"""

import pandas as pd
import pytest

from workbench.errors import UserError
from workbench.files import data_dir
from workbench.studies import methods, sweep
from workbench.studies.methods import METHODS
from workbench.training import objectives


@pytest.mark.slow
def test_every_combination_is_measured_once_and_kept(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    monkeypatch.setattr(methods, "HEADLINE", ("none", "share:1"))
    with caplog.at_level("INFO", logger="workbench"):
        table = sweep.sweep("rmu-repaired", {"steps": [1, 2], "c": [3.0]})
    assert list(table.settings) == [f"lr=0.002 steps={n} forget=16 retain=16 layer=2 c=3 alpha=10" for n in (1, 2)]
    assert list(table.columns) == [
        "method",
        "seed",
        "settings",
        "asr",
        "irrelevant",
        "degenerate",
        "rr",
        "utility",
        "score",
    ]
    assert (table.asr > 90).all() and (table.utility > 90).all()  # in two steps nothing is unlearned
    assert sum(message.startswith("rmu-repaired, seed 0") for message in caplog.messages) == 2
    monkeypatch.setattr(sweep, "train_method", None)  # what is kept is not trained again
    assert sweep.sweep("rmu-repaired", {"steps": [1, 2], "c": [3.0]}).equals(table)


def test_the_worst_is_over_all_attacks():
    rows = [("none", "harmful", m, 0.1) for m in ("asr", "irrelevant", "degenerate")] + [
        ("what:3", "harmful", "asr", 0.4)
    ]
    rows += [
        ("none", "harmless", "utility", 0.9),
        ("share:1", "harmless", "utility", 0.6),
        ("share:1", "harmless", "rr", 0.3),
    ]
    found = sweep.worst(pd.DataFrame(rows, columns=["attack", "queries", "metric", "value"]))
    assert {name: round(value) for name, value in found.items()} == {
        **{"asr": 40, "irrelevant": 10, "degenerate": 10, "rr": 30, "utility": 60, "score": -10}
    }


def test_the_shipped_sweep_holds_the_recipes_on_repaired_data():
    table = pd.read_csv(data_dir() / "sweep.csv")
    for name, method in METHODS.items():
        if method.data != "repaired":
            continue
        objective = objectives.named(method.objective)
        recipe = (
            {n: getattr(objective, n) for n in ("lr", "steps", "forget", "retain")}
            | objective.hyper
            | dict(method.settings)
        )
        text = " ".join(f"{n}={v:g}" for n, v in recipe.items())
        row = table[(table.method == name) & (table.seed == 0) & (table.settings == text)]
        assert len(row) == 1, (name, text)
        assert row.score.item() >= table[(table.method == name) & (table.seed == 0)].score.max() - 1


def test_mistakes():
    with pytest.raises(UserError, match="no method 'x' to sweep"):
        sweep.sweep("x", {})
    with pytest.raises(
        UserError, match="rmu has no setting beta to vary; it has lr, steps, forget, retain, layer, c, alpha"
    ):
        sweep.sweep("rmu", {"beta": [1.0]})
