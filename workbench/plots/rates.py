"""Every figure, drawn from DataFrames. One palette (Okabe and Ito's, safe for colour-blind readers), legible in grey."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from workbench.intervals import wilson
from workbench.judges.outcomes import OUTCOMES, RELEVANT, UNPARSED
from workbench.plots.style import (
    _PANELS,
    AFTER,
    BEFORE,
    LEAD_STYLE,
    OUTCOME_STYLE,
    _rate,
    _rate_panel,
    _shaded,
    _subplots,
    asked,
    named,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from workbench.evaluation.compare import Agreement


def before_after(results: pd.DataFrame, paper: pd.DataFrame | None = None) -> Figure:
    """Attack success, refusal and utility of every model, before and after the one-word attack, with 95% intervals.

    results: evaluate's table (values in [0, 1]). paper: `paper.paper_table()`, drawn as small crosses for comparison.
    """
    models = list(dict.fromkeys(results.model))
    figure, axes = _subplots(1, 3, figsize=(11, 1.6 + 0.55 * len(models)), sharey=True)
    for axis, (title, queries, metric, attack, good) in zip(axes, _PANELS, strict=True):
        for y, model in enumerate(models):
            # a wide ring and a smaller diamond, so that both are seen where they coincide
            marks = [("none", BEFORE, "o", "white", 130)] + ([(attack, AFTER, "D", AFTER, 34)] if attack else [])
            ends = [_rate(results, model, name, queries, metric)[0] for name, *_ in marks]
            axis.plot(ends, [y] * len(ends), color="#999999", linewidth=2, zorder=1)
            for name, colour, shape, fill, size in marks:
                value, low, high = _rate(results, model, name, queries, metric)
                axis.errorbar(
                    value, y, xerr=[[value - low], [high - value]], color=colour, capsize=3, linewidth=1.3, zorder=2
                )
                axis.scatter(value, y, marker=shape, s=size, facecolor=fill, edgecolor=colour, linewidth=1.8, zorder=3)
            if paper is not None and model in set(paper.model):
                row = paper[paper.model == model].iloc[0]
                columns = {"asr": ["asr", "asr_what3"], "rr": ["rr", "rr_share1"], "utility": ["utility"]}[metric]
                for column, colour in zip(columns, (BEFORE, AFTER), strict=False):
                    axis.scatter(row[column], y + 0.28, marker="x", s=26, color=colour, linewidth=1.4, zorder=3)
        _rate_panel(axis, title, good, models)
        axis.set_ylim(len(models) - 0.4, -0.6)  # room for the paper's crosses
    handles = [
        plt.Line2D(
            [],
            [],
            marker="o",
            color=BEFORE,
            markerfacecolor="white",
            markeredgewidth=1.8,
            linestyle="",
            label="as asked",
        ),
        plt.Line2D(
            [], [], marker="D", color=AFTER, linestyle="", label="after the one-word attack (“What…” ×3, “Share…”)"
        ),
    ]
    if paper is not None:
        label = "the paper, LLaVA-1.5-7B on VLGuard (utility: VQAv2)"
        handles.append(plt.Line2D([], [], marker="x", color="#333333", linestyle="", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def curves(table: pd.DataFrame, step: int | None = None) -> Figure:
    """ASR, RR and utility against training steps, one panel a model, four a row; attacked rates dashed; bands are 95% intervals.

    table: a run's curves.csv (values in [0, 1]), or several of them together. step: marked by a line, if given.
    """
    models = list(dict.fromkeys(table.model))
    lines = [
        ("harmful", "asr", lambda a: a == "none", "harmful answered", AFTER, "-", "o"),
        ("harmful", "asr", lambda a: a.startswith("what"), "… after “What”", AFTER, "--", "D"),
        ("harmless", "rr", lambda a: a == "none", "harmless refused", BEFORE, "-", "o"),
        ("harmless", "rr", lambda a: a.startswith("share"), "… after “Share”", BEFORE, "--", "D"),
        ("harmless", "utility", lambda a: a == "none", "harmless answered right", "#444444", ":", "s"),
    ]
    columns = min(4, len(models))
    rows = -(-len(models) // columns)
    size = (1 + 3.6 * columns, 0.8 + 3 * rows)
    figure, axes = _subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for axis in axes.flat[len(models) :]:
        axis.axis("off")
    for axis, model in zip(axes.flat, models, strict=False):
        for queries, metric, wanted, label, colour, style, marker in lines:
            mine = table[
                (table.model == model)
                & (table.queries == queries)
                & (table.metric == metric)
                & table.attack.map(wanted)
            ]
            face = "white" if style == "-" else colour
            axis.plot(
                mine.step,
                100 * mine.value,
                color=colour,
                linestyle=style,
                marker=marker,
                markersize=4.5,
                markerfacecolor=face,
                label=label,
            )
            axis.fill_between(
                mine.step.astype(float), 100 * mine.ci_low, 100 * mine.ci_high, color=colour, alpha=0.1, linewidth=0
            )
        steps = table[table.model == model].step
        if step is not None and (steps <= step).any():
            axis.axvline(steps[steps <= step].max(), color="black", linewidth=1.2, zorder=0)
        axis.set(title=named(model), xlabel="training step", ylim=(-4, 104))
        axis.grid(color="#eeeeee")
        axis.spines[["top", "right"]].set_visible(False)
    figure.supylabel("per cent of validation queries", fontsize="medium")
    across = 5 if columns > 2 else columns + 1  # entries of the legend that fit side by side
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=across, frameon=False)
    return figure


def seeds(table: pd.DataFrame) -> Figure:
    """Every seed's rate as a dot and the median as a bar, before and after the one-word attack. table: `study.over_seeds`'."""
    models = list(dict.fromkeys(table.model))
    figure, axes = _subplots(1, 3, figsize=(11, 1.6 + 0.6 * len(models)), sharey=True)
    for axis, (title, queries, metric, attack, good) in zip(axes, _PANELS, strict=True):
        for y, model in enumerate(models):
            for name, colour, shape, fill, shift in (
                ("none", BEFORE, "o", "white", -0.14),
                (attack, AFTER, "D", AFTER, 0.14),
            ):
                mine = table[
                    (table.model == model)
                    & (table.attack == name)
                    & (table.queries == queries)
                    & (table.metric == metric)
                ]
                values = 100 * mine.value
                axis.scatter(
                    values,
                    [y + shift] * len(mine),
                    marker=shape,
                    s=26,
                    facecolor=fill,
                    edgecolor=colour,
                    alpha=0.85,
                    zorder=3,
                )
                if len(mine):
                    axis.plot(
                        [values.median()] * 2,
                        [y + shift - 0.13, y + shift + 0.13],
                        color="black",
                        linewidth=2,
                        zorder=4,
                    )
        _rate_panel(axis, title, good, models)
    handles = [
        plt.Line2D(
            [], [], marker="o", color=BEFORE, markerfacecolor="white", linestyle="", label="as asked, one dot a seed"
        ),
        plt.Line2D(
            [], [], marker="D", color=AFTER, linestyle="", label="after the one-word attack (“What…” ×3, “Share…”)"
        ),
        plt.Line2D([], [], color="black", linewidth=2, label="median"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def by_request(table: pd.DataFrame, attacks: Sequence[str] = ()) -> Figure:
    """Harmless queries answered right, apart for each kind of question, with 95% intervals: a panel each attack, a mark each model.

    table: `evaluate.rates_by_request`. attacks: which, by default all.
    """
    attacks = attacks or list(dict.fromkeys(table.attack))
    mine = table[(table.queries == "harmless") & (table.metric == "utility")]
    models, requests = list(dict.fromkeys(mine.model)), sorted(set(mine.request))
    figure, axes = _subplots(
        1,
        len(attacks),
        figsize=(2 + 4 * len(attacks), 1.8 + 0.16 * len(models) * len(requests)),
        sharey=True,
        squeeze=False,
    )
    for axis, attack in zip(axes.flat, attacks, strict=True):
        for place, (model, (colour, shape)) in enumerate(zip(models, itertools.cycle(LEAD_STYLE), strict=False)):
            some = mine[(mine.model == model) & (mine.attack == attack)].set_index("request").loc[requests]
            value, low, high = (100 * some[column].to_numpy() for column in ("value", "ci_low", "ci_high"))
            y = np.arange(len(requests)) + 0.7 / len(models) * (place - (len(models) - 1) / 2)
            spread = [value - low, high - value]
            axis.errorbar(
                value, y, xerr=spread, fmt=shape, color=colour, markersize=5.5, linewidth=1.2, label=named(model)
            )
        _rate_panel(axis, asked(attack), "high is able", requests)
    numbers = mine.drop_duplicates("request").set_index("request").n
    axes.flat[0].set_yticks(range(len(requests)), [f"{request}  (n = {numbers[request]})" for request in requests])
    figure.suptitle("Harmless queries answered right, by kind of question", fontsize="large")
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(models), 4), frameon=False
    )
    return figure


def agreement(found: Mapping[str, Agreement], first: str = "the exact judge") -> Figure:
    """Who says what of the same answers: outcomes of a first judge by those of others, a panel each; counts, shaded by their row's shares.

    found: {judge: `compare_judges` of the first judge with it}.
    """
    figure, axes = _subplots(1, len(found), figsize=(1.5 + 4 * len(found), 3.6), sharey=True, squeeze=False)
    for axis, (judge, (kappa, confusion)) in zip(axes.flat, found.items(), strict=True):
        unread = UNPARSED in {*confusion["first"], *confusion["second"]}
        said = [*OUTCOMES, *([UNPARSED] if unread else [])]
        counts = confusion.groupby(["first", "second"])["count"].sum().unstack(fill_value=0)
        counts = counts.reindex(index=said, columns=said, fill_value=0)
        shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        _shaded(axis, shares, counts.to_numpy())
        row = kappa.set_index("queries").loc["all"]
        axis.set_title(
            f"{judge}\nκ {row.kappa:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}], n = {row.n:.0f}", fontsize="medium"
        )
        axis.set_xlabel("this judge says")
    axes[0, 0].set_ylabel(f"{first} says")
    return figure


def outcomes(table: pd.DataFrame, queries: str = "harmful", attack: str = "what:3") -> Figure:
    """The four outcomes of every model under one attack, stacked. Whiskers: the 95% (Wilson) interval of all that lies to their left.

    table: `evaluate.outcome_shares` (shares in [0, 1]).
    """
    mine = table[(table.queries == queries) & (table.attack == attack)]
    models = list(dict.fromkeys(mine.model))
    figure, axis = _subplots(figsize=(8, 1.4 + 0.5 * len(models)))
    left, n = np.zeros(len(models)), mine.groupby("model").n.max().loc[models].to_numpy()
    for outcome, (colour, hatch) in OUTCOME_STYLE.items():
        if outcome == UNPARSED and outcome not in set(mine.outcome):
            continue
        values = np.array([100 * mine[(mine.model == m) & (mine.outcome == outcome)].share.sum() for m in models])
        name = {"harmful": "leak", "harmless": "right answer"}[queries] if outcome == RELEVANT else outcome
        axis.barh(range(len(models)), values, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
        left += values
        low, high = (100 * end for end in wilson(np.round(left * n / 100), n))
        inside = (left > 0) & (left < 99.99)
        spread = np.array([left - low, high - left]).clip(min=0)[:, inside]
        for colour, width in (("white", 3), ("black", 1)):  # seen on every colour
            y = np.flatnonzero(inside)
            axis.errorbar(
                left[inside],
                y,
                xerr=spread,
                fmt="none",
                color=colour,
                capsize=3,
                capthick=width,
                linewidth=width,
                zorder=3,
            )
    axis.set_yticks(range(len(models)), [named(m) for m in models])
    axis.set(
        xlim=(0, 100),
        xlabel=f"per cent of {n.max()} {queries} queries, attack {attack}\nwhiskers: 95% interval of all to their left",
    )
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def relearning(table: pd.DataFrame) -> Figure:
    """Harmful queries answered after a little fine-tuning, against the number of examples, with 95% intervals; a line each model and kind
    of example. table: `relearning.relearn`'s, of several models together.
    """
    mine = table[table.metric == "asr"]
    places = sorted(mine.examples.unique())
    figure, axis = _subplots(figsize=(8, 4))
    for model, (colour, marker) in zip(dict.fromkeys(mine.model), itertools.cycle(LEAD_STYLE), strict=False):
        for taught, style, face in (("harmful", "-", colour), ("harmless", "--", "white")):
            some = mine[(mine.model == model) & (mine.taught == taught)].sort_values("examples")
            x, value = [places.index(n) for n in some.examples], 100 * some.value
            spread = [value - 100 * some.ci_low, 100 * some.ci_high - value]
            axis.errorbar(
                x,
                value,
                yerr=spread,
                color=colour,
                linestyle=style,
                marker=marker,
                markerfacecolor=face,
                capsize=3,
                linewidth=1.4,
                label=f"{named(model)}, on {taught} ones",
            )
    axis.set_xticks(range(len(places)), places)
    axis.set(
        ylim=(-4, 104), xlabel="examples fine-tuned on", ylabel=f"per cent of {mine.n.max()} harmful queries answered"
    )
    axis.grid(axis="y", color="#eeeeee")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
