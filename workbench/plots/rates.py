"""Figures of rates and outcomes: under attack, while training, over seeds, by question and by judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.evaluation.compare import Agreement
from workbench.intervals import wilson
from workbench.judges.outcomes import OUTCOMES, RELEVANT, UNPARSED
from workbench.plots.style import (
    AFTER,
    BEFORE,
    BLACK,
    DARK_GREY,
    GREY,
    KNOWN_INTERVALS,
    OUTCOME_STYLE,
    PANELS,
    POINTS,
    asked,
    interval_rows,
    label_rows,
    legend_outside,
    named,
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
    # a wide ring and a smaller diamond, so that both are seen where they coincide
    ring: dict[str, Any] = {
        "marker": "o",
        "markersize": 11,
        "color": BEFORE,
        "markerfacecolor": "white",
        "label": "as asked",
    }
    diamond: dict[str, Any] = {"marker": "D", "markersize": 5.5, "color": AFTER, "label": ATTACKED}
    figure, axes = subplots(1, 3, size=(11, 1.6 + 0.55 * len(models)), sharey=True)
    for axis, panel in zip(axes.flat, PANELS, strict=True):
        cells = rates(results, panel.queries, panel.metric, panel.attacks, models)
        ends = cells.pivot(index="model", columns="attack", values="value").loc[models]
        axis.hlines(range(len(models)), ends.min(axis=1), ends.max(axis=1), color=GREY, linewidth=2, zorder=1)
        for attack, mark in zip(panel.attacks, (ring, diamond), strict=False):
            sns.pointplot(
                interval_rows(cells.loc[cells.attack == attack]),
                x="value",
                y="model",
                order=models,
                linestyle="none",
                markeredgewidth=1.8,
                zorder=3,
                capsize=0.15,
                err_kws={"linewidth": 1.3, "zorder": 2},
                ax=axis,
                **mark,
                **KNOWN_INTERVALS,
            )
        if paper is not None:
            _crosses(axis, paper, panel.figures, models)
        rate_axis(axis, panel.title, panel.good, [named(model) for model in models])
        axis.set_ylim(len(models) - 0.4, -0.6)  # room for the crosses
    legend_outside(figure, axes[0, 0], "lower", columns=3)
    return figure


def _crosses(axis: Axes, paper: pd.DataFrame, figures: Sequence[str], models: Sequence[str]) -> None:
    """Mark the paper's figures a little below those of the same models."""
    shared = paper.loc[paper.model.isin(models)].drop_duplicates("model").dropna(subset=list(figures))
    rows = [models.index(model) + 0.28 for model in shared.model]
    for figure, colour in zip(figures, (BEFORE, AFTER), strict=False):
        axis.scatter(shared[figure], rows, marker="x", s=26, color=colour, linewidth=1.4, zorder=3)
    label = "the paper, LLaVA-1.5-7B on VLGuard (utility: VQAv2)"
    axis.scatter([], [], marker="x", s=26, color=DARK_GREY, linewidth=1.4, label=label)


class Curve(NamedTuple):
    """A line of `curves`: which rate it shows, and its look."""

    queries: str
    metric: str
    lead: str  # the attack's word, or none
    label: str
    colour: str
    dashes: tuple[float, float]  # lengths of a dash and a gap, in widths of the line
    marker: str


