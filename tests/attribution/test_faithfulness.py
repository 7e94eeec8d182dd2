"""Measures of faithfulness: by hand on a known target, and on a model."""

import numpy as np
import pytest
import torch

from workbench.attribution.faithfulness import MEASURES, agreement, faithfulness, max_sensitivity, measure
from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import Attribution, attribute
from workbench.attribution.target import Target


class Known:
    """A target that is a sum, f = Σ wᵢ xᵢ, so that every measure can be computed by hand."""

    def __init__(self, weights):
        self.weights, self.features = torch.tensor(weights), len(weights)

    def __call__(self, present):
        return present @ self.weights


def explained(values):
    return Attribution(["w"] * (len(values) - 1), np.array(values[:-1]), np.array([[values[-1]]]), 0.0, 0.0, "by hand")


def test_a_known_target_by_hand():
    f = Known([4.0, 3.0, 2.0, 1.0, 0.0])
    scores = faithfulness(f, explained([4.0, 3.0, 2.0, 1.0, 0.0]), top=0.4).scores.set_index("measure")
    assert scores.value["deletion"] == pytest.approx(np.mean([10, 6, 3, 1, 0, 0]))
    assert scores.value["insertion"] == pytest.approx(np.mean([0, 4, 7, 9, 10, 10]))
    assert scores.value["comprehensiveness"] == pytest.approx(7)
    assert scores.value["sufficiency"] == pytest.approx(3)
    # one order of five features in ten has the same top two, so the other measures cannot beat 95% of orders
    assert scores.better["deletion"] and scores.better["insertion"]
    assert (scores.random_low <= scores.random_high).all()


def test_a_wrong_order_and_one_that_says_nothing_are_no_better():
    f = Known([4.0, 3.0, 2.0, 1.0, 0.0])
    assert not faithfulness(f, explained([0.0, 1.0, 2.0, 3.0, 4.0])).scores.better.any()
    level = faithfulness(Known([1.0] * 5), explained([4.0, 3.0, 2.0, 1.0, 0.0]))
    assert not level.scores.better.any()  # no order is better than another
    assert level.curves.groupby(["curve", "moved"]).value.std().max() < 1e-6


def test_infidelity_by_hand():
    """It is 0 for the truth. For zeros, it is the mean square of the loss when each feature is absent with p = 1/5."""
    weights = np.array([4.0, 3.0, 2.0, 1.0, 0.0])
    f = Known(weights.tolist())
    right, nothing = (faithfulness(f, explained(w)).scores.set_index("measure") for w in (weights, 0 * weights))
    assert right.value["infidelity"] == pytest.approx(0, abs=1e-4) and right.better["infidelity"]
    expected = 0.16 * (weights**2).sum() + (0.2 * weights.sum()) ** 2  # variance and squared mean
    assert nothing.value["infidelity"] == pytest.approx(expected, rel=0.4) and not nothing.better["infidelity"]


def test_agreement_is_of_ranks():
    values = np.array([3.0, 1.0, 2.0, -4.0])
    one, cube, other = (explained(v)._replace(method=m) for v, m in ((values, "a"), (values**3, "b"), (-values, "c")))
    table = agreement([one, cube, other])
    assert table.loc["a", "b"] == pytest.approx(1) and table.loc["a", "c"] == pytest.approx(-1)


@pytest.mark.slow
def test_max_sensitivity_grows_with_the_radius(vlm, few):
    """It is 0 if nothing moves, also for a method that needs gradients."""
    example = next(e for e in few if not e.harmful and e.request == "name")
    f = Perturbed(vlm, example.picture(), example.query, Target((example.response,)), 3)
    for method in ("ablation", "gradient-x-input"):
        still, little, much = (max_sensitivity(f, method, radius, draws=3) for radius in (0.0, 0.01, 0.2))
        assert still == pytest.approx(0, abs=1e-4) and 0 < little < much


@pytest.mark.slow
def test_an_attribution_of_a_model_beats_random_orders(vlm, few):
    example = next(e for e in few if not e.harmful and e.request == "name")
    target = Target((example.response,))
    attribution = attribute(vlm, example.picture(), example.query, target, "shapley", grid=3)
    tested = faithfulness(Perturbed(vlm, example.picture(), example.query, target, 3), attribution, orders=20)
    scores = tested.scores.set_index("measure")
    assert scores.better["deletion"] and scores.better["insertion"]
    ends = tested.curves[tested.curves.moved == 1].groupby("curve").value.first()
    assert ends["insertion"] == pytest.approx(attribution.value, abs=1e-3)
    assert ends["deletion"] == pytest.approx(attribution.baseline, abs=1e-3)


def test_a_measure_is_added_in_one_place(monkeypatch):
    monkeypatch.setattr("workbench.attribution.faithfulness.MEASURES", dict(MEASURES))

    @measure("last", higher_is_better=True)
    def last(trial):
        return trial.insertion[:, -1]

    scores = faithfulness(Known([2.0, 1.0]), explained([2.0, 1.0])).scores.set_index("measure")
    assert list(scores.index) == [*MEASURES, "last"]
    assert scores.value["last"] == 3 and not scores.better["last"]
