"""Leave a network as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

# By accelerate, and by gradient checkpointing
_LEFT_BEHIND = {
    "forward",
    "_original_forward",
    "_is_accelerate_prepared",
    "gradient_checkpointing",
    "_gradient_checkpointing_func",
    "_require_grads_hook",
    "_require_grads_hooks",
}


@contextlib.contextmanager
def left_as_it_was(network: torch.nn.Module) -> Iterator[None]:
    """After this block, modules have no wrappers or flags of a training run that they had not before.

    Configurations are as before. What networks note of themselves in their first pass is left alone.

    Args:
        network: The network without wrappers, as `bare` returns it.
    """
    attributes = {module: _LEFT_BEHIND.intersection(vars(module)) for module in network.modules()}
    configurations = [module.config for module in attributes if hasattr(module, "config")]
    stored = [(vars(configuration), dict(vars(configuration))) for configuration in configurations]
    try:
        yield
    finally:
        for module, names in attributes.items():
            for name in _LEFT_BEHIND - names:
                vars(module).pop(name, None)
        for current, before in stored:
            current.clear()
            current.update(before)
