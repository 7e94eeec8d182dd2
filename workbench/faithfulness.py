"""Does an attribution tell the truth? Take features away, or put them back, in its order, and see whether the target moves faster than
in random orders (deletion and insertion, arXiv 1806.07421; comprehensiveness and sufficiency, arXiv 1911.03429)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from .attribution import Attribution
from .perturbed import Perturbed

BEST, RANDOM = "attribution", "random"


class Faithfulness(NamedTuple):
    """curves: curve (deletion, insertion), order (attribution, random), draw, moved (share of features, 0 to 1), value (of the target).

    scores: a row a measure: measure, value, random_low, random_high (the middle 95% of random orders), better (than all but 5% of them).
    """

    curves: pd.DataFrame
    scores: pd.DataFrame


def faithfulness(perturbed: Perturbed, found: Attribution, orders: int = 50, seed: int = 0, top: float = 0.2) -> Faithfulness:
    """Test an attribution on the very target, picture and query that it explains.

    The feature that speaks most for the target goes first. deletion: area under the target while features are taken away (low is
    faithful); insertion: while they are put back on nothing (high); both as means over steps, in the target's unit. comprehensiveness:
    what is lost without the first `top` share of features (high); sufficiency: what is lost with these alone (low).
    """
    n = perturbed.features
    attributed = np.concatenate([found.words, found.patches.ravel()])
    rng = np.random.default_rng(seed)
    ranks = [np.argsort(-attributed, kind="stable"), *(rng.permutation(n) for _ in range(orders))]
    moved = np.stack([np.tril(np.ones((n + 1, n)), -1)[:, np.argsort(rank)] for rank in ranks])  # (orders, steps, features)
    values = {}
    with torch.inference_mode():
        for curve, there in (("deletion", 1 - moved), ("insertion", moved)):
            flat = torch.from_numpy(there.reshape(-1, n)).float()
            distinct, back = flat.unique(dim=0, return_inverse=True)  # all orders share their ends
            values[curve] = perturbed(distinct)[back].reshape(len(ranks), n + 1).double().numpy()
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
    }
    scores = []
    for measure, (each, high) in measures.items():
        own, random = each[0], each[1:]
        better = np.mean(random >= own if high else random <= own) <= 0.05
        scores.append((measure, own, *np.quantile(random, [0.025, 0.975]), bool(better)))
    columns = ["measure", "value", "random_low", "random_high", "better"]
    return Faithfulness(pd.DataFrame(rows, columns=["curve", "order", "draw", "moved", "value"]), pd.DataFrame(scores, columns=columns))
