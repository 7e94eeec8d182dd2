"""A model's files and configuration, and why a model cannot be loaded."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import is_offline_mode
from safetensors import SafetensorError

from workbench.errors import UserError, first_line, say
from workbench.files import data_dir

ANY_SIZE = 336  # pixels, of pictures that are drawn for a model that takes pictures of any size


def configuration(
    model: str | Path, trust: Collection[str] = (), shipped: bool = True
) -> transformers.PreTrainedConfig:
    """A model's configuration.

    Args:
        model: A hub id, a folder, or one of `shipped_bases`.
        trust: As for `load`.
        shipped: Whether the configuration of a known model may be the one that ships with the workbench
            (data/configs).

    Raises:
        UserError: There is no such model, or it is none that transformers can read as it is.
    """
    if (Path(model) / "adapter_config.json").is_file():
        raise UserError(
            f"{model} is an adapter; give it as --adapter, and the model that it was trained on as --model."
        )
    source = data_dir() / "configs" / f"{str(model).replace('/', '--')}.json"
    if not shipped or not source.is_file():
        source = checkpoint(str(model))
    if "remote-code" in trust:
        warn_of_code(str(model))
    with loading(str(model)):
        stored = transformers.PreTrainedConfig.get_config_dict(source)[0]
        _check_format(str(model), stored)
        return transformers.AutoConfig.from_pretrained(source, trust_remote_code="remote-code" in trust)


@contextlib.contextmanager
def loading(model: str) -> Iterator[None]:
    """Within this block, whatever is wrong with a model's files is a sentence; transformers raises any error.

    Raises:
        UserError: Says why the model cannot be loaded, and what to do.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise not_loaded(model, error) from None


def _check_format(model: str, stored: Any) -> None:
    """Raise UserError if a configuration belongs to a checkpoint that must be converted first.

    Read as it is, it would make a network of default sizes, tens of gigabytes large.

    Args:
        model: The folder or hub id.
        stored: What its config.json holds.
    """
    if not isinstance(stored, dict):
        raise UserError(f"The model {model!r} has a config.json that holds no fields; download it again.")
    if "mm_projector_type" in stored or "mm_vision_tower" in stored:
        raise UserError(
            f"The model {model!r} is in the format of LLaVA's own repository; give it in that of transformers, "
            "e.g. from https://huggingface.co/llava-hf."
        )


def picture_size(config: Any) -> int:
    """Width and height, in pixels, of the pictures that a model is made for; ANY_SIZE if it takes any."""
    size = getattr(getattr(config, "vision_config", None), "image_size", None)
    size = size[0] if isinstance(size, list | tuple) else size
    return size if isinstance(size, int) else ANY_SIZE


def checkpoint(model: str) -> str:
    """Where a model's files are: its folder or hub id, or the folder of a shipped base."""
    return str(data_dir() / "bases" / model) if model in shipped_bases() else model


def shipped_bases() -> list[str]:
    """The names of the base models that ship with the workbench: "miniguard", "miniguard-1" …"""
    return sorted(folder.name for folder in (data_dir() / "bases").glob("miniguard*"))


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
    if any(word in text for word in ("tokenizer.model", "entencepiece", "protobuf", "tiktoken")):
        if Path(model).is_dir() and not any(Path(model).glob("*.model")):
            return UserError(f"The checkpoint {model!r} has no tokenizer (tokenizer.json); download it again.")
        return UserError(
            f"The tokenizer of {model!r} is there in SentencePiece's format alone; install what reads it: "
            "pip install sentencepiece protobuf."
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
        f"{reason} cannot be loaded ({first_line(error)}); give a folder with a checkpoint, a hub id, or one of "
        f"{', '.join(shipped_bases())}."
    )
