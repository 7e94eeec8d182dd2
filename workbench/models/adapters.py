"""Which weights are trained: LoRA on linear modules, or the modules themselves."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Sequence

import torch

from workbench.errors import UserError
from workbench.models.architectures import ARCHITECTURES
from workbench.models.vlm import VLM, bare, quiet


def depth(vlm: VLM) -> int:
    """How many layers the language model has."""
    return len(bare(vlm.model).get_decoder().layers)


def linear_modules(
    vlm: VLM, targets: Sequence[str] = (), layers: int | None = None, projector: bool = False
) -> list[str]:
    """Full names of the linear modules to be trained: the language model's, and with `projector` the projector's.

    targets: only language modules with these last names, as in "down_proj". layers: only the first so many layers. The vision tower stays
    frozen. Raises UserError where nothing matches.
    """
    network = bare(vlm.model)
    decoder = network.get_decoder()
    prefix = next(name for name, module in network.named_modules() if module is decoder)
    last = len(decoder.layers) if layers is None else layers
    chosen = [
        f"{prefix}.layers.{number}.{name}"
        for number, layer in enumerate(decoder.layers[:last])
        for name in _linear(layer)
        if not targets or name.rsplit(".", 1)[-1] in targets
    ]
    if not chosen:
        there = sorted({name.rsplit(".", 1)[-1] for name in _linear(decoder.layers)})
        raise UserError(
            f"The targets {', '.join(targets)} match no linear layer of the language model; it has {', '.join(there)}."
        )
    if projector:
        kind = network.config.model_type
        if kind not in ARCHITECTURES:
            raise UserError(
                f"Where the projector of a {kind} lies is not known; leave --projector out, or add it to architectures.py."
            )
        within = re.compile(rf"(^|\.){re.escape(ARCHITECTURES[kind].projector)}(\.|$)")
        chosen += [name for name in _linear(network) if within.search(name)]
    return chosen


def _linear(module) -> list[str]:
    """The linear modules within another, by the names that they have without adapters."""
    names = [
        name for name, part in module.named_modules() if isinstance(part, torch.nn.Linear) and ".lora_" not in name
    ]
    return [name.removesuffix(".base_layer") for name in names]


def add_lora(vlm: VLM, modules: Sequence[str], rank: int, alpha: int, seed: int) -> VLM:
    """The same VLM with a fresh LoRA adapter (as yet without effect) on these modules; all else is frozen.

    The network is shared with `vlm`, not copied: unload it before reuse.
    """
    import peft

    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(modules), task_type="CAUSAL_LM")
    with quiet():
        return VLM(peft.get_peft_model(vlm.model, config), vlm.processor, vlm.name)


@contextlib.contextmanager
def further_lora(vlm: VLM, rank: int, alpha: int, seed: int) -> Iterator[VLM]:
    """Within this block, the same VLM with a fresh LoRA adapter to be trained on top of all that it has learnt, its own adapter included.

    Afterwards `vlm` is as it was.
    """
    modules = linear_modules(vlm)
    if not hasattr(vlm.model, "peft_config"):
        student = add_lora(vlm, modules, rank, alpha, seed)
        try:
            yield student
        finally:
            student.model.unload()
            vlm.model.requires_grad_(False).eval()
        return
    import peft

    tuner, own = vlm.model.base_model, vlm.model.active_adapters
    forward = {name: vars(vlm.model)[name] for name in ("forward", "_original_forward") if name in vars(vlm.model)}
    torch.manual_seed(seed)
    vlm.model.add_adapter(
        "further", peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules, task_type="CAUSAL_LM")
    )
    tuner.set_adapter([*own, "further"])
    for name, parameter in vlm.model.named_parameters():
        parameter.requires_grad_(".further." in name)
    try:
        yield VLM(vlm.model, vlm.processor, vlm.name)
    finally:
        vlm.model.delete_adapter("further")
        tuner.set_adapter(own)
        for name, module in list(
            tuner.named_modules()
        ):  # where the own adapter has nothing, peft leaves an empty shell
            if hasattr(module, "lora_A") and not module.lora_A:
                tuner.set_submodule(name, module.base_layer)
        for name in ("forward", "_original_forward"):  # which a Trainer in bfloat16 wraps
            vars(vlm.model).pop(name, None)
        vars(vlm.model).update(forward)
        vlm.model.requires_grad_(False).eval()


def unfreeze(vlm: VLM, modules: Sequence[str]) -> VLM:
    """The same VLM, of which the weights of these modules themselves, and no others, are to be trained (in place)."""
    vlm.model.requires_grad_(False)
    for name in modules:
        vlm.model.get_submodule(name).requires_grad_(True)
    return VLM(vlm.model, vlm.processor, vlm.name)


def freeze_copy(vlm: VLM, layers: int) -> None:
    """Keep a frozen copy of the network as it is now, cut behind its layer `layers`: `reference` of a fully fine-tuned model."""
    frozen = copy.deepcopy(vlm.model).requires_grad_(False).eval()
    decoder = frozen.get_decoder()
    decoder.layers = decoder.layers[:layers]
    vlm.model.frozen_copy = [frozen]  # in a list, so that it is no submodule: neither trained nor saved
