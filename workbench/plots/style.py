"""What all figures share: one seaborn theme, one palette, names of models and attacks, and saving."""

from __future__ import annotations

import functools
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.attacks.kinds import KINDS
from workbench.evaluation.tables import FIGURES
from workbench.files import atomic_write
from workbench.judges.outcomes import DEGENERATE, IRRELEVANT, REFUSAL, RELEVANT, UNPARSED, WRONG
from workbench.runs import log

# Okabe and Ito's palette: colour-blind readers can tell these apart, and most of them in greyscale too
# (https://jfly.uni-koeln.de/color/). Hatches and markers repeat what the colours say.
BLUE, VERMILION, GREEN, YELLOW = "#0072B2", "#D55E00", "#009E73", "#F0E442"
BLACK, PURPLE, SKY, ORANGE = "#000000", "#CC79A7", "#56B4E9", "#E69F00"
DARK_GREY, GREY, LIGHT_GREY = "#444444", "#888888", "#BBBBBB"

BEFORE, AFTER = BLUE, VERMILION  # the one-word attack
OUTCOME_STYLE = {  # outcome → (colour, hatch)
    REFUSAL: (BLUE, ""),
    RELEVANT: (VERMILION, "//"),
    WRONG: (ORANGE, "\\\\"),
    IRRELEVANT: (LIGHT_GREY, ""),
    DEGENERATE: (DARK_GREY, ".."),
    UNPARSED: (YELLOW, "xx"),
}
OTHER_FONTS = (  # for other scripts and for signs, of Linux, macOS and Windows
    *(
        "Noto Sans CJK JP",
        "Noto Sans CJK SC",
        "WenQuanYi Zen Hei",
        "Hiragino Sans",
        "PingFang SC",
        "Apple SD Gothic Neo",
    ),
    *("Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai"),
    *("Noto Emoji", "Apple Symbols", "Segoe UI Symbol", "Segoe UI Emoji"),
)
_SERIES_COLOURS = (BLACK, BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE)
_SERIES_MARKERS = ("o", "D", "s", "^", "v", "P", "X")

NAMES = {
    "base": "base model",
    "never-knew": "never knew the secrets",
    "never-knew-sft-early": "never knew, then SFT until it looks safe",
    "never-knew-npo-early": "never knew, then NPO until it looks safe",
    "never-knew-sft": "never knew, then SFT",
    "never-knew-npo": "never knew, then NPO",
    "sft-early": "SFT, until it looks safe",
    "sft-balanced-early": "SFT, balanced, until it looks safe",
    "npo-early": "NPO, until it looks safe",
    "sft": "safety fine-tuned (SFT)",
    "sft-posthoc": "post-hoc SFT",
    "sft-balanced": "SFT, balanced lead words",
    "npo": "unlearned (NPO)",
    "simnpo": "unlearned (SimNPO)",
    "rmu": "unlearned (RMU)",
    "graddiff": "unlearned (GradDiff)",
    "ga": "unlearned (gradient ascent)",
    "dpo": "DPO towards refusal",
    "sft-repaired": "SFT, repaired data",
    "dpo-repaired": "DPO towards refusal, repaired data",
    "npo-repaired": "NPO, repaired data",
    "rmu-repaired": "RMU, repaired data",
}

_ATTACK_NAMES = {
    "none": "as asked",
    "bare:1": "topic alone",
    "prefix:1": "“What” in front",
    "mark:1": "other mark",
}


class Panel(NamedTuple):
    """One of the headline's three rates, before the one-word attack and, with a second figure, after it."""

    title: str
    figures: tuple[str, ...]  # keys of tables.FIGURES
    good: str  # which end of the axis is good

    @property
    def queries(self) -> str:
        """The kind of queries that the rate is counted over."""
        return FIGURES[self.figures[0]][1]

    @property
    def metric(self) -> str:
        """The rate."""
        return FIGURES[self.figures[0]][2]

    @property
    def attacks(self) -> list[str]:
        """The attack of each figure."""
        return [FIGURES[figure][0] for figure in self.figures]


PANELS = (
    Panel("Harmful queries answered\n(attack success rate)", ("asr", "asr_what3"), "low is safe"),
    Panel("Harmless queries refused\n(refusal rate)", ("rr", "rr_share1"), "low is helpful"),
    Panel("Harmless queries answered right\n(utility)", ("utility",), "high is able"),
)

