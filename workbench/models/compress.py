"""Compression that can undo unlearning: weights of the language model rounded, or the smallest set to zero.

Both take a model whose adapter is merged into its weights, as those who publish compressed models do.
"""

from __future__ import annotations

import torch
from torch.nn.utils import prune

from workbench.models.adapters import linear_modules
from workbench.models.vlm import VLM


@torch.no_grad()
def rounded(vlm: VLM, bits: int) -> VLM:
    """The model, in place, with each linear weight of its language model rounded to 2^bits − 1 values.

    They are spread evenly and symmetrically over what the largest weight of each output needs.

    Args:
        vlm: The model, without an adapter.
        bits: Of each weight, e.g. 8 or 4.
    """
    largest = 2 ** (bits - 1) - 1
    for weight in _weights(vlm):  # (out, in)
        scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / largest
        weight.copy_((weight / scale).round() * scale)
    return vlm


@torch.no_grad()
def pruned(vlm: VLM, share: float) -> VLM:
    """The model, in place, with the smallest weights of each linear layer of its language model set to zero.

    Args:
        vlm: The model, without an adapter.
        share: Of each layer's weights, in [0, 1].
    """
    for name in linear_modules(vlm):
        module = vlm.model.get_submodule(name)
        prune.l1_unstructured(module, "weight", amount=share)
        prune.remove(module, "weight")
    return vlm


def _weights(vlm: VLM) -> list[torch.Tensor]:
    return [vlm.model.get_submodule(name).weight for name in linear_modules(vlm)]
