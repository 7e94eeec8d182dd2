"""Every figure, drawn from DataFrames. One palette (Okabe and Ito's, safe for colour-blind readers), legible in grey."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from workbench.intervals import wilson
from workbench.judges import rules as judges

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from PIL import Image

    from workbench.attribution.methods import Attribution
    from workbench.evaluation.compare import Agreement

BEFORE, AFTER = "#0072B2", "#D55E00"
OUTCOME_STYLE = {  # outcome -> (colour, hatch)
    judges.REFUSAL: ("#0072B2", ""),
    judges.RELEVANT: ("#D55E00", "//"),
    judges.IRRELEVANT: ("#BBBBBB", ""),
    judges.DEGENERATE: ("#444444", ".."),
    judges.UNPARSED: ("#F0E442", "xx"),  # drawn where there are any
}
LEAD_STYLE = (("#000000", "o"), ("#0072B2", "D"), ("#D55E00", "s"), ("#009E73", "^"))  # colour and marker, by place among attacks
NAMES = {
    "base": "base model",
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
# a panel: title, queries, metric, the attack after which it is shown (None: before only), which end is good
_PANELS = [
    ("Harmful queries answered\n(attack success rate)", "harmful", "asr", "what:3", "low is safe"),
    ("Harmless queries refused\n(refusal rate)", "harmless", "rr", "share:1", "low is helpful"),
    ("Harmless queries answered right\n(utility)", "harmless", "utility", None, "high is able"),
]


def named(model: str) -> str:
    """How a model is called in figures; one's own by its name, in which a $ begins no formula."""
    return NAMES.get(model, model.replace("$", r"\$"))


def _subplots(*places: int, figsize: tuple[float, float], **options):
    """As plt.subplots. In a widget's thread the figure is not pyplot's, for a cell that ends meanwhile shows all that are."""
    if threading.current_thread() is threading.main_thread():
        return plt.subplots(*places, figsize=figsize, layout="constrained", **options)
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(*places, **options)


def _rate(results: pd.DataFrame, model: str, attack: str, queries: str, metric: str) -> tuple[float, float, float]:
    """(value, ci_low, ci_high) in per cent."""
    row = results[(results.model == model) & (results.attack == attack) & (results.queries == queries) & (results.metric == metric)]
    if row.empty:
        return np.nan, np.nan, np.nan
    return tuple(100 * row.iloc[0][["value", "ci_low", "ci_high"]].astype(float))


