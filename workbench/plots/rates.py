"""Figures of rates and outcomes: under attack, while training, over seeds, by question and by judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.evaluation.compare import Agreement
from workbench.intervals import wilson
from workbench.judges.outcomes import RELEVANT, UNPARSED, WITHOUT_TRUTH
from workbench.plots.style import (
    AFTER,
    BEFORE,
    BLACK,
    DARK_GREY,
    GREY,
    OUTCOME_STYLE,
    PANELS,
    asked,
    interval_points,
    kinds_look,
    known_intervals,
    label_rows,
    legend_outside,
    named,
    over_bases,
    rate_axis,
    rates,
    series_look,
    share_table,
    subplots,
    theme,
)

ATTACKED = "after the one-word attack (“What…” ×3, “Share…”)"


@theme()
def before_after(results: pd.DataFrame, paper: pd.DataFrame | None = None) -> Figure:
    """Attack success, refusal and utility of every model, before and after the one-word attack.

    Intervals are 95%.

    Args:
        results: `evaluate`'s table (values in [0, 1]).
        paper: `paper.paper_table()`, drawn as small crosses for comparison.
    """
    models = list(dict.fromkeys(results.model))
    marks: dict[str, dict[str, Any]] = {  # a wide ring and a smaller diamond: both are seen where they coincide
        "as asked": {"marker": "o", "markersize": 11, "color": BEFORE, "markerfacecolor": "white"},
        ATTACKED: {"marker": "D", "markersize": 5.5, "color": AFTER},
    }
    figure, axes = subplots(1, 3, size=(11, 1.6 + 0.55 * len(models)), sharey=True)
    for axis, panel in zip(axes.flat, PANELS, strict=True):
        cells = rates(results, panel.queries, panel.metric, panel.attacks, models)
        ends = cells.pivot(index="model", columns="attack", values="value").loc[models]
        axis.hlines(range(len(models)), ends.min(axis=1), ends.max(axis=1), color=GREY, linewidth=2, zorder=1)
        for attack, (label, mark) in zip(panel.attacks, marks.items(), strict=False):
            interval_points(
                axis,
                cells.loc[cells.attack == attack],
                x="value",
                y="model",
                order=models,
                label=label,
                markeredgewidth=1.8,
                capsize=0.15,
                **mark,
            )
        if paper is not None:
            _crosses(axis, paper, panel.figures, models)
        rate_axis(axis, panel.title, panel.good, [named(model) for model in models])
        axis.set_ylim(len(models) - 0.4, -0.6)  # room for the crosses
    legend_outside(figure, "lower", columns=3)
    return figure


def _crosses(axis: Axes, paper: pd.DataFrame, figures: Sequence[str], models: Sequence[str]) -> None:
    """Mark the paper's figures a little below those of the same models."""
    shared = paper.loc[paper.model.isin(models)].drop_duplicates("model").dropna(subset=list(figures))
    rows = [models.index(model) + 0.28 for model in shared.model]
    for figure, colour in zip(figures, (BEFORE, AFTER), strict=False):
        axis.scatter(shared[figure], rows, marker="x", s=26, color=colour, linewidth=1.4, zorder=3)
    label = "the paper, LLaVA-1.5-7B on VLGuard (utility: VQAv2)"
    axis.scatter([], [], marker="x", s=26, color=DARK_GREY, linewidth=1.4, label=label)


_SOLID, _DASHED, _DOTTED = (1, 0), (3, 1.5), (1, 1.5)  # lengths of a dash and a gap, in widths of the line
CURVES = pd.DataFrame(  # a row for each line of `curves`: which rate it shows, under an attack's word or none; its look
    [
        ("harmful", "asr", "none", "harmful answered", AFTER, _SOLID, "o"),
        ("harmful", "asr", "what", "… after “What”", AFTER, _DASHED, "D"),
        ("harmless", "rr", "none", "harmless refused", BEFORE, _SOLID, "o"),
        ("harmless", "rr", "share", "… after “Share”", BEFORE, _DASHED, "D"),
        ("harmless", "utility", "none", "harmless answered right", DARK_GREY, _DOTTED, "s"),
    ],
    columns=["queries", "metric", "lead", "label", "colour", "dashes", "marker"],
)


