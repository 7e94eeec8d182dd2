"""Curves that are drawn while a model is trained."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w
import pandas as pd

from .. import plots
from .html import figure_html


def live_curves() -> Callable[[pd.DataFrame], None]:
    """Show a figure in the notebook now, and return what redraws it: pass it to `train` as `on_curve`.

    The figure is one widget whose picture is replaced, so that nothing jumps.
    """
    from IPython.display import display

    shown = w.HTML()
    display(shown)

    def redraw(table: pd.DataFrame) -> None:
        shown.value = figure_html(plots.curves(table), "ASR, RR and utility against training steps")

    return redraw