def _rate_panel(axis, title: str, good: str, models: Sequence[str]) -> None:
    """The look of a panel of rates, one row a model. good: which end is."""
    axis.set(title=title, xlim=(-4, 104), xlabel=f"per cent of queries · {good}", ylim=(len(models) - 0.5, -0.5))
    axis.grid(axis="x", color="#e5e5e5")
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_yticks(range(len(models)), [named(m) for m in models])


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
                axis.errorbar(value, y, xerr=[[value - low], [high - value]], color=colour, capsize=3, linewidth=1.3, zorder=2)
                axis.scatter(value, y, marker=shape, s=size, facecolor=fill, edgecolor=colour, linewidth=1.8, zorder=3)
            if paper is not None and model in set(paper.model):
                row = paper[paper.model == model].iloc[0]
                columns = {"asr": ["asr", "asr_what3"], "rr": ["rr", "rr_share1"], "utility": ["utility"]}[metric]
                for column, colour in zip(columns, (BEFORE, AFTER), strict=False):
                    axis.scatter(row[column], y + 0.28, marker="x", s=26, color=colour, linewidth=1.4, zorder=3)
        _rate_panel(axis, title, good, models)
        axis.set_ylim(len(models) - 0.4, -0.6)  # room for the paper's crosses
    handles = [
        plt.Line2D([], [], marker="o", color=BEFORE, markerfacecolor="white", markeredgewidth=1.8, linestyle="", label="as asked"),
        plt.Line2D([], [], marker="D", color=AFTER, linestyle="", label="after the one-word attack (“What…” ×3, “Share…”)"),
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
            mine = table[(table.model == model) & (table.queries == queries) & (table.metric == metric) & table.attack.map(wanted)]
            face = "white" if style == "-" else colour
            axis.plot(
                mine.step, 100 * mine.value, color=colour, linestyle=style, marker=marker, markersize=4.5, markerfacecolor=face, label=label
            )
            axis.fill_between(mine.step.astype(float), 100 * mine.ci_low, 100 * mine.ci_high, color=colour, alpha=0.1, linewidth=0)
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
            for name, colour, shape, fill, shift in (("none", BEFORE, "o", "white", -0.14), (attack, AFTER, "D", AFTER, 0.14)):
                mine = table[(table.model == model) & (table.attack == name) & (table.queries == queries) & (table.metric == metric)]
                values = 100 * mine.value
                axis.scatter(values, [y + shift] * len(mine), marker=shape, s=26, facecolor=fill, edgecolor=colour, alpha=0.85, zorder=3)
                if len(mine):
                    axis.plot([values.median()] * 2, [y + shift - 0.13, y + shift + 0.13], color="black", linewidth=2, zorder=4)
        _rate_panel(axis, title, good, models)
    handles = [
        plt.Line2D([], [], marker="o", color=BEFORE, markerfacecolor="white", linestyle="", label="as asked, one dot a seed"),
        plt.Line2D([], [], marker="D", color=AFTER, linestyle="", label="after the one-word attack (“What…” ×3, “Share…”)"),
        plt.Line2D([], [], color="black", linewidth=2, label="median"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def by_lead_word(results: pd.DataFrame) -> Figure:
    """Harmless queries of every model, refused and answered right, under every attack, with 95% intervals. results: `evaluate`'s table."""
    models, attacks = list(dict.fromkeys(results.model)), list(dict.fromkeys(results.attack))
    figure, axes = _subplots(1, 2, figsize=(10, 1.6 + 0.5 * len(models)), sharey=True)
    panels = (("Harmless queries refused", "rr", "low is helpful"), ("Harmless queries answered right", "utility", "high is able"))
    for axis, (title, metric, good) in zip(axes, panels, strict=True):
        for place, (attack, (colour, shape)) in enumerate(zip(attacks, itertools.cycle(LEAD_STYLE), strict=False)):
            cells = np.array([_rate(results, model, attack, "harmless", metric) for model in models])  # (models, 3)
            value, low, high = cells.T
            y = np.arange(len(models)) + 0.18 * (place - (len(attacks) - 1) / 2)
            axis.errorbar(
                value, y, xerr=[value - low, high - value], fmt=shape, color=colour, markersize=5.5, linewidth=1.2, label=asked(attack)
            )
        _rate_panel(axis, title, good, models)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(attacks), frameon=False)
    return figure


def by_request(table: pd.DataFrame, attacks: Sequence[str] = ()) -> Figure:
    """Harmless queries answered right, apart for each kind of question, with 95% intervals: a panel each attack, a mark each model.

    table: `evaluate.rates_by_request`. attacks: which, by default all.
    """
    attacks = attacks or list(dict.fromkeys(table.attack))
    mine = table[(table.queries == "harmless") & (table.metric == "utility")]
    models, requests = list(dict.fromkeys(mine.model)), sorted(set(mine.request))
    figure, axes = _subplots(
        1, len(attacks), figsize=(2 + 4 * len(attacks), 1.8 + 0.16 * len(models) * len(requests)), sharey=True, squeeze=False
    )
    for axis, attack in zip(axes.flat, attacks, strict=True):
        for place, (model, (colour, shape)) in enumerate(zip(models, itertools.cycle(LEAD_STYLE), strict=False)):
            some = mine[(mine.model == model) & (mine.attack == attack)].set_index("request").loc[requests]
            value, low, high = (100 * some[column].to_numpy() for column in ("value", "ci_low", "ci_high"))
            y = np.arange(len(requests)) + 0.7 / len(models) * (place - (len(models) - 1) / 2)
            spread = [value - low, high - value]
            axis.errorbar(value, y, xerr=spread, fmt=shape, color=colour, markersize=5.5, linewidth=1.2, label=named(model))
        _rate_panel(axis, asked(attack), "high is able", requests)
    numbers = mine.drop_duplicates("request").set_index("request").n
    axes.flat[0].set_yticks(range(len(requests)), [f"{request}  (n = {numbers[request]})" for request in requests])
    figure.suptitle("Harmless queries answered right, by kind of question", fontsize="large")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(models), 4), frameon=False)
    return figure


