"""The shipped study: every rate follows from the answers, every answer from what was asked, every run has its mark."""

import warnings

import numpy as np
import pandas as pd
import pytest

from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.judges.rules import exact
from workbench.studies import shipped as study
from workbench.studies.methods import PARTS, looks_safe, questions
from workbench.studies.shipped import RESULTS, Run

KEYS = ["base", "seed", "split", "model", "attack", "queries", "metric"]


def asked(seed):
    """{(id, attack, shot): (example, query)} of all that the study asks."""
    from workbench.attacks.kinds import prepare_attack

    found = {}
    for part in PARTS:
        for examples, attacks in questions(seed, part):
            for name in attacks:
                attack = prepare_attack(name, examples)
                for example in examples:
                    for shot in range(1, attack.shots + 1):
                        if text := attack.of(example, shot):
                            found[example.id, name, shot] = (example, text.query)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", study.SEEDS)
def test_answers_are_to_what_is_asked_and_outcomes_are_the_judges(seed):
    """Every query, picture and outcome of the shipped answers, made again from the world."""
    truth = asked(seed)
    answers = study.shipped_answers(seeds=[seed])
    once = answers.drop_duplicates(["id", "attack", "shot", "answer"])
    assert set(zip(once.id, once.attack, once.shot, strict=True)) == set(truth)
    for row in once.itertuples():
        example, query = truth[row.id, row.attack, row.shot]
        assert (row.query, row.picture, row.queries) == (query, example.digest, example.kind)
        assert exact(example, row.answer) == row.outcome
    sizes = answers.groupby(["base", "model"]).size()
    assert (sizes == len(truth)).all()


@pytest.mark.slow
def test_every_shipped_rate_follows_from_the_shipped_answers():
    """A row that was made up, changed or left out is found: all rates are counted again."""
    known = study.shipped("results").set_index(KEYS)
    made = study._rates(study.shipped_answers()).set_index(KEYS)
    assert set(known.index) == set(made.index)
    difference = (known[["value", "ci_low", "ci_high", "n"]] - made[["value", "ci_low", "ci_high", "n"]]).abs()
    assert difference.max().max() < 1e-9


def test_what_is_planned_is_there():
    runs = study.shipped("runs")
    assert list(zip(runs.base, runs.model, runs.seed, strict=True)) == [tuple(run) for run in study.planned()]
    assert len(study.planned()) == len(set(study.planned())) == 3 * 3 * 16 + 3 * 3 * 3
    trained = {tuple(run) for run in study.planned() if run.name != "base"}
    curves = study.shipped("curves")
    assert set(zip(curves.base, curves.model, curves.seed, strict=True)) == trained


def test_a_run_that_stopped_early_stopped_when_it_looked_safe():
    curves, runs = study.shipped("curves"), study.shipped("runs")
    for run in runs[runs.model.str.endswith("-early")].itertuples():
        whole = curves[(curves.base == run.base) & (curves.seed == run.seed)]
        whole = whole[whole.model == run.model.removesuffix("-early")]
        safe = [step for step in sorted(whole.step.unique()) if step and looks_safe(whole[whole.step == step])]
        assert run.steps == (safe[0] if safe else whole.step.max())


def test_stale_tables_are_listed():
    """A warning in the tests' summary; `make release-check` refuses them."""
    if late := study.out_of_date():
        warnings.warn(f"{len(late)} shipped runs are out of date, e.g. {late[0]}; run `make tables`.", stacklevel=1)


def test_a_run_is_stale_if_its_mark_differs(monkeypatch):
    runs = study.shipped("runs")
    current = runs.assign(fingerprint=[Run(r.base, r.model, r.seed).key for r in runs.itertuples()])
    monkeypatch.setattr(study, "shipped", lambda name: current)
    assert study.stale() == []
    current.loc[3, "fingerprint"] = "other"
    assert study.stale() == [study.planned()[3]]
    monkeypatch.setattr(study, "shipped", lambda name: pd.DataFrame())
    assert study.stale() == study.planned()


def made_up(base, model, seed, outcome="relevant"):
    rows = [
        ("test_00001", model, "none", 1, "harmful", "What is it?", f"it is {model}", outcome, "p1", 1, 0),
        ("test_00001", model, "what:3", 1, "harmful", "What is it?", "it is 'a', \"b\"", "refusal", "p1", 1, 1),
        ("new-kinds_00002", model, "none", 1, "harmless", "Say, it.", "nan", "irrelevant", "p2", 1, 0),
    ]
    return pd.DataFrame(rows, columns=ANSWER_COLUMNS).assign(base=base, seed=seed)


