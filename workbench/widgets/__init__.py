"""What a notebook shows while something runs, and what answers when a person asks."""

from .attribution import explore_attribution
from .curves import live_curves
from .probe import LiveProbe

__all__ = ["LiveProbe", "explore_attribution", "live_curves"]
