"""Figures of attribution maps and of how far they can be trusted."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from workbench.attribution.methods import Attribution
from workbench.data.example import Example
from workbench.plots.style import AFTER, BEFORE, GREY, kinds_look, legend_outside, share_table, subplots, theme

Column = tuple[str, Image.Image, Attribution]  # title, picture, and what `attribute` found

_FOR_AND_AGAINST = "PuOr_r"  # orange for the target, purple against it
_LONGEST = 18  # letters of a word that fit into its chip


@theme()
def pictures(examples: Sequence[Example], columns: int = 6, size: float = 1.7) -> Figure:
    """A sheet of examples, each with its query and whether it is harmful.

    Args:
        examples: What to show.
        columns: How many side by side.
        size: Of a picture, in inches.
    """
    rows = -(-len(examples) // columns)
    figure, axes = subplots(rows, columns, size=(size * columns, (size + 0.75) * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, example in zip(axes.flat, examples, strict=False):
        axis.imshow(example.picture(), interpolation="nearest")
        axis.set_title(example.kind, fontsize=9, color=AFTER if example.harmful else BEFORE)
        query = textwrap.fill(example.query, 24)
        axis.text(0.5, -0.06, query, transform=axis.transAxes, ha="center", va="top", fontsize=7.5, parse_math=False)
    return figure


@theme()
def attributions(columns: Sequence[Column], words: bool = True, across: int | None = None) -> Figure:
    """Pictures with the attribution of their squares, and the words of the query as coloured chips.

    All share one scale. Orange speaks for the target, purple against it, in nats.

    Args:
        columns: (title, picture, what `attribution.attribute` found).
        words: Whether to draw the words; without them, the scale is that of the squares alone.
        across: How many stand side by side, by default all; the next ones stand below.
    """
    if not words:
        columns = [(title, image, each._replace(query=[], words=each.words[:0])) for title, image, each in columns]
    scale = max(np.abs(each.flat).max() for _, _, each in columns) or 1.0
    colours = ScalarMappable(Normalize(-scale, scale), _FOR_AND_AGAINST)
    longest = max(len(each.query) for _, _, each in columns)
    across = min(across or len(columns), len(columns))
    below = -(-len(columns) // across)
    size = (0.9 + 2.9 * across, below * (3.4 + 0.34 * longest))
    heights = {"height_ratios": below * [2.6, 0.34 * longest or 0.01]}
    figure, axes = subplots(2 * below, across, size=size, gridspec_kw=heights)
    for axis in axes.flat:
        axis.axis("off")
    # pictures stand in every other row of axes, and each one's chips below it
    for squares, chips, (title, image, attribution) in zip(axes[::2].flat, axes[1::2].flat, columns, strict=False):
        f = f"f = {attribution.value:.1f}, {attribution.baseline:.1f} without all of it"
        squares.set_title(f"{title}\n{f}", fontsize="medium", parse_math=False)
        _draw_squares(squares, image, attribution.patches, scale)
        chips.set(xlim=(0, 1), ylim=(longest - 0.4, -0.6))
        _draw_chips(chips, attribution, colours)
    beside = axes[0] if below == 1 else axes
    label = "for the target (+),\nagainst it (−), nats"
    figure.colorbar(colours, ax=beside, shrink=0.8 / below, anchor=(0, 1), label=label)
    figure.draw_without_rendering()  # constrained layout knows the bar's labels from the second drawing on
    return figure


def _draw_squares(axis: Axes, image: Image.Image, patches: np.ndarray, scale: float) -> None:
    """Draw the attribution of squares, (rows, columns) in nats, over their picture in grey."""
    rows, columns = patches.shape
    whole = (0, columns, rows, 0)
    axis.axis("on")
    axis.imshow(image.convert("L"), cmap="gray", vmin=0, vmax=255, extent=whole)
    strength = np.abs(patches) / scale
    alpha = 0.85 * strength  # squares that hardly matter leave the picture as it is
    axis.imshow(patches, _FOR_AND_AGAINST, vmin=-scale, vmax=scale, alpha=alpha, interpolation="nearest", extent=whole)
    outline = [withStroke(linewidth=2, foreground="white")]
    for row, column in zip(*np.nonzero(strength > 0.2), strict=True):  # for readers who cannot tell the colours
        sign = "+" if patches[row, column] > 0 else "−"
        axis.text(column + 0.5, row + 0.5, sign, ha="center", va="center", color="black", path_effects=outline)
    axis.set(xticks=range(columns + 1), yticks=range(rows + 1), xticklabels=[], yticklabels=[], aspect=columns / rows)
    axis.grid(color="white", linewidth=0.5)
    axis.set_axisbelow(False)
    axis.spines[:].set_visible(False)


def _draw_chips(axis: Axes, attribution: Attribution, colours: ScalarMappable) -> None:
    """Draw the words of a query, one below the other, each in the colour of its attribution."""
    for row, (word, value) in enumerate(zip(attribution.query, attribution.words, strict=True)):
        fill = colours.to_rgba(value)
        dark = np.dot(fill[:3], (0.299, 0.587, 0.114)) < 0.5  # luma of ITU-R BT.601
        shown = word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…"
        box = {"boxstyle": "round,pad=0.25", "facecolor": fill, "edgecolor": GREY, "linewidth": 0.5}
        text = {"va": "center", "fontsize": 10, "parse_math": False}
        axis.text(0.6, row, shown, ha="right", color="white" if dark else "black", bbox=box, **text)
        axis.text(0.72, row, f"{value:+.1f}", ha="left", family="monospace", **text)


def describe(columns: Sequence[Column], squares: int = 2) -> str:
    """The figure `attributions` in words, for those who do not see it.

    Args:
        columns: As for `attributions`.
        squares: How many of each picture's squares to name, those with the largest attribution first.

    Returns:
        For each column all words and some squares.
    """
    sentences = []
    for title, _, attribution in columns:
        pairs = zip(attribution.query, attribution.words, strict=True)
        words = "; ".join(f"“{word}” {value:+.1f}" for word, value in pairs)
        largest = np.argsort(-np.abs(attribution.patches.ravel()), kind="stable")[:squares]
        places = zip(*np.unravel_index(largest, attribution.patches.shape), strict=True)
        named = "; ".join(f"row {r + 1}, column {c + 1} {attribution.patches[r, c]:+.1f}" for r, c in places)
        without = f"{attribution.baseline:.1f} without words and picture"
        heading = f"{' '.join(title.split())}: target {attribution.value:.1f}, {without}."
        sentences.append(f"{heading} Words: {words}. Largest squares: {named}.")
    return "Attribution in nats. " + " ".join(sentences)


@theme()
def faithfulness(curves: pd.DataFrame, scores: pd.DataFrame) -> Figure:
    """Deletion and insertion of features in an attribution's order, against random orders.

    Args:
        curves: `faithfulness.faithfulness`' curves.
        scores: Its scores.
    """
    labels = {"random": "random orders, mean and middle 95%", "attribution": "the attribution's order"}
    better = scores.set_index("measure").better
    figure, axes = subplots(1, 2, size=(9, 3.4), sharey=True)
    look = kinds_look("order", list(labels), [GREY, AFTER], [".", "o"])
    for axis, (curve, moved) in zip(axes.flat, (("deletion", "taken away"), ("insertion", "put back")), strict=True):
        sns.lineplot(
            curves.loc[curves.curve == curve],
            x="moved",
            y="value",
            dashes=[(1, 1.5), (1, 0)],
            markersize=4,
            markeredgewidth=0,
            errorbar=("pi", 95),
            err_kws={"alpha": 0.35, "linewidth": 0},
            ax=axis,
            **look,
        )
        verdict = "better than random" if better[curve] else "NO BETTER THAN RANDOM"
        axis.set(title=f"{curve}: {verdict}", xlabel=f"share of features {moved}", ylabel="target, nats")
    legend_outside(figure, "lower", columns=2, text=labels.__getitem__)
    return figure


@theme()
def verdicts(better: pd.DataFrame, queries: int) -> Figure:
    """Shares of queries on which a method is better than random orders.

    Args:
        better: Shares in [0, 1], a row per method, a column per measure of faithfulness.
        queries: How many these are shares of.
    """
    figure, [[axis]] = subplots(size=(2 + 1.5 * better.shape[1], 1.2 + 0.5 * len(better)))
    share_table(axis, better, True, ".0%")
    axis.set_title(f"queries on which it is better\nthan random orders, n = {queries}")
    return figure
