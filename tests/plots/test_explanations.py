"""Figures of attributions: one scale, words that are only words, and the same described in words."""

import numpy as np
import pandas as pd
import pytest

from tests.plots.small import column, orders, scores
from workbench import plots


def scale(figure):
    bar = figure.axes[-1]  # matplotlib puts the colour bar last
    return bar.get_ylim()


def test_all_columns_share_one_scale_and_words_can_be_left_out():
    two = [column([4.0, 0.0], [[0.5, -2.0]]), column([0.0, -8.0], [[0.0, 0.0]])]
    assert scale(plots.attributions(two)) == pytest.approx((-8, 8))
    assert scale(plots.attributions(two, words=False)) == pytest.approx((-2, 2))
    nothing = plots.attributions([column([0.0, 0.0], [[0.0, 0.0]])])
    assert np.isfinite(scale(nothing)).all()


def test_more_columns_than_stand_side_by_side_go_below():
    figure = plots.attributions([column([i, 1.0], [[0.0, 0.0]]) for i in range(5)], across=2)
    pictures = [axis.get_position() for axis in figure.axes if axis.images]
    assert len(pictures) == 5
    assert [round(p.x0, 2) for p in pictures[:2]] == [round(p.x0, 2) for p in pictures[2:4]]
    assert pictures[0].y0 > pictures[2].y1 > pictures[4].y1
    assert scale(figure) == pytest.approx((-4, 4))


def test_words_of_a_query_are_no_formulas(tmp_path):
    plots.attributions([column([1.0, 2.0], [[0.0]], query=("$\\frac", "a$"))]).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_long_words_are_cut_off_in_their_chip_and_not_at_the_edge():
    figure = plots.attributions([column([1.0, 2.0], [[0.0]], query=("a" * 40, "it"))])
    figure.draw_without_rendering()
    chips = figure.axes[1].texts
    assert all(text.get_window_extent().x0 >= 0 for text in chips)
    assert chips[0].get_text() == "a" * 17 + "…" and "a" * 40 in plots.describe([column([1.0], [[0.0]], ["a" * 40])])


def test_strong_squares_have_a_sign_for_readers_without_colours():
    figure = plots.attributions([column([0.0, 0.0], [[4.0, -3.0], [0.1, 0.0]])])
    squares = figure.axes[0]
    signs = {text.get_position(): text.get_text() for text in squares.texts if text.get_text()}
    assert signs == {(0.5, 0.5): "+", (1.5, 0.5): "−"}
    assert squares.get_ylim() == (2, 0)  # the first row on top, as in the picture


def test_the_figure_can_be_described_in_words():
    described = plots.describe([column([4.0, -1.0], [[0.5, -2.0], [0.0, 0.1]])], squares=2)
    assert described == (
        "Attribution in nats. one model: target 1.5. Words: “Share” +4.0; “it” -1.0. "
        "Largest squares: row 1, column 2 -2.0; row 1, column 1 +0.5."
    )


def test_an_attribution_is_drawn_against_the_middle_of_random_orders():
    deletion, insertion = plots.faithfulness(orders(), scores()).axes
    assert deletion.get_title() == "deletion: better than random"
    assert insertion.get_title() == "insertion: NO BETTER THAN RANDOM"
    band = deletion.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((1, 39))  # 2.5% and 97.5% of 0 to 40
    values = [line.get_ydata().tolist() for line in deletion.lines if len(line.get_ydata())]
    assert values == [[20, 20], [7, 7]]


def test_verdicts_are_shares_of_queries():
    better = pd.DataFrame({"deletion": [0.5, 1.0]}, index=["ablation", "shapley"])
    (axis,) = plots.verdicts(better, queries=6).axes
    assert [text.get_text() for text in axis.texts] == ["50%", "100%"] and "n = 6" in axis.get_title()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ablation", "shapley"]
