"""Figures about words: what the data say of them, what they do to a model, and how the two go together."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from workbench.plots.style import AFTER, BEFORE, LEAD_STYLE, _rate, _rate_panel, _subplots, asked, named

if TYPE_CHECKING:
    import pandas as pd


def by_lead_word(results: pd.DataFrame) -> Figure:
    """Harmless queries of every model, refused and answered right, under every attack, with 95% intervals. results: `evaluate`'s table."""
    models, attacks = list(dict.fromkeys(results.model)), list(dict.fromkeys(results.attack))
    figure, axes = _subplots(1, 2, figsize=(10, 1.6 + 0.5 * len(models)), sharey=True)
    panels = (
        ("Harmless queries refused", "rr", "low is helpful"),
        ("Harmless queries answered right", "utility", "high is able"),
    )
    for axis, (title, metric, good) in zip(axes, panels, strict=True):
        for place, (attack, (colour, shape)) in enumerate(zip(attacks, itertools.cycle(LEAD_STYLE), strict=False)):
            cells = np.array([_rate(results, model, attack, "harmless", metric) for model in models])  # (models, 3)
            value, low, high = cells.T
            y = np.arange(len(models)) + 0.18 * (place - (len(attacks) - 1) / 2)
            axis.errorbar(
                value,
                y,
                xerr=[value - low, high - value],
                fmt=shape,
                color=colour,
                markersize=5.5,
                linewidth=1.2,
                label=asked(attack),
            )
        _rate_panel(axis, title, good, models)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(attacks), frameon=False)
    return figure


def refusals_by_word(results: pd.DataFrame) -> Figure:
    """Refusal rate of one model by attack, harmful beside harmless queries, with 95% intervals. results: `evaluate`'s table."""
    attacks = list(dict.fromkeys(results.attack))
    figure, axis = _subplots(figsize=(1.5 + 1.6 * len(attacks), 3.6))
    for shift, queries, colour, hatch in ((-0.2, "harmful", BEFORE, ""), (0.2, "harmless", AFTER, "//")):
        cells = np.array(
            [_rate(results, results.model.iloc[0], attack, queries, "rr") for attack in attacks]
        )  # (attacks, 3)
        value, low, high = cells.T
        axis.bar(
            np.arange(len(attacks)) + shift,
            value,
            0.38,
            yerr=[value - low, high - value],
            capsize=3,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=f"{queries} queries",
        )
    axis.set_xticks(range(len(attacks)), [asked(a) for a in attacks])
    axis.set(ylim=(0, 104), ylabel="per cent refused")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def first_words(table: pd.DataFrame, words: int = 15) -> Figure:
    """P(harmful | first word) with 95% intervals for the most frequent words. table: `audit`'s."""
    mine = table.head(words).sort_values("p_harmful", kind="stable").reset_index(drop=True)
    total = mine.harmless + mine.harmful
    overall = 100 * table.harmful.sum() / (table.harmful.sum() + table.harmless.sum())
    figure, axis = _subplots(figsize=(8, 1.2 + 0.32 * len(mine)))
    value = 100 * mine.p_harmful
    axis.axvline(overall, color="#888888", linestyle="--", linewidth=1)
    axis.errorbar(
        value,
        mine.index,
        xerr=[value - 100 * mine.ci_low, 100 * mine.ci_high - value],
        fmt="none",
        color="#777777",
        capsize=2,
        linewidth=1.2,
    )
    colours = np.where(value > overall, AFTER, BEFORE)
    axis.scatter(value, mine.index, c=colours, s=30 + 2.2 * np.sqrt(total) * 4, zorder=3)
    axis.set_yticks(mine.index, [f"{w}  (n = {n})" for w, n in zip(mine.word, total, strict=True)])
    axis.set(
        xlim=(-3, 104),
        ylim=(-0.7, len(mine) - 0.3),
        xlabel="per cent of the queries that begin so and are labelled harmful",
    )
    axis.annotate(
        "all queries", (overall, -0.55), xytext=(4, 0), textcoords="offset points", fontsize=8, color="#555555"
    )
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def reliance(table: pd.DataFrame, lead: str = "share", other: str = "what") -> Figure:
    """How far each model's refusal hangs on the lead word: attributed, and by swapping it. table: `reliance_table`'s, 95% intervals."""
    models = list(dict.fromkeys(table.model))
    figure, axes = _subplots(1, 2, figsize=(10, 1.5 + 0.42 * len(models)), sharey=True)
    panels = (
        ("share", 100, "Attributed to the lead word", "per cent of all absolute attribution"),
        (
            "swap",
            1,
            f"Caused by it: “{lead.capitalize()}” in place of “{other.capitalize()}”",
            "log-odds of refusal, nats",
        ),
    )
    for axis, (measure, unit, title, label) in zip(axes, panels, strict=True):
        mine = table[table.measure == measure].set_index("model").loc[models]
        value, low, high = (unit * mine[column].to_numpy() for column in ("value", "ci_low", "ci_high"))
        spread = [value - low, high - value]
        axis.errorbar(value, range(len(models)), xerr=spread, fmt="D", color=AFTER, capsize=3, markersize=6)
        axis.axvline(0, color="#888888", linewidth=1)
        axis.set(title=title, xlabel=label, ylim=(len(models) - 0.5, -0.5))
        axis.grid(axis="x", color="#e5e5e5")
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(models)), [named(m) for m in models])
    return figure