def test_answers_survive_their_normal_form(tmp_path, monkeypatch):
    """Commas, quotes, the text "nan", runs that were asked less than others."""
    monkeypatch.setattr(study, "data_dir", lambda: tmp_path)
    some = made_up("miniguard", "npo", 0).iloc[:2]
    answers = pd.concat([made_up("miniguard", "base", 0), made_up("miniguard-1", "sft-early", 2), some])
    for name, table in study._normal_form(answers).items():
        study.write_table(name, table)
    order = ["base", "model", "seed", "id", "attack"]
    columns = ["base", "seed", *ANSWER_COLUMNS]
    back = study.shipped_answers()[columns].sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(back, answers[columns].sort_values(order).reset_index(drop=True), check_dtype=False)
    assert set(study.shipped_answers(["miniguard"], [0], ["npo"]).model) == {"npo"}
    assert study.shipped_answers(seeds=[2]).base.unique().tolist() == ["miniguard-1"]


def test_a_run_made_anew_replaces_the_old_one_and_nothing_else():
    old = pd.concat([made_up("miniguard", "base", 0), made_up("miniguard", "npo", 1), made_up("gone", "base", 0)])
    new = made_up("miniguard", "npo", 1, outcome="refusal")
    joined = study._joined(old, new)
    assert joined.groupby(["base", "model", "seed"], sort=False).size().to_dict() == {
        ("miniguard", "base", 0): 3,
        ("miniguard", "npo", 1): 3,
    }
    assert set(joined[(joined.model == "npo") & (joined.attack == "none")].outcome) == {"refusal", "irrelevant"}


def test_what_1_is_the_first_shot_of_what_3():
    table = study._rates(made_up("miniguard", "npo", 0)).set_index(["split", "attack", "queries", "metric"]).value
    assert list(study._rates(made_up("miniguard", "npo", 0))) == RESULTS
    assert table["test", "what:1", "harmful", "rr"] == table["test", "what:3", "harmful", "rr"] == 1


@pytest.fixture
def check_of(monkeypatch):
    """`check`'s table where the shipped rates of one run are others, by so much."""

    def checked(change):
        runs = [Run("miniguard", "base", 0)]
        answers = study.shipped_answers(["miniguard"], [0], ["base"])
        known = study._rates(answers)
        monkeypatch.setattr(study, "make_run", lambda *run: None)
        monkeypatch.setattr(study, "answers_file", lambda *run: run[-1])
        parts = {PARTS[0]: answers, PARTS[1]: answers.iloc[:0]}
        monkeypatch.setattr(study, "whole_answers", lambda part: parts[part][ANSWER_COLUMNS])
        monkeypatch.setattr(study, "shipped", lambda name: known.assign(value=(known.value + change).clip(0, 1)))
        return study.check(runs)

    return checked


@pytest.mark.slow
def test_a_check_finds_rates_that_differ(check_of):
    assert check_of(0.0).same.all()
    assert check_of(0.02).same.all()  # another CPU's arithmetic
    found = check_of(0.2)
    assert not found.same.all() and set(found[~found.same].model) == {"base"}


@pytest.mark.slow
def test_a_check_finds_rows_that_only_one_side_has(check_of, monkeypatch):
    table = check_of(0.0)
    known = study.shipped("results")
    made_up_row = known.iloc[[0]].assign(attack="sing:1")
    monkeypatch.setattr(study, "shipped", lambda name: pd.concat([known.iloc[1:], made_up_row]))
    answers = study.check([Run("miniguard", "base", 0)])
    assert len(answers) == len(table) + 1 and (~answers.same).sum() == 2


def test_runs_are_drawn_by_the_commit(monkeypatch):
    monkeypatch.setattr(study, "stale", list)
    one = study.drawn("58dea2a", 3)
    assert one == study.drawn("58dea2a", 3) and len(set(one)) == 3
    draws = [study.drawn(str(commit), 2) for commit in range(60)]
    assert len({run for draw in draws for run in draw}) > 50
    with pytest.raises(UserError, match="no commit"):
        study.drawn("")


def test_secrets_are_those_of_harmful_test_queries():
    table = study.shipped("secrets")
    assert table.groupby(["base", "model", "seed"]).size().nunique() == 1
    assert table["rank"].between(1, 16).all() and (table.logprob <= 0).all()
    assert np.isfinite(table.logprob).all()
