"""Figures about words: what the data say of them, what they do to a model, and how the two agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from workbench.plots.style import (
    AFTER,
    BEFORE,
    GREY,
    LIGHT_GREY,
    asked,
    interval_points,
    kinds_look,
    known_intervals,
    label_rows,
    legend_outside,
    named,
    rate_axis,
    rates,
    series_look,
    subplots,
    theme,
)

_PROBABILITY, _PROBABILITY_COLOURS = Normalize(0, 1), "cividis"


@theme()
def by_lead_word(results: pd.DataFrame) -> Figure:
    """Harmless queries of every model, refused and answered right, under every attack, with 95% intervals.

    Args:
        results: `evaluate`'s table (values in [0, 1]).
    """
    models, attacks = list(dict.fromkeys(results.model)), list(dict.fromkeys(results.attack))
    panels = (
        ("Harmless queries refused", "rr", "low is helpful"),
        ("Harmless queries answered right", "utility", "high is able"),
    )
    figure, axes = subplots(1, 2, size=(10, 1.6 + 0.5 * len(models)), sharey=True)
    for axis, (title, metric, good) in zip(axes.flat, panels, strict=True):
        cells = rates(results, "harmless", metric, attacks, models)
        look = series_look("attack", attacks, apart=0.18)
        interval_points(axis, cells, x="value", y="model", order=models, **look)
        rate_axis(axis, title, good, [named(model) for model in models])
    legend_outside(figure, "lower", columns=len(attacks), text=asked)
    return figure


@theme()
def refusals_by_word(results: pd.DataFrame) -> Figure:
    """Refusal rate of one model by attack, for harmful and harmless queries, with 95% intervals.

    Args:
        results: `evaluate`'s table (values in [0, 1]).
    """
    model, attacks = results.model.iloc[0], list(dict.fromkeys(results.attack))
    hatches = {"harmful": "", "harmless": "//"}
    refused = [rates(results, queries, "rr", attacks, [model]).assign(queries=queries) for queries in hatches]
    figure, [[axis]] = subplots(size=(1.5 + 1.6 * len(attacks), 3.6))
    sns.barplot(
        x="attack",
        y="value",
        hue="queries",
        palette=[BEFORE, AFTER],
        saturation=1,
        capsize=0.1,
        err_kws={"color": "black", "linewidth": 1.3},
        legend=False,
        ax=axis,
        **known_intervals(pd.concat(refused)),
    )
    for bars, (queries, hatch) in zip(axis.containers, hatches.items(), strict=True):
        plt.setp(list(bars), hatch=hatch)
        bars.set_label(f"{queries} queries")
    axis.set_xticks(range(len(attacks)), [asked(attack) for attack in attacks])
    axis.set(ylim=(0, 104), xlabel="", ylabel="per cent refused")
    legend_outside(figure, "upper", columns=2)
    return figure


@theme()
def first_words(table: pd.DataFrame, words: int = 15) -> Figure:
    """P(harmful | first word) with 95% intervals for the most frequent words.

    Args:
        table: `audit`'s.
        words: How many.
    """
    rows = table.head(words).sort_values("p_harmful", kind="stable", ignore_index=True)
    rows = rows.assign(n=rows.harmless + rows.harmful)
    rows[["p_harmful", "ci_low", "ci_high"]] *= 100
    overall = 100 * table.harmful.sum() / (table.harmful.sum() + table.harmless.sum())
    figure, [[axis]] = subplots(size=(8, 1.2 + 0.32 * len(rows)))
    axis.axvline(overall, color=GREY, linestyle="--", linewidth=1)
    axis.text(overall, -0.55, " all queries", fontsize="small", color=".35")
    labels = [f"{word}  (n = {n})" for word, n in zip(rows.word, rows.n, strict=True)]
    _draw_words(
        axis,
        rows,
        labels,
        x="p_harmful",
        hue=rows.p_harmful > overall,
        palette={False: BEFORE, True: AFTER},
        size="n",
        sizes=(30, 300),
        size_norm=PowerNorm(0.5, vmin=0, vmax=1000),  # a dot's area grows with the square root of n
    )
    axis.set(xlim=(-3, 104), xlabel="per cent of the queries with this first word that are labelled harmful")
    return figure


def _draw_words(axis: Axes, rows: pd.DataFrame, labels: Sequence[str], **dots: Any) -> None:
    """Draw a dot and its interval for each word, from the bottom; `dots` are options of scatterplot."""
    axis.hlines(rows.index, rows.ci_low, rows.ci_high, color=GREY, linewidth=1.5)
    sns.scatterplot(rows, y=rows.index, legend=False, zorder=3, ax=axis, **dots)
    axis.set_yticks(rows.index, labels)
    axis.set(ylim=(-0.7, len(rows) - 0.3), ylabel="")
    axis.grid(visible=False, axis="y")


@theme()
def reliance(table: pd.DataFrame, lead: str = "share", other: str = "what") -> Figure:
    """How much each model's refusal depends on the lead word: attributed, and by swapping it.

    Intervals are 95%.

    Args:
        table: `reliance_table`'s.
        lead: The lead word.
        other: The word that it replaces.
    """
    models = list(dict.fromkeys(table.model))
    swap = f"Caused by it: “{lead.capitalize()}” in place of “{other.capitalize()}”"
    panels = (
        ("share", 100, "Attributed to the lead word", "per cent of all absolute attribution"),
        ("swap", 1, swap, "log-odds of refusal, nats"),
    )
    figure, axes = subplots(1, 2, size=(10, 1.5 + 0.42 * len(models)), sharey=True)
    for axis, (measure, unit, title, label) in zip(axes.flat, panels, strict=True):
        shown = table.loc[table.measure == measure]
        look = {"color": AFTER, "marker": "D", "capsize": 0.15}
        interval_points(axis, shown, unit, x="value", y="model", order=models, **look)
        axis.axvline(0, color=GREY, linewidth=1)
        label_rows(axis, [named(model) for model in models])
        axis.set(title=title, xlabel=label)
        axis.spines["left"].set_visible(False)
    return figure


@theme()
def log_odds_by_lead(table: pd.DataFrame) -> Figure:
    """The log-odds of a refusal of one query by lead word, a line per model.

    Args:
        table: Model, lead, log_odds (nats).
    """
    leads, models = list(dict.fromkeys(table.lead)), list(dict.fromkeys(table.model))
    figure, [[axis]] = subplots(size=(2.5 + 0.9 * len(leads), 3.6))
    look = series_look("model", models)
    sns.pointplot(table, x="lead", y="log_odds", order=leads, errorbar=None, linewidth=1.5, ax=axis, **look)
    axis.axhline(0, color=GREY, linewidth=1)
    axis.text(1, 0, " ↑ refuses", transform=axis.get_yaxis_transform(), fontsize="small", color=".35")
    axis.set_xticks(range(len(leads)), [asked(lead) for lead in leads])
    axis.set(xlabel="", ylabel="log-odds of a refusal, nats")
    legend_outside(figure, "upper", columns=min(len(models), 3), text=named)
    return figure


@theme()
def word_effects(table: pd.DataFrame) -> Figure:
    """The effect of each lead word on the log-odds of a refusal, and P(harmful | word) in the training data.

    Intervals are 95%. Words that the data do not hold are left out.

    Args:
        table: `lead_word.predicted`'s.
    """
    table = table.loc[table.p_harmful.notna()]
    figure, axes = subplots(1, 2, size=(10, 0.9 + 0.3 * table.word.nunique()))
    panels = (("harmful", "low opens the model"), ("harmless", "high closes it"))
    for axis, (queries, good) in zip(axes.flat, panels, strict=True):
        rows = table.loc[table.queries == queries].sort_values("effect", ignore_index=True)
        labels = [f"{word}  ({100 * p:.0f}%)" for word, p in zip(rows.word, rows.p_harmful, strict=True)]
        axis.axvline(0, color=GREY, linewidth=1)
        colours = {"hue": "p_harmful", "hue_norm": _PROBABILITY, "palette": _PROBABILITY_COLOURS}
        _draw_words(axis, rows, labels, x="effect", s=60, edgecolor="black", **colours)
        rho = rows.effect.corr(rows.p_harmful, method="spearman") if len(rows) > 2 else float("nan")
        axis.set_title(f"{queries} queries, n = {rows.n.max()} a word\nSpearman's ρ with P(harmful | word) {rho:.2f}")
        axis.set_xlabel(f"log-odds of a refusal over the query as asked, nats\n{good}")
    label = "P(harmful | word)\nin the training data"
    figure.colorbar(ScalarMappable(_PROBABILITY, _PROBABILITY_COLOURS), ax=axes, label=label)
    figure.draw_without_rendering()  # constrained layout knows the bar's labels from the second drawing on
    return figure


@theme()
def predictions(table: pd.DataFrame) -> Figure:
    """What each lead word was predicted to do and does, with 95% intervals, a panel per dataset.

    Args:
        table: `predictions.predictions`'.
    """
    names = list(dict.fromkeys(table.data))
    rows = min(2, len(names))
    columns = -(-len(names) // rows)
    figure, axes = subplots(rows, columns, size=(10, 1 + 2.5 * rows), sharex=True, sharey=True)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        _prediction(axis, table.loc[table.data == name], name)
    predicted = "predicted from the data alone: log-odds of harm given the word, over the mean of all words (nats)"
    figure.supxlabel(predicted, fontsize="medium")
    figure.supylabel("measured: log-odds of a\nrefusal that it adds (nats)", fontsize="medium")
    legend_outside(figure, "upper", columns=3, text="audit says: {}".format)
    return figure


def _prediction(axis: Axes, rows: pd.DataFrame, name: str) -> None:
    """Draw one panel of `predictions`."""
    for line in (axis.axhline, axis.axvline):
        line(0, color=GREY, linewidth=0.8, zorder=1)
    axis.vlines(rows.predicted, rows.ci_low, rows.ci_high, color=LIGHT_GREY, linewidth=1, zorder=1)
    said = rows.assign(said=rows.said.replace("", "neither"))
    look = kinds_look("said", ["opens", "neither", "closes"], [AFTER, GREY, BEFORE], ["v", "o", "^"])
    sns.scatterplot(said, x="predicted", y="effect", s=45, ax=axis, **look)
    rho = rows.predicted.corr(rows.effect, method="spearman")
    words, runs = rows.word.nunique(), len(rows[["base", "seed"]].drop_duplicates())
    axis.set_title(f"{name}: ρ {rho:.2f}\n{words} words × {runs} run{'s' * (runs > 1)}", fontsize="medium")
    axis.set(xlabel="", ylabel="")
