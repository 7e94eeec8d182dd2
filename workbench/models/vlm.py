"""A vision-language model and its processor: prompt, batch, answer.

Nothing here knows MiniGuard: the shipped base is prompted and batched like any other model of transformers'
`AutoModelForImageTextToText`.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import accelerate
import torch
import transformers
from PIL import Image
from transformers.utils import logging as transformers_logging

from workbench.data.example import Example
from workbench.errors import UserError, first_line
from workbench.models.architectures import ARCHITECTURES
from workbench.models.features import FeatureCache, cached_features
from workbench.models.generation import AS_IS, Answer, Generation
from workbench.models.template import (
    AnswerForm,
    answer_form,
    answer_tokens,
    check_answers,
    plain_text,
    render,
    tokenizer_options,
)

Batch = dict[str, torch.Tensor]
IGNORED = -100  # the label of positions that must not enter a loss
WIDE = 512  # hidden states of this width belong to models of true size, for which MiniGuard's recipes are no good


@dataclass
class VLM:
    """A model with its processor and a name.

    Attributes:
        model: The network, which DDP or peft may wrap.
        processor: Turns pictures and text into tensors. A model without pictures has a tokenizer here.
        name: The name in tables.
        generation: How it writes answers.
        features: What the network has seen in pictures (features.py).
        batch_limit: The largest number of queries that fit into memory; None until a batch was too large.
        stored_dtype: The precision of the checkpoint that it was loaded from, if that is known.
    """

    model: Any
    processor: Any
    name: str
    generation: Generation = AS_IS
    features: FeatureCache = field(default_factory=OrderedDict, repr=False)
    batch_limit: int | None = field(default=None, repr=False)
    stored_dtype: torch.dtype | None = field(default=None, repr=False)

    @property
    def tokenizer(self) -> Any:
        """What turns text into tokens."""
        return getattr(self.processor, "tokenizer", self.processor)

    @functools.cached_property
    def form(self) -> AnswerForm:
        """How an answer stands in its conversations."""
        return answer_form(self.processor, self.name, _stops(self.model))

    @property
    def device(self) -> torch.device:
        """Where the network's inputs belong."""
        return self.model.device

    def answer(self, image: Image.Image, query: str) -> str:
        """The model's answer to one query about one picture (RGB, any size)."""
        return self.answers([image], [query])[0]

    def answers(self, images: Sequence[Image.Image | None], queries: Sequence[str], **options: Any) -> list[str]:
        """The texts of `written`, with the same arguments."""
        return [answer.text for answer in self.written(images, queries, **options)]

    def written(
        self,
        images: Sequence[Image.Image | None],
        queries: Sequence[str],
        batch_size: int = 100,
        opening: str = "",
        write: Callable[..., list[Answer]] | None = None,
    ) -> list[Answer]:
        """Answers to many queries, in batches; if they are greedy, the same as asking one by one.

        A batch that does not fit into memory is halved, as are all later ones.

        Args:
            images: Pictures in RGB, of any size; image i goes with query i. Either all are None, for queries
                of text alone, or none.
            queries: The queries.
            batch_size: How many queries are asked at once.
            opening: Words with which each answer is made to begin; they are part of the answer.
            write: What answers a batch of pictures and queries with an opening, if other queries about the
                same pictures follow (`ReadPictures.written`).

        Raises:
            UserError: The memory is not enough for a single query.
        """
        answers: list[Answer] = []
        while len(answers) < len(queries):
            chunk = slice(len(answers), len(answers) + min(batch_size, self.batch_limit or batch_size))
            try:
                answers += (write or self._write)(images[chunk], queries[chunk], opening)
            except (MemoryError, RuntimeError) as error:
                if not isinstance(error, MemoryError) and not accelerate.utils.memory.should_reduce_batch_size(error):
                    raise
                self._halve_batches(len(queries[chunk]))
        return [Answer(f"{opening} {answer.text}".strip(), answer.cut) for answer in answers]

    def _write(self, images: Sequence[Image.Image | None], queries: Sequence[str], opening: str) -> list[Answer]:
        """Answers to one batch of queries."""
        batch = with_opening(self, prompt_batch(self, images, queries), opening)
        pictures = [image for image in images if image is not None]
        if not pictures:
            return generate(self, batch)
        with cached_features(bare(self.model), batch, pictures, self.features):
            return generate(self, batch)

    def _halve_batches(self, too_large: int) -> None:
        """Free memory, and ask at most half as many queries at once from now on."""
        if too_large == 1:
            raise UserError(
                "The memory is not enough to answer a single query; use a smaller model or a larger device."
            ) from None
        self.batch_limit = too_large // 2
        self.features.clear()
        accelerate.utils.memory.clear_device_cache(garbage_collection=True)