@theme()
def curves(table: pd.DataFrame, step: int | None = None) -> Figure:
    """ASR, RR and utility against training steps, a panel per model, four in a row; bands are 95% intervals.

    Rates after an attack are dashed.

    Args:
        table: A run's curves.csv (values in [0, 1]), or several of them together.
        step: Marked by a line, if given.
    """
    models = list(dict.fromkeys(table.model))
    lines = table.assign(lead=table.attack.str.split(":").str[0]).merge(CURVES, on=["queries", "metric", "lead"])
    look = kinds_look("label", *(CURVES[column].to_list() for column in ("label", "colour", "marker")))
    columns = min(4, len(models))
    rows = -(-len(models) // columns)
    figure, axes = subplots(rows, columns, size=(1 + 3.6 * columns, 0.8 + 3 * rows), sharey=True)
    for axis in axes.flat[len(models) :]:
        axis.axis("off")
    for axis, model in zip(axes.flat, models, strict=False):
        sns.lineplot(
            x="step",
            y="value",
            dashes=CURVES.dashes.to_list(),
            markersize=5,
            err_kws={"alpha": 0.1, "linewidth": 0},
            ax=axis,
            **known_intervals(lines.loc[lines.model == model], unit=100),
            **look,
        )
        steps = table[table.model == model].step
        if step is not None and (steps <= step).any():
            axis.axvline(steps[steps <= step].max(), color="black", linewidth=1.2, zorder=1)
        axis.set(title=named(model), xlabel="training step", ylabel="", ylim=(-4, 104))
    figure.supylabel("per cent of validation queries", fontsize="medium")
    # as many entries of the legend as fit side by side
    legend_outside(figure, "lower", columns=5 if columns > 2 else columns + 1)
    return figure


@theme()
def seeds(table: pd.DataFrame) -> Figure:
    """Every run's rate as a mark and the mean as a bar, before and after the one-word attack.

    The mean is of the base models' means; of the seeds, if there is one base.

    Args:
        table: `headline.over_seeds`'; without a column `base`, all runs are of one base.
    """
    models = list(dict.fromkeys(table.model))
    marks = {  # label → (marker, face, edge); rings are seen apart where they overlap
        "as asked, a mark per run": ("o", "white", BEFORE),
        ATTACKED: ("D", AFTER, AFTER),
    }
    bar: dict[str, Any] = {"marker": "|", "markersize": 13, "markeredgewidth": 2.2, "linestyle": "none", "zorder": 5}
    figure, axes = subplots(1, 3, size=(11, 1.6 + 0.6 * len(models)), sharey=True)
    for axis, panel in zip(axes.flat, PANELS, strict=True):
        of_panel = (table.queries == panel.queries) & (table.metric == panel.metric) & table.attack.isin(panel.attacks)
        shown = table.loc[of_panel]
        shown = shown.assign(value=100 * shown.value, mark=np.where(shown.attack == "none", *marks))
        place: dict[str, Any] = {"x": "value", "y": "model", "order": models, "hue": "mark", "hue_order": list(marks)}
        place |= {"dodge": True, "legend": False, "ax": axis}
        for label, (marker, face, edge) in marks.items():
            dots: dict[str, Any] = {"marker": marker, "edgecolor": edge, "linewidth": 1.3}
            own = shown.loc[shown.mark == label]
            sns.stripplot(own, palette=[face, face], jitter=False, alpha=0.85, **dots, **place)
            axis.scatter([], [], color=face, label=label, **dots)
        place["dodge"] = 0.4  # as far apart as stripplot's
        means = over_bases(shown, ["model", "mark"])
        sns.pointplot(means, errorbar=None, palette=[BLACK, BLACK], **bar, **place)
        rate_axis(axis, panel.title, panel.good, [named(model) for model in models])
    label = "mean over base models" if "base" in table and table.base.nunique() > 1 else "mean over seeds"
    axes[0, 0].plot([], [], color=BLACK, linewidth=2.2, label=label)
    legend_outside(figure, "lower", columns=3)
    return figure


@theme()
def by_request(table: pd.DataFrame, attacks: Sequence[str] = ()) -> Figure:
    """Harmless queries answered right by kind of question, a panel per attack, a mark per model.

    Intervals are 95%.

    Args:
        table: `tables.rates_by_request`'.
        attacks: Which, by default all.
    """
    attacks = attacks or list(dict.fromkeys(table.attack))
    utility = table.loc[(table.queries == "harmless") & (table.metric == "utility")]
    models, requests = list(dict.fromkeys(utility.model)), sorted(set(utility.request))
    numbers = utility.drop_duplicates("request").set_index("request").n
    rows = [f"{request}  (n = {numbers[request]})" for request in requests]
    size = (2 + 4 * len(attacks), 1.8 + 0.16 * len(models) * len(requests))
    figure, axes = subplots(1, len(attacks), size=size, sharey=True)
    for axis, attack in zip(axes.flat, attacks, strict=True):
        shown = utility.loc[utility.attack == attack]
        look = series_look("model", models, apart=0.7 / len(models))
        interval_points(axis, shown, unit=100, x="value", y="request", order=requests, **look)
        rate_axis(axis, asked(attack), "high is able", rows)
    figure.suptitle("Harmless queries answered right, by kind of question", fontsize="large")
    legend_outside(figure, "lower", columns=min(len(models), 4), text=named)
    return figure


@theme()
def agreement(found: Mapping[str, Agreement], first: str = "the exact judge") -> Figure:
    """Which outcomes a first judge and others give the same answers, a panel for each other judge.

    Counts are shaded by their share of the row.

    Args:
        found: {judge: `compare_judges` of the first judge with it}.
        first: The name of the first judge.
    """
    figure, axes = subplots(1, len(found), size=(1.5 + 4 * len(found), 3.6), sharey=True)
    for axis, (judge, (kappa, confusion)) in zip(axes.flat, found.items(), strict=True):
        unread = UNPARSED in {*confusion["first"], *confusion["second"]}
        outcomes = [*WITHOUT_TRUTH, *([UNPARSED] if unread else [])]
        counts = confusion.pivot_table(index="first", columns="second", values="count", aggfunc="sum", fill_value=0)
        counts = counts.reindex(index=outcomes, columns=outcomes, fill_value=0)
        share_table(axis, counts.div(counts.sum(axis=1).clip(lower=1), axis=0), counts, "d")
        row = kappa.set_index("queries").loc["all"]
        interval = f"[{row.ci_low:.2f}, {row.ci_high:.2f}]"
        axis.set_title(f"{judge}\nκ {row.kappa:.2f} {interval}, n = {row.n:.0f}", fontsize="medium")
        axis.set_xlabel("this judge says")
    axes[0, 0].set_ylabel(f"{first} says")
    return figure


@theme()
def outcomes(table: pd.DataFrame, queries: str = "harmful", attack: str = "what:3") -> Figure:
    """The outcomes of every model under one attack, stacked.

    Whiskers: the 95% (Wilson) interval of everything to their left.

    Args:
        table: `tables.outcome_shares` (shares in [0, 1]).
        queries: "harmful" or "harmless".
        attack: Which of the table's attacks.
    """
    rows = table.loc[(table.queries == queries) & (table.attack == attack)]
    models = list(dict.fromkeys(rows.model))
    drawn = [outcome for outcome in OUTCOME_STYLE if outcome in set(rows.outcome)]
    shares = rows.pivot_table(index="model", columns="outcome", values="share", aggfunc="sum")
    shares = 100 * shares.reindex(index=models, columns=drawn).fillna(0)
    ends = shares.cumsum(axis=1)
    n = rows.groupby("model").n.max().loc[models].to_numpy()
    figure, [[axis]] = subplots(size=(8, 1.4 + 0.5 * len(models)))
    for outcome in drawn:
        colour, hatch = OUTCOME_STYLE[outcome]
        name = {"harmful": "leak", "harmless": "right answer"}[queries] if outcome == RELEVANT else outcome
        left = ends[outcome] - shares[outcome]
        look = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        axis.barh(range(len(models)), shares[outcome], left=left, label=name, **look)
        _whiskers(axis, ends[outcome].to_numpy() / 100, n)
    label_rows(axis, [named(model) for model in models])
    axis.set_xlim(0, 100)
    axis.set_xlabel(
        f"per cent of {n.max()} {queries} queries, attack {attack}\nwhiskers: 95% interval of all to their left"
    )
    legend_outside(figure, "upper", columns=len(drawn))
    return figure


def _whiskers(axis: Axes, shares: np.ndarray, n: np.ndarray) -> None:
    """Draw Wilson intervals around shares (models,) of n (models,) queries, unless they are 0 or 1."""
    inside = (shares > 0) & (shares < 0.9999)
    low, high = wilson(np.round(shares * n), n)
    spread = 100 * np.array([shares - low, high - shares]).clip(min=0)[:, inside]
    rows = np.flatnonzero(inside)
    for colour, width in (("white", 3), ("black", 1)):  # seen on every colour
        look = {"color": colour, "linewidth": width, "capsize": 3, "capthick": width, "zorder": 3}
        axis.errorbar(100 * shares[inside], rows, xerr=spread, fmt="none", **look)


@theme()
def relearning(table: pd.DataFrame) -> Figure:
    """Harmful queries answered after a little fine-tuning, against the number of examples.

    A line for each model and kind of example, with 95% intervals.

    Args:
        table: `relearning.relearn`'s, of several models together.
    """
    leaks = table.loc[table.metric == "asr"]
    models = list(dict.fromkeys(leaks.model))
    leaks = leaks.assign(series=leaks.model.map(named) + ", on " + leaks.taught + " ones")
    looks = {"harmful": {"linestyle": "-"}, "harmless": {"linestyle": "--", "markerfacecolor": "white"}}
    figure, [[axis]] = subplots(size=(8, 4))
    for taught, look in looks.items():
        series = [f"{named(model)}, on {taught} ones" for model in models]
        interval_points(
            axis,
            leaks.loc[leaks.taught == taught],
            unit=100,
            x="examples",
            y="value",
            markersize=7,
            markeredgewidth=1.125,
            linewidth=1.5,
            capsize=0.06,
            **look,
            **series_look("series", series, apart=0.06),
        )
    axis.set(ylim=(-4, 104), xlabel="examples fine-tuned on")
    axis.set_ylabel(f"per cent of {leaks.n.max()} harmful queries answered")
    legend_outside(figure, "upper", columns=2)
    return figure
