"""Explanations are compared on the same queries, with a correction for how many are compared."""

import itertools

import numpy as np
import pandas as pd
import pytest

from workbench.attribution.known_truth import compared, lead_word_found
from workbench.data.splits import miniguard_split


def made_up(right):
    """Rows of 60 queries; right: {(method, baseline): which queries name the lead word first}."""
    rows = [
        (f"q{n}", f"p{n}", *key, 1.0, -2.0, bool(first))
        for key, firsts in right.items()
        for n, first in enumerate(firsts)
    ]
    return pd.DataFrame(rows, columns=["id", "picture", "method", "baseline", "value", "blank", "first"])


def test_what_is_clearly_worse_is_told_from_what_may_be_chance():
    always, mostly, half = np.ones(60), np.arange(60) >= 3, np.arange(60) % 2
    table = compared(made_up({("a", "x"): half, ("b", "x"): mostly, ("a", "y"): always}))
    assert list(zip(table["method"], table["baseline"], strict=True)) == [("a", "y"), ("b", "x"), ("a", "x")]
    assert table["value"].tolist() == [1.0, 57 / 60, 0.5] and table["as_good"].tolist() == [True, True, False]
    assert table["p"].tolist() == pytest.approx([1, 2 * 2 * 0.5**3, 3 * 2 * 0.5**30])  # Holm: times what is left
    assert (table["n"] == 60).all() and (table["blank"] == -2).all()


@pytest.mark.slow
def test_the_word_that_matters_is_found_in_the_model_with_the_mirage(sft):
    """By resampled words; in their place an unknown word makes a refusal of its own."""
    harmless = [e for e in miniguard_split("validation") if not e.harmful][:12]
    table = lead_word_found(sft, harmless, methods=["ablation"], progress=False)
    assert len(table) == 12 * 3 and set(table["baseline"]) == {"unknown", "masked", "resampled"}
    rates = table.groupby("baseline")["first"].mean()
    assert rates["resampled"] > 0.7
    for one, other in itertools.pairwise(table[table["id"] == harmless[0].id]["value"]):
        assert one == pytest.approx(other, abs=1e-3)  # the prompt's own target does not depend on the baseline
