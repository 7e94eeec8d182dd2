"""What the layers of a language model hand on, to be read or replaced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from workbench.models.turns import in_turn
from workbench.models.vlm import VLM, bare


def layers_of(vlm: VLM) -> Any:
    """The decoder layers of a model's language model."""
    return bare(vlm.model).get_decoder().layers


@contextlib.contextmanager
def handed_on(vlm: VLM, change: Callable[[int, torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
    """Within this block, `change` is called with each layer's number and output (B, T, H).

    It returns what the layer hands on instead, or None to leave it. Other threads wait for the network.
    """

    def hook(number: int) -> Any:
        def replace(module: Any, inputs: Any, output: Any) -> Any:
            several = isinstance(output, tuple)
            changed = change(number, output[0] if several else output)
            return (changed, *output[1:]) if several and changed is not None else changed

        return replace

    with in_turn(bare(vlm.model)), contextlib.ExitStack() as hooks:
        for number, layer in enumerate(layers_of(vlm)):
            hooks.callback(layer.register_forward_hook(hook(number)).remove)
        yield
