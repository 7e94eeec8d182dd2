"""A vision-language model and its processor: load, prompt, batch, answer; LoRA, and the reference = the adapter switched off.

Nothing here knows MiniGuard: the shipped base is loaded, prompted and batched as any other model of transformers'
`AutoModelForImageTextToText`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors import SafetensorError

from .data import data_dir
from .errors import UserError, first_line

Batch = dict[str, torch.Tensor]
IGNORED = -100  # the label of positions that must not enter a loss
MAX_NEW_TOKENS = 64  # where the model's generation_config sets none


@dataclass
class VLM:
    """A model, the processor that goes with it, and the name under which it stands in tables."""

    model: Any
    processor: Any
    name: str

    @property
    def device(self) -> torch.device:
        return self.model.device

    def answer(self, image: Image.Image, query: str, max_new_tokens: int | None = None) -> str:
        """The model's greedy answer to one query about one picture (RGB, any size)."""
        return self.answers([image], [query], max_new_tokens)[0]

    def answers(
        self, images: Sequence[Image.Image], queries: Sequence[str], max_new_tokens: int | None = None, batch_size: int = 100
    ) -> list[str]:
        """Greedy answers to many queries, image i with query i, in batches; the same as asking one by one."""
        found: list[str] = []
        for start in range(0, len(queries), batch_size):
            chunk = slice(start, start + batch_size)
            found += generate(self, prompt_batch(self, images[chunk], queries[chunk]), max_new_tokens)
        return found

    @contextlib.contextmanager
    def reference(self):
        """Within this block the model is π₀: the same network with its adapter switched off."""
        with self.model.disable_adapter():
            yield self.model


def best_device() -> torch.device:
    """cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs that have it, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def load(model: str | Path = "miniguard", adapter: str | Path | None = None, device: str | None = None) -> VLM:
    """Load a VLM by folder or hub id ("miniguard" is the shipped base), with a PEFT adapter on top if one is given.

    Precision is float32 on CPU and bfloat16 on GPUs that have it. Weights must be safetensors; remote code is never run.
    Raises UserError where the model or the adapter cannot be loaded.
    """
    source = str(data_dir() / "miniguard-base") if str(model) == "miniguard" else str(model)
    place = torch.device(device) if device else best_device()
    try:
        with quiet():
            network = transformers.AutoModelForImageTextToText.from_pretrained(
                source, dtype=best_dtype(place), use_safetensors=True, trust_remote_code=False
            )
            processor = transformers.AutoProcessor.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise UserError(
            f"The model {str(model)!r} cannot be loaded ({first_line(error)}); give a folder with a checkpoint, a hub id, or 'miniguard'."
        ) from None
    vlm = VLM(network.to(place).eval(), processor, "base" if adapter is None else Path(adapter).resolve().name)
    return vlm if adapter is None else _with_adapter(vlm, Path(adapter))


def _with_adapter(vlm: VLM, adapter: Path) -> VLM:
    import peft

    if not (adapter / "adapter_config.json").is_file():
        raise UserError(f"The folder {adapter} holds no adapter (adapter_config.json); give what `workbench train --out` wrote.")
    try:
        with quiet():
            vlm.model = peft.PeftModel.from_pretrained(vlm.model, adapter, use_safetensors=True).eval()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"The adapter {adapter} cannot be loaded on this model ({first_line(error)}); give a whole one, and the base it was trained on."
        ) from None
    return vlm


@contextlib.contextmanager
def quiet():
    """No progress bars, advice or warnings about other libraries' futures while weights load: notebooks are compared to the letter."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# --- batches -------------------------------------------------------------------------------------------------------------


def prompt(vlm: VLM, query: str) -> str:
    """One query as the model's own chat template words it, with the place of the picture, up to where the answer begins.

    Special tokens are taken out of the query: a person's text must not pose as a picture or end its own turn.
    """
    for token in vlm.processor.tokenizer.all_special_tokens:
        query = query.replace(token, "")
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": query}]}
    return vlm.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)


