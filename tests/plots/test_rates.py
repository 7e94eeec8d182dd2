"""Figures of rates show the values and intervals of their tables, neither estimated nor reordered."""

import numpy as np
import pandas as pd
import pytest

from tests.plots.small import (
    agreements,
    by_request,
    drawn_intervals,
    drawn_points,
    relearned,
    results,
    shares,
    training_curve,
)
from workbench import plots
from workbench.judges.outcomes import WITHOUT_TRUTH
from workbench.studies.paper import paper_table


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def test_relearning_draws_a_line_each_model_and_kind_with_intervals():
    figure = plots.relearning(relearned())
    (axis,) = figure.axes
    points = drawn_points(axis, "y")
    assert points == pytest.approx(np.full((4, 3), 50.0))
    assert labels(axis.get_xticklabels()) == ["0", "5", "50"]
    assert drawn_intervals(axis, "y") == pytest.approx(np.array([[40, 70]] * 12))
    assert labels(figure.legends[0].get_texts()) == [
        f"{plots.named(model)}, on {kind} ones" for kind in ("harmful", "harmless") for model in ("npo", "rmu")
    ]


def test_utility_is_drawn_apart_for_each_kind_of_question():
    figure = plots.by_request(by_request())
    assert [axis.get_title() for axis in figure.axes] == ["as asked", "“Share …”"]
    assert labels(figure.axes[0].get_yticklabels()) == ["colour  (n = 9)", "name  (n = 9)"]
    assert drawn_intervals(figure.axes[1], "x") == pytest.approx(np.array([[40, 70]] * 4))


def test_unread_verdicts_of_either_judge_are_drawn():
    (axis,) = plots.agreement(agreements()).axes
    assert labels(axis.get_yticklabels()) == [*WITHOUT_TRUTH, "unparsed"]
    assert sum(int(text.get_text()) for text in axis.texts) == 10


def test_before_and_after_are_the_tables_own_rates():
    table = results("base", "sft")
    table.loc[table.attack == "what:3", ["value", "ci_low", "ci_high"]] = 0.9, 0.8, 0.95
    figure = plots.before_after(table, paper_table())
    success, refusals, utility = figure.axes
    assert drawn_points(success, "x") == pytest.approx(np.array([[50, 50], [90, 90]]))
    assert drawn_intervals(success, "x") == pytest.approx(np.array([[40, 70]] * 2 + [[80, 95]] * 2))
    assert drawn_points(refusals, "x") == pytest.approx(np.full((2, 2), 50.0))
    assert drawn_points(utility, "x") == pytest.approx(np.array([[50, 50]]))
    crosses = [c.get_offsets()[:, 0].tolist() for c in success.collections if len(c.get_offsets()) == 2]
    paper = paper_table().set_index("model").loc[["base", "sft"]]
    assert crosses == [paper.asr.tolist(), paper.asr_what3.tolist()]
    assert len(figure.legends[0].get_texts()) == 3


def test_curves_go_through_their_values_within_their_bands():
    table = training_curve("sft")
    table.loc[table.step == 10, ["value", "ci_low", "ci_high"]] = 0.1, 0.05, 0.3
    (axis,) = plots.curves(table, step=12).axes
    assert drawn_points(axis, "y") == pytest.approx(np.array([[50, 10]] * 5))
    bands = [band.get_paths()[0].vertices[:, 1] for band in axis.collections]
    assert [(band.min(), band.max()) for band in bands] == [pytest.approx((5, 70))] * 5
    marked = [line for line in axis.lines if list(line.get_xdata()) == [10, 10]]
    assert len(marked) == 1


def bars(axis):
    return [line.get_xdata().tolist() for line in axis.lines if line.get_marker() == "|"]


def test_a_run_is_a_mark_and_the_mean_of_the_bases_means_a_bar():
    values = (("a", 0.1), ("a", 0.3), ("b", 0.8))  # two seeds of one base, one of another
    table = pd.concat(results("base").assign(base=b, seed=s, value=v) for s, (b, v) in enumerate(values))
    figure = plots.seeds(table)
    success, _, utility = figure.axes
    marks = [np.sort(c.get_offsets()[:, 0]).tolist() for c in success.collections if len(c.get_offsets())]
    assert marks == [pytest.approx([10, 30, 80])] * 2
    assert bars(success) == [pytest.approx([50])] * 2 and bars(utility) == [pytest.approx([50]), []]
    assert sum(len(c.get_offsets()) for c in utility.collections) == 3
    assert labels(figure.legends[0].get_texts())[2] == "mean over base models"


@pytest.mark.parametrize("base", [{}, {"base": "miniguard"}])
def test_with_one_base_the_bar_is_the_mean_of_the_seeds(base):
    table = pd.concat(results("base").assign(seed=s, value=v, **base) for s, v in enumerate((0.1, 0.2, 0.6)))
    figure = plots.seeds(table)
    assert bars(figure.axes[0]) == [pytest.approx([30])] * 2
    assert labels(figure.legends[0].get_texts())[2] == "mean over seeds"


def test_outcomes_are_stacked_and_whiskers_surround_their_ends():
    (axis,) = plots.outcomes(shares()).axes
    ends = [bar.get_x() + bar.get_width() for bar in axis.patches]
    assert ends == pytest.approx([25, 100, 100, 100])
    whiskers = [w for w in axis.containers if w.__class__.__name__ == "ErrorbarContainer" and w[2][0].get_segments()]
    low, high = np.array(whiskers[0][2][0].get_segments())[0, :, 0]
    assert low < 25 < high
