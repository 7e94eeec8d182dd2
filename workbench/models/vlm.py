"""A vision-language model and its processor: load, prompt, batch, answer; LoRA, and the reference = the adapter switched off.

Nothing here knows MiniGuard: the shipped base is loaded, prompted and batched as any other model of transformers'
`AutoModelForImageTextToText`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import accelerate
import torch
import transformers
from PIL import Image
from transformers.utils import ModelOutput

from workbench.data.example import Example, digest
from workbench.errors import UserError
from workbench.models.architectures import ARCHITECTURES

Batch = dict[str, torch.Tensor]
IGNORED = -100  # the label of positions that must not enter a loss
MAX_NEW_TOKENS = 64  # where the model's generation_config sets none
FEATURE_BYTES = 2**29  # of pictures' features that a VLM keeps


@dataclass
class VLM:
    """A model, the processor that goes with it, and the name under which it stands in tables."""

    model: Any
    processor: Any
    name: str
    features: OrderedDict = field(default_factory=OrderedDict, repr=False)  # what `features_kept` keeps
    fits: int | None = field(default=None, repr=False)  # the largest batch of answers, once one was too large

    @property
    def device(self) -> torch.device:
        return self.model.device

    def answer(self, image: Image.Image, query: str, max_new_tokens: int | None = None) -> str:
        """The model's greedy answer to one query about one picture (RGB, any size)."""
        return self.answers([image], [query], max_new_tokens)[0]

    def answers(
        self,
        images: Sequence[Image.Image],
        queries: Sequence[str],
        max_new_tokens: int | None = None,
        batch_size: int = 100,
        opening: str = "",
    ) -> list[str]:
        """Greedy answers to many queries, image i with query i, in batches; the same as asking one by one.

        opening: how each answer is made to begin; it is part of the answer. A batch for which the memory is not enough is halved, as
        are all after it.
        """
        found: list[str] = []
        while len(found) < len(queries):
            chunk = slice(len(found), len(found) + min(batch_size, self.fits or batch_size))
            try:
                batch = with_opening(self, prompt_batch(self, images[chunk], queries[chunk]), opening)
                with features_kept(self, batch, images[chunk]):
                    found += generate(self, batch, max_new_tokens)
            except (MemoryError, RuntimeError) as error:
                if not isinstance(error, MemoryError) and not accelerate.utils.memory.should_reduce_batch_size(error):
                    raise
                tried = len(queries[chunk])
                if tried == 1:
                    raise UserError(
                        "The memory is not enough to answer a single query; take a smaller model or a larger device."
                    ) from None
                self.fits = tried // 2
                self.features.clear()
                accelerate.utils.memory.clear_device_cache(garbage_collection=True)
        return [f"{opening} {text}".strip() for text in found]


def processes() -> accelerate.PartialState:
    """This process among those that `torchrun` or `accelerate launch` started (one, where neither did): number, rank, device."""
    return accelerate.PartialState(cpu=not torch.cuda.is_available() and not torch.backends.mps.is_available())


def best_device() -> torch.device:
    """cuda, else mps, else cpu; among several processes, this one's own."""
    return processes().device


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs that have it, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


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


def plain(vlm: VLM, query: str) -> str:
    """A query without special tokens: a person's text must not pose as a picture or end its own turn."""
    return without(query, vlm.processor.tokenizer.all_special_tokens)


def without(text: str, tokens: Collection[str]) -> str:
    """A text from which tokens are taken out, again and again: what is left may make up another, as in <im<image>age>."""
    while any(token in text for token in tokens):
        for token in tokens:
            text = text.replace(token, "")
    return text


def prompt(vlm: VLM, query: str) -> str:
    """One query as the model's own chat template words it, with the place of the picture, up to where the answer begins.

    Special tokens in the query are taken out. Raises UserError where there is no template, or none with a place for a picture.
    """
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": plain(vlm, query)}]}
    if not vlm.processor.chat_template:
        raise UserError(f"The model {vlm.name!r} has no chat template; put a chat_template.jinja beside its weights.")
    text = vlm.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    token = getattr(vlm.processor, "image_token", None)
    if token and str(token) not in text:
        raise UserError(
            f"The chat template of the model {vlm.name!r} has no place for a picture; give it one, or choose another model."
        )
    return text


