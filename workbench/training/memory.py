"""Memory before training: the peak of a step, predicted from a configuration alone, and settings that fit.

The step itself, objective included, is run on torch's meta device, where tensors have shapes but no
contents, and the tensors that are alive are counted as they come and go. Not counted: libraries and driver,
what an allocator wastes, and the activations of the vision tower.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import types
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.integrations.sdpa_attention import repeat_kv

from workbench.data.example import Example
from workbench.errors import UserError, first_line
from workbench.models.adapters import depth, linear_modules
from workbench.models.configuration import checkpoint, configuration
from workbench.models.processor import load_processor
from workbench.models.template import answer_tokens
from workbench.models.vlm import IGNORED, VLM, prompt_batch, quiet
from workbench.training import objectives
from workbench.training.settings import Settings
from workbench.training.train import prepare_student

GIB = 2**30
MARGIN = 0.08  # share of a device's memory kept free for libraries, driver and an allocator's waste
PICTURES = 32  # looked at to find the longest prompt


class Memory(NamedTuple):
    """Bytes at the peak.

    Attributes:
        weights: Of the network.
        trained: Of the adapter, the gradients and the optimiser's state.
        step: Of all else that is alive.
    """

    weights: int
    trained: int
    step: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self)


def picture_tokens(config: transformers.PreTrainedConfig) -> int:
    """How many tokens an image takes.

    Raises:
        UserError: It is no configuration of a VLM, or does not say it.
    """
    if type(config) not in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(f"A model of type {config.model_type} takes no pictures, or does not write; choose another.")
    for name in ("image_seq_length", "mm_tokens_per_image"):
        if getattr(config, name, None):
            return getattr(config, name)
    raise UserError(
        f"The {config.model_type} configuration does not say how many tokens an image takes; pass --prompt-tokens."
    )


def longest(model: str | Path, examples: Sequence[Example], trust: Collection[str] = ()) -> tuple[int, int]:
    """The longest prompt (image and query) and the longest answer in tokens, by the model's own processor.

    No weights are loaded, and only some of the images (PICTURES) are read.

    Args:
        model: As for `configuration`.
        examples: Training data.
        trust: As for `load`.

    Raises:
        UserError: The model's configuration or processor, or an image, cannot be read.
    """
    config = configuration(model, trust)
    try:
        with quiet():
            processor = load_processor(checkpoint(str(model)), config, "remote-code" in trust)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"The processor of {str(model)!r} cannot be read ({first_line(error)}).") from None
    # all that a batch needs of a network
    network = types.SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32)
    query = max((e.query for e in examples), key=len)
    pictures = [e.picture() for e in examples[:: max(1, len(examples) // PICTURES)][:PICTURES]]
    vlm = VLM(network, processor, str(model))
    prompts = prompt_batch(vlm, pictures, [query] * len(pictures))["input_ids"]
    answers = sorted((text for e in examples for text in (e.response, e.leak)), key=len)[-20:]
    tokens = answer_tokens(processor, vlm.form, answers)
    return prompts.shape[1], max(map(len, tokens)) + len(vlm.form.ending)


def predict(
    config: transformers.PreTrainedConfig,
    settings: Settings,
    prompt: int = 640,
    answer: int = 64,
    dtype: torch.dtype = torch.bfloat16,
) -> Memory:
    """Peak memory of a training step on each device.

    Args:
        config: The model's.
        settings: The step's.
        prompt: Tokens of an image with its query.
        answer: Tokens of an answer.
        dtype: Of the network; unless it is float32, matrices are multiplied in it.

    Raises:
        UserError: An objective that does not go with the model, or an architecture that cannot be planned.
    """
    network = _meta_network(config, dtype)
    held = _bytes_in_four_bits(network) if settings.four_bit else sum(p.nbytes for p in network.parameters())
    vlm = VLM(network, None, config.model_type)
    settings.check_depth(depth(vlm))
    modules = linear_modules(vlm, settings.targets, settings.layer, settings.projector)
    student = prepare_student(vlm, modules, settings, seed=0).model
    if settings.checkpointing:
        with quiet():  # the name is an old one, which all versions know
            student.gradient_checkpointing_enable({"use_reentrant": False})
    student.train()
    before, peak = _peak(student, settings, prompt, answer, dtype)
    largest = max(m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.Linear))
    unpacked = 2 * largest if settings.four_bit else 0  # one matrix at a time is read out to 16 bits
    gradients = sum(p.nbytes for p in student.parameters() if p.requires_grad)
    moments = 2 * gradients  # of AdamW
    adapter = 0 if settings.full else gradients
    return Memory(
        weights=held + sum(p.nbytes for p in _frozen(student)),
        trained=adapter + moments + gradients,
        step=peak - before - gradients + unpacked,
    )


def _meta_network(config: transformers.PreTrainedConfig, dtype: torch.dtype) -> Any:
    """The network with shapes and no contents."""
    try:
        with torch.device("meta"):
            return transformers.AutoModelForImageTextToText.from_config(
                copy.deepcopy(config),  # a network notes its attention there, and the caller's may be in use
                dtype=dtype,
                attn_implementation="planned",
            )
    except (ValueError, KeyError) as error:
        raise UserError(f"A model of type {config.model_type} cannot be planned ({first_line(error)}).") from None


def _frozen(student: Any) -> list[torch.nn.Parameter]:
    """The parameters of the copy that `freeze_copy` made, if there is one."""
    return [parameter for network in getattr(student, "frozen_copy", ()) for parameter in network.parameters()]


def _peak(student: Any, settings: Settings, prompt: int, answer: int, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes alive before a step and at its peak."""
    method = objectives.named(settings.objective)
    with _Alive() as alive, _autocast(dtype):
        for parameter in [*student.parameters(), *_frozen(student)]:
            alive.count(parameter)
        before = alive.now
        if settings.accumulate > 1:  # earlier parts have left their gradients
            for parameter in student.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.empty_like(parameter)
        asked = prompt + answer * method.appended
        forget = _batch(student, asked, answer, settings.forget // settings.accumulate * len(method.answers))
        retain = _batch(student, prompt, answer, settings.retain // settings.accumulate)
        method.loss(student, forget, retain, **settings.hyper).backward()
    return before, alive.peak


def fitting(
    config: transformers.PreTrainedConfig,
    settings: Settings,
    memory: int,
    prompt: int = 640,
    answer: int = 64,
    dtype: torch.dtype = torch.bfloat16,
) -> Iterator[tuple[Settings, Memory, bool]]:
    """Settings that give the same step in less and less memory: in parts, with checkpointing, in 4 bits.

    Args:
        config: The model's.
        settings: The step's, which come first.
        memory: Bytes of the device.
        prompt: Tokens of an image with its query.
        answer: Tokens of an answer.
        dtype: Of the network.

    Yields:
        Settings, prediction, and whether it fits, up to the first that does.
    """
    shared = math.gcd(settings.forget, settings.retain)
    parts = [n for n in (1, 2, 4, 8, 16, 32) if shared % n == 0 and n >= settings.accumulate]
    for saving in ({}, {"checkpointing": True}, {"checkpointing": True, "four_bit": True}):
        if "four_bit" in saving and (settings.full or dtype == torch.float32):
            continue
        for accumulate in parts:
            saved = dataclasses.replace(settings, accumulate=accumulate, **saving)
            predicted = predict(config, saved, prompt, answer, dtype)
            fits = predicted.total <= (1 - MARGIN) * memory
            yield saved, predicted, fits
            if fits:
                return


def _batch(network: Any, prompt: int, answer: int, rows: int) -> dict[str, torch.Tensor]:
    """What `answer_batch` would make, with words and images embedded already: T = prompt + answer columns.

    Returns:
        inputs_embeds (rows, T, H), attention_mask (rows, 1, T, T), labels (rows, T), reference (rows,); only
        labels have contents.
    """
    tokens, embeddings = prompt + answer, network.get_input_embeddings().weight
    labels = torch.full((rows, tokens), IGNORED)
    labels[:, prompt:] = 0
    return {
        "inputs_embeds": torch.empty(rows, tokens, embeddings.shape[1], device="meta", dtype=embeddings.dtype),
        "attention_mask": torch.empty(rows, 1, tokens, tokens, device="meta", dtype=torch.bool),
        "labels": labels,
        "reference": torch.empty(rows, device="meta"),
    }


def _bytes_in_four_bits(network: Any) -> int:
    """Bytes of the weights as bitsandbytes' NF4 holds them.

    Linear layers except the head take 4 bits a weight, and a 32-bit scale for each 64 of them.
    """
    packed = {m.weight for m in network.modules() if isinstance(m, torch.nn.Linear)}
    packed -= {network.get_output_embeddings().weight}
    return sum(p.numel() // 2 + p.numel() // 16 if p in packed else p.nbytes for p in network.parameters())


class _Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def count(self, tensor: torch.Tensor) -> None:
        """Count a tensor of any shape while it lives."""
        storage = tensor.untyped_storage()  # views share one
        if id(storage) not in self.seen:
            self.seen.add(id(storage))
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, id(storage), storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.count(tensor)
        return result


@contextlib.contextmanager
def _autocast(dtype: torch.dtype) -> Iterator[None]:
    """Linear layers compute in `dtype`, as under torch.autocast, which the meta device does not have."""
    linear: Callable[..., torch.Tensor] = F.linear
    F.linear = lambda *tensors: linear(*(t if t is None else t.to(dtype) for t in tensors))
    try:
        yield
    finally:
        F.linear = linear


class _Attention(torch.autograd.Function):
    """Attention as a fused kernel holds it: queries, keys, values, output and one number per row.

    Never the square of the length. Tensors are (B, heads, T, head size).
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The output, as long as the queries: (B, heads, T, head size)."""
        output = torch.empty_like(query)
        row_sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, row_sums)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of queries, keys and values, shaped like these. gradients: (B, heads, T, head size)."""
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _planned_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' interface: (B, heads, T, head size) each → (B, T, heads, head size)."""
    groups = query.shape[1] // key.shape[1]
    output = _Attention.apply(query, repeat_kv(key, groups), repeat_kv(value, groups))
    return output.transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register("planned", _planned_attention)
