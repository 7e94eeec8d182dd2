"""Load a model and its adapter, refuse what is unsafe or broken, and write a model."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import json
from collections.abc import Collection
from pathlib import Path

import torch
import transformers
from huggingface_hub import is_offline_mode
from safetensors import SafetensorError

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
    """Load a VLM by folder or hub id ("miniguard" is the shipped base), with a PEFT adapter on top if one is given.

    Precision is float32 on CPU and bfloat16 on GPUs that have it; with `four_bit`, linear weights are held in 4 bits (NF4; CUDA and
    bitsandbytes are needed). trust: what is refused unless asked for, of TRUSTS: "remote-code", Python that comes with the model, is run
    (and that is said on standard error); "pickles", weights that are no safetensors, are read.
    An architecture that is not in architectures.py is taken with a word on standard error, if its language model's layers can be found.
    Raises UserError where the model or the adapter cannot be loaded, or the checkpoint lacks some of its weights.
    """
    if unknown := set(trust) - set(TRUSTS):
        raise UserError(f"There is no trust in {', '.join(sorted(unknown))}; choose from {', '.join(TRUSTS)}.")
    source = str(data_dir() / "miniguard-base") if str(model) == "miniguard" else str(model)
    place, remote = torch.device(device) if device else best_device(), "remote-code" in trust
    options = {"dtype": best_dtype(place), "use_safetensors": None if "pickles" in trust else True}
    if four_bit:
        options |= {"quantization_config": _four_bit(place), "device_map": {"": place}}
    if remote:
        warn_of_code(str(model))
    try:
        with quiet():
            network, read = transformers.AutoModelForImageTextToText.from_pretrained(
                source, trust_remote_code=remote, output_loading_info=True, **options
            )
            processor = load_processor(source, network.config.model_type, remote)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise not_loaded(str(model), error) from None
    if missing := sorted(read["missing_keys"]):
        raise UserError(
            f"The checkpoint {str(model)!r} lacks {len(missing)} of its weights, such as {missing[0]}; download it again."
        )
    _check_architecture(network, str(model))
    vlm = VLM(
        (network if four_bit else network.to(place)).eval().requires_grad_(False),
        processor,
        "base" if adapter is None else Path(adapter).resolve().name,
    )
    return vlm if adapter is None else _with_adapter(vlm, Path(adapter))


@functools.cache
def warn_of_code(model: str) -> None:
    """Said once, before it is run."""
    say(f"Python code that comes with the model {model!r}, if any, is run with your rights, since you trust it.")


def not_loaded(model: str, error: Exception) -> UserError:
    """Why a model was not loaded, and what helps."""
    said = str(error)
    if "for this kind of AutoModel" in said:
        return UserError(
            f"The model {model!r} takes no pictures (it is no image-text-to-text model); choose one that does."
        )
    if "gated repo" in said:
        return UserError(
            f"The model {model!r} is gated: accept its terms at https://huggingface.co/{model}, then give `hf auth login`."
        )
    if "trust_remote_code" in said:
        return UserError(
            f"The model {model!r} comes with Python code of its own, which is not run unasked; read it, and if you trust it, give "
            "`workbench --trust remote-code …`, or load(…, trust=['remote-code'])."
        )
    if "orchvision" in said:
        version = transformers.__version__
        return UserError(
            f"The model {model!r} needs torchvision with transformers {version}: install the one that goes with your torch, or a newer "
            "transformers."
        )
    if any(Path(model).glob("*.bin")) and not any(Path(model).glob("*.safetensors")):
        return UserError(
            f"The weights of {model!r} are pickles, not safetensors; convert them, or if you trust where they come from, give "
            "`workbench --trust pickles …`, or load(…, trust=['pickles'])."
        )
    if isinstance(error, SafetensorError) or ("No such file" in said and ".safetensors" in said):
        return UserError(f"The checkpoint {model!r} is not whole ({first_line(error)}); download it again.")
    if is_offline_mode() and not Path(model).exists():
        return UserError(
            f"The model {model!r} cannot be loaded: it is not on this machine, and HF_HUB_OFFLINE forbids to fetch it; unset that, or give "
            "a folder."
        )
    return UserError(
        f"The model {model!r} cannot be loaded ({first_line(error)}); give a folder with a checkpoint, a hub id, or 'miniguard'."
    )


def _check_architecture(network, model: str) -> None:
    kind, known = network.config.model_type, ", ".join(ARCHITECTURES)
    if kind in ARCHITECTURES:
        return
    try:
        decoder = network.get_decoder()
        found = len(decoder.layers) > 0 and isinstance(decoder.norm.weight, torch.nn.Parameter)
    except AttributeError:
        found = False
    if not found:
        raise UserError(
            f"The model {model!r} is a {kind}, whose language model's layers cannot be found; choose one of {known}."
        )
    say(
        f"The model {model!r} is a {kind}, with which nothing here has been tested; it goes on all the same. Tested: {known}."
    )


def load_processor(source: str, kind: str, remote: bool = False):
    """A model's processor. Where torchvision is missing and the processor wants it for videos, one for pictures and text alone."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    whole = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(kind) or "", None)
    if (
        whole is None
        or "video_processor" not in whole.get_attributes()
        or transformers.utils.is_torchvision_available()
    ):
        return transformers.AutoProcessor.from_pretrained(source, trust_remote_code=remote)

    class PicturesOnly(whole):
        def check_argument_for_proper_class(self, name, argument):
            return type(None) if name == "video_processor" else super().check_argument_for_proper_class(name, argument)

        def save_pretrained(self, folder, **options):
            for part in (self.image_processor, self.tokenizer):
                part.save_pretrained(folder, **options)
            (Path(folder) / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")

    settings = {
        name: value for name, value in whole.get_processor_dict(source)[0].items() if not isinstance(value, dict)
    }
    parts = {"image_processor": transformers.AutoImageProcessor, "tokenizer": transformers.AutoTokenizer}
    loaded = {name: part.from_pretrained(source, trust_remote_code=False) for name, part in parts.items()}
    wanted = inspect.signature(whole.__init__).parameters
    return PicturesOnly(**loaded, **{name: value for name, value in settings.items() if name in wanted})


def _four_bit(place: torch.device) -> transformers.BitsAndBytesConfig:
    if place.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "4-bit weights (--four-bit) need a CUDA GPU and bitsandbytes (pip install -e '.[gpu]'); do without them."
        )
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=best_dtype(place)
    )


def _with_adapter(vlm: VLM, adapter: Path) -> VLM:
    import peft

    if not (adapter / "adapter_config.json").is_file():
        raise UserError(
            f"The folder {adapter} holds no adapter (adapter_config.json); give what `workbench train --out` wrote."
        )
    run = adapter / "config.json"  # as `training.train` writes it; adapters from elsewhere have none
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
            f"The adapter {adapter} cannot be loaded on this model ({first_line(error)}); give a whole one, and the base it was trained on."
        ) from None
    return vlm


def identity(vlm: VLM) -> str:
    """Tells one pretrained model from another, in any precision: a hash of its token embeddings' first rows and its decoder's last norm."""
    network = bare(vlm.model)
    parts = [network.get_input_embeddings().weight[:256], network.get_decoder().norm.weight]
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return found.hexdigest()


def fingerprint(vlm: VLM) -> str:
    """Tells one trained model from another: a hash of the first values of every parameter, adapters included."""
    found = hashlib.blake2b(digest_size=8)
    for name, part in vlm.model.named_parameters():
        found.update(name.encode() + part.detach().flatten()[:256].float().cpu().numpy().tobytes())
    return found.hexdigest()


def write_model(vlm: VLM, out: Path) -> None:
    """Write the whole model, its adapter merged into its weights, with its processor, as a checkpoint for `load`; `vlm` is used up.

    Raises UserError where `out` exists already.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    whole = vlm.model.merge_and_unload() if hasattr(vlm.model, "merge_and_unload") else vlm.model
    with atomic_write(out) as folder, quiet():
        whole.save_pretrained(folder)
        vlm.processor.save_pretrained(folder)
