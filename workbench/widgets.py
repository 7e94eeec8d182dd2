"""What a notebook shows while something runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def live_curves() -> Callable[[pd.DataFrame], None]:
    """Show a figure in the notebook now, and return what redraws it: pass it to `train` as `on_curve`.

    The figure is one image whose bytes are replaced, so that it does not flicker.
    """
    import ipywidgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    from . import plots

    image = ipywidgets.Image(format="png", layout={"max_width": "100%"})
    image.alt = "ASR, RR and utility against training steps"
    display(image)

    def redraw(table: pd.DataFrame) -> None:
        figure = plots.curves(table)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=100)
        plt.close(figure)  # else the notebook would show it a second time
        image.value = buffer.getvalue()

    return redraw