def processes() -> accelerate.PartialState:
    """This process among those that `torchrun` or `accelerate launch` started: number, rank, device."""
    return accelerate.PartialState(cpu=not torch.cuda.is_available() and not torch.backends.mps.is_available())


def best_device() -> torch.device:
    """cuda, else mps, else cpu; with several processes, each has its own."""
    return cast(torch.device, processes().device)  # PartialState's constructor sets it


def best_dtype(device: torch.device, width: int = 0) -> torch.dtype:
    """bfloat16 where the device multiplies it fast, float32 elsewhere.

    Args:
        device: Where the model will be.
        width: Of its language model's hidden states. On a CPU, narrow ones gain nothing by bfloat16.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = device.type == "cpu" and width >= WIDE and _cpu_has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16 (AVX-512 BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within this block, libraries show no progress bars, advice or warnings about future versions.

    Notebooks are compared letter by letter with their stored output, so loading a model must print nothing.
    """
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def prompt(vlm: VLM, query: str, picture: bool = True) -> str:
    """The text that the model reads: one query and the picture's place in the model's own chat template.

    It ends where the answer begins. Special tokens in the query are removed.

    Args:
        vlm: The model.
        query: The query.
        picture: Whether there is a picture.

    Raises:
        UserError: As `render`.
    """
    plain, system = plain_text(vlm.processor, query), vlm.generation.system_prompt
    return render(vlm.processor, vlm.name, plain, system=system, picture=picture)


def prompt_batch(vlm: VLM, images: Sequence[Image.Image | None], queries: Sequence[str], **options: Any) -> Batch:
    """Prompts padded on the left, so that every answer begins in the same column.

    Args:
        vlm: The model that is to read them.
        images: Pictures; image i goes with query i. Either all are None, for queries of text alone, or none.
        queries: The queries.
        options: Further arguments of the processor.

    Returns:
        input_ids and attention_mask (B, T), and whatever else the model reads: pixel_values, token types …
    """
    pictured = images[0] is not None
    texts = [prompt(vlm, query, pictured) for query in queries]
    options |= {"padding": True, "padding_side": "left", "return_tensors": "pt"}
    options |= tokenizer_options(vlm.processor, texts[0])
    if not pictured:
        return dict(vlm.tokenizer(texts, **options).to(vlm.device))
    one_each = [[image] for image in images]
    batch = dict(vlm.processor(text=texts, images=one_each, **options).to(vlm.device, vlm.model.dtype))
    batch.pop("labels", None)  # PaliGemma's processor makes some; a prompt has none
    return batch


def with_opening(vlm: VLM, batch: Batch, opening: str) -> Batch:
    """A batch of prompts after each of which the answer has begun with the same words.

    Args:
        vlm: The model that is to read it.
        batch: A `prompt_batch`, with tensors (B, T) of one value per token.
        opening: The words, A tokens; "" for none.

    Returns:
        The batch with those tensors (B, T + A).
    """
    if not opening:
        return batch
    tokens = answer_tokens(vlm.processor, vlm.form, [opening])[0]
    return with_tokens(vlm, batch, torch.tensor(tokens, device=vlm.device).expand(len(batch["input_ids"]), -1))


def with_tokens(vlm: VLM, batch: Batch, ids: torch.Tensor) -> Batch:
    """A batch of prompts followed by tokens of an answer.

    Args:
        vlm: The model that is to read it.
        batch: A `prompt_batch`, with tensors (B, T) of one value per token.
        ids: The tokens (B, A).

    Returns:
        The batch with those tensors (B, T + A).
    """
    prompt_shape = batch["input_ids"].shape
    longer = dict(batch)
    for name, tensor in batch.items():
        if tensor.shape == prompt_shape:
            longer[name] = torch.cat([tensor, _values_after_prompt(vlm, name, ids).to(tensor.dtype)], dim=1)
    return longer


def _values_after_prompt(vlm: VLM, name: str, ids: torch.Tensor) -> torch.Tensor:
    """What one of a batch's tensors holds for the tokens of an answer.

    Args:
        vlm: The model that is to read the batch.
        name: The name of a tensor with one value per token, e.g. token_type_ids.
        ids: The answer's tokens, of any shape.

    Returns:
        The values, of the same shape.
    """
    if name == "input_ids":
        return ids
    architecture = ARCHITECTURES.get(bare(vlm.model).config.model_type)
    constants = {"attention_mask": 1, "token_type_ids": architecture.token_type if architecture else 0}
    return torch.full_like(ids, constants.get(name, 0))


