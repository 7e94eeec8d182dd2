"""Shipped tables that today's code would not make are found: what is out of date, and what was made up."""

import warnings

import pandas as pd
import pytest

from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.runs import runs_dir
from workbench.studies import provenance as study
from workbench.studies import shipped as tables
from workbench.studies.headline import COMPARED
from workbench.studies.methods import BASES, PARTS
from workbench.studies.provenance import Piece

BASE = Piece("run", "miniguard", "base", 0)


def test_stale_tables_are_listed():
    """A warning in the tests' summary; `make release-check` refuses them."""
    if late := study.out_of_date():
        warnings.warn(
            f"{len(late)} pieces of the shipped tables are out of date, e.g. {late[0]}; run `make tables`.",
            stacklevel=1,
        )


@pytest.fixture
def check_of(monkeypatch, tmp_path):
    """`check`'s table where the shipped rates of one run are others, by so much, or were made on another CPU."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    answers = tables.shipped_answers(["miniguard"], [0], ["base"])
    known = tables.rates_of(answers)
    secrets = tables.shipped("secrets").query("base == 'miniguard' and model == 'base' and seed == 0")
    made_in = []

    def checked(change=0.0, cpu="", results=known):
        monkeypatch.setattr(study, "make_run", lambda *run: made_in.append(runs_dir()))
        monkeypatch.setattr(study, "answers_file", lambda *run: run[-1])
        monkeypatch.setattr(study, "secrets_file", lambda *run: tmp_path / "secrets.csv")
        secrets.to_csv(tmp_path / "secrets.csv", index=False)
        parts = {PARTS[0]: answers, PARTS[1]: answers.iloc[:0]}
        monkeypatch.setattr(study, "whole_answers", lambda part: parts[part][ANSWER_COLUMNS])
        changed = {
            "results": results.assign(value=(results.value + change).clip(0, 1)),
            "runs": pd.DataFrame({"base": ["miniguard"], "model": ["base"], "seed": [0], "cpu": [cpu or study.cpu()]}),
            "secrets": secrets,
            "curves": tables.shipped("curves"),
        }
        monkeypatch.setattr(study, "shipped", changed.get)
        return study.check([BASE], "58dea2a")

    checked.made_in, checked.known, checked.folder = made_in, known, tmp_path
    return checked


@pytest.mark.slow
def test_a_check_finds_rates_that_differ(check_of):
    """On the same processor any difference counts, on another only one that is larger than its last bits explain."""
    assert check_of().same.all() and not check_of(0.02).same.all()
    assert check_of(0.02, "another").same.all()
    assert not check_of(0.2, "another").same.all()
    assert set(check_of.made_in) == {check_of.folder / "check-58dea2a"}  # nothing that is kept elsewhere counts


@pytest.mark.slow
def test_a_check_finds_rows_that_only_one_side_has(check_of):
    made_up_row = check_of.known.iloc[[0]].assign(attack="sing:1")
    found = check_of(results=pd.concat([check_of.known.iloc[1:], made_up_row]))
    assert (~found.same).sum() == 2 and found.number.str.contains("sing:1").sum() == 1


@pytest.mark.slow
def test_a_check_finds_made_up_secrets(check_of, monkeypatch):
    check_of()
    secrets = study.shipped("secrets")
    known = {name: study.shipped(name) for name in ("results", "runs", "curves")} | {"secrets": secrets.assign(rank=16)}
    monkeypatch.setattr(study, "shipped", known.get)
    found = study.check([BASE], "58dea2a")
    assert set(found[~found.same].number) == {"secrets first", "secrets last"}


def test_pieces_are_drawn_by_the_commit():
    one = study.drawn("58dea2a", 3)
    assert one == study.drawn("58dea2a", 3) and len(set(one)) == 3
    draws = {piece for commit in range(60) for piece in study.drawn(str(commit), 2)}
    assert len(draws) > 80 and {piece.kind for piece in draws} == {"run", "effects", "sweep"}
    with pytest.raises(UserError, match="no commit"):
        study.drawn("")


@pytest.mark.slow
def test_a_row_of_the_sweep_is_made_anew_and_compared(monkeypatch, tmp_path):
    """Settings are read from their text; two steps stand for all of them."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    table = study.sweep.sweep(["sft"], {"steps": [2], "lr": [1e-3]})
    monkeypatch.setattr(study, "data_dir", lambda: tmp_path)
    table.to_csv(tmp_path / "sweep.csv", index=False)
    piece = Piece("sweep", "miniguard", "sft", 0, table.settings[0])
    assert study.check([piece], "58dea2a").same.all()
    table.assign(asr=table.asr - 1).to_csv(tmp_path / "sweep.csv", index=False)
    assert study.check([piece], "58dea2a").query("not same").number.tolist() == ["asr"]


@pytest.mark.parametrize("same", [True, False])
def test_only_code_that_makes_every_method_again_is_accepted(monkeypatch, same):
    stamped, asked = [], []
    monkeypatch.setattr(study, "stamp", stamped.append)
    monkeypatch.setattr(study, "cpu", lambda: tables.shipped("runs").cpu.iloc[0])

    def check(some, commit, processes):
        asked.extend(some)
        return pd.DataFrame({"same": [True, same]})

    monkeypatch.setattr(study, "check", check)
    study.accept("58dea2a")
    assert stamped == (["58dea2a"] if same else [])
    runs = [piece for piece in asked if piece.kind == "run"]
    assert {piece.name for piece in runs} == {"base", *COMPARED}
    assert len({piece.base for piece in runs if piece.name != "base"}) == 1  # drawn by the commit
    assert {piece.base for piece in runs if piece.name == "base"} == {*BASES, *tables.TWINS}  # whose files may change
    assert {piece.kind for piece in asked} == {"run", "effects", "sweep"}


def test_on_another_processor_nothing_is_accepted(monkeypatch):
    monkeypatch.setattr(study, "cpu", lambda: "another")
    with pytest.raises(UserError, match="made on another processor"):
        study.accept("58dea2a")
    with pytest.raises(UserError, match="no commit"):
        study.accept("")
