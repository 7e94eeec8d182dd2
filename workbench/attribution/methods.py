"""Why did it refuse? Captum's methods over the words of a query and the squares of its picture (perturbed.py), of any VLM."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import captum.attr
import numpy as np
import torch
from PIL import Image

from workbench.attribution.masking import REFUSAL, Perturbed, Target
from workbench.errors import UserError
from workbench.models.vlm import VLM


class Attribution(NamedTuple):
    """What each feature adds to the target: words (W,), patches (rows, columns); value: f(x); baseline: f with everything taken away."""

    query: list[str]
    words: np.ndarray
    patches: np.ndarray
    value: float
    baseline: float
    method: str

    def minus(self, other: Attribution) -> Attribution:
        """The attribution of the difference between two models' targets, for the same picture and query."""
        return self._replace(
            words=self.words - other.words,
            patches=self.patches - other.patches,
            value=self.value - other.value,
            baseline=self.baseline - other.baseline,
        )

    @property
    def flat(self) -> np.ndarray:
        """All features, words first: (F,)."""
        return np.concatenate([self.words, self.patches.ravel()])

    @property
    def gap(self) -> float:
        """How far the attributions' sum is from f(x) − f(baseline): 0 for a complete method."""
        return float(self.flat.sum()) - (self.value - self.baseline)


# name → what runs it: (Perturbed, ones (1, F)) → attributions (1, F)
METHODS: dict[str, Callable] = {
    "ablation": lambda f, x: captum.attr.FeatureAblation(f).attribute(x, perturbations_per_eval=f.rows),
    "shapley": lambda f, x: captum.attr.ShapleyValueSampling(f).attribute(
        x, n_samples=25, perturbations_per_eval=f.rows
    ),
    "integrated-gradients": lambda f, x: captum.attr.IntegratedGradients(f.soft).attribute(
        x, n_steps=64, internal_batch_size=f.rows
    ),
    "gradient-x-input": lambda f, x: captum.attr.InputXGradient(f.soft).attribute(x.requires_grad_()),
}


def attribute(
    vlm: VLM,
    image: Image.Image,
    query: str,
    target: Target = REFUSAL,
    method: str = "ablation",
    grid: int = 6,
    seed: int = 0,
) -> Attribution:
    """Attribute a target to the words of a query and the squares of its picture.

    method: "ablation", what is lost when a feature alone is taken away; "shapley", the mean of that over random orders;
    "integrated-gradients", along the straight line from everything blank (in the space of word embeddings and pixels);
    "gradient-x-input", the first step of that line back from the prompt. shapley and integrated-gradients sum to f(x) − f(baseline).
    grid: squares along each side of the picture. seed: of shapley's orders.
    Raises UserError for an unknown method, a query without words, or openings that the tokenizer cannot express.
    """
    if method not in METHODS:
        raise UserError(f"There is no attribution method {method!r}; choose one of {', '.join(METHODS)}.")
    perturbed = Perturbed(vlm, image, query, target, grid)
    torch.manual_seed(seed)
    whole = torch.ones(1, perturbed.features)
    value, baseline = perturbed(torch.cat([whole, 0 * whole])).tolist()
    found = METHODS[method](perturbed, whole)[0].detach().double().numpy()
    n = len(perturbed.words)
    return Attribution(perturbed.words, found[:n], found[n:].reshape(grid, grid), value, baseline, method)