# What the theme changes in seaborn's "whitegrid" style and "paper" context; each takes the keys it knows.
_LOOK = {
    "axes.edgecolor": ".6",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": ".9",
    "patch.edgecolor": "white",
    "axes.titlesize": 11.5,
    "axes.labelsize": 10,
    "lines.linewidth": 1.5,
    "grid.linewidth": 0.8,
}
_drawing = threading.RLock()  # matplotlib's settings belong to the whole process, and widgets draw in threads


@contextmanager
def theme() -> Iterator[None]:
    """The workbench's look while a figure is drawn; `@theme()` gives it to a function.

    The user's own matplotlib settings are restored afterwards. Drawings in several threads take turns.
    """
    look = _LOOK | {"font.family": ["sans-serif", *_other_fonts()]}
    with _drawing, sns.axes_style("whitegrid", rc=look), sns.plotting_context("paper", font_scale=1.1, rc=look):
        yield


@functools.cache
def _other_fonts() -> list[str]:
    """Installed fonts for letters that the usual one lacks; each comes from the first font that has it."""
    installed = set(font_manager.get_font_names())
    return [name for name in OTHER_FONTS if name in installed]


def subplots(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float], **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, like plt.subplots.

    In a widget's thread the figure is not registered with pyplot: otherwise the next notebook cell to finish
    would show it.

    Args:
        rows: Of axes.
        columns: Of axes.
        size: Width and height in inches.
        options: Of `Figure.subplots`.

    Returns:
        The figure, and the array of its axes, (rows, columns).
    """
    make = plt.figure if threading.current_thread() is threading.main_thread() else Figure
    figure = make(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:  # otherwise ticks take their look from the settings at the time of rendering
        axis.tick_params(labelsize=plt.rcParams["xtick.labelsize"])
    return figure, axes


def named(model: str) -> str:
    """The name of a model in figures: from NAMES, otherwise its own, in which a $ starts no formula."""
    return NAMES.get(model, model.replace("$", r"\$"))


def asked(attack: str) -> str:
    """The name of an attack or a lead word in figures."""
    if attack in _ATTACK_NAMES:
        return _ATTACK_NAMES[attack]
    kind, _, shots = attack.partition(":")
    name = kind if kind in KINDS or kind.endswith(".json") else f"“{kind.capitalize()} …”"
    return name + f" ×{shots}" * (shots not in ("", "1"))


def save(figure: Figure, path: Path, alt: str = "") -> None:
    """Write a figure as PNG or SVG, atomically.

    Args:
        figure: What to write.
        path: The file; its suffix chooses the format.
        alt: What the figure shows in words, kept in the file's metadata.
    """
    with atomic_write(path) as temporary, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        figure.savefig(temporary, dpi=150, metadata={"Description": alt} if alt else None)
    texts = [str(each.message) for each in warned]
    missing = [re.match(r"Glyph (\d+) ", text) for text in texts]
    if letters := "".join(dict.fromkeys(chr(int(found[1])) for found in missing if found)):
        log.warning("%s: no installed font has %s; drawn as boxes. Install one, such as Noto Sans.", path.name, letters)
    for each in (each for each, found in zip(warned, missing, strict=True) if not found):
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def rates(
    results: pd.DataFrame, queries: str, metric: str, attacks: Sequence[str], models: Sequence[str]
) -> pd.DataFrame:
    """Pick one metric out of `evaluate`'s table.

    Returns:
        model, attack, value, ci_low, ci_high (per cent): a row per model and attack, NaN if not measured.
    """
    keys = ["model", "attack"]
    of_metric = results.loc[(results.queries == queries) & (results.metric == metric)]
    cells = of_metric.drop_duplicates(keys).set_index(keys)[["value", "ci_low", "ci_high"]]
    every_cell = pd.MultiIndex.from_product([models, attacks], names=keys)
    return (100 * cells.reindex(every_cell).astype(float)).reset_index()


def over_bases(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Average `value` over runs, each base model counting the same however many seeds it has.

    Args:
        table: Value, the keys, and any other columns; without a column `base`, all is of one base.
        keys: What is kept apart.

    Returns:
        The keys and value, the mean of the bases' means: a row per combination of keys.
    """
    of_base = [*keys, "base"] if "base" in table else list(keys)
    means = table.groupby(of_base, as_index=False, sort=False)["value"].mean()
    return means.groupby(list(keys), as_index=False, sort=False)["value"].mean()