_SOLID = (1, 0)
CURVES = (
    Curve("harmful", "asr", "none", "harmful answered", AFTER, _SOLID, "o"),
    Curve("harmful", "asr", "what", "… after “What”", AFTER, (3, 1.5), "D"),
    Curve("harmless", "rr", "none", "harmless refused", BEFORE, _SOLID, "o"),
    Curve("harmless", "rr", "share", "… after “Share”", BEFORE, (3, 1.5), "D"),
    Curve("harmless", "utility", "none", "harmless answered right", DARK_GREY, (1, 1.5), "s"),
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
    looks = pd.DataFrame(CURVES)
    lines = table.assign(lead=table.attack.str.split(":").str[0]).merge(looks, on=["queries", "metric", "lead"])
    columns = min(4, len(models))
    rows = -(-len(models) // columns)
    figure, axes = subplots(rows, columns, size=(1 + 3.6 * columns, 0.8 + 3 * rows), sharey=True)
    for axis in axes.flat[len(models) :]:
        axis.axis("off")
    for axis, model in zip(axes.flat, models, strict=False):
        sns.lineplot(
            interval_rows(lines.loc[lines.model == model], unit=100),
            x="step",
            y="value",
            hue="label",
            hue_order=looks.label,
            palette=looks.colour.to_list(),
            style="label",
            style_order=looks.label,
            dashes=looks.dashes.to_list(),
            markers=looks.marker.to_list(),
            markersize=5,
            err_kws={"alpha": 0.1, "linewidth": 0},
            ax=axis,
            **KNOWN_INTERVALS,
        )
        steps = table[table.model == model].step
        if step is not None and (steps <= step).any():
            axis.axvline(steps[steps <= step].max(), color="black", linewidth=1.2, zorder=1)
        axis.set(title=named(model), xlabel="training step", ylabel="", ylim=(-4, 104))
    figure.supylabel("per cent of validation queries", fontsize="medium")
    # as many entries of the legend as fit side by side
    legend_outside(figure, axes[0, 0], "lower", columns=5 if columns > 2 else columns + 1)
    return figure


@theme()
def seeds(table: pd.DataFrame) -> Figure:
    """Every seed's rate as a mark and the median as a bar, before and after the one-word attack.

    Args:
        table: `headline.over_seeds`'.
    """
    models = list(dict.fromkeys(table.model))
    marks = {  # label → (marker, face, edge); rings are seen apart where they overlap
        "as asked, a mark per seed": ("o", "white", BEFORE),
        ATTACKED: ("D", AFTER, AFTER),
    }
    figure, axes = subplots(1, 3, size=(11, 1.6 + 0.6 * len(models)), sharey=True)
    for axis, panel in zip(axes.flat, PANELS, strict=True):
        of_panel = (table.queries == panel.queries) & (table.metric == panel.metric) & table.attack.isin(panel.attacks)
        shown = table.loc[of_panel]
        shown = shown.assign(value=100 * shown.value, mark=np.where(shown.attack == "none", *marks))
        place: dict[str, Any] = {
            "x": "value",
            "y": "model",
            "order": models,
            "hue": "mark",
            "hue_order": list(marks),
            "dodge": True,
            "legend": False,
            "ax": axis,
        }
        for label, (marker, face, edge) in marks.items():
            dots: dict[str, Any] = {"marker": marker, "edgecolor": edge, "linewidth": 1.3}
            own = shown.loc[shown.mark == label]
            sns.stripplot(own, palette=[face, face], jitter=False, alpha=0.85, **dots, **place)
            axis.scatter([], [], color=face, label=label, **dots)
        bars: dict[str, Any] = {
            "marker": "|",
            "markersize": 13,
            "markeredgewidth": 2.2,
            "linestyle": "none",
            "zorder": 5,
        }
        place["dodge"] = 0.4  # as far apart as stripplot's
        sns.pointplot(shown, estimator="median", errorbar=None, palette=[BLACK, BLACK], **bars, **place)
        rate_axis(axis, panel.title, panel.good, [named(model) for model in models])
    axes[0, 0].plot([], [], color=BLACK, linewidth=2.2, label="median")
    legend_outside(figure, axes[0, 0], "lower", columns=3)
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
    points = interval_rows(utility, unit=100)
    size = (2 + 4 * len(attacks), 1.8 + 0.16 * len(models) * len(requests))
    figure, axes = subplots(1, len(attacks), size=size, sharey=True)
    for axis, attack in zip(axes.flat, attacks, strict=True):
        sns.pointplot(
            points.loc[points.attack == attack],
            x="value",
            y="request",
            order=requests,
            hue="model",
            hue_order=models,
            ax=axis,
            **POINTS,
            **series_look(len(models), apart=0.7 / len(models)),
            **KNOWN_INTERVALS,
        )
        rate_axis(axis, asked(attack), "high is able", rows)
    figure.suptitle("Harmless queries answered right, by kind of question", fontsize="large")
    legend_outside(figure, axes[0, 0], "lower", columns=min(len(models), 4), text=named)
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
        outcomes = [*OUTCOMES, *([UNPARSED] if unread else [])]
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
    """The four outcomes of every model under one attack, stacked.

    Whiskers: the 95% (Wilson) interval of everything to their left.

    Args:
        table: `tables.outcome_shares` (shares in [0, 1]).
        queries: "harmful" or "harmless".
        attack: Which of the table's attacks.
    """
    rows = table.loc[(table.queries == queries) & (table.attack == attack)]
    models = list(dict.fromkeys(rows.model))
    shares = rows.pivot_table(index="model", columns="outcome", values="share", aggfunc="sum").loc[models].fillna(0)
    n = rows.groupby("model").n.max().loc[models].to_numpy()
    drawn = {o: look for o, look in OUTCOME_STYLE.items() if o in OUTCOMES or o in shares}
    figure, axes = subplots(size=(8, 1.4 + 0.5 * len(models)))
    axis = axes[0, 0]
    left = np.zeros(len(models))
    for outcome, (colour, hatch) in drawn.items():
        width = 100 * shares[outcome].to_numpy() if outcome in shares else np.zeros(len(models))
        name = {"harmful": "leak", "harmless": "right answer"}[queries] if outcome == RELEVANT else outcome
        axis.barh(range(len(models)), width, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
        left = left + width
        _whiskers(axis, left / 100, n)
    label_rows(axis, [named(model) for model in models])
    axis.set_xlim(0, 100)
    axis.set_xlabel(
        f"per cent of {n.max()} {queries} queries, attack {attack}\nwhiskers: 95% interval of all to their left"
    )
    legend_outside(figure, axis, "upper", columns=len(drawn))
    return figure


def _whiskers(axis: Axes, shares: np.ndarray, n: np.ndarray) -> None:
    """Draw Wilson intervals around shares (models,) of n (models,) queries, unless they are 0 or 1."""
    inside = (shares > 0) & (shares < 0.9999)
    low, high = wilson(np.round(shares * n), n)
    spread = 100 * np.array([shares - low, high - shares]).clip(min=0)[:, inside]
    for colour, width in (("white", 3), ("black", 1)):  # seen on every colour
        axis.errorbar(
            100 * shares[inside],
            np.flatnonzero(inside),
            xerr=spread,
            fmt="none",
            color=colour,
            linewidth=width,
            capsize=3,
            capthick=width,
            zorder=3,
        )


@theme()
def relearning(table: pd.DataFrame) -> Figure:
    """Harmful queries answered after a little fine-tuning, against the number of examples.

    A line for each model and kind of example, with 95% intervals.

    Args:
        table: `relearning.relearn`'s, of several models together.
    """
    leaks = table.loc[table.metric == "asr"]
    models = list(dict.fromkeys(leaks.model))
    points = interval_rows(leaks, unit=100)
    points["series"] = points.model.map(named) + ", on " + points.taught + " ones"
    looks: dict[str, dict[str, Any]] = {
        "harmful": {"linestyle": "-"},
        "harmless": {"linestyle": "--", "markerfacecolor": "white"},
    }
    figure, axes = subplots(size=(8, 4))
    axis = axes[0, 0]
    for taught, look in looks.items():
        sns.pointplot(
            points.loc[points.taught == taught],
            x="examples",
            y="value",
            hue="series",
            hue_order=[f"{named(model)}, on {taught} ones" for model in models],
            markersize=7,
            linewidth=1.5,
            zorder=3,
            capsize=0.06,
            err_kws={"linewidth": 1.3, "zorder": 2},
            ax=axis,
            **look,
            **series_look(len(models), apart=0.06),
            **KNOWN_INTERVALS,
        )
    axis.set(ylim=(-4, 104), xlabel="examples fine-tuned on")
    axis.set_ylabel(f"per cent of {leaks.n.max()} harmful queries answered")
    legend_outside(figure, axis, "upper", columns=2)
    return figure
