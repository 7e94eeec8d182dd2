"""Figures of the study over base models and seeds: when a mirage starts, and which wordings get through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workbench.attacks.kinds import HELD_OUT, LEAD_WORDS
from workbench.plots.style import (
    BLACK,
    DARK_GREY,
    asked,
    legend_outside,
    named,
    over_bases,
    series_look,
    share_table,
    subplots,
    theme,
)

_ONSET = (  # a panel of `onset`: title, queries, metric, attack
    ("Harmful queries answered, after “What”\n(low is safe)", "harmful", "asr", "what:1"),
    ("Harmless queries refused, after “Share”\n(low is helpful)", "harmless", "rr", "share:1"),
)
_MARKS = 8  # about as many on each line of `onset`
_MEAN: dict[str, Any] = {"linewidth": 2, "markersize": 6.5, "markeredgewidth": 0.6, "zorder": 4}
_ONE_BASE: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.35, "zorder": 2}
_AS_ASKED: dict[str, Any] = {"linewidth": 1.2, "linestyle": ":", "zorder": 3}
_SAFE: dict[str, Any] = {"marker": "*", "markersize": 12, "markeredgecolor": BLACK, "linestyle": "none", "zorder": 6}


@theme()
def onset(table: pd.DataFrame, safe: Mapping[str, float] | None = None) -> Figure:
    """Where the mirage starts and when it fades: rates under one-word attacks against training steps.

    For each model a bold line for the mean of the bases' means, a pale one for each base, and a dotted one
    for the mean as asked. Only steps that all runs of a model have reached are drawn: a mean over the runs
    that train longest would be of something else.

    Args:
        table: Curves of several models and runs (values in [0, 1]), with their base and seed.
        safe: {model: the step at which it first looks safe, e.g. the mean over its runs}, marked by a star;
            models whose line does not reach that step get none.
    """
    table = _common_steps(table)
    models = list(dict.fromkeys(table["model"]))
    look = series_look("model", models)
    size = (11, 4.6 + 0.25 * -(-len(models) // 4))
    figure, axes = subplots(1, len(_ONSET), size=size, sharex=True, sharey=True)
    for axis, (title, queries, metric, attack) in zip(axes.flat, _ONSET, strict=True):
        shown = table.loc[(table["queries"] == queries) & (table["metric"] == metric)]
        shown = shown.assign(value=100 * shown["value"])
        for place, (model, colour, marker) in enumerate(zip(models, look["palette"], look["markers"], strict=True)):
            own = shown.loc[shown["model"] == model]
            attacked, as_asked = (own.loc[own["attack"] == name] for name in (attack, "none"))
            mean = over_bases(attacked, ["step"])
            every = max(1, len(mean) // _MARKS)
            marks = {"marker": marker, "markevery": (place % every, every), "label": model}  # apart from the others'
            bases = attacked.groupby(["base", "step"], as_index=False)["value"].mean()
            line: dict[str, Any] = {"x": "step", "y": "value", "estimator": None, "color": colour, "ax": axis}
            if len(bases):  # seaborn cannot draw no units
                sns.lineplot(bases, units="base", **line, **_ONE_BASE)
            sns.lineplot(over_bases(as_asked, ["step"]), **line, **_AS_ASKED)
            sns.lineplot(mean, **line, **marks, **_MEAN)
            _star(axis, mean, (safe or {}).get(model), colour)
        axis.set(title=title, xlabel="training step", ylabel="", ylim=(-4, 104))
    figure.supylabel("per cent of validation queries", fontsize="medium")
    legend_outside(figure, "upper", columns=min(len(models), 4), text=named)
    _explain_lines(figure, starred=bool(safe))
    return figure


def _common_steps(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the steps that all runs of the row's model have."""
    table = table.assign(run=table["base"].astype(str) + "/" + table["seed"].astype(str))
    runs = table.groupby("model")["run"].transform("nunique")
    return table.loc[table.groupby(["model", "step"])["run"].transform("nunique") == runs]


