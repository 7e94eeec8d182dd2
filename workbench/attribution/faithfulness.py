"""Does an attribution tell the truth?

Features are taken away, or put back, in the attribution's order, to see whether the target moves faster than
in random orders. To add a measure, write a function of a trial and decorate it with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import captum.metrics
import numpy as np
import pandas as pd
import torch
from PIL import Image

from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import Attribution, attribute

BEST, RANDOM = "attribution", "random"  # whose order, in the table of curves
ABSENCES = 100  # random sets of features that infidelity takes away


@dataclass(frozen=True)
class Trial:
    """An attribution and random orders of features, tried on the same target. The attribution comes first.

    Attributes:
        perturbed: The target, a function of F features.
        deletion: The target while features are taken away one by one, (1 + orders, F + 1).
        insertion: The target while features are put back on nothing one by one, (1 + orders, F + 1).
        attributions: The attribution and random permutations of it, (1 + orders, F).
        top: The share of features that counts as the top, between 0 and 1.
        rng: For measures that draw at random.
    """

    perturbed: Perturbed
    deletion: np.ndarray
    insertion: np.ndarray
    attributions: np.ndarray
    top: float
    rng: np.random.Generator

    @property
    def top_features(self) -> int:
        """How many features are the top share."""
        return max(1, round(self.top * self.perturbed.features))


Values = Callable[[Trial], np.ndarray]  # how faithful each order of a trial is: (1 + orders,)


@dataclass(frozen=True)
class Measure:
    """How faithful each order of a trial is, the attribution's first, and which way is better."""

    values: Values
    higher_is_better: bool


MEASURES: dict[str, Measure] = {}


def measure(name: str, *, higher_is_better: bool) -> Callable[[Values], Values]:
    """Enter a function into MEASURES under the name that it has in tables."""

    def enter(values: Values) -> Values:
        MEASURES[name] = Measure(values, higher_is_better)
        return values

    return enter


@measure("deletion", higher_is_better=False)
def deletion(trial: Trial) -> np.ndarray:
    """The target while features are taken away, averaged over steps (arXiv 1806.07421): (1 + orders,)."""
    return trial.deletion.mean(axis=1)


@measure("insertion", higher_is_better=True)
def insertion(trial: Trial) -> np.ndarray:
    """The target while features are put back, averaged over steps (arXiv 1806.07421): (1 + orders,)."""
    return trial.insertion.mean(axis=1)


@measure("comprehensiveness", higher_is_better=True)
def comprehensiveness(trial: Trial) -> np.ndarray:
    """What the target loses without the top share of features (arXiv 1911.03429): (1 + orders,)."""
    return trial.deletion[:, 0] - trial.deletion[:, trial.top_features]


@measure("sufficiency", higher_is_better=False)
def sufficiency(trial: Trial) -> np.ndarray:
    """What the target loses with the top share of features alone (arXiv 1911.03429): (1 + orders,)."""
    return trial.deletion[:, 0] - trial.insertion[:, trial.top_features]