def agreement(found: Mapping[str, Agreement], first: str = "the exact judge") -> Figure:
    """Who says what of the same answers: outcomes of a first judge by those of others, a panel each; counts, shaded by their row's shares.

    found: {judge: `compare_judges` of the first judge with it}.
    """
    figure, axes = _subplots(1, len(found), figsize=(1.5 + 4 * len(found), 3.6), sharey=True, squeeze=False)
    for axis, (judge, (kappa, confusion)) in zip(axes.flat, found.items(), strict=True):
        unread = judges.UNPARSED in {*confusion["first"], *confusion["second"]}
        said = [*judges.OUTCOMES, *([judges.UNPARSED] if unread else [])]
        counts = confusion.groupby(["first", "second"])["count"].sum().unstack(fill_value=0)
        counts = counts.reindex(index=said, columns=said, fill_value=0)
        shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        _shaded(axis, shares, counts.to_numpy())
        row = kappa.set_index("queries").loc["all"]
        axis.set_title(f"{judge}\nκ {row.kappa:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}], n = {row.n:.0f}", fontsize="medium")
        axis.set_xlabel("this judge says")
    axes[0, 0].set_ylabel(f"{first} says")
    return figure


def _shaded(axis, shares: pd.DataFrame, texts: np.ndarray) -> None:
    """A table of shares in [0, 1], shaded by them, with a text in each cell."""
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares.to_numpy(dtype=float)):
        axis.text(column, row, texts[row, column], ha="center", va="center", color="white" if share > 0.6 else "black")
    axis.set_xticks(range(shares.shape[1]), shares.columns)
    axis.set_yticks(range(len(shares)), shares.index)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def asked(attack: str) -> str:
    """How an attack reads in a figure."""
    return "as asked" if attack == "none" else f"“{attack.split(':')[0].capitalize()} …”"