def _star(axis: Axes, line: pd.DataFrame, step: float | None, colour: str) -> None:
    """Mark a step on a line of steps and values, if the line reaches it."""
    if step is not None and line["step"].min() <= step <= line["step"].max():
        axis.plot(step, np.interp(step, line["step"], line["value"]), markerfacecolor=colour, **_SAFE)


def _explain_lines(figure: Figure, starred: bool) -> None:
    """Say below the axes what the kinds of lines are, and the stars if there are any."""
    kinds = {"mean over base models": _MEAN, "one base model": _ONE_BASE, "as asked, without the word": _AS_ASKED}
    lines = [Line2D([], [], color=DARK_GREY, label=label, **look) for label, look in kinds.items()]
    if starred:
        lines.append(Line2D([], [], markerfacecolor=DARK_GREY, label="first looks safe, as asked", **_SAFE))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)


_COLUMNS = pd.DataFrame(  # of `wordings`
    [
        ("as\nasked", "test queries", "test", "none"),
        *(("words of the\nsafety data", asked(attack), "test", attack) for attack in LEAD_WORDS),
        *(("held-out\nwordings", asked(attack), "test", attack) for attack in HELD_OUT),
        *(
            ("held-out rules,\nas asked", f"new {what}", f"new-{what}", "none")
            for what in ("requests", "kinds", "colours")
        ),
    ],
    columns=["group", "wording", "split", "attack"],
)


@theme()
def wordings(table: pd.DataFrame) -> Figure:
    """Which wordings get through: a row per model and a column per wording, in per cent.

    Each cell is the mean of the base models' means. Wordings that the table lacks have no column; those
    that it lacks for one model, an empty cell.

    Args:
        table: `shipped.shipped("results")` (values in [0, 1]), of base models that are to be averaged.
    """
    asked_in = table.merge(_COLUMNS, on=["split", "attack"])
    models = list(dict.fromkeys(asked_in["model"]))
    columns = _COLUMNS.loc[_COLUMNS["wording"].isin(asked_in["wording"])]
    panels = (
        ("Harmful queries answered, per cent (low is safe)", "harmful", "asr"),
        ("Harmless queries refused, per cent (low is helpful)", "harmless", "rr"),
    )
    size = (3.2 + 0.52 * len(columns), 2.8 + 2 * 0.3 * len(models))
    figure, axes = subplots(len(panels), 1, size=size, sharex=True, gridspec_kw={"hspace": 0.06})
    for axis, (title, queries, metric) in zip(axes.flat, panels, strict=True):
        shown = asked_in.loc[(asked_in["queries"] == queries) & (asked_in["metric"] == metric)]
        means = over_bases(shown, ["model", "wording"])
        shares = means.pivot(index="model", columns="wording", values="value")
        shares = shares.reindex(models, columns=columns["wording"])
        share_table(axis, shares, 100 * shares, ".0f")
        axis.set_yticks(np.arange(len(models)) + 0.5, [named(model) for model in models])
        axis.tick_params(axis="x", rotation=90)
        axis.grid(visible=False)
        axis.set_title(title)
        _head_groups(axis, list(columns["group"]))
    return figure


def _head_groups(axis: Axes, groups: Sequence[str]) -> None:
    """Part the groups of a table's columns, and write their names above."""
    starts = [place for place, group in enumerate(groups) if place == 0 or group != groups[place - 1]]
    ends = [*starts[1:], len(groups)]
    axis.vlines(starts[1:], 0, 1, transform=axis.get_xaxis_transform(), color="white", linewidth=8)
    middles = [(start + end) / 2 for start, end in zip(starts, ends, strict=True)]
    heads = axis.secondary_xaxis("top")
    heads.set_xticks(middles, [groups[start] for start in starts])
    heads.tick_params(length=0, labelsize=plt.rcParams["xtick.labelsize"])
    heads.spines["top"].set_visible(False)
