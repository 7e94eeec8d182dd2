"""Figures of attacks that try to bring back what was unlearned."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from workbench.plots.style import DARK_GREY, legend_outside, named, rate_axis, series_look, subplots, theme


@theme()
def recovery(table: pd.DataFrame) -> Figure:
    """What comes back of rules that were not taught, a row per attack and a panel per model.

    Each row sets the model beside one that never knew, at the last step; their distance is what counts.

    Args:
        table: `recovery.advantages`'s.
    """
    last = table["step"] == table.groupby("arm")["step"].transform("max")
    shown = table[last & ~table["taught"]].assign(row=lambda t: _rows(t))
    models, rows = (list(dict.fromkeys(shown[column])) for column in ("model", "row"))
    size = (2.6 + 2.7 * len(models), 1.9 + 0.3 * len(rows))
    figure, axes = subplots(1, len(models), size=size, sharex=True, sharey=True)
    for axis, model in zip(axes.flat, models, strict=True):
        own = shown[shown["model"] == model].set_index("row").reindex(rows)
        places = range(len(rows))
        axis.hlines(places, 100 * own["never_knew"], 100 * own["leaks"], color=DARK_GREY, linewidth=1.5, zorder=1)
        pairs = {"the model": "leaks", "one that never knew": "never_knew"}
        points = pd.concat(
            [pd.DataFrame({"who": who, "rate": 100 * own[name], "place": list(places)}) for who, name in pairs.items()]
        )
        look = series_look("who", list(pairs))
        colours = {"palette": look["palette"], "markers": look["markers"]}
        sns.scatterplot(
            points,
            x="rate",
            y="place",
            hue="who",
            style="who",
            hue_order=list(pairs),
            style_order=list(pairs),
            s=55,
            zorder=3,
            ax=axis,
            **colours,
        )
        for place, row in zip(places, own.itertuples(), strict=True):
            axis.annotate(str(row.verdict), (102, place), fontsize="x-small", va="center", annotation_clip=False)
        rate_axis(axis, named(model), "low is gone", rows)
    legend_outside(figure, "upper", columns=2)
    return figure


def _rows(table: pd.DataFrame) -> pd.Series:
    """The attack in words, with its learning rate if there are several."""
    several = table.groupby("arm")["lr"].transform("nunique") > 1
    rates = table["lr"].map("{:g}".format)
    return table["arm"].where(~several, table["arm"] + ", lr " + rates)