def prompt_batch(vlm: VLM, images: Sequence[Image.Image], queries: Sequence[str]) -> Batch:
    """Prompts padded on the left, so that every answer begins in the same column: input_ids (B, T), pixel_values, …"""
    return dict(
        vlm.processor(
            text=[prompt(vlm, query) for query in queries],
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=False,  # the chat template has written them
        ).to(vlm.device, vlm.model.dtype)
    )


def answer_batch(vlm: VLM, images: Sequence[Image.Image], queries: Sequence[str], answers: Sequence[str]) -> Batch:
    """Prompts with their answers, for a loss over answers: adds labels (B, T), IGNORED but at answer tokens and end of sequence.

    Answers are tokenized apart from the prompt, as they are when the model writes them, and padded on the right; so a row reads
    pad … prompt, answer, end, pad …, and no token straddles the border.
    """
    tokenizer = vlm.processor.tokenizer
    batch = prompt_batch(vlm, images, queries)
    end = [tokenizer.eos_token_id]
    tails = [torch.tensor(tokenizer(a, add_special_tokens=False)["input_ids"] + end) for a in answers]

    def pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value).to(vlm.device)

    ids, labels = pad(tails, tokenizer.pad_token_id), pad(tails, IGNORED)  # (B, answer)
    prompts = batch["input_ids"].shape
    for name, tensor in batch.items():  # whatever else counts one value a token (token types …) is 0 on answers
        if tensor.shape == prompts and name not in ("input_ids", "attention_mask"):
            batch[name] = torch.cat([tensor, torch.zeros_like(ids)], dim=1)
    batch["attention_mask"] = torch.cat([batch["attention_mask"], (labels != IGNORED).long()], dim=1)
    batch["labels"] = torch.cat([torch.full_like(batch["input_ids"], IGNORED), labels], dim=1)
    batch["input_ids"] = torch.cat([batch["input_ids"], ids], dim=1)
    return batch


def generate(vlm: VLM, batch: Batch, max_new_tokens: int | None = None) -> list[str]:
    """Greedy answers to a `prompt_batch`, as text without special tokens."""
    limit = max_new_tokens or vlm.model.generation_config.max_new_tokens or MAX_NEW_TOKENS
    with torch.inference_mode(), quiet():
        ids = vlm.model.generate(
            **batch, do_sample=False, num_beams=1, max_new_tokens=limit, pad_token_id=vlm.processor.tokenizer.pad_token_id
        )
    new = ids[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in vlm.processor.batch_decode(new, skip_special_tokens=True)]


def token_logprobs(model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """log π of every answer token: (B, A) log-probabilities, and a (B, A) mask of which columns are answer tokens.

    Only columns from the first label on are scored: the vocabulary's logits over image and prompt are never made.
    """
    labels = batch["labels"]
    start = int((labels != IGNORED).any(dim=0).nonzero()[0])  # answers begin in this column
    targets = labels[:, start:]  # (B, A)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs, use_cache=False, logits_to_keep=targets.shape[1] + 1).logits[:, :-1]  # (B, A, vocabulary)
    mask = targets != IGNORED
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nll = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return -nll, mask


# --- LoRA ----------------------------------------------------------------------------------------------------------------


def add_lora(vlm: VLM, rank: int, alpha: int, seed: int) -> VLM:
    """The same VLM with a fresh LoRA adapter (as yet without effect) on every linear layer of its language model.

    The vision tower and the projector stay frozen. The network is shared with `vlm`, not copied: unload it before reuse.
    """
    import peft

    decoder = vlm.model.get_decoder()
    prefix = next(name for name, module in vlm.model.named_modules() if module is decoder)
    targets = [f"{prefix}.{name}" for name, module in decoder.named_modules() if isinstance(module, torch.nn.Linear)]
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
    with quiet():
        return VLM(peft.get_peft_model(vlm.model, config), vlm.processor, vlm.name)
