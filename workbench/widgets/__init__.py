"""What a notebook shows while something runs, and what answers when a person asks."""

from workbench.widgets.attribution import AttributionExplorer
from workbench.widgets.curves import CurveExplorer, live_curves
from workbench.widgets.game import Game
from workbench.widgets.probe import LiveProbe

__all__ = ["AttributionExplorer", "CurveExplorer", "Game", "LiveProbe", "live_curves"]
