"""Safety Mirage workbench: see the mirage, take it apart, cure it.

    import workbench as wb
    vlm = wb.load("miniguard")
    vlm.answer(picture, "What is the name of this thing?")

Public names: AttributionExplorer, CurveExplorer, Example, Game, LiveProbe, UserError, attribute, audit, evaluate, headline, live_curves,
load, miniguard_split, plots, read_examples, reliance, repair, train.
Importing this package is fast: torch and transformers come in with the first name that needs them.
"""

import importlib
from typing import TYPE_CHECKING

from .audit import audit  # these two are functions in modules of the same name: imported first, so that the function keeps the name
from .data import Example, miniguard_split, read_examples
from .errors import UserError
from .evaluate import evaluate
from .repair import repair

if TYPE_CHECKING:
    from . import plots
    from .attribution import attribute
    from .models import load
    from .shortcut import reliance
    from .study import headline
    from .training import train
    from .widgets import AttributionExplorer, CurveExplorer, Game, LiveProbe, live_curves

__version__ = "0.1.0"
__all__ = [
    "AttributionExplorer",
    "CurveExplorer",
    "Example",
    "Game",
    "LiveProbe",
    "UserError",
    "attribute",
    "audit",
    "evaluate",
    "headline",
    "live_curves",
    "load",
    "miniguard_split",
    "plots",
    "read_examples",
    "reliance",
    "repair",
    "train",
]

_LATER = {
    "AttributionExplorer": "widgets",
    "CurveExplorer": "widgets",
    "Game": "widgets",
    "LiveProbe": "widgets",
    "attribute": "attribution",
    "headline": "study",
    "live_curves": "widgets",
    "load": "models",
    "plots": None,
    "reliance": "shortcut",
    "train": "training",
}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    module = importlib.import_module(f".{_LATER[name] or name}", __name__)
    return getattr(module, name) if _LATER[name] else module


def __dir__() -> list[str]:
    return sorted(__all__)
