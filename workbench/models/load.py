"""Load a model and its adapter, and refuse what is unsafe or incomplete."""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from safetensors import safe_open

from workbench.errors import UserError, say
from workbench.models.adapter_files import with_adapter
from workbench.models.architectures import ARCHITECTURES
from workbench.models.configuration import checkpoint, configuration, loading
from workbench.models.generation import AS_IS, Generation
from workbench.models.processor import load_processor
from workbench.models.vlm import VLM, best_device, best_dtype, prompt_batch, quiet

TRUSTS = ("remote-code", "pickles")
_PACKED = 16  # weights at most that a quantized checkpoint may pack into one number


def load(
    model: str | Path = "miniguard",
    adapter: str | Path | None = None,
    device: str | None = None,
    four_bit: bool = False,
    trust: Collection[str] = (),
    generation: Generation = AS_IS,
) -> VLM:
    """Load a VLM, in bfloat16 where the device multiplies it fast (`best_dtype`) and in float32 elsewhere.

    Architectures missing from architectures.py are accepted with a warning, provided the language model's
    layers can be found.

    Args:
        model: A folder, a hub id, or one of `configuration.shipped_bases` such as "miniguard".
        adapter: The folder of a PEFT adapter, loaded on top.
        device: E.g. "cpu" or "cuda:1"; the best one by default.
        four_bit: Hold linear weights in 4 bits (NF4), which needs CUDA and bitsandbytes.
        trust: What is refused by default, of TRUSTS: "remote-code" runs Python code that ships with the
            model, after a warning; "pickles" reads weights that are not safetensors.
        generation: How it writes answers.

    Raises:
        UserError: The model or adapter cannot be loaded, or the checkpoint lacks some of its weights.
    """
    if unknown := set(trust) - set(TRUSTS):
        raise UserError(f"Unknown value of trust: {', '.join(sorted(unknown))}; choose from {', '.join(TRUSTS)}.")
    place = torch.device(device) if device else best_device()
    config = configuration(model, trust, shipped=False)
    width = getattr(config.get_text_config(), "hidden_size", 0)
    options = {"dtype": best_dtype(place, width), "use_safetensors": None if "pickles" in trust else True}
    if four_bit:
        options |= {"quantization_config": _four_bit(place), "device_map": {"": place}}
    network, processor = _read_checkpoint(str(model), config, "remote-code" in trust, options)
    _check_architecture(network, str(model))
    if not four_bit:
        network = network.to(place)
    name = "base" if adapter is None else Path(adapter).resolve().name
    vlm = VLM(
        network.eval().requires_grad_(False),
        processor,
        name,
        generation,
        stored_dtype=getattr(torch, str(config.dtype).removeprefix("torch."), None),
    )
    with loading(str(model)), contextlib.suppress(UserError):  # such as no chat template: said when it is asked
        prompt_batch(vlm, [Image.new("RGB", (32, 32))], ["What?"])
    return vlm if adapter is None else with_adapter(vlm, Path(adapter), "pickles" in trust)


def _read_checkpoint(
    model: str, config: transformers.PreTrainedConfig, remote_code: bool, options: dict[str, Any]
) -> tuple[Any, Any]:
    """A checkpoint's network and processor; its weights must all be there."""
    source = checkpoint(model)
    auto_model: Any = transformers.AutoModelForImageTextToText
    with loading(model), quiet():
        if not remote_code:
            _check_size(model, Path(source), auto_model, config)
        network, info = auto_model.from_pretrained(
            source, trust_remote_code=remote_code, output_loading_info=True, **options
        )
        processor = load_processor(source, config, remote_code)
        _check_picture_token(model, processor, config)
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"The checkpoint {model!r} lacks {len(missing)} of its weights, e.g. {missing[0]}; download it again."
        )
    return network, processor


def _check_size(model: str, folder: Path, auto_model: Any, config: transformers.PreTrainedConfig) -> None:
    """Raise UserError if a folder's configuration describes a network far larger than its weights.

    Where a part is missing, it would be of a default size: tens of gigabytes beside a file of some kilobytes.
    """
    stored = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            stored += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    if not stored:
        return
    with torch.device("meta"):
        described = sum(parameter.numel() for parameter in auto_model.from_config(config).parameters())
    if described > _PACKED * stored:
        raise UserError(
            f"The config.json of {model!r} describes {described:,} weights, and its files hold {stored:,}; download "
            "it again."
        )


def _check_picture_token(model: str, processor: Any, config: Any) -> None:
    """Raise UserError if the processor writes another token for pictures than the network looks for."""
    written, read = getattr(processor, "image_token_id", None), getattr(config, "image_token_id", None)
    if None not in (written, read) and written != read:
        raise UserError(
            f"The processor of {model!r} marks pictures by token {written}, and its config.json by {read}; download "
            "it again."
        )


def _check_architecture(network: Any, model: str) -> None:
    """Warn if the architecture is untested; refuse it if the language model's layers cannot be found."""
    model_type, tested = network.config.model_type, ", ".join(ARCHITECTURES)
    if model_type in ARCHITECTURES:
        return
    try:
        decoder = network.get_decoder()
        has_layers = len(decoder.layers) > 0 and isinstance(decoder.norm.weight, torch.nn.Parameter)
    except AttributeError:
        has_layers = False
    if not has_layers:
        raise UserError(
            f"The model {model!r} has architecture {model_type}, and the layers of its language model cannot be "
            f"found; choose a model of one of these: {tested}."
        )
    say(
        f"The model {model!r} has architecture {model_type}, which is untested here; continuing anyway. "
        f"Tested: {tested}."
    )


def _four_bit(place: torch.device) -> transformers.BitsAndBytesConfig:
    if place.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "4-bit weights (--four-bit) need a CUDA GPU and bitsandbytes (pip install -e '.[gpu]'); leave it out."
        )
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=best_dtype(place)
    )
