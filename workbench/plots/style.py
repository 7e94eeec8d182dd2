"""What all figures share: colours, names, axes with intervals, tables, and writing to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from workbench.files import atomic_write

if TYPE_CHECKING:
    pass
import threading
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from workbench.judges.outcomes import DEGENERATE, IRRELEVANT, REFUSAL, RELEVANT, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


def save(figure, path: Path, alt: str = "") -> None:
    """Write a figure as PNG or SVG, whole or not at all, with what it shows in words among its metadata."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Description": alt} if alt else None)


BEFORE, AFTER = "#0072B2", "#D55E00"
OUTCOME_STYLE = {  # outcome -> (colour, hatch)
    REFUSAL: ("#0072B2", ""),
    RELEVANT: ("#D55E00", "//"),
    IRRELEVANT: ("#BBBBBB", ""),
    DEGENERATE: ("#444444", ".."),
    UNPARSED: ("#F0E442", "xx"),  # drawn where there are any
}
LEAD_STYLE = (
    ("#000000", "o"),
    ("#0072B2", "D"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
)  # colour and marker, by place among attacks
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
    row = results[
        (results.model == model)
        & (results.attack == attack)
        & (results.queries == queries)
        & (results.metric == metric)
    ]
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


def _wrap(text: str, width: int = 24) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
