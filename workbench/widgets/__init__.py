"""Widgets for notebooks: curves that are drawn while a model trains, and panels that ask models."""

from workbench.widgets.attribution import AttributionExplorer
from workbench.widgets.curves import CurveExplorer, live_curves
from workbench.widgets.game import Game
from workbench.widgets.probe import LiveProbe

__all__ = ["AttributionExplorer", "CurveExplorer", "Game", "LiveProbe", "live_curves"]