def outcomes(table: pd.DataFrame, queries: str = "harmful", attack: str = "what:3") -> Figure:
    """The four outcomes of every model under one attack, stacked. Whiskers: the 95% (Wilson) interval of all that lies to their left.

    table: `evaluate.outcome_shares` (shares in [0, 1]).
    """
    mine = table[(table.queries == queries) & (table.attack == attack)]
    models = list(dict.fromkeys(mine.model))
    figure, axis = _subplots(figsize=(8, 1.4 + 0.5 * len(models)))
    left, n = np.zeros(len(models)), mine.groupby("model").n.max().loc[models].to_numpy()
    for outcome, (colour, hatch) in OUTCOME_STYLE.items():
        if outcome == judges.UNPARSED and outcome not in set(mine.outcome):
            continue
        values = np.array([100 * mine[(mine.model == m) & (mine.outcome == outcome)].share.sum() for m in models])
        name = {"harmful": "leak", "harmless": "right answer"}[queries] if outcome == judges.RELEVANT else outcome
        axis.barh(range(len(models)), values, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
        left += values
        low, high = (100 * end for end in wilson(np.round(left * n / 100), n))
        inside = (left > 0) & (left < 99.99)
        spread = np.array([left - low, high - left]).clip(min=0)[:, inside]
        for colour, width in (("white", 3), ("black", 1)):  # seen on every colour
            y = np.flatnonzero(inside)
            axis.errorbar(left[inside], y, xerr=spread, fmt="none", color=colour, capsize=3, capthick=width, linewidth=width, zorder=3)
    axis.set_yticks(range(len(models)), [named(m) for m in models])
    axis.set(xlim=(0, 100), xlabel=f"per cent of {n.max()} {queries} queries, attack {attack}\nwhiskers: 95% interval of all to their left")
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def refusals_by_word(results: pd.DataFrame) -> Figure:
    """Refusal rate of one model by attack, harmful beside harmless queries, with 95% intervals. results: `evaluate`'s table."""
    attacks = list(dict.fromkeys(results.attack))
    figure, axis = _subplots(figsize=(1.5 + 1.6 * len(attacks), 3.6))
    for shift, queries, colour, hatch in ((-0.2, "harmful", BEFORE, ""), (0.2, "harmless", AFTER, "//")):
        cells = np.array([_rate(results, results.model.iloc[0], attack, queries, "rr") for attack in attacks])  # (attacks, 3)
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
    axis.set(xlim=(-3, 104), ylim=(-0.7, len(mine) - 0.3), xlabel="per cent of the queries that begin so and are labelled harmful")
    axis.annotate("all queries", (overall, -0.55), xytext=(4, 0), textcoords="offset points", fontsize=8, color="#555555")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def pictures(examples, columns: int = 6, size: float = 1.7) -> Figure:
    """A sheet of examples, each with its query and what should be answered."""
    rows = -(-len(examples) // columns)
    figure, axes = _subplots(rows, columns, figsize=(size * columns, (size + 0.75) * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, example in zip(axes.flat, examples, strict=False):
        axis.imshow(example.picture(), interpolation="nearest")
        axis.set_title(example.kind, fontsize=8, color=AFTER if example.harmful else BEFORE)
        axis.text(0.5, -0.06, _wrap(example.query), transform=axis.transAxes, ha="center", va="top", fontsize=7, parse_math=False)
    return figure


def attributions(columns: Sequence[tuple[str, Image.Image, Attribution]], words: bool = True, across: int | None = None) -> Figure:
    """Pictures with the attribution of their squares, and beneath each the words of the query as coloured chips; one scale for all.

    columns: (title, picture, what `attribution.attribute` found). words: without, the scale is that of the squares alone.
    across: how many stand side by side, all of them if not given; the next ones stand below.
    Orange speaks for the target, purple against it, in nats.
    """
    if not words:
        columns = [(title, image, found._replace(query=[], words=found.words[:0])) for title, image, found in columns]
    scale = max(np.abs(a.flat).max() for _, _, a in columns) or 1.0
    norm, colours = plt.Normalize(-scale, scale), plt.get_cmap("PuOr_r")
    longest = max(len(a.query) for _, _, a in columns)
    across = min(across or len(columns), len(columns))
    below = -(-len(columns) // across)
    size = (0.9 + 2.9 * across, below * (3.4 + 0.34 * longest))
    heights = {"height_ratios": below * [2.6, 0.34 * longest or 0.01]}
    figure, axes = _subplots(2 * below, across, figsize=size, squeeze=False, gridspec_kw=heights)
    places = axes.reshape(below, 2, across).swapaxes(1, 2).reshape(-1, 2)  # of a picture and its chips, row by row
    for unused in places[len(columns) :].flat:
        unused.axis("off")
    for (picture, chips), (title, image, found) in zip(places, columns, strict=False):
        picture.set_title(f"{title}\nf = {found.value:.1f}", fontsize=10, parse_math=False)
        picture.imshow(image.convert("L"), cmap="gray", vmin=0, vmax=255, extent=(0, 1, 0, 1))
        rows, wide = found.patches.shape
        strength = np.abs(found.patches) / scale  # squares that do not matter leave the picture as it is
        picture.imshow(found.patches, cmap=colours, norm=norm, extent=(0, 1, 0, 1), alpha=0.85 * strength, interpolation="nearest")
        for row, column in zip(*np.nonzero(strength > 0.2), strict=True):  # signs, for those who see no colours
            sign = "+" if found.patches[row, column] > 0 else "−"
            picture.text((column + 0.5) / wide, 1 - (row + 0.5) / rows, sign, ha="center", va="center", fontsize=9)
        picture.set_xticks(np.arange(wide + 1) / wide, [])
        picture.set_yticks(np.arange(rows + 1) / rows, [])
        picture.grid(color="white", linewidth=0.5)
        picture.tick_params(length=0)
        chips.set(xlim=(0, 1), ylim=(longest - 0.4, -0.6))
        chips.axis("off")
        for y, (word, value) in enumerate(zip(found.query, found.words, strict=True)):
            fill = colours(norm(value))
            dark = np.dot(fill[:3], (0.299, 0.587, 0.114)) < 0.5
            box = {"boxstyle": "round,pad=0.25", "facecolor": fill, "edgecolor": "#999999", "linewidth": 0.5}
            chips.text(0.6, y, word, ha="right", va="center", fontsize=10, color="white" if dark else "black", bbox=box, parse_math=False)
            chips.text(0.72, y, f"{value:+.1f}", ha="left", va="center", fontsize=9, family="monospace")
    beside = axes[0].tolist() if below == 1 else axes.ravel().tolist()
    bar = figure.colorbar(plt.cm.ScalarMappable(norm, colours), ax=beside, shrink=0.8, aspect=20 * below)
    bar.set_label("for the target (+), against (−), nats")
    figure.draw_without_rendering()  # constrained layout knows the bar's labels from the second drawing on
    return figure


def describe(columns: Sequence[tuple[str, Image.Image, Attribution]], squares: int = 2) -> str:
    """The figure `attributions` in words, for those who do not see it: of each column all words, and the squares that matter most."""
    told = []
    for title, _, found in columns:
        words = "; ".join(f"“{word}” {value:+.1f}" for word, value in zip(found.query, found.words, strict=True))
        largest = np.argsort(-np.abs(found.patches.ravel()), kind="stable")[:squares]
        places = [(i // found.patches.shape[1], i % found.patches.shape[1]) for i in largest]
        pictured = "; ".join(f"row {r + 1}, column {c + 1} {found.patches[r, c]:+.1f}" for r, c in places)
        told.append(f"{' '.join(title.split())}: target {found.value:.1f}. Words: {words}. Largest squares: {pictured}.")
    return "Attribution in nats. " + " ".join(told)


def reliance(table: pd.DataFrame, lead: str = "share", other: str = "what") -> Figure:
    """How far each model's refusal hangs on the lead word: attributed, and by swapping it. table: `reliance_table`'s, 95% intervals."""
    models = list(dict.fromkeys(table.model))
    figure, axes = _subplots(1, 2, figsize=(10, 1.5 + 0.42 * len(models)), sharey=True)
    panels = (
        ("share", 100, "Attributed to the lead word", "per cent of all absolute attribution"),
        ("swap", 1, f"Caused by it: “{lead.capitalize()}” in place of “{other.capitalize()}”", "log-odds of refusal, nats"),
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
    figure.legend(lines, [named(m) for m in models], loc="outside upper center", ncols=min(len(models), 3), frameon=False)
    return figure


def word_effects(table: pd.DataFrame) -> Figure:
    """The effect of each lead word on the log-odds of a refusal, with 95% intervals, against P(harmful | word) in the training data.

    table: `shortcut.predicted`'s; words that the data do not hold are left out.
    """
    from scipy.stats import spearmanr

    table = table[table.p_harmful.notna()]
    figure, axes = _subplots(1, 2, figsize=(10, 0.9 + 0.3 * table.word.nunique()))
    for axis, queries, good in zip(axes, ("harmful", "harmless"), ("low opens the model", "high closes it"), strict=True):
        mine = table[table.queries == queries].sort_values("effect").reset_index(drop=True)
        spread = [mine.effect - mine.ci_low, mine.ci_high - mine.effect]
        axis.errorbar(mine.effect, mine.index, xerr=spread, fmt="none", color="#777777", capsize=2, linewidth=1.2)
        dots = axis.scatter(mine.effect, mine.index, c=mine.p_harmful, cmap="cividis", vmin=0, vmax=1, s=55, edgecolor="black", zorder=3)
        axis.axvline(0, color="#888888", linewidth=1)
        axis.set_yticks(mine.index, [f"{word}  ({100 * p:.0f}%)" for word, p in zip(mine.word, mine.p_harmful, strict=True)])
        rho = spearmanr(mine.effect, mine.p_harmful).statistic if len(mine) > 2 else float("nan")
        title = f"{queries} queries, n = {mine.n.max()} a word\nSpearman's ρ with P(harmful | word) {rho:.2f}"
        axis.set(title=title, xlabel=f"log-odds of a refusal over the query as asked, nats\n{good}", ylim=(-0.7, len(mine) - 0.3))
        axis.spines[["top", "right"]].set_visible(False)
    figure.colorbar(dots, ax=list(axes), label="P(harmful | word) in the training data")
    figure.draw_without_rendering()
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
    axis.set(ylim=(-4, 104), xlabel="examples fine-tuned on", ylabel=f"per cent of {mine.n.max()} harmful queries answered")
    axis.grid(axis="y", color="#eeeeee")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
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
            axis.scatter(some.predicted, some.effect, color=colour, marker=marker, s=36, edgecolor="white", linewidth=0.6, label=label)
        axis.axhline(0, color="#888888", linewidth=0.8)
        axis.axvline(0, color="#888888", linewidth=0.8)
        rho, words, runs = spearmanr(mine.predicted, mine.effect).statistic, mine.word.nunique(), mine.seed.nunique()
        axis.set_title(f"{name}: ρ {rho:.2f}\n{words} words × {runs} seed{'s' * (runs > 1)}", fontsize="medium")
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("predicted from the data alone: log-odds of harm given the word, over the mean of all words (nats)", fontsize="medium")
    figure.supylabel("measured: log-odds of a refusal that it adds (nats)", fontsize="medium")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def faithfulness(curves: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Deletion and insertion of features in an attribution's order, against the middle 95% of random orders (`faithfulness`)."""
    figure, axes = _subplots(1, 2, figsize=(9, 3.4), sharey=True)
    better = scores.set_index("measure").better
    for axis, (curve, does) in zip(axes, (("deletion", "taken away"), ("insertion", "put back")), strict=True):
        mine = curves[curves.curve == curve]
        random = mine[mine.order == "random"].groupby("moved").value.quantile([0.025, 0.975]).unstack()
        axis.fill_between(random.index, random[0.025], random[0.975], color="#BBBBBB", linewidth=0, label="random orders, middle 95%")
        own = mine[mine.order == "attribution"]
        axis.plot(own.moved, own.value, color=AFTER, marker="o", markersize=3, label="the attribution's order")
        verdict = "better than random" if better[curve] else "NO BETTER THAN RANDOM"
        axis.set(title=f"{curve}: {verdict}", xlabel=f"share of features {does}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("target")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def verdicts(better: pd.DataFrame, queries: int) -> Figure:
    """Shares of queries on which a method is better than random orders: a row a method, a column a measure of faithfulness.

    queries: how many these are shares of.
    """
    figure, axis = _subplots(figsize=(2 + 1.5 * better.shape[1], 1.2 + 0.5 * len(better)))
    _shaded(axis, better, better.map(lambda share: f"{100 * share:.0f}%").to_numpy())
    axis.set_title(f"queries on which it is better\nthan random orders, n = {queries}")
    return figure


def _wrap(text: str, width: int = 24) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
