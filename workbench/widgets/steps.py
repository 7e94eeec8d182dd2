"""A slider over the steps of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anywidget
import traitlets


class Steps(anywidget.AnyWidget):
    """`value` is one of `steps`. The browser's own slider: that of ipywidgets has no name for screen readers."""

    _esm = Path(__file__).with_name("steps.js")
    steps = traitlets.List(traitlets.Int()).tag(sync=True)
    value = traitlets.Int().tag(sync=True)

    def __init__(self, steps: Sequence[int]):
        super().__init__(steps=list(steps), value=steps[0])
