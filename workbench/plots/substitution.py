"""Figures of what models say in place of the truth."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from workbench.plots.style import legend_outside, named, series_look, share_table, subplots, theme


@theme()
def true_and_said(found: Mapping[str, pd.DataFrame], truth: str = "whose secret is asked for") -> Figure:
    """What is said in place of what is true, a panel for each model, in per cent of each row.

    Args:
        found: {model: `substitution.shares`}.
        truth: What the rows are.
    """
    rows, columns = next(iter(found.values())).shape
    size = (1.6 + 0.5 * columns * len(found), 1.9 + 0.4 * rows)
    figure, axes = subplots(1, len(found), size=size, sharey=True)
    for axis, (model, shares) in zip(axes.flat, found.items(), strict=True):
        share_table(axis, shares, 100 * shares, ".0f")
        axis.tick_params(axis="x", rotation=90)
        axis.set(title=named(model), xlabel="what it says")
    axes[0, 0].set_ylabel(truth)
    return figure


@theme()
def by_layer(table: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """What layers know of secrets, a panel for each measure.

    Args:
        table: Of `depth.probed` and `depth.patched`, of several models.
        titles: {measure: what its axis says}.
    """
    models = list(dict.fromkeys(table["model"]))
    figure, axes = subplots(1, len(titles), size=(1 + 4.2 * len(titles), 3.8))
    for axis, (measure, title) in zip(axes.flat, titles.items(), strict=True):
        own = table[table["measure"] == measure]
        sns.pointplot(own, x="layer", y="value", errorbar=None, ax=axis, **series_look("model", models))
        axis.set(xlabel="layer", ylabel=title)
    legend_outside(figure, "upper", columns=min(len(models), 4), text=named)
    return figure
