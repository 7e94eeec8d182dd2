"""Costs are those of the recipes and of the runs that were made."""

import pytest

from workbench.studies.costs import COLUMNS, costs
from workbench.studies.methods import EARLY, method_of
from workbench.studies.shipped import shipped
from workbench.training import objectives


def test_examples_follow_from_steps_and_recipes():
    runs = shipped("runs")
    runs = runs[(runs["base"] == "miniguard") & (runs["seed"] == 0)]
    table = costs(runs)
    assert list(table.columns) == COLUMNS
    assert set(table["model"]) == set(runs["model"]) - {"base"}
    for row in table.itertuples():
        objective = objectives.OBJECTIVES[method_of(row.model, "miniguard").objective]
        (own,) = runs[runs["model"] == row.model].itertuples()
        assert row.steps == own.steps and row.seconds == own.seconds
        assert (row.harmful, row.harmless) == (own.steps * objective.forget, own.steps * objective.retain)
        assert 10 < row.memory < 500
    by_model = table.set_index("model")
    for early in set(EARLY) & set(by_model.index):
        assert by_model["seconds"][early] <= by_model["seconds"][early.removesuffix("-early")] * 1.5
    assert by_model["memory"]["npo"] > by_model["memory"]["sft"] * 0.5


def test_means_are_over_runs():
    runs = shipped("runs")
    some = runs[(runs["model"] == "npo") & (runs["base"] == "miniguard")]
    (row,) = costs(some).itertuples()
    assert row.runs == len(some) == 3 and row.seconds == pytest.approx(some["seconds"].mean())
