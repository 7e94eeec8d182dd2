"""Which weights are trained: LoRA on linear modules, or the modules themselves."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any

import peft
import torch

from workbench.errors import UserError
from workbench.models.architectures import ARCHITECTURES
from workbench.models.restore import left_as_it_was
from workbench.models.turns import in_turn
from workbench.models.vlm import VLM, bare, quiet


def depth(vlm: VLM) -> int:
    """The number of the language model's layers."""
    return len(bare(vlm.model).get_decoder().layers)


def linear_modules(
    vlm: VLM, targets: Sequence[str] = (), layers: int | None = None, projector: bool = False
) -> list[str]:
    """The full names of the linear modules to be trained. The vision tower stays frozen.

    Args:
        vlm: The model.
        targets: Last names of the language model's modules, e.g. "down_proj"; all if empty.
        layers: Take only the first layers, this many of them; all if None.
        projector: Whether the projector is trained too.

    Raises:
        UserError: No module has one of these names, or this architecture's projector is unknown.
    """
    network = bare(vlm.model)
    decoder = network.get_decoder()
    prefix = next(name for name, module in network.named_modules() if module is decoder)
    modules = [
        f"{prefix}.layers.{number}.{name}"
        for number, layer in enumerate(decoder.layers[:layers])
        for name in _linear(layer)
        if not targets or _last_name(name) in targets
    ]
    if not modules:
        available = sorted({_last_name(name) for name in _linear(decoder.layers)})
        raise UserError(
            f"The targets {', '.join(targets)} match no linear layer of the language model; "
            f"choose from {', '.join(available)}."
        )
    return modules + _projector_modules(network) if projector else modules


def _projector_modules(network: Any) -> list[str]:
    model_type = network.config.model_type
    if model_type not in ARCHITECTURES:
        raise UserError(
            f"It is not known where the architecture {model_type} has its projector; leave --projector out, "
            "or add the architecture to architectures.py."
        )
    within = re.compile(rf"(^|\.){re.escape(ARCHITECTURES[model_type].projector)}(\.|$)")
    return [name for name in _linear(network) if within.search(name)]


def _linear(module: torch.nn.Module) -> list[str]:
    """The names of the linear modules within another, without what an adapter adds to them."""
    names = [
        name for name, part in module.named_modules() if isinstance(part, torch.nn.Linear) and ".lora_" not in name
    ]
    return [name.removesuffix(".base_layer") for name in names]


def _last_name(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def add_lora(vlm: VLM, modules: Sequence[str], rank: int, alpha: int, seed: int) -> VLM:
    """The same VLM with a fresh LoRA adapter on these modules; all other weights are frozen.

    A fresh adapter has no effect until it is trained. The network is shared with `vlm`, not copied: unload
    the adapter before using `vlm` again.
    """
    torch.manual_seed(seed)
    with quiet():
        return VLM(peft.get_peft_model(vlm.model, _lora(modules, rank, alpha)), vlm.processor, vlm.name, vlm.generation)


@contextlib.contextmanager
def further_lora(vlm: VLM, rank: int, alpha: int, seed: int) -> Iterator[VLM]:
    """Within this block, the same VLM with a fresh LoRA adapter to be trained on top of what it has learnt.

    An adapter that it already has stays in effect and is frozen. Afterwards `vlm` is as before.
    """
    modules = linear_modules(vlm)
    with in_turn(bare(vlm.model)), left_as_it_was(vlm.model), contextlib.ExitStack() as undo:
        undo.callback(lambda: vlm.model.requires_grad_(False).eval())
        if hasattr(vlm.model, "peft_config"):
            yield undo.enter_context(_second_adapter(vlm, modules, rank, alpha, seed))
        else:
            student = add_lora(vlm, modules, rank, alpha, seed)
            undo.callback(student.model.unload)
            yield student


@contextlib.contextmanager
def _second_adapter(vlm: VLM, modules: Sequence[str], rank: int, alpha: int, seed: int) -> Iterator[VLM]:
    tuner, own_adapters = vlm.model.base_model, vlm.model.active_adapters
    torch.manual_seed(seed)
    vlm.model.add_adapter("further", _lora(modules, rank, alpha))
    tuner.set_adapter([*own_adapters, "further"])
    for name, parameter in vlm.model.named_parameters():
        parameter.requires_grad_(".further." in name)
    try:
        yield VLM(vlm.model, vlm.processor, vlm.name, vlm.generation)
    finally:
        vlm.model.delete_adapter("further")
        tuner.set_adapter(own_adapters)
        _remove_empty_wrappers(tuner)


def _remove_empty_wrappers(tuner: Any) -> None:
    """Unwrap modules on which no adapter is left: peft keeps its wrapper around them."""
    for name, module in list(tuner.named_modules()):
        if hasattr(module, "lora_A") and not module.lora_A and not module.lora_embedding_A:
            tuner.set_submodule(name, module.base_layer)


def _lora(modules: Sequence[str], rank: int, alpha: int) -> peft.LoraConfig:
    return peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(modules), task_type="CAUSAL_LM")


def unfreeze(vlm: VLM, modules: Sequence[str]) -> VLM:
    """The same VLM, in place, of which only the weights of these modules are trained."""
    vlm.model.requires_grad_(False)
    for name in modules:
        vlm.model.get_submodule(name).requires_grad_(True)
    return VLM(vlm.model, vlm.processor, vlm.name, vlm.generation)


def freeze_copy(vlm: VLM, layers: int | None) -> None:
    """Keep a frozen copy of the network as it is now: the `reference` if its own weights are trained.

    Args:
        vlm: The model; the copy is stored on its network.
        layers: How many of the language model's layers the copy has; None for all.
    """
    frozen = copy.deepcopy(vlm.model).requires_grad_(False).eval()
    decoder = frozen.get_decoder()
    decoder.layers = decoder.layers[:layers]
    vlm.model.frozen_copy = [frozen]  # within a list it is no submodule, so it is neither trained nor saved