def prompt_batch(vlm: VLM, images: Sequence[Image.Image], queries: Sequence[str], **options) -> Batch:
    """Prompts padded on the left, so that every answer begins in the same column: input_ids (B, T), pixel_values, …

    options: further ones for the processor.
    """
    batch = dict(
        vlm.processor(
            text=[prompt(vlm, query) for query in queries],
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=False,  # the chat template has written them
            **options,
        ).to(vlm.device, vlm.model.dtype)
    )
    batch.pop("labels", None)  # PaliGemma's processor makes some; a prompt has none
    return batch


def with_opening(vlm: VLM, batch: Batch, opening: str) -> Batch:
    """A `prompt_batch` in which every answer has begun with the same words, tokenized apart from the prompt as answers are."""
    if not opening:
        return batch
    ids = torch.tensor(vlm.processor.tokenizer(opening, add_special_tokens=False)["input_ids"], device=vlm.device)
    prompts = batch["input_ids"].shape
    return {
        name: torch.cat([tensor, values_after_prompt(vlm, name, ids).to(tensor.dtype).expand(prompts[0], -1)], dim=1)
        if tensor.shape == prompts
        else tensor
        for name, tensor in batch.items()
    }


def values_after_prompt(vlm: VLM, name: str, ids: torch.Tensor) -> torch.Tensor:
    """What a batch's tensor `name`, of one value a token, holds for tokens `ids` that stand behind the prompt: the same shape."""
    kind = ARCHITECTURES.get(bare(vlm.model).config.model_type)
    values = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return values.get(name, torch.full_like(ids, kind.token_type if kind and name == "token_type_ids" else 0))


def answer_batch(vlm: VLM, examples: Sequence[Example], answers: Sequence[str]) -> Batch:
    """Prompts with their answers, for a loss over answers: adds labels (B, T), IGNORED but at answer tokens and end of sequence.

    Answers are tokenized apart from the prompt, as they are when the model writes them, and padded on the right; so a row reads
    pad … prompt, answer, end, pad …, and no token straddles the border.
    """
    tokenizer = vlm.processor.tokenizer
    batch = prompt_batch(vlm, [e.picture() for e in examples], [e.query for e in examples])
    end = [tokenizer.eos_token_id]
    tails = [torch.tensor(tokenizer(a, add_special_tokens=False)["input_ids"] + end) for a in answers]

    def pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value).to(vlm.device)

    ids, labels = pad(tails, tokenizer.pad_token_id), pad(tails, IGNORED)  # (B, answer)
    prompts = batch["input_ids"].shape
    for name, tensor in batch.items():  # whatever else counts one value a token (token types …)
        if tensor.shape == prompts and name not in ("input_ids", "attention_mask"):
            batch[name] = torch.cat([tensor, values_after_prompt(vlm, name, ids)], dim=1)
    batch["attention_mask"] = torch.cat([batch["attention_mask"], (labels != IGNORED).long()], dim=1)
    batch["labels"] = torch.cat([torch.full_like(batch["input_ids"], IGNORED), labels], dim=1)
    batch["input_ids"] = torch.cat([batch["input_ids"], ids], dim=1)
    return batch


# what a network sees in the pictures of the batch at hand, in this thread
_FEATURES: ContextVar[Any] = ContextVar("features", default=None)


