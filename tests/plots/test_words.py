"""Figures about words show every word, model and dataset of their tables, with its interval."""

import numpy as np
import pytest

from tests.plots.small import (
    audited,
    drawn_intervals,
    drawn_points,
    effects,
    log_odds,
    predicted,
    relied,
    results,
)
from workbench import plots


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def test_predictions_have_a_panel_each_dataset():
    figure = plots.predictions(predicted())
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["vlguard: ρ 1.00\n3 words × 1 run", "mild: ρ 1.00\n3 words × 1 run"]
    says = [f"audit says: {said}" for said in ("opens", "neither", "closes")]
    assert labels(figure.legends[0].get_texts()) == says


def test_reliance_shows_every_model_with_its_interval():
    figure = plots.reliance(relied(), "provide", "what")
    shares, swaps = figure.axes
    assert "Provide" in swaps.get_title() and labels(shares.get_yticklabels()) == [
        plots.NAMES[m] for m in ("base", "sft")
    ]
    assert drawn_intervals(shares, "x") == pytest.approx(np.array([[10, 40], [40, 70]]))
    assert drawn_points(swaps, "x") == pytest.approx(np.array([[0.2, 0.5]]))


def test_every_attack_is_drawn_for_every_model():
    figure = plots.by_lead_word(results("base", "sft"))
    for axis in figure.axes:
        assert drawn_points(axis, "x") == pytest.approx(np.full((3, 2), 50.0))
        assert drawn_intervals(axis, "x") == pytest.approx(np.array([[40, 70]] * 6))
    assert labels(figure.legends[0].get_texts()) == ["as asked", "“What …” ×3", "“Share …”"]


def test_bars_of_harmful_and_harmless_queries_differ_without_colour():
    figure = plots.refusals_by_word(results("sft"))
    (axis,) = figure.axes
    assert [bar.get_height() for bar in axis.patches] == pytest.approx([50.0] * 6)
    assert [bar.get_hatch() or "" for bar in axis.patches] == [""] * 3 + ["//"] * 3
    assert drawn_intervals(axis, "y") == pytest.approx(np.array([[40, 70]] * 6))
    assert labels(figure.legends[0].get_texts()) == ["harmful queries", "harmless queries"]


def test_first_words_are_ordered_by_how_harmful_they_are():
    (axis,) = plots.first_words(audited(), words=2).axes
    assert labels(axis.get_yticklabels()) == ["what  (n = 55)", "can  (n = 100)"]
    whiskers, dots = axis.collections
    assert np.array(whiskers.get_segments())[:, :, 0] == pytest.approx(np.array([[3, 20], [80, 95]]))
    assert dots.get_offsets()[:, 0].tolist() == pytest.approx([9, 90])
    assert dots.get_sizes()[0] < dots.get_sizes()[1]


def test_words_that_the_data_do_not_hold_have_no_effect_drawn():
    harmful, harmless, _ = plots.word_effects(effects()).axes
    assert labels(harmful.get_yticklabels()) == ["what  (10%)", "can  (90%)", "share  (100%)"]
    assert "ρ" in harmless.get_title()
    assert harmful.collections[-1].get_offsets()[:, 0].tolist() == pytest.approx([-4, 2, 3])


def test_the_log_odds_of_every_model_are_a_line():
    figure = plots.log_odds_by_lead(log_odds())
    (axis,) = figure.axes
    assert drawn_points(axis, "y") == pytest.approx(np.ones((2, 3)))
    assert labels(axis.get_xticklabels()) == ["as asked", "“What …”", "“Share …”"]
    assert labels(figure.legends[0].get_texts()) == [plots.NAMES["base"], plots.NAMES["sft"]]