@measure("infidelity", higher_is_better=False)
def infidelity(trial: Trial) -> np.ndarray:
    """How far attributions are from what the target loses, squared (arXiv 1901.09392): (1 + orders,).

    Each of ABSENCES draws takes features away, each with probability `top`, and compares the sum of their
    attributions with the loss. Every order has the same draws. Computed by Captum.
    """
    absent = torch.from_numpy(trial.rng.random((ABSENCES, trial.perturbed.features)) < trial.top).float()

    def perturb(whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is taken away and what is left: whole (orders · ABSENCES, F) → two of the same shape."""
        taken = absent.repeat(len(whole) // ABSENCES, 1)
        return taken, whole - taken

    attributions = torch.from_numpy(trial.attributions).float()
    values = captum.metrics.infidelity(
        trial.perturbed, perturb, torch.ones_like(attributions), attributions, n_perturb_samples=ABSENCES
    )
    return values.double().numpy()


class Faithfulness(NamedTuple):
    """Results of `faithfulness`.

    Attributes:
        curves: Columns curve (deletion, insertion), order (attribution, random), draw, moved (share of
            features, 0 to 1), value (of the target).
        scores: A row for each measure, with columns measure, value, random_low and random_high (the middle
            95% of random orders), better (than all but 5% of them).
    """

    curves: pd.DataFrame
    scores: pd.DataFrame


def faithfulness(
    perturbed: Perturbed, attribution: Attribution, orders: int = 50, seed: int = 0, top: float = 0.2
) -> Faithfulness:
    """Test an attribution by MEASURES, on the target, picture and query that it explains.

    The feature that speaks most for the target goes first. All measures are in the target's unit, except
    infidelity, which is in its square.

    Args:
        perturbed: The target as a function of features.
        attribution: Explains the same target.
        orders: Random orders to compare with.
        seed: Of these orders.
        top: The share of features by which comprehensiveness, sufficiency and infidelity are measured.
    """
    trial = _try_orders(perturbed, attribution, orders, top, np.random.default_rng(seed))
    scores = [(name, *_score(each.values(trial), each.higher_is_better)) for name, each in MEASURES.items()]
    columns = ["measure", "value", "random_low", "random_high", "better"]
    return Faithfulness(_curves(trial), pd.DataFrame(scores, columns=columns))


def _try_orders(
    perturbed: Perturbed, attribution: Attribution, orders: int, top: float, rng: np.random.Generator
) -> Trial:
    """Take features away and put them back, in the attribution's order and in random ones."""
    n, attributed = perturbed.features, attribution.flat
    tried = np.stack([np.argsort(-attributed, kind="stable"), *(rng.permutation(n) for _ in range(orders))])
    places = tried.argsort(axis=1)  # of each feature in each order, (1 + orders, F)
    moved = places[:, None] < np.arange(n + 1)[:, None]  # (1 + orders, steps, F)

    def values(present: np.ndarray) -> np.ndarray:
        """(1 + orders, steps, F) → (1 + orders, steps)."""
        targets = perturbed(torch.from_numpy(present.reshape(-1, n)).float())
        return targets.reshape(moved.shape[:2]).double().numpy()

    attributions = np.stack([attributed, *(rng.permutation(attributed) for _ in range(orders))])
    return Trial(perturbed, values(~moved), values(moved), attributions, top, rng)


def _score(values: np.ndarray, higher_is_better: bool) -> tuple[float, float, float, bool]:
    """The attribution's value, the middle 95% of random orders, and whether it beats all but 5% of them."""
    own, random = values[0], values[1:]
    as_good = random >= own if higher_is_better else random <= own
    low, high = np.quantile(random, [0.025, 0.975])
    return own, low, high, bool(np.mean(as_good) <= 0.05)


def _curves(trial: Trial) -> pd.DataFrame:
    """The table `Faithfulness.curves`."""
    features = trial.perturbed.features
    rows = [
        (curve, BEST if draw == 0 else RANDOM, draw, step / features, value)
        for curve, table in (("deletion", trial.deletion), ("insertion", trial.insertion))
        for draw, line in enumerate(table)
        for step, value in enumerate(line)
    ]
    return pd.DataFrame(rows, columns=["curve", "order", "draw", "moved", "value"])


def max_sensitivity(
    perturbed: Perturbed, method: str = "ablation", radius: float = 0.02, draws: int = 10, seed: int = 0
) -> float:
    """The furthest that an attribution moves, relative to its norm, when every pixel moves a little.

    Captum's sensitivity_max (arXiv 1901.09392). An explanation that changes a lot for a picture that looks
    the same cannot be trusted.

    Args:
        perturbed: The target, picture and query that are explained.
        method: A name in METHODS.
        radius: How far a pixel moves at most, as a share of its range.
        draws: Random movements to try.
        seed: Of these movements.
    """

    def explain(inputs: torch.Tensor | tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """(draws, height, width, 3) → (draws, F). Captum puts the unmoved picture into a tuple."""
        pixels = inputs[0] if isinstance(inputs, tuple) else inputs
        pictures = [Image.fromarray(each) for each in (pixels.clamp(0, 1) * 255).round().byte().numpy()]
        options = perturbed.query, perturbed.target, method, perturbed.grid, seed, perturbed.baseline
        with torch.enable_grad():  # Captum has switched it off
            rows = [attribute(perturbed.vlm, picture, *options).flat for picture in pictures]
        return (torch.from_numpy(np.stack(rows)),)

    torch.manual_seed(seed)
    pixels = torch.from_numpy(perturbed.pixels.copy())[None].float() / 255  # (1, height, width, 3)
    return captum.metrics.sensitivity_max(explain, (pixels,), perturb_radius=radius, n_perturb_samples=draws).item()


def agreement(attributions: Sequence[Attribution]) -> pd.DataFrame:
    """Spearman's rank correlation over features between methods that explain the same: (methods, methods)."""
    return pd.DataFrame({each.method: each.flat for each in attributions}).corr(method="spearman")
