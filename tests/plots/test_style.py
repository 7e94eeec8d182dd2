"""Figures keep their own look: drawing one neither changes the user's matplotlib settings nor follows them."""

import io
import threading

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from tests.plots.small import FIGURES, column, results
from workbench import plots
from workbench.plots import style
from workbench.plots.style import known_intervals, rates, save


def test_every_figure_is_drawn_here():
    drawn = {name for name in plots.__all__ if callable(getattr(plots, name))}
    assert drawn - {"asked", "describe", "named", "save"} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_neither_changes_nor_follows_the_users_settings(name):
    def pixels():
        buffer = io.BytesIO()
        FIGURES[name]().savefig(buffer, dpi=40)
        return buffer.getvalue()

    usual = pixels()
    with plt.style.context("dark_background"):
        plt.rcParams.update({"xtick.labelsize": 20, "grid.color": "red", "lines.linewidth": 5, "axes.grid": False})
        own = dict(mpl.rcParams)
        assert pixels() == usual
        assert dict(mpl.rcParams) == own


@pytest.mark.parametrize("name", FIGURES)
def test_a_cell_does_not_show_what_a_widget_draws(name):
    """pyplot's figures are shown by whichever cell ends next; a widget draws in a thread."""
    drawn = []
    thread = threading.Thread(target=lambda: drawn.append(FIGURES[name]()))
    thread.start()
    thread.join()
    assert plt.get_fignums() == [] and drawn[0].axes
    FIGURES[name]()
    assert len(plt.get_fignums()) == 1


def test_two_threads_that_draw_at_once_leave_the_settings_as_they_were():
    own = dict(mpl.rcParams)
    threads = [threading.Thread(target=lambda: [FIGURES["before_after"]() for _ in range(3)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(mpl.rcParams) == own


def test_a_rate_that_was_not_measured_is_missing():
    table = rates(results("sft"), "harmless", "rr", ["none", "can:1"], ["base", "sft"])
    assert table.set_index(["model", "attack"]).value.dropna().to_dict() == {("sft", "none"): 50.0}
    assert len(table) == 4 and len(known_intervals(table)["data"]) == 12
    assert plots.before_after(results("sft").query("attack == 'none'")).axes


def test_names_of_models_are_no_formulas(tmp_path):
    assert plots.named("sft") == "safety fine-tuned (SFT)" and plots.named("a$b") == r"a\$b"
    plots.before_after(results("$\\frac", "a$")).savefig(tmp_path / "a.png")


def test_a_figure_is_saved_with_its_description(tmp_path):
    from PIL import Image

    save(plots.attributions([column([1.0, 2.0], [[0.0]])]), tmp_path / "a.png", "two words")
    save(plots.verdicts(pd.DataFrame({"deletion": [0.5]}, index=["ablation"]), 6), tmp_path / "b.svg", "a share")
    assert Image.open(tmp_path / "a.png").text["Description"] == "two words"
    assert "a share" in (tmp_path / "b.svg").read_text() and np.asarray(Image.open(tmp_path / "a.png")).std() > 0


def test_letters_that_no_font_has_are_named_once_and_nothing_warns(tmp_path, caplog, recwarn):
    with style.theme():
        figure, axes = style.subplots(size=(3, 2))
        axes[0, 0].set(title="\ue001\ue002 and letters", xlabel="\ue001")  # private use: no font has them
    style.save(figure, tmp_path / "figure.png")
    said = [record.message for record in caplog.records]
    assert said == ["figure.png: no installed font has \ue001\ue002; drawn as boxes. Install one, such as Noto Sans."]
    assert not recwarn.list


def test_letters_come_from_the_first_installed_font_that_has_them(tmp_path, monkeypatch, caplog):
    """Here one of matplotlib's own fonts stands for a font of another script."""
    letter = "\ue000"  # in STIX's private area, and not in DejaVu Sans
    monkeypatch.setattr(style, "OTHER_FONTS", ("not installed", "STIXNonUnicode"))
    style._other_fonts.cache_clear()
    try:
        with style.theme():
            figure, axes = style.subplots(size=(3, 2))
            axes[0, 0].set(title=f"a {letter}")
        style.save(figure, tmp_path / "figure.png")
    finally:
        style._other_fonts.cache_clear()
    assert not caplog.records
