"""A slider over the steps of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anywidget
import traitlets


class Steps(anywidget.AnyWidget):
    """The browser's own slider, since that of ipywidgets has no name for screen readers.

    Attributes:
        steps: The steps to choose from, ascending.
        value: The chosen step.
    """

    _esm = Path(__file__).with_name("steps.js")
    steps = traitlets.List(traitlets.Int()).tag(sync=True)
    value = traitlets.Int().tag(sync=True)

    def __init__(self, steps: Sequence[int]) -> None:
        super().__init__(steps=list(steps), value=steps[0])
