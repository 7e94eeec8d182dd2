"""What the shipped study lacks is found, and made anew without touching the rest."""

import pandas as pd
import pytest

from tests.studies.test_shipped import made_up
from workbench.files import data_dir
from workbench.studies import making as study
from workbench.studies import provenance, recovery
from workbench.studies import shipped as tables
from workbench.studies.recovery import Attack
from workbench.studies.shipped import Run


def test_a_run_is_stale_if_its_mark_differs(monkeypatch):
    runs = tables.shipped("runs")
    current = runs.assign(fingerprint=[Run(r.base, r.model, r.seed).key for r in runs.itertuples()])
    monkeypatch.setattr(study, "shipped", lambda name: current)
    assert study.stale() == []
    current.loc[3, "fingerprint"] = "other"
    assert study.stale() == [study.planned()[3]]
    monkeypatch.setattr(study, "shipped", lambda name: pd.DataFrame())
    assert study.stale() == study.planned()


def test_a_run_made_anew_replaces_the_old_one_and_nothing_else():
    old = pd.concat([made_up("miniguard", "base", 0), made_up("miniguard", "npo", 1), made_up("gone", "base", 0)])
    new = made_up("miniguard", "npo", 1, outcome="refusal")
    joined = study._joined(old, new)
    assert joined.groupby(["base", "model", "seed"], sort=False).size().to_dict() == {
        ("miniguard", "base", 0): 3,
        ("miniguard", "npo", 1): 3,
    }
    assert set(joined[(joined.model == "npo") & (joined.attack == "none")].outcome) == {"refusal", "irrelevant"}


def test_tables_are_replaced_together_or_not_at_all(tmp_path, monkeypatch):
    """Killed between two files, answers would point at other queries."""
    monkeypatch.setattr(tables, "data_dir", lambda: tmp_path)
    tables.write_tables({"a": pd.DataFrame({"x": [1]}), "b": pd.DataFrame({"x": [1]})})
    tables.write_tables({"b": pd.DataFrame({"x": [2]})})
    assert [tables.shipped(name)["x"][0] for name in "ab"] == [1, 2]
    with pytest.raises(AttributeError):
        tables.write_tables({"a": pd.DataFrame({"x": [3]}), "b": None})
    assert [tables.shipped(name)["x"][0] for name in "ab"] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_effects_made_anew_replace_the_old_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "data_dir", lambda: tmp_path)
    monkeypatch.setattr(study, "_measured", lambda: [("miniguard", 0, "sft"), ("miniguard", 1, "sft")])
    monkeypatch.setattr(study, "fingerprint", lambda base, seed, name: f"today {seed}")
    old = pd.DataFrame({"seed": [1, 0], "log_odds": [1.0, 2.0], "fingerprint": ["today 1", "yesterday"]})
    tables.write_tables({"effects": old})
    assert study.stale_effects() == [("miniguard", 0, "sft")]
    made = pd.DataFrame({"seed": [0], "log_odds": [3.0], "fingerprint": ["today 0"]})
    monkeypatch.setattr(study, "effects", lambda runs, processes: made)
    study.make_effects(study.stale_effects())
    assert tables.shipped("effects").log_odds.tolist() == [3.0, 1.0] and study.stale_effects() == []


def test_stamped_tables_are_not_out_of_date(tmp_path, monkeypatch):
    """Nothing but the marks changes, and the commit is noted."""
    for module in (tables, study, provenance):
        monkeypatch.setattr(module, "data_dir", lambda: tmp_path)
    runs = pd.DataFrame({"base": ["miniguard"], "model": ["base"], "seed": [1], "steps": [0], "fingerprint": ["x"]})
    effects = pd.DataFrame(
        {"base": ["miniguard"], "data": ["graded"], "seed": [0], "log_odds": [1.5], "fingerprint": ["x"]}
    )
    tables.write_tables({"runs": runs, "effects": effects})
    real = pd.read_csv(data_dir() / "sweep.csv")
    real.assign(fingerprint="x").to_csv(tmp_path / "sweep.csv", index=False)
    study.stamp("58dea2a")
    assert Run("miniguard", "base", 1) not in study.stale()
    assert ("miniguard", 0, "sft-graded") not in study.stale_effects()
    assert study.sweep.stale(pd.read_csv(tmp_path / "sweep.csv")) == []
    assert tables.shipped("accepted")["commit"].tolist() == ["58dea2a"]
    assert tables.shipped("runs").drop(columns="fingerprint").equals(runs.drop(columns="fingerprint"))


def test_attacks_made_anew_replace_the_old_ones_and_their_twins(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "data_dir", lambda: tmp_path)
    runs = [Attack("miniguard", model, 0, "retain", lr, 0) for model in ("base", "npo") for lr in (0.1, 0.2)]
    monkeypatch.setattr(recovery, "planned", lambda: runs)
    monkeypatch.setattr(recovery, "fingerprint", lambda run: f"today {run.model} {run.base}")

    def rows(run, model, right, fingerprint):
        own = run._replace(model=model)._asdict() | {"step": 0, "request": "code", "kind": "lock", "right": right}
        return own | {"fingerprint": fingerprint}

    assert study.stale_attacks() == runs
    old = [rows(run, run.model, 1, f"today {run.model} miniguard") for run in runs]
    old += [rows(run, "never-knew", 2, "today base miniguard-never-knew") for run in runs[:2]]
    old[1]["fingerprint"] = "yesterday"
    tables.write_tables({"recovery": pd.DataFrame(old)})
    assert study.stale_attacks() == [runs[1]]
    made = [rows(runs[1], "base", 3, "today base miniguard")]
    made += [rows(runs[1], "never-knew", 4, "today base miniguard-never-knew")]
    monkeypatch.setattr(recovery, "recovery", lambda wanted, twins, processes: pd.DataFrame(made))
    study.make_attacks(study.stale_attacks())
    assert study.stale_attacks() == []
    found = tables.shipped("recovery").set_index(["model", "lr"])["right"].to_dict()
    assert found == {
        ("base", 0.1): 1,
        ("base", 0.2): 3,
        ("never-knew", 0.1): 2,
        ("never-knew", 0.2): 4,
        ("npo", 0.1): 1,
        ("npo", 0.2): 1,
    }
    old[0]["fingerprint"] = "yesterday"
    tables.write_tables({"recovery": pd.DataFrame(old)})
    assert tables.shipped("recovery")["fingerprint"].tolist() != study._stamped_attacks()["fingerprint"].tolist()
    tables.write_tables({"recovery": study._stamped_attacks()})
    assert study.stale_attacks() == []
