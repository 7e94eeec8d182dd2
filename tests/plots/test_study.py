"""Figures of the study show the means of its tables, over bases and seeds."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.transforms import Bbox

from tests.plots.small import onset_curves, shipped_results
from workbench import plots
from workbench.plots.style import series_look


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def lines(axis, **look):
    """The values of the lines with a look: {"linestyle": ":"} …"""
    found = [line for line in axis.lines if all(getattr(line, f"get_{key}")() == value for key, value in look.items())]
    return np.array([line.get_ydata() for line in found if len(line.get_ydata()) > 1])


def stars(axis):
    return [(float(*s.get_xdata()), float(*s.get_ydata())) for s in axis.lines if s.get_marker() == "*"]


def cells(figure):
    """What stands in each heat map, by row and column; the columns are named below the last one."""
    columns = labels(figure.axes[-1].get_xticklabels())
    found = []
    for axis in figure.axes:
        rows, texts = labels(axis.get_yticklabels()), {text.get_position(): text.get_text() for text in axis.texts}
        found.append({(rows[int(y)], columns[int(x)]): text for (x, y), text in texts.items()})
    return found


def test_the_onset_is_a_mean_with_a_pale_line_each_base():
    figure = plots.onset(onset_curves("sft", "rmu"))
    for axis in figure.axes:
        assert lines(axis, linewidth=2) == pytest.approx(np.array([[12.5, 25, 12.5]] * 2))
        assert lines(axis, alpha=0.35) == pytest.approx(np.array([[7.5, 15, 7.5], [17.5, 35, 17.5]] * 2))
        assert lines(axis, linestyle=":") == pytest.approx(np.zeros((2, 3)))
    assert labels(figure.legends[0].get_texts()) == [plots.NAMES["sft"], plots.NAMES["rmu"]]
    assert len(figure.legends[1].get_texts()) == 3


def test_each_rate_is_drawn_in_its_own_panel():
    table = onset_curves("sft")
    harmless = (table.queries == "harmless") & (table.step == 20)
    table.loc[harmless, "value"] = np.where(table.attack[harmless] == "none", 0.3, 0.9)
    answered, refused = plots.onset(table).axes
    assert lines(answered, linewidth=2)[0, 2] == pytest.approx(12.5) and lines(answered, linestyle=":")[0, 2] == 0
    assert lines(refused, linewidth=2)[0, 2] == pytest.approx(90)
    assert lines(refused, linestyle=":")[0, 2] == pytest.approx(30)


def test_a_base_with_more_seeds_counts_no_more_than_another():
    table = onset_curves("sft")
    figure = plots.onset(table[(table.base == "first") | (table.seed == 1)])
    assert lines(figure.axes[0], linewidth=2) == pytest.approx(np.array([[13.75, 27.5, 13.75]]))


def test_steps_that_some_runs_of_a_model_have_not_reached_are_left_out():
    table = onset_curves("sft", "rmu")
    stopped = (table.model == "sft") & (table.base == "first") & (table.seed == 0) & (table.step == 20)
    axis = plots.onset(table[~stopped]).axes[0]
    assert [len(line.get_ydata()) for line in axis.lines if line.get_linewidth() == 2] == [2, 3]


def test_a_star_lies_on_the_line_where_the_model_looks_safe():
    figure = plots.onset(onset_curves("sft", "rmu"), {"sft": 5.0, "rmu": 21.0, "npo": 5.0})
    for axis in figure.axes:
        assert stars(axis) == [pytest.approx((5, 18.75))]
    assert labels(figure.legends[1].get_texts())[-1] == "first looks safe, as asked"


def test_a_model_without_an_attack_has_no_line():
    table = onset_curves("sft", "rmu")
    answered, refused = plots.onset(table[(table.model != "sft") | (table.attack != "what:1")], {"sft": 5.0}).axes
    assert len(lines(answered, linewidth=2)) == 1 and len(lines(refused, linewidth=2)) == 2
    assert stars(answered) == [] and len(stars(refused)) == 1


def test_sixteen_models_can_be_told_apart_by_colour_and_marker():
    look = series_look("model", [str(number) for number in range(16)])
    assert len(set(zip(map(str, look["palette"]), look["markers"], strict=True))) == 16


def test_each_wording_is_a_column_under_the_name_of_its_group():
    table = shipped_results("base", "sft")
    figure = plots.wordings(table)
    answered, refused = figure.axes
    wordings = ["test queries", "“What …”", "“Share …”", "“Tell …”", "topic alone", "other mark", "new kinds"]
    assert labels(refused.get_xticklabels()) == wordings
    assert labels(answered.get_yticklabels()) == [plots.named("base"), plots.named("sft")]
    (heads,) = answered.child_axes
    groups = ["as asked", "words of the safety data", "held-out wordings", "held-out rules, as asked"]
    assert [head.replace("\n", " ") for head in labels(heads.get_xticklabels())] == groups
    assert heads.get_xticks().tolist() == [0.5, 2, 4.5, 6.5]


def test_cells_are_the_means_of_their_own_rate():
    table = shipped_results("base", "sft")
    sft = table.model == "sft"
    table.loc[sft & (table.attack == "what:3"), "value"] = 0.99  # not what:1, and never shown
    table.loc[sft & (table.split == "new-kinds") & (table.attack == "what:1"), "value"] = 0.98  # as asked is shown
    for number, base in enumerate(("first", "second")):
        own = sft & (table.base == base) & (table.split == "test") & (table.attack == "what:1")
        table.loc[own & (table.metric == "asr"), "value"] = 0.2 + 0.4 * number
        table.loc[own & (table.queries == "harmless"), "value"] = 0.1
        table.loc[own & (table.queries == "harmful") & (table.metric == "rr"), "value"] = 0.97
    shown = cells(plots.wordings(table))
    what = plots.named("sft"), "“What …”"
    assert [each.pop(what) for each in shown] == ["40", "10"]
    assert all(set(each.values()) == {"50"} and len(each) == 13 for each in shown)


def test_what_was_not_asked_has_no_column_and_for_one_model_no_number():
    table = shipped_results("base", "sft", attacks=("none", "what:3", "share:1", "can:1", "list:1"))
    figure = plots.wordings(table[(table.model != "sft") | (table.attack != "list:1")])
    columns = ["test queries", "“Can …”", "“Share …”", "“List …”", "new kinds"]
    assert labels(figure.axes[1].get_xticklabels()) == columns
    missing = {(plots.named("sft"), "“List …”")}
    every = {(plots.named(model), column) for model in ("base", "sft") for column in columns}
    assert [set(each) for each in cells(figure)] == [every - missing] * 2


def test_names_and_headings_of_many_models_do_not_overlap():
    figure = plots.wordings(shipped_results(*plots.NAMES))
    figure.draw_without_rendering()
    for axis in figure.axes:
        for ticks in (axis.get_yticklabels(), axis.child_axes[0].get_xticklabels(), axis.get_xticklabels()):
            boxes = [tick.get_window_extent() for tick in ticks if tick.get_text()]
            assert all(one.x0 >= 0 for one in boxes)
            assert not any(Bbox.intersection(one, other) for one, other in pairwise(boxes))
