"""Does an attribution tell the truth? Take features away, or put them back, in its order, and see whether the target moves faster than
in random orders (deletion and insertion, arXiv 1806.07421; comprehensiveness and sufficiency, arXiv 1911.03429; infidelity and
max-sensitivity, arXiv 1901.09392, by Captum)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import captum.metrics
import numpy as np
import pandas as pd
import torch
from PIL import Image

from workbench.attribution.masking import Perturbed
from workbench.attribution.methods import Attribution, attribute

BEST, RANDOM = "attribution", "random"


class Faithfulness(NamedTuple):
    """curves: curve (deletion, insertion), order (attribution, random), draw, moved (share of features, 0 to 1), value (of the target).

    scores: a row a measure: measure, value, random_low, random_high (the middle 95% of random orders), better (than all but 5% of them).
    """

    curves: pd.DataFrame
    scores: pd.DataFrame


def faithfulness(
    perturbed: Perturbed, found: Attribution, orders: int = 50, seed: int = 0, top: float = 0.2
) -> Faithfulness:
    """Test an attribution on the very target, picture and query that it explains.

    The feature that speaks most for the target goes first. deletion: area under the target while features are taken away (low is
    faithful); insertion: while they are put back on nothing (high); both as means over steps, in the target's unit. comprehensiveness:
    what is lost without the first `top` share of features (high); sufficiency: what is lost with these alone (low). infidelity: how far
    the sum of attributions is from what is lost, squared, when any `top` of features are gone (low).
    """
    n, attributed, rng = perturbed.features, found.flat, np.random.default_rng(seed)
    ranks = [np.argsort(-attributed, kind="stable"), *(rng.permutation(n) for _ in range(orders))]
    moved = np.stack(
        [np.tril(np.ones((n + 1, n)), -1)[:, np.argsort(rank)] for rank in ranks]
    )  # (orders, steps, features)
    values = {}
    for curve, there in (("deletion", 1 - moved), ("insertion", moved)):
        asked = perturbed(torch.from_numpy(there.reshape(-1, n)).float())
        values[curve] = asked.reshape(len(ranks), n + 1).double().numpy()
    rows = [
        (curve, BEST if draw == 0 else RANDOM, draw, step / n, value)
        for curve, table in values.items()
        for draw, line in enumerate(table)
        for step, value in enumerate(line)
    ]
    first, whole = max(1, round(top * n)), values["deletion"][:, :1]
    measures = {  # measure → (a value an order, the attribution's first; whether high is good)
        "deletion": (values["deletion"].mean(axis=1), False),
        "insertion": (values["insertion"].mean(axis=1), True),
        "comprehensiveness": ((whole - values["deletion"][:, first : first + 1])[:, 0], True),
        "sufficiency": ((whole - values["insertion"][:, first : first + 1])[:, 0], False),
        "infidelity": (
            _infidelity(perturbed, [attributed, *(rng.permutation(attributed) for _ in range(orders))], rng, top),
            False,
        ),
    }
    scores = []
    for measure, (each, high) in measures.items():
        own, random = each[0], each[1:]
        better = np.mean(random >= own if high else random <= own) <= 0.05
        scores.append((measure, own, *np.quantile(random, [0.025, 0.975]), bool(better)))
    columns = ["measure", "value", "random_low", "random_high", "better"]
    return Faithfulness(
        pd.DataFrame(rows, columns=["curve", "order", "draw", "moved", "value"]), pd.DataFrame(scores, columns=columns)
    )


def _infidelity(
    perturbed: Perturbed, attributed: Sequence[np.ndarray], rng: np.random.Generator, gone: float, draws: int = 100
):
    """Captum's infidelity of attributions (each (F,)), all for the same random absences: (attributions,)."""
    absent = torch.from_numpy(rng.random((draws, perturbed.features)) < gone).float()

    def perturb(whole):  # (attributions · draws, F)
        each = absent.repeat(len(whole) // draws, 1)
        return each, whole - each

    whole = torch.ones(len(attributed), perturbed.features)
    given = torch.from_numpy(np.stack(attributed)).float()
    found = captum.metrics.infidelity(perturbed, perturb, whole, given, n_perturb_samples=draws)
    return found.double().numpy()


def max_sensitivity(
    perturbed: Perturbed, method: str = "ablation", radius: float = 0.02, draws: int = 10, seed: int = 0
) -> float:
    """How far an attribution is moved at most, relative to its norm, when every pixel moves by up to `radius` of its range.

    Captum's sensitivity_max (arXiv 1901.09392). An explanation that changes much for a picture that looks the same cannot be trusted.
    """

    def explain(
        pictures,
    ):  # (draws, height, width, 3) → (draws, F); Captum hands over the picture itself in a tuple, and wants one back
        if isinstance(pictures, tuple):
            return (explain(*pictures),)
        seen = [Image.fromarray((p.clamp(0, 1) * 255).round().byte().numpy()) for p in pictures]
        with torch.enable_grad():  # Captum has switched it off
            found = [
                attribute(perturbed.vlm, p, perturbed.query, perturbed.target, method, perturbed.grid, seed).flat
                for p in seen
            ]
        return torch.from_numpy(np.stack(found))

    torch.manual_seed(seed)
    pixels = torch.from_numpy(perturbed.pixels.copy())[None].float() / 255
    return captum.metrics.sensitivity_max(explain, pixels, perturb_radius=radius, n_perturb_samples=draws).item()


def agreement(found: Sequence[Attribution]) -> pd.DataFrame:
    """Spearman's rank correlation over features between methods that explain the same: (methods, methods), 1 where they agree."""
    return pd.DataFrame({a.method: a.flat for a in found}).corr(method="spearman")