@contextlib.contextmanager
def features_kept(vlm: VLM, batch: Batch, images: Sequence[Image.Image]) -> Iterator[None]:
    """Within this block the network is asked about a `prompt_batch` of these pictures, and does not look at them if it has before.

    What vision tower and projector made of the same pictures in the same order is kept (FEATURE_BYTES, the least recently used go first)
    and handed over in place of `get_image_features`, the public method by which every VLM of transformers looks at a picture. Where vision
    or projector are being trained, nothing is kept.
    """
    network = bare(vlm.model)
    looking = [module for module in network.modules() if hasattr(module, "get_image_features")]
    if not looking or any(p.requires_grad for p in _outside_decoder(network)):
        yield
        return
    key, kept = tuple(map(digest, images)), vlm.features
    if key not in kept:
        wanted = inspect.signature(network.get_image_features).parameters
        with torch.no_grad():
            seen = network.get_image_features(**{n: t for n, t in batch.items() if n in wanted}, return_dict=True)
        kept[key] = _pared(seen)
        while len(kept) > 1 and sum(map(_bytes, kept.values())) > FEATURE_BYTES:
            kept.popitem(last=False)
    kept.move_to_end(key)
    before = _FEATURES.set(kept[key])
    for module in looking:
        module.get_image_features = _or_kept(module.get_image_features)
    try:
        yield
    finally:
        for module in looking:
            vars(module).pop(
                "get_image_features", None
            )  # another thread may have taken it off: then that one looks for itself
        _FEATURES.reset(before)


def _or_kept(look: Callable) -> Callable:
    """The same method, but for what is kept of the pictures at hand."""

    @functools.wraps(look)  # `generate` reads its signature
    def get_image_features(*args, **kwargs):
        seen = _FEATURES.get()
        return look(*args, **kwargs) if seen is None else seen

    return get_image_features


def _pared(seen: ModelOutput) -> ModelOutput:
    """The same without what no language model reads, the vision tower's hidden states and attentions."""
    parts = {name: part for name, part in vars(seen).items() if name not in ("hidden_states", "attentions")}
    pared = type(seen)(**{name: part for name, part in parts.items() if name in seen})
    vars(pared).update(parts)  # where pooler_output is no field of the output, it is an attribute all the same
    return pared


def _outside_decoder(network) -> Iterator[torch.nn.Parameter]:
    """The parameters of vision tower and projector."""
    language = {
        id(p) for module in (network.get_decoder(), network.get_output_embeddings()) for p in module.parameters()
    }
    return (p for p in network.parameters() if id(p) not in language)


def _bytes(output) -> int:
    """The size of all tensors in what a network put out."""
    if isinstance(output, torch.Tensor):
        return output.nbytes
    parts = (
        vars(output).values() if isinstance(output, ModelOutput) else output if isinstance(output, list | tuple) else ()
    )
    return sum(map(_bytes, parts))


def generate(vlm: VLM, batch: Batch, max_new_tokens: int | None = None, **options) -> list[str]:
    """Greedy answers to a `prompt_batch`, as text without special tokens. options: further ones of transformers' `generate`.

    A model without pictures has a tokenizer for a processor.
    """
    tokenizer = getattr(vlm.processor, "tokenizer", vlm.processor)
    limit = max_new_tokens or vlm.model.generation_config.max_new_tokens or MAX_NEW_TOKENS
    with torch.inference_mode(), quiet():
        ids = vlm.model.generate(
            **batch, do_sample=False, num_beams=1, max_new_tokens=limit, pad_token_id=tokenizer.pad_token_id, **options
        )
    new = ids[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in vlm.processor.batch_decode(new, skip_special_tokens=True)]


def answer_streamed(
    vlm: VLM, image: Image.Image, query: str, written: Callable[[str], None], stopped: Callable[[], bool]
) -> str:
    """The answer to one query, as `VLM.answer` gives it; `written` is called with each piece as it is written.

    Ends after the token at which `stopped` is true.
    """

    class Streamer(transformers.TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            written(text)

    def stop(ids, scores, **options):
        return torch.full((len(ids),), stopped(), device=ids.device)

    streamer = Streamer(vlm.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    batch = prompt_batch(vlm, [image], [query])
    with features_kept(vlm, batch, [image]):
        return generate(vlm, batch, streamer=streamer, stopping_criteria=transformers.StoppingCriteriaList([stop]))[0]


def bare(model):
    """The network of transformers itself, without DDP's or peft's wrapping."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model
