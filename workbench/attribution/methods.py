"""Why did it refuse? Captum's methods over the words of a query and the squares of its picture, for any VLM.

To add a method, write a function of a perturbed prompt and decorate it with its name. torch and Captum are
imported when they are used, so that command-line help can list METHODS quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from workbench.errors import UserError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from workbench.attribution.baselines import Baseline
    from workbench.attribution.masking import Perturbed
    from workbench.attribution.target import Target
    from workbench.models.vlm import VLM

# (prompt, ones (1, F)) → attributions (R, F), of R independent estimates
Method = Callable[["Perturbed", "torch.Tensor"], "torch.Tensor"]
ORDERS, PARTS = 200, 10  # of "shapley": random orders, and parts of them from which errors are estimated

METHODS: dict[str, Method] = {}


class Attribution(NamedTuple):
    """How much each feature adds to the target, in nats.

    Attributes:
        query: The words of the query.
        words: What each word adds, (W,).
        patches: What each square adds, (rows, columns).
        value: F(x), the target of the prompt.
        baseline: The target with everything taken away.
        method: Its name in METHODS.
        errors: The standard error of each feature, words first, (F,); None if there is no chance in it.
    """

    query: list[str]
    words: np.ndarray
    patches: np.ndarray
    value: float
    baseline: float
    method: str
    errors: np.ndarray | None = None

    def minus(self, other: Attribution) -> Attribution:
        """The attribution of the difference between two models' targets, for the same picture and query."""
        return self._replace(
            words=self.words - other.words,
            patches=self.patches - other.patches,
            value=self.value - other.value,
            baseline=self.baseline - other.baseline,
            errors=None if self.errors is None or other.errors is None else np.hypot(self.errors, other.errors),
        )

    @property
    def flat(self) -> np.ndarray:
        """All features, words first: (F,)."""
        return np.concatenate([self.words, self.patches.ravel()])

    @property
    def gap(self) -> float:
        """How far the sum of attributions is from f(x) − f(baseline): 0 for a complete method."""
        return float(self.flat.sum()) - (self.value - self.baseline)


def method(name: str) -> Callable[[Method], Method]:
    """Enter a function into METHODS under the name that users choose it by."""

    def enter(function: Method) -> Method:
        METHODS[name] = function
        return function

    return enter


@method("ablation")
def ablation(perturbed: Perturbed, whole: torch.Tensor) -> torch.Tensor:
    """What is lost when one feature alone is taken away: (1, F)."""
    from captum.attr import FeatureAblation

    return FeatureAblation(perturbed).attribute(whole, perturbations_per_eval=perturbed.rows)


@method("shapley")
def shapley(perturbed: Perturbed, whole: torch.Tensor) -> torch.Tensor:
    """What each feature adds when features are put back in random order, averaged over orders: (PARTS, F).

    Complete: the attributions sum to f(x) − f(baseline). Their errors come from the spread of PARTS parts.
    """
    import torch
    from captum.attr import ShapleyValueSampling

    sampling, orders, rows = ShapleyValueSampling(perturbed), ORDERS // PARTS, perturbed.rows
    parts = [sampling.attribute(whole, n_samples=orders, perturbations_per_eval=rows) for _ in range(PARTS)]
    return torch.cat(parts)


@method("integrated-gradients")
def integrated_gradients(perturbed: Perturbed, whole: torch.Tensor) -> torch.Tensor:
    """The gradient along the straight line from blank word embeddings and pixels to the prompt: (1, F).

    Complete up to the 64 steps by which the integral is approximated (arXiv 1703.01365).
    """
    from captum.attr import IntegratedGradients

    return IntegratedGradients(perturbed.soft).attribute(whole, n_steps=64, internal_batch_size=perturbed.rows)


@method("gradient-x-input")
def gradient_x_input(perturbed: Perturbed, whole: torch.Tensor) -> torch.Tensor:
    """The gradient at the prompt, times how far each feature is from blank: (1, F)."""
    from captum.attr import InputXGradient

    return InputXGradient(perturbed.soft).attribute(whole.requires_grad_())


def attribute(
    vlm: VLM,
    image: Image.Image,
    query: str,
    target: Target | None = None,
    method: str = "ablation",
    grid: int = 6,
    seed: int = 0,
    baseline: Baseline = "unknown",
) -> Attribution:
    """Attribute a target to the words of a query and the squares of its picture.

    Args:
        vlm: The model that is asked.
        image: The picture.
        query: The query.
        target: The number to explain; by default how likely a refusal is.
        method: A name in METHODS.
        grid: Squares along each side of the picture.
        seed: Of the random orders of "shapley".
        baseline: What stands in place of a missing word (baselines.py).

    Raises:
        UserError: The method is unknown, the query has no words, the picture does not fit the grid, the
            model's prompt has no place for a picture, the tokenizer cannot express the target's openings, or
            the baseline fits neither query nor method.
    """
    import torch

    from workbench.attribution.masking import Perturbed
    from workbench.attribution.target import REFUSAL
    from workbench.models.turns import in_turn
    from workbench.models.vlm import bare

    if method not in METHODS:
        raise UserError(f"There is no attribution method {method!r}; choose one of {', '.join(METHODS)}.")
    with in_turn(bare(vlm.model)):
        perturbed = Perturbed(vlm, image, query, target or REFUSAL, grid, baseline)
        torch.manual_seed(seed)
        whole = torch.ones(1, perturbed.features)
        value, blank = perturbed(torch.cat([whole, 0 * whole])).tolist()
        found = METHODS[method](perturbed, whole).detach().double().numpy()  # (R, F)
    words, squares = np.split(found.mean(axis=0), [len(perturbed.words)])
    errors = found.std(axis=0, ddof=1) / len(found) ** 0.5 if len(found) > 1 else None
    return Attribution(perturbed.words, words, squares.reshape(grid, grid), value, blank, method, errors)
