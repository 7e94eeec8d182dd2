"""Load a model and its adapter, refuse what is unsafe or incomplete, tell models apart, and write a model."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from huggingface_hub import is_offline_mode
from safetensors import SafetensorError
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from workbench.errors import UserError, first_line, say
from workbench.files import atomic_write, data_dir
from workbench.models.architectures import ARCHITECTURES
from workbench.models.vlm import VLM, bare, best_device, best_dtype, quiet

TRUSTS = ("remote-code", "pickles")


def load(
    model: str | Path = "miniguard",
    adapter: str | Path | None = None,
    device: str | None = None,
    four_bit: bool = False,
    trust: Collection[str] = (),
) -> VLM:
    """Load a VLM, in float32 on CPU and in bfloat16 on GPUs that have it.

    Architectures missing from architectures.py are accepted with a warning, provided the language model's
    layers can be found.

    Args:
        model: A folder, a hub id, or "miniguard" for the shipped base.
        adapter: The folder of a PEFT adapter, loaded on top.
        device: E.g. "cpu" or "cuda:1"; the best one by default.
        four_bit: Hold linear weights in 4 bits (NF4), which needs CUDA and bitsandbytes.
        trust: What is refused by default, of TRUSTS: "remote-code" runs Python code that ships with the
            model, after a warning; "pickles" reads weights that are not safetensors.

    Raises:
        UserError: The model or adapter cannot be loaded, or the checkpoint lacks some of its weights.
    """
    if unknown := set(trust) - set(TRUSTS):
        raise UserError(f"Unknown value of trust: {', '.join(sorted(unknown))}; choose from {', '.join(TRUSTS)}.")
    place = torch.device(device) if device else best_device()
    options = {"dtype": best_dtype(place), "use_safetensors": None if "pickles" in trust else True}
    if four_bit:
        options |= {"quantization_config": _four_bit(place), "device_map": {"": place}}
    network, processor = _read_checkpoint(str(model), "remote-code" in trust, options)
    _check_architecture(network, str(model))
    if not four_bit:
        network = network.to(place)
    name = "base" if adapter is None else Path(adapter).resolve().name
    vlm = VLM(network.eval().requires_grad_(False), processor, name)
    return vlm if adapter is None else _with_adapter(vlm, Path(adapter))


def _read_checkpoint(model: str, remote_code: bool, options: dict[str, Any]) -> tuple[Any, Any]:
    """A checkpoint's network and processor; its weights must all be there."""
    source = checkpoint(model)
    auto_model: Any = transformers.AutoModelForImageTextToText
    if remote_code:
        warn_of_code(model)
    try:
        with quiet():
            network, loading = auto_model.from_pretrained(
                source, trust_remote_code=remote_code, output_loading_info=True, **options
            )
            processor = load_processor(source, network.config.model_type, remote_code)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise not_loaded(model, error) from None
    if missing := sorted(loading["missing_keys"]):
        raise UserError(
            f"The checkpoint {model!r} lacks {len(missing)} of its weights, e.g. {missing[0]}; download it again."
        )
    return network, processor


def checkpoint(model: str) -> str:
    """Where a model's files are: its folder or hub id, or the folder of the shipped base."""
    return str(data_dir() / "miniguard-base") if model == "miniguard" else model


@functools.cache
def warn_of_code(model: str) -> None:
    """Warn once before running code that ships with a model."""
    say(f"If the model {model!r} ships with Python code, it now runs with your permissions, because you trust it.")


