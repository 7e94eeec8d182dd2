"""Faithfulness: by hand on a target that is known, and on a model."""

import numpy as np
import pytest
import torch

from workbench.attribution.faithfulness import agreement, faithfulness, max_sensitivity
from workbench.attribution.masking import Perturbed, Target
from workbench.attribution.methods import Attribution, attribute


class Known:
    """A target that is a sum: f = Σ wᵢ xᵢ, so that every measure can be told by hand."""

    def __init__(self, weights):
        self.weights, self.features = torch.tensor(weights), len(weights)

    def __call__(self, there):
        return there @ self.weights


def explained(values):
    return Attribution(["w"] * (len(values) - 1), np.array(values[:-1]), np.array([[values[-1]]]), 0.0, 0.0, "by hand")


def test_a_known_target_by_hand():
    f = Known([4.0, 3.0, 2.0, 1.0, 0.0])
    found = faithfulness(f, explained([4.0, 3.0, 2.0, 1.0, 0.0]), top=0.4).scores.set_index("measure")
    assert found.value["deletion"] == pytest.approx(np.mean([10, 6, 3, 1, 0, 0]))
    assert found.value["insertion"] == pytest.approx(np.mean([0, 4, 7, 9, 10, 10]))
    assert found.value["comprehensiveness"] == pytest.approx(7)
    assert found.value["sufficiency"] == pytest.approx(3)
    assert (
        found.better["deletion"] and found.better["insertion"]
    )  # of five features, one order in ten has the same first two
    assert (found.random_low <= found.random_high).all()


def test_a_wrong_order_and_one_that_says_nothing_are_told():
    f = Known([4.0, 3.0, 2.0, 1.0, 0.0])
    assert not faithfulness(f, explained([0.0, 1.0, 2.0, 3.0, 4.0])).scores.better.any()
    level = faithfulness(Known([1.0] * 5), explained([4.0, 3.0, 2.0, 1.0, 0.0]))
    assert not level.scores.better.any()  # no order is better than another
    assert level.curves.groupby(["curve", "moved"]).value.std().max() < 1e-6


def test_infidelity_by_hand():
    """Of the truth it is nothing; of nothing, the mean square of what is lost when each feature is gone with a probability of a fifth."""
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
    """…and is nothing where nothing moves; of a method that needs gradients, too."""
    example = next(e for e in few if not e.harmful and e.request == "name")
    f = Perturbed(vlm, example.picture(), example.query, Target((example.response,)), 3)
    for method in ("ablation", "gradient-x-input"):
        still, little, much = (max_sensitivity(f, method, radius, draws=3) for radius in (0.0, 0.01, 0.2))
        assert still == pytest.approx(0, abs=1e-4) and 0 < little < much


@pytest.mark.slow
def test_an_attribution_of_a_model_beats_random_orders(vlm, few):
    example = next(e for e in few if not e.harmful and e.request == "name")
    target = Target((example.response,))
    found = attribute(vlm, example.picture(), example.query, target, "shapley", grid=3)
    tested = faithfulness(Perturbed(vlm, example.picture(), example.query, target, 3), found, orders=20)
    scores = tested.scores.set_index("measure")
    assert scores.better["deletion"] and scores.better["insertion"]
    ends = tested.curves[tested.curves.moved == 1].groupby("curve").value.first()
    assert ends["insertion"] == pytest.approx(found.value, abs=1e-3) and ends["deletion"] == pytest.approx(
        found.baseline, abs=1e-3
    )
