"""Shortcut reliance: how much of a model's refusal hangs on the lead word alone? As attribution tells it, and as an intervention does."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .attacks import rewrites
from .attribution import attribute
from .data import Example
from .intervals import cluster_bootstrap
from .models import VLM
from .perturbed import REFUSAL, Perturbed, Target
from .progress import bar


def reliance(
    vlm: VLM,
    examples: Sequence[Example],
    lead: str = "share",
    other: str = "what",
    target: Target = REFUSAL,
    method: str = "ablation",
    grid: int = 6,
    progress: bool = True,
) -> pd.DataFrame:
    """Each query is rewritten to begin with `lead`: a row each, with id, picture (a hash), query, value (of the target), share, swap.

    share: of the absolute attribution over all words and squares, what falls on the lead word, in [0, 1]. swap: how much higher the target
    is than under the lead word `other`, all else being equal (in nats): the causal counterpart, in which no word is missing.
    method, grid: as of `attribute`. Raises UserError as that does.
    """
    rows = []
    for example in bar(examples, f"reliance of {vlm.name}", progress):
        picture, query, swapped = example.picture(), *(rewrites(example.query, word)[0] for word in (lead, other))
        found = attribute(vlm, picture, query, target, method, grid)
        swap = found.value - Perturbed(vlm, picture, swapped, target, grid=1).value
        absolute = np.abs(found.flat)
        share = absolute[0] / absolute.sum() if absolute.any() else 0.0  # what does not move at all relies on nothing
        digest = hashlib.blake2b(picture.tobytes(), digest_size=8).hexdigest()
        rows.append((example.id, digest, query, found.value, share, swap))
    return pd.DataFrame(rows, columns=["id", "picture", "query", "value", "share", "swap"])


def reliance_table(found: Mapping[str, pd.DataFrame], seed: int = 0) -> pd.DataFrame:
    """`reliance` of several models, by name: model, measure (share, swap), value (the mean), ci_low, ci_high, n (queries).

    The 95% intervals are bootstrapped over pictures, since queries about the same picture are not independent.
    """
    rows = [
        (model, measure, table[measure].mean(), *cluster_bootstrap(table[measure], table.picture, seed), len(table))
        for model, table in found.items()
        for measure in ("share", "swap")
    ]
    return pd.DataFrame(rows, columns=["model", "measure", "value", "ci_low", "ci_high", "n"])
