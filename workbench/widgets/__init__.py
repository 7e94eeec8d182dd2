"""What a notebook shows while something runs, and what answers when a person asks."""

from .attribution import AttributionExplorer
from .curves import CurveExplorer, live_curves
from .game import Game
from .probe import LiveProbe

__all__ = ["AttributionExplorer", "CurveExplorer", "Game", "LiveProbe", "live_curves"]