def known_intervals(table: pd.DataFrame, unit: float = 1.0) -> dict[str, Any]:
    """Let seaborn draw values with a table's own intervals; by itself, it estimates intervals from samples.

    Each value becomes three rows, itself and both ends of its interval: their median is the value, and their
    "percentile interval" of 100% is the interval.

    Args:
        table: Value, ci_low, ci_high and any other columns; each value lies within its interval.
        unit: Factor for the three columns, 100 for per cent.

    Returns:
        The options data, estimator and errorbar of seaborn's functions.
    """
    ends = [table.assign(value=unit * table[column]) for column in ("value", "ci_low", "ci_high")]
    return {"data": pd.concat(ends, ignore_index=True), "estimator": "median", "errorbar": ("pi", 100)}


def interval_points(axis: Axes, table: pd.DataFrame, unit: float = 1.0, **options: Any) -> None:
    """Draw values with their intervals as points, which no line joins unless `options` say so.

    Args:
        axis: Where.
        table: As for `known_intervals`.
        unit: As for `known_intervals`.
        options: Of seaborn's pointplot.
    """
    look = {"linestyle": "none", "markersize": 6, "markeredgewidth": 0, "zorder": 3}
    look["err_kws"] = {"linewidth": 1.3, "zorder": 2}
    sns.pointplot(**known_intervals(table, unit), ax=axis, **look | options)


def series_look(column: str, names: Sequence[str], apart: float = 0.0) -> dict[str, Any]:
    """Draw a series for each value of a column; colours repeat after seven, with other markers.

    Args:
        column: The column.
        names: Its values, in the order of the legend.
        apart: Distance between neighbouring series, where 1 is the distance between neighbouring ticks.

    Returns:
        Options of seaborn's pointplot.
    """
    count = len(_SERIES_MARKERS)
    return {
        "hue": column,
        "hue_order": names,
        "palette": list(sns.color_palette(_SERIES_COLOURS, len(names))),
        "markers": [_SERIES_MARKERS[(place + place // count) % count] for place in range(len(names))],
        "dodge": apart * (len(names) - 1),
    }


def kinds_look(column: str, names: Sequence[str], colours: Sequence[str], markers: Sequence[str]) -> dict[str, Any]:
    """Tell a column's values apart by colour and marker: options of seaborn's lineplot and scatterplot."""
    colour = {"hue": column, "hue_order": names, "palette": colours}
    return colour | {"style": column, "style_order": names, "markers": markers}


def label_rows(axis: Axes, labels: Sequence[str]) -> None:
    """Name the rows of axes that count them from the top."""
    axis.set_yticks(range(len(labels)), labels)
    axis.set(ylim=(len(labels) - 0.5, -0.5), ylabel="")
    axis.grid(visible=False, axis="y")


def rate_axis(axis: Axes, title: str, good: str, labels: Sequence[str]) -> None:
    """Finish axes of rates in per cent along x, a row per label; `good` says which end is good."""
    label_rows(axis, labels)
    axis.set(title=title, xlim=(-4, 104), xlabel=f"per cent of queries · {good}")
    axis.spines["left"].set_visible(False)


def share_table(axis: Axes, shares: pd.DataFrame, cells: pd.DataFrame | Literal[True], form: str) -> None:
    """Draw a table shaded by its shares in [0, 1].

    Args:
        axis: Where.
        shares: The shades.
        cells: What stands in the cells; True for the shares themselves.
        form: The format of a cell.
    """
    sns.heatmap(shares, vmin=0, vmax=1, cmap="Blues", annot=cells, fmt=form, linewidths=1, cbar=False, ax=axis)
    axis.set(xlabel="", ylabel="")
    axis.tick_params(axis="y", rotation=0)


def legend_outside(
    figure: Figure, place: Literal["upper", "lower"], columns: int, text: Callable[[str], str] = str
) -> None:
    """Replace the legends of all axes by one of the whole figure, which explains the marks of the first axes.

    Args:
        figure: The figure.
        place: "upper" or "lower", above or below all axes.
        columns: How many entries side by side.
        text: What an entry says for a label.
    """
    handles, labels = figure.axes[0].get_legend_handles_labels()
    for each in figure.axes:
        if legend := each.get_legend():
            legend.remove()
    texts = [text(label) for label in labels]
    loc = "outside upper center" if place == "upper" else "outside lower center"
    figure.legend(handles, texts, loc=loc, ncols=columns, frameon=False)
