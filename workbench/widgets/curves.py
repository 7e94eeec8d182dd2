"""Curves that are drawn while a model is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def live_curves() -> Callable[[pd.DataFrame], None]:
    """Show a figure in the notebook now, and return what redraws it: pass it to `train` as `on_curve`.

    The figure is one widget whose picture is replaced, so that nothing jumps.
    """
    import ipywidgets
    from IPython.display import display

    from .. import plots
    from .html import figure_html

    shown = ipywidgets.HTML()
    display(shown)

    def redraw(table: pd.DataFrame) -> None:
        shown.value = figure_html(plots.curves(table), "ASR, RR and utility against training steps")

    return redraw
