"""Figures from the workbench's tables: each function takes a table and returns a matplotlib Figure."""

from workbench.plots.explanations import attributions, describe, faithfulness, pictures, verdicts
from workbench.plots.inside import directions
from workbench.plots.rates import agreement, before_after, by_request, curves, outcomes, relearning, seeds
from workbench.plots.recovery import recovery
from workbench.plots.study import onset, wordings
from workbench.plots.style import NAMES, asked, named, save
from workbench.plots.substitution import by_layer, true_and_said
from workbench.plots.words import (
    by_lead_word,
    first_words,
    log_odds_by_lead,
    predictions,
    refusals_by_word,
    reliance,
    word_effects,
)

__all__ = [
    "NAMES",
    "agreement",
    "asked",
    "attributions",
    "before_after",
    "by_layer",
    "by_lead_word",
    "by_request",
    "curves",
    "describe",
    "directions",
    "faithfulness",
    "first_words",
    "log_odds_by_lead",
    "named",
    "onset",
    "outcomes",
    "pictures",
    "predictions",
    "recovery",
    "refusals_by_word",
    "relearning",
    "reliance",
    "save",
    "seeds",
    "true_and_said",
    "verdicts",
    "word_effects",
    "wordings",
]
