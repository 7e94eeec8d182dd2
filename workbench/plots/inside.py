"""Figures of what is inside a model."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from workbench.plots.style import DARK_GREY, legend_outside, named, series_look, subplots, theme


@theme()
def directions(table: pd.DataFrame) -> Figure:
    """How far a lead word points where refusing does, layer by layer, a panel per pair of words.

    Args:
        table: model, words (e.g. "“What” → “Share”"), layer (from 1 on), cosine in [−1, 1].
    """
    pairs, models = (list(dict.fromkeys(table[column])) for column in ("words", "model"))
    figure, axes = subplots(1, len(pairs), size=(1.5 + 3.6 * len(pairs), 3.6), sharex=True, sharey=True)
    for axis, pair in zip(axes.flat, pairs, strict=True):
        own = table[table["words"] == pair]
        axis.axhline(0, color=DARK_GREY, linewidth=1, zorder=1)
        sns.pointplot(own, x="layer", y="cosine", errorbar=None, ax=axis, **series_look("model", models))
        axis.set(title=pair, xlabel="layer", ylabel="", ylim=(-1.05, 1.05))
    figure.supylabel("cosine with the direction of refusing", fontsize="medium")
    legend_outside(figure, "upper", columns=min(len(models), 4), text=named)
    return figure
