"""Curves while training, and the explorer of curves and checkpoints."""

import shutil

import IPython.display
import matplotlib.pyplot as plt
import pandas as pd
import pytest

import workbench as wb
from tests.widgets.shown import png
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tables import outcome_shares, rates
from workbench.models.load import load
from workbench.training import train as trainer
from workbench.training.curve import CURVE_COLUMNS


def test_live_curves_replace_one_image(monkeypatch):
    shown, open_before = [], plt.get_fignums()
    monkeypatch.setattr(IPython.display, "display", shown.append)
    redraw = wb.live_curves()
    (image,) = shown
    rows = [("npo", step, "none", "harmful", "asr", 1 - step / 40, 0.0, 1.0) for step in (0, 20)]
    table = pd.DataFrame(rows, columns=["model", "step", "attack", "queries", "metric", "value", "ci_low", "ci_high"])
    redraw(table[:1])
    first = image.value
    redraw(table)
    assert len(shown) == 1 and image.value != first
    assert png(image).format == "PNG"
    assert plt.get_fignums() == open_before  # otherwise the notebook would show the figure a second time


@pytest.fixture(scope="module")
def runs(tmp_path_factory, few):
    """Two short runs that kept their steps, and the answers that each gave at each step."""
    folder, answers = tmp_path_factory.mktemp("runs"), {}

    def probe(vlm):
        answers.setdefault(vlm.name, []).append(evaluate(vlm, few[:8], ["none", "what:1"]).answers)
        return rates(answers[vlm.name][-1])

    train = wb.miniguard_split("train", sizes=(20, 20))
    for objective, steps in (("sft", 4), ("npo", 6)):
        trainer.train(
            load("miniguard", device="cpu"),
            objective,
            train,
            out=folder / objective,
            steps=steps,
            forget=8,
            retain=8,
            probe=probe,
            probe_every=2,
            keep_steps=True,
        )
    return {name: folder / name for name in answers}, answers


def curves_of(runs):
    return pd.concat([pd.read_csv(run / "curves.csv", keep_default_na=False) for run in runs.values()])


def test_the_outcomes_at_a_step_are_those_of_its_answers(runs):
    runs, answers = runs
    explorer = wb.CurveExplorer(curves_of(runs), runs)
    assert explorer.step.steps == [0, 2, 4, 6]
    for step, places in (
        (2, {"sft": 1, "npo": 1}),
        (6, {"sft": 2, "npo": 3}),
    ):  # sft has no step 6, so its last one is shown
        expected = pd.concat([outcome_shares(answers[name][place]) for name, place in places.items()])
        keys = ["model", "attack", "queries", "outcome"]
        pd.testing.assert_series_equal(
            explorer.shares(step).set_index(keys).share.sort_index(), expected.set_index(keys).share.sort_index()
        )


def test_a_step_is_marked_and_its_outcomes_drawn(runs):
    explorer = wb.CurveExplorer(curves_of(runs[0]), runs[0])
    before, stacked = explorer.figure.value, explorer.outcomes.value
    explorer.step.value = 6
    assert (
        explorer.figure.value != before
        and "step 6 is marked" in explorer.figure.value
        and "npo, step 6" in explorer.outcomes.value
    )
    explorer.queries.value = ("harmless", "what:1")
    assert explorer.outcomes.value != stacked and png(explorer.outcomes).width > 500
    explorer.step.value, explorer.queries.value = 0, explorer.queries.options[0][1]
    assert explorer.figure.value == before and explorer.outcomes.value == stacked
    assert "<img" in explorer._repr_mimebundle_()["text/html"]


def probe_at(explorer, model, step):
    explorer.step.value = step
    explorer.buttons[model].click()
    explorer.wait()  # for the checkpoint …
    explorer.wait()  # … and for its first answer


def test_a_checkpoint_is_probed_next_to_the_last_one(runs, few):
    explorer = wb.CurveExplorer(curves_of(runs[0]), runs[0], examples=few)
    probe_at(explorer, "npo", 0)
    probe_at(explorer, "npo", 6)
    assert list(explorer.probe.models) == ["npo, step 0", "npo, step 6"] and explorer.message.value == ""
    rows = explorer.probe.history.tail(2)
    base, last = load("miniguard", device="cpu"), load("miniguard", runs[0]["npo"], device="cpu")
    assert list(rows.answer) == [v.answer(few[0].picture(), few[0].query) for v in (base, last)]
    answers = []
    exec(explorer.probe.code.value, {"examples": few, "print": lambda *a: answers.append(a[2])})
    assert answers == list(rows.answer)  # the code asks the checkpoints, not the finished models
    probe_at(explorer, "sft", 6)
    assert list(explorer.probe.models) == ["npo, step 6", "sft, step 4"]


def test_a_run_that_was_deleted_meanwhile_is_named(runs, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(runs[0]["npo"], gone)
    explorer = wb.CurveExplorer(curves_of({"npo": gone}), {"npo": gone})
    shutil.rmtree(gone)
    probe_at(explorer, "npo", 2)
    assert f"The run {gone} holds no adapter of step 2" in explorer.message.value and explorer.probe is None


def test_without_runs_there_is_nothing_to_probe(runs):
    assert not wb.CurveExplorer(curves_of(runs[0])).buttons


def test_a_table_of_another_kind_is_refused():
    with pytest.raises(wb.UserError, match=r"lacks attack, ci_high"):
        wb.CurveExplorer(pd.DataFrame({"step": [1], "model": "a"}))
    with pytest.raises(wb.UserError, match="is empty"):
        wb.CurveExplorer(pd.DataFrame(columns=CURVE_COLUMNS))
