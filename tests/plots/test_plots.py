"""Figures of attributions: one scale, words that are only words, and the same told without a picture."""

import threading

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workbench import plots
from workbench.attribution.methods import Attribution
from workbench.evaluation.compare import Agreement
from workbench.judges.outcomes import OUTCOMES


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def column(words, patches, query=("Share", "it")):
    return (
        "one\nmodel",
        Image.new("RGB", (8, 8)),
        Attribution(list(query), np.array(words), np.array(patches), 1.5, 0.0, "ablation"),
    )


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
    assert [round(p.x0, 2) for p in pictures[:2]] == [round(p.x0, 2) for p in pictures[2:4]] and pictures[
        0
    ].y0 > pictures[2].y1 > pictures[4].y1
    assert scale(figure) == pytest.approx((-4, 4))


def test_a_cell_does_not_show_what_a_widget_draws():
    """pyplot's figures are shown by whichever cell ends next."""
    drawn = []
    thread = threading.Thread(target=lambda: drawn.append(plots.attributions([column([1.0, 2.0], [[0.0]])])))
    thread.start()
    thread.join()
    assert plt.get_fignums() == [] and drawn[0].axes
    plots.attributions([column([1.0, 2.0], [[0.0]])])
    assert len(plt.get_fignums()) == 1


def test_words_of_a_query_are_no_formulas(tmp_path):
    plots.attributions([column([1.0, 2.0], [[0.0]], query=("$\\frac", "a$"))]).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_what_is_shown_can_be_told():
    told = plots.describe([column([4.0, -1.0], [[0.5, -2.0], [0.0, 0.1]])], squares=2)
    assert told == (
        "Attribution in nats. one model: target 1.5. Words: “Share” +4.0; “it” -1.0. "
        "Largest squares: row 1, column 2 -2.0; row 1, column 1 +0.5."
    )


def rate_rows(**keys):
    return pd.DataFrame([keys | {"value": 0.5, "ci_low": 0.4, "ci_high": 0.7, "n": 9}])


def test_relearning_draws_a_line_each_model_and_kind_with_intervals():
    rows = [
        rate_rows(taught=t, examples=n, model=m, metric="asr")
        for t in ("harmful", "harmless")
        for n in (0, 5, 50)
        for m in ("npo", "rmu")
    ]
    (axis,) = plots.relearning(pd.concat(rows)).axes
    assert len(axis.containers) == 4
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "5", "50"]
    ends = axis.containers[0][2][0].get_segments()
    assert np.array(ends)[:, :, 1] == pytest.approx(np.array([[40, 70]] * 3))


def test_utility_is_drawn_apart_for_each_kind_of_question():
    rows = [
        rate_rows(model=m, attack=a, queries="harmless", request=r, metric="utility")
        for m in ("base", "my_model")
        for a in ("none", "share:1")
        for r in ("name", "colour")
    ]
    figure = plots.by_request(pd.concat(rows))
    assert [axis.get_title() for axis in figure.axes] == ["as asked", "“Share …”"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["colour  (n = 9)", "name  (n = 9)"]


def test_unread_verdicts_of_either_judge_are_drawn():
    rows = [("harmful", a, b, 5) for a, b in (("refusal", "refusal"), ("unparsed", "relevant"))]
    kappa = pd.DataFrame(
        [("all", 0.5, 0.4, 0.6, 0.5, 10)], columns=["queries", "kappa", "ci_low", "ci_high", "agreed", "n"]
    )
    found = Agreement(kappa, pd.DataFrame(rows, columns=["queries", "first", "second", "count"]))
    (axis,) = plots.agreement({"keyword": found}).axes
    assert [t.get_text() for t in axis.get_yticklabels()] == [*OUTCOMES, "unparsed"]
    assert sum(int(text.get_text()) for text in axis.texts) == 10


def test_predictions_have_a_panel_each_dataset():
    rows = [
        (d, 0, w, p, p, p - 1, p + 1, s)
        for d in ("vlguard", "mild")
        for w, p, s in (("a", -2, "opens"), ("b", 0, ""), ("c", 3, "closes"))
    ]
    table = pd.DataFrame(rows, columns=["data", "seed", "word", "predicted", "effect", "ci_low", "ci_high", "said"])
    titles = [axis.get_title() for axis in plots.predictions(table).axes if axis.get_title()]
    assert titles == ["vlguard: ρ 1.00\n3 words × 1 seed", "mild: ρ 1.00\n3 words × 1 seed"]


def test_reliance_shows_every_model_with_its_interval():
    rows = [(m, k, v, v - 0.1, v + 0.2, 9) for m, v in (("base", 0.2), ("sft", 0.5)) for k in ("share", "swap")]
    table = pd.DataFrame(rows, columns=["model", "measure", "value", "ci_low", "ci_high", "n"])
    figure = plots.reliance(table, "provide", "what")
    shares, swaps = figure.axes
    assert "Provide" in swaps.get_title() and [t.get_text() for t in shares.get_yticklabels()] == [
        plots.NAMES[m] for m in ("base", "sft")
    ]
    ends = shares.containers[0][2][0].get_segments()  # (model, end, x and y)
    assert np.array(ends)[:, :, 0] == pytest.approx(np.array([[10, 40], [40, 70]]))
