"""Is a cure only the teaching undone? Two changes of one network's weights, compared layer by layer.

If the world was taught by an adapter, unlearning might do no more than cancel it. Then the change that
unlearning makes would point against the change that teaching made: a cosine of −1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch

from workbench.errors import UserError
from workbench.models.vlm import VLM, bare

COLUMNS = ["layer", "module", "cosine", "taught", "changed"]


@torch.no_grad()
def compared(pretrained: VLM, taught: VLM, changed: VLM) -> pd.DataFrame:
    """The change of weights by teaching beside the one that came after it.

    Args:
        pretrained: The model before it was taught.
        taught: After; its adapter is merged.
        changed: After unlearning, or safety fine-tuning, which began from the taught model.

    Returns:
        COLUMNS, a row for each linear module of the language model whose weights both changes move: layer,
        module (its name within the layer), cosine of the two changes, and their Frobenius norms, relative to
        the norm of the pretrained weights.

    Raises:
        UserError: The three are not one architecture.
    """
    models = (pretrained, taught, changed)
    shapes = [[(name, module.weight.shape) for name, module in _linear(vlm)] for vlm in models]
    if shapes[1:] != shapes[:-1]:
        raise UserError("The three models are not the same architecture; give one model before and after its changes.")
    rows = []
    for parts in zip(*map(_linear, models), strict=True):
        name = parts[0][0]
        before, between, after = (_weight(module) for _, module in parts)
        first, second = between - before, after - between
        norms = [float(change.norm()) for change in (first, second)]
        if all(norms):
            layer, _, module = name.partition(".")
            cosine = float((first * second).sum()) / (norms[0] * norms[1])
            rows.append((int(layer), module, cosine, *(norm / float(before.norm()) for norm in norms)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _linear(vlm: VLM) -> Iterator[tuple[str, Any]]:
    """The linear modules of each layer with their names; peft's module around one that has an adapter."""
    layers: Any = bare(vlm.model).get_decoder().layers
    for name, module in layers.named_modules():
        if ".lora_" in name or not isinstance(module, torch.nn.Linear):
            continue
        wrapped = name.endswith(".base_layer")
        name = name.removesuffix(".base_layer")
        yield name, layers.get_submodule(name) if wrapped else module


def _weight(module: Any) -> torch.Tensor:
    """A linear module's weights in float64, with what its adapters add to them."""
    weight = module.weight.double()
    for adapter in getattr(module, "active_adapters", ()):
        weight = weight + module.get_delta_weight(adapter).double()
    return weight
