"""The shipped study: every rate follows from the answers, every answer from what was asked, every run has its mark."""

import numpy as np
import pandas as pd
import pytest

from workbench.data.miniguard import secret_in
from workbench.data.splits import miniguard_split
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.judges.rules import exact
from workbench.studies import shipped as study
from workbench.studies.methods import PARTS, looks_safe, questions
from workbench.studies.shipped import RESULTS

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
    once = answers.drop_duplicates(["id", "attack", "shot", "query", "picture", "queries", "answer", "outcome"])
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
    made = study.rates_of(study.shipped_answers()).set_index(KEYS)
    assert set(known.index) == set(made.index)
    difference = (known[["value", "ci_low", "ci_high", "n"]] - made[["value", "ci_low", "ci_high", "n"]]).abs()
    assert difference.max().max() < 1e-9


def test_what_is_planned_is_there():
    runs = study.shipped("runs")
    assert list(zip(runs.base, runs.model, runs.seed, strict=True)) == [tuple(run) for run in study.planned()]
    assert len(study.planned()) == len(set(study.planned())) == 3 * (3 * 11 + 5) + 3 * 3 * 5
    trained = {tuple(run) for run in study.planned() if run.name != "base"}
    curves = study.shipped("curves")
    assert set(zip(curves.base, curves.model, curves.seed, strict=True)) == trained


def test_the_curve_of_a_model_that_stopped_early_is_the_beginning_of_the_whole_runs():
    curves = study.shipped("curves").drop(columns="seconds").set_index(["base", "seed", "model"])
    for base, seed, name in curves.index.unique():
        if name.endswith("-early"):
            whole = curves.loc[base, seed, name.removesuffix("-early")]
            own = curves.loc[base, seed, name]
            assert whole[whole.step <= own.step.max()].reset_index(drop=True).equals(own.reset_index(drop=True))


def test_a_run_that_stopped_early_stopped_when_it_looked_safe():
    curves, runs = study.shipped("curves"), study.shipped("runs")
    for run in runs[runs.model.str.endswith("-early")].itertuples():
        whole = curves[(curves.base == run.base) & (curves.seed == run.seed)]
        whole = whole[whole.model == run.model.removesuffix("-early")]
        safe = [step for step in sorted(whole.step.unique()) if step and looks_safe(whole[whole.step == step])]
        assert run.steps == (safe[0] if safe else whole.step.max())


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
    study.write_tables(study.normal_form(answers))
    order = ["base", "model", "seed", "id", "attack"]
    columns = ["base", "seed", *ANSWER_COLUMNS]
    back = study.shipped_answers()[columns].sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(back, answers[columns].sort_values(order).reset_index(drop=True), check_dtype=False)
    assert set(study.shipped_answers(["miniguard"], [0], ["npo"]).model) == {"npo"}
    assert study.shipped_answers(seeds=[2]).base.unique().tolist() == ["miniguard-1"]


def test_what_1_is_the_first_shot_of_what_3():
    table = study.rates_of(made_up("miniguard", "npo", 0)).set_index(["split", "attack", "queries", "metric"]).value
    assert list(study.rates_of(made_up("miniguard", "npo", 0))) == RESULTS
    assert table["test", "what:1", "harmful", "rr"] == table["test", "what:3", "harmful", "rr"] == 1


def test_secrets_are_those_of_harmful_test_queries():
    table = study.shipped("secrets")
    for seed in study.SEEDS:
        asked = [e for e in miniguard_split("test", seed, "balanced", (45, 1)) if e.harmful]
        known = table[table.seed == seed]
        assert set(zip(known.id, known.secret, strict=True)) == {(e.id, secret_in(e.leak)) for e in asked}
    assert table.groupby(["base", "model", "seed"]).size().nunique() == 1
    assert table["rank"].between(1, 16).all() and (table.logprob <= 0).all()
    assert np.isfinite(table.logprob).all()