def answer_batch(vlm: VLM, examples: Sequence[Example], answers: Sequence[str]) -> Batch:
    """Prompts with their answers, for a loss over the answers.

    Answers have the tokens that the model writes, and are padded on the right. So a row is: padding, prompt,
    answer, end of turn, padding; no token spans prompt and answer.

    Args:
        vlm: The model that is to read them.
        examples: Their pictures and queries make the prompts.
        answers: Answer i goes with example i.

    Returns:
        A `prompt_batch` with these answers, and labels (B, T): the tokens of answer and end of turn, and
        IGNORED elsewhere.

    Raises:
        UserError: An answer contains a special token.
    """
    batch = prompt_batch(vlm, [e.picture() for e in examples], [e.query for e in examples])
    check_answers(vlm.processor, answers)
    endings = [torch.tensor([*tokens, *vlm.form.ending]) for tokens in answer_tokens(vlm.processor, vlm.form, answers)]

    def pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value).to(vlm.device)

    ids, labels = pad(endings, vlm.tokenizer.pad_token_id), pad(endings, IGNORED)  # (B, longest answer)
    whole = with_tokens(vlm, batch, ids)
    start = batch["input_ids"].shape[1]
    whole["attention_mask"][:, start:] = labels != IGNORED
    whole["labels"] = torch.nn.functional.pad(labels, (start, 0), value=IGNORED)
    return whole


def generate(vlm: VLM, batch: Batch, **options: Any) -> list[Answer]:
    """Answers to a batch of prompts, as text without special tokens, written as `vlm.generation` says.

    Args:
        vlm: The model that answers.
        batch: A `prompt_batch`, with input_ids (B, T).
        options: Further arguments of transformers' `generate`.

    Returns:
        B answers.
    """
    stops = [*_stops(vlm.model), *([vlm.form.ending[-1]] if hasattr(vlm.processor, "image_processor") else [])]
    options = vlm.generation.options(vlm.model) | {"pad_token_id": vlm.tokenizer.pad_token_id} | options
    with torch.inference_mode(), quiet():
        try:
            ids = vlm.model.generate(**batch, eos_token_id=sorted(set(stops)) or None, **options)
        except ValueError as error:
            if "do not match" not in str(error):
                raise
            raise UserError(
                f"The processor of the model {vlm.name!r} does not fit its network ({first_line(error)}); download "
                "the checkpoint again."
            ) from None
    written = ids[:, batch["input_ids"].shape[1] :]  # (B, new tokens)
    ended = torch.isin(written, torch.tensor(stops, device=written.device)).any(dim=1).tolist()
    texts = vlm.processor.batch_decode(written, skip_special_tokens=True)
    return [Answer(text.strip(), cut=not end) for text, end in zip(texts, ended, strict=True)]


def _stops(model: Any) -> list[int]:
    """The ids that end an answer by a model's generation_config: none, one or several."""
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [] if ids is None else ids if isinstance(ids, list) else [ids]


def answer_streamed(
    vlm: VLM, image: Image.Image, query: str, on_text: Callable[[str], None], should_stop: Callable[[], bool]
) -> str:
    """The answer to one query, the same as `VLM.answer` gives, delivered while it is being written.

    Args:
        vlm: The model that answers.
        image: The picture.
        query: The query.
        on_text: Called with each new piece of text.
        should_stop: Asked after each token; once it returns True, the answer ends there.

    Returns:
        The answer, as far as it was written.
    """

    class Streamer(transformers.TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            on_text(text)

    def stop(ids: torch.Tensor, scores: torch.Tensor, **options: Any) -> torch.Tensor:
        return torch.full((len(ids),), should_stop(), device=ids.device)

    streamer = Streamer(vlm.tokenizer, skip_prompt=True, skip_special_tokens=True)
    stopping = transformers.StoppingCriteriaList([stop])
    batch = prompt_batch(vlm, [image], [query])
    with cached_features(bare(vlm.model), batch, [image], vlm.features):
        return generate(vlm, batch, streamer=streamer, stopping_criteria=stopping)[0].text


def bare(model: Any) -> Any:
    """The network of transformers itself, without the wrappers of DDP and peft."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model
