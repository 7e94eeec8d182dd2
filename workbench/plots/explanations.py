"""Figures of attribution maps and of how far they can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from workbench.plots.style import AFTER, BEFORE, _shaded, _subplots, _wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from PIL import Image

    from workbench.attribution.methods import Attribution


def pictures(examples, columns: int = 6, size: float = 1.7) -> Figure:
    """A sheet of examples, each with its query and what should be answered."""
    rows = -(-len(examples) // columns)
    figure, axes = _subplots(rows, columns, figsize=(size * columns, (size + 0.75) * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, example in zip(axes.flat, examples, strict=False):
        axis.imshow(example.picture(), interpolation="nearest")
        axis.set_title(example.kind, fontsize=8, color=AFTER if example.harmful else BEFORE)
        axis.text(
            0.5,
            -0.06,
            _wrap(example.query),
            transform=axis.transAxes,
            ha="center",
            va="top",
            fontsize=7,
            parse_math=False,
        )
    return figure


def attributions(
    columns: Sequence[tuple[str, Image.Image, Attribution]], words: bool = True, across: int | None = None
) -> Figure:
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
        picture.imshow(
            found.patches, cmap=colours, norm=norm, extent=(0, 1, 0, 1), alpha=0.85 * strength, interpolation="nearest"
        )
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
            chips.text(
                0.6,
                y,
                word,
                ha="right",
                va="center",
                fontsize=10,
                color="white" if dark else "black",
                bbox=box,
                parse_math=False,
            )
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
        told.append(
            f"{' '.join(title.split())}: target {found.value:.1f}. Words: {words}. Largest squares: {pictured}."
        )
    return "Attribution in nats. " + " ".join(told)


def faithfulness(curves: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Deletion and insertion of features in an attribution's order, against the middle 95% of random orders (`faithfulness`)."""
    figure, axes = _subplots(1, 2, figsize=(9, 3.4), sharey=True)
    better = scores.set_index("measure").better
    for axis, (curve, does) in zip(axes, (("deletion", "taken away"), ("insertion", "put back")), strict=True):
        mine = curves[curves.curve == curve]
        random = mine[mine.order == "random"].groupby("moved").value.quantile([0.025, 0.975]).unstack()
        axis.fill_between(
            random.index, random[0.025], random[0.975], color="#BBBBBB", linewidth=0, label="random orders, middle 95%"
        )
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