def not_loaded(model: str, error: Exception) -> UserError:
    """The error that says why a model cannot be loaded, and what to do.

    Args:
        model: The folder or hub id.
        error: What transformers raised.
    """
    reason, text = f"The model {model!r}", str(error)
    if "for this kind of AutoModel" in text:
        return UserError(f"{reason} takes no pictures (it is not an image-text-to-text model); choose one that does.")
    if "gated repo" in text:
        return UserError(
            f"{reason} is gated: accept its terms at https://huggingface.co/{model}, then run `hf auth login`."
        )
    if "trust_remote_code" in text:
        return UserError(
            f"{reason} ships with Python code, which is not run by default; read it, and if you trust it, use "
            "`workbench --trust remote-code …`, or load(…, trust=['remote-code'])."
        )
    if "orchvision" in text:
        return UserError(
            f"{reason} needs torchvision with transformers {transformers.__version__}: install the version that "
            "matches your torch, or a newer transformers."
        )
    if any(Path(model).glob("*.bin")) and not any(Path(model).glob("*.safetensors")):
        return UserError(
            f"The weights of {model!r} are pickles, not safetensors; convert them, or if you trust their source, use "
            "`workbench --trust pickles …`, or load(…, trust=['pickles'])."
        )
    if isinstance(error, SafetensorError) or ("No such file" in text and ".safetensors" in text):
        return UserError(f"The checkpoint {model!r} is incomplete ({first_line(error)}); download it again.")
    if is_offline_mode() and not Path(model).exists():
        return UserError(
            f"{reason} cannot be loaded: it is not on this machine, and HF_HUB_OFFLINE forbids downloading it; unset "
            "HF_HUB_OFFLINE, or give a folder."
        )
    return UserError(
        f"{reason} cannot be loaded ({first_line(error)}); give a folder with a checkpoint, a hub id, or 'miniguard'."
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


def load_processor(source: str, model_type: str, remote_code: bool = False) -> Any:
    """Load a model's processor.

    Some processors have a part for videos, which needs torchvision; without torchvision, it is left out.

    Args:
        source: A folder or hub id.
        model_type: The architecture, as the model's configuration names it.
        remote_code: Whether Python code that ships with the model may be run.
    """
    processor_class = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(model_type) or "", None)
    reads_videos = processor_class is not None and "video_processor" in processor_class.get_attributes()
    if reads_videos and not transformers.utils.is_torchvision_available():
        return _without_videos(processor_class, source)
    return transformers.AutoProcessor.from_pretrained(source, trust_remote_code=remote_code)


def _without_videos(processor_class: Any, source: str) -> Any:
    """A processor for pictures and text alone, of a class that would read videos too."""

    class PicturesOnly(processor_class):
        def check_argument_for_proper_class(self, name: str, argument: object) -> type:
            return type(None) if name == "video_processor" else super().check_argument_for_proper_class(name, argument)

        def save_pretrained(self, folder: str | Path, **options: Any) -> None:
            for part in (self.image_processor, self.tokenizer):
                part.save_pretrained(folder, **options)
            (Path(folder) / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")

    stored = processor_class.get_processor_dict(source)[0]
    settings = {name: value for name, value in stored.items() if not isinstance(value, dict)}
    parameters = inspect.signature(processor_class.__init__).parameters
    return PicturesOnly(
        image_processor=transformers.AutoImageProcessor.from_pretrained(source, trust_remote_code=False),
        tokenizer=transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False),
        **{name: value for name, value in settings.items() if name in parameters},
    )


def _four_bit(place: torch.device) -> transformers.BitsAndBytesConfig:
    if place.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "4-bit weights (--four-bit) need a CUDA GPU and bitsandbytes (pip install -e '.[gpu]'); leave it out."
        )
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=best_dtype(place)
    )


def _with_adapter(vlm: VLM, adapter: Path) -> VLM:
    """The same VLM, in place, with an adapter that was trained on this very model."""
    if not (adapter / "adapter_config.json").is_file():
        raise UserError(
            f"The folder {adapter} holds no adapter (adapter_config.json); give what `workbench train --out` wrote."
        )
    run = adapter / "config.json"  # `training.train` writes it; adapters from elsewhere have none
    try:
        trained_on = json.loads(run.read_text()).get("base_identity") if run.is_file() else None
        if trained_on and trained_on != identity(vlm):
            raise UserError(
                f"The adapter {adapter} was trained on another model; give --model the one that it was trained on."
            )
        with quiet():
            vlm.model = peft.PeftModel.from_pretrained(vlm.model, adapter, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"The adapter {adapter} cannot be loaded on this model ({first_line(error)}); give a complete adapter, "
            "and the model that it was trained on."
        ) from None
    return vlm


def identity(vlm: VLM) -> str:
    """Hash that identifies a pretrained model regardless of precision.

    It is computed from the first token embeddings and the decoder's last norm, which adapters do not change.
    """
    network = bare(vlm.model)
    digest = hashlib.blake2b(digest_size=8)
    for part in (network.get_input_embeddings().weight[:256], network.get_decoder().norm.weight):
        digest.update(part.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(vlm: VLM) -> str:
    """Hash that identifies a trained model, from the first values of every parameter, adapters included."""
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in vlm.model.named_parameters():
        digest.update(name.encode() + parameter.detach().flatten()[:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()


def write_model(vlm: VLM, out: Path) -> None:
    """Write the whole model as a checkpoint for `load`, its adapter merged into its weights.

    Args:
        vlm: The model, which cannot be used afterwards.
        out: The folder to be made.

    Raises:
        UserError: `out` exists already.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    merged = vlm.model.merge_and_unload() if hasattr(vlm.model, "merge_and_unload") else vlm.model
    with atomic_write(out) as folder, quiet():
        merged.save_pretrained(folder)
        vlm.processor.save_pretrained(folder)