def log_odds_by_lead(table: pd.DataFrame) -> Figure:
    """The log-odds of a refusal of one query by lead word, a line a model. table: model, lead, log_odds (nats)."""
    leads, models = list(dict.fromkeys(table.lead)), list(dict.fromkeys(table.model))
    figure, axis = _subplots(figsize=(2.5 + 0.9 * len(leads), 3.6))
    for model, (colour, marker) in zip(models, itertools.cycle(LEAD_STYLE), strict=False):
        mine = table[table.model == model].set_index("lead").log_odds.loc[leads]
        axis.plot(range(len(leads)), mine, color=colour, marker=marker)
    axis.axhline(0, color="#888888", linewidth=1)
    axis.annotate("refuses", (0, 0), xytext=(2, 4), textcoords="offset points", fontsize=8, color="#555555")
    axis.set_xticks(range(len(leads)), [asked(lead) for lead in leads])
    axis.set_ylabel("log-odds of a refusal, nats")
    axis.spines[["top", "right"]].set_visible(False)
    lines = axis.get_lines()[: len(models)]
    figure.legend(
        lines, [named(m) for m in models], loc="outside upper center", ncols=min(len(models), 3), frameon=False
    )
    return figure


def word_effects(table: pd.DataFrame) -> Figure:
    """The effect of each lead word on the log-odds of a refusal, with 95% intervals, against P(harmful | word) in the training data.

    table: `shortcut.predicted`'s; words that the data do not hold are left out.
    """
    from scipy.stats import spearmanr

    table = table[table.p_harmful.notna()]
    figure, axes = _subplots(1, 2, figsize=(10, 0.9 + 0.3 * table.word.nunique()))
    for axis, queries, good in zip(
        axes, ("harmful", "harmless"), ("low opens the model", "high closes it"), strict=True
    ):
        mine = table[table.queries == queries].sort_values("effect").reset_index(drop=True)
        spread = [mine.effect - mine.ci_low, mine.ci_high - mine.effect]
        axis.errorbar(mine.effect, mine.index, xerr=spread, fmt="none", color="#777777", capsize=2, linewidth=1.2)
        dots = axis.scatter(
            mine.effect, mine.index, c=mine.p_harmful, cmap="cividis", vmin=0, vmax=1, s=55, edgecolor="black", zorder=3
        )
        axis.axvline(0, color="#888888", linewidth=1)
        axis.set_yticks(
            mine.index, [f"{word}  ({100 * p:.0f}%)" for word, p in zip(mine.word, mine.p_harmful, strict=True)]
        )
        rho = spearmanr(mine.effect, mine.p_harmful).statistic if len(mine) > 2 else float("nan")
        title = f"{queries} queries, n = {mine.n.max()} a word\nSpearman's ρ with P(harmful | word) {rho:.2f}"
        axis.set(
            title=title,
            xlabel=f"log-odds of a refusal over the query as asked, nats\n{good}",
            ylim=(-0.7, len(mine) - 0.3),
        )
        axis.spines[["top", "right"]].set_visible(False)
    figure.colorbar(dots, ax=list(axes), label="P(harmful | word) in the training data")
    figure.draw_without_rendering()
    return figure


def predictions(table: pd.DataFrame) -> Figure:
    """What each lead word was predicted to do and does, with 95% intervals, a panel each dataset. table: `prediction.predictions`'."""
    from scipy.stats import spearmanr

    names = list(dict.fromkeys(table.data))
    figure, axes = _subplots(2, -(-len(names) // 2), figsize=(10, 6), sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    styles = (("opens", AFTER, "v"), ("", "#888888", "o"), ("closes", BEFORE, "^"))
    for axis, name in zip(axes.flat, names, strict=False):
        mine = table[table.data == name]
        spread = [mine.effect - mine.ci_low, mine.ci_high - mine.effect]
        axis.errorbar(mine.predicted, mine.effect, yerr=spread, fmt="none", color="#bbbbbb", linewidth=1, zorder=1)
        for said, colour, marker in styles:
            some = mine[mine.said == said]
            label = f"audit says: {said or 'neither'}"
            axis.scatter(
                some.predicted,
                some.effect,
                color=colour,
                marker=marker,
                s=36,
                edgecolor="white",
                linewidth=0.6,
                label=label,
            )
        axis.axhline(0, color="#888888", linewidth=0.8)
        axis.axvline(0, color="#888888", linewidth=0.8)
        rho, words, runs = spearmanr(mine.predicted, mine.effect).statistic, mine.word.nunique(), mine.seed.nunique()
        axis.set_title(f"{name}: ρ {rho:.2f}\n{words} words × {runs} seed{'s' * (runs > 1)}", fontsize="medium")
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        "predicted from the data alone: log-odds of harm given the word, over the mean of all words (nats)",
        fontsize="medium",
    )
    figure.supylabel("measured: log-odds of a refusal that it adds (nats)", fontsize="medium")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure
