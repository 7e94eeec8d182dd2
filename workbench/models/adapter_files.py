"""Load an adapter from a folder: it applies wholly, on its own base, or is refused."""

from __future__ import annotations

import contextlib
import json
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path

import peft
from safetensors import SafetensorError, safe_open

from workbench.errors import UserError, first_line
from workbench.models.identity import identity, same_model
from workbench.models.vlm import VLM, quiet

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


def with_adapter(vlm: VLM, adapter: Path, pickles: bool = False) -> VLM:
    """The same VLM, in place, with a LoRA adapter that was trained on this very model.

    Args:
        vlm: The model, without an adapter.
        adapter: The adapter's folder. DoRA and rsLoRA are kinds of LoRA.
        pickles: Whether weights that are not safetensors may be read.

    Raises:
        UserError: The folder holds no adapter, or one of another kind, for another model, or of which not
            every weight fits and is there.
    """
    _check_files(adapter, pickles)
    with _named(adapter):
        _check_base(vlm, adapter)
        kind = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))["peft_type"]
        if kind != "LORA":
            raise UserError(f"The adapter {adapter} is of kind {kind}; only LoRA and its variants are supported.")
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing weights, which are refused below
            network = peft.PeftModel.from_pretrained(vlm.model, adapter, use_safetensors=(adapter / WEIGHTS).is_file())
        try:
            _check_complete(network, adapter)
        except UserError:
            network.unload()
            raise
    vlm.model = network.eval()
    return vlm


@contextlib.contextmanager
def _named(adapter: Path) -> Iterator[None]:
    """Errors within this block as a sentence that names the adapter."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"The adapter {adapter} cannot be loaded on this model ({first_line(error)}); give a complete adapter, "
            "and the model that it was trained on."
        ) from None


def _check_files(adapter: Path, pickles: bool) -> None:
    """Raise UserError if the folder holds no adapter, or only a pickled one that is not trusted."""
    if not (adapter / CONFIG).is_file():
        raise UserError(f"The folder {adapter} holds no adapter ({CONFIG}); give what `workbench train --out` wrote.")
    if not (adapter / WEIGHTS).is_file() and (adapter / PICKLED).is_file() and not pickles:
        raise UserError(
            f"The weights of the adapter {adapter} are pickles, not safetensors; convert them, or if you trust their "
            "source, use `workbench --trust pickles …`, or load(…, trust=['pickles'])."
        )


def _check_base(vlm: VLM, adapter: Path) -> None:
    """Raise UserError if the adapter is known to have been trained on another model."""
    run = adapter / "config.json"  # `training.train` writes it; adapters from elsewhere have none
    trained_on = json.loads(run.read_text(encoding="utf-8")).get("base_identity") if run.is_file() else None
    if trained_on and not same_model(trained_on, identity(vlm)):
        raise UserError(
            f"The adapter {adapter} was trained on another model; give --model the one that it was trained on."
        )


def _check_complete(network: peft.PeftModel, adapter: Path) -> None:
    """Raise UserError unless the file's tensors are exactly those that the adapter has in this network.

    peft ignores tensors that fit nothing, and leaves what is missing without effect.
    """
    if not (adapter / WEIGHTS).is_file():
        stored = set(peft.utils.load_peft_weights(str(adapter), device="cpu"))
    else:
        with safe_open(adapter / WEIGHTS, framework="pt") as file:
            stored = set(file.keys())
    applied, also_embeddings = (
        set(peft.get_peft_model_state_dict(network, save_embedding_layers=whether)) for whether in (False, True)
    )
    unused, missing = sorted(stored - applied - also_embeddings), sorted(applied - stored)
    if unused or missing:
        which = f"{len(unused)} fit nothing in it, e.g. {unused[0]}" if unused else ""
        lacks = f"{len(missing)} are missing, e.g. {missing[0]}" if missing else ""
        raise UserError(
            f"The adapter {adapter} does not fit this model: of its weights "
            f"{' and '.join(filter(None, (which, lacks)))}. Give a complete adapter, and the model that it was "
            "trained on."
        )
