"""Memory before training: the peak of a step, predicted from a model's configuration alone, and settings that fit.

The step itself is run, objective and all, on torch's meta device, where tensors have shapes and no contents; what is alive is counted as
it comes and goes. Not counted: libraries and driver, what an allocator wastes, and the vision tower's own passing activations.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import types
import weakref
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.integrations.sdpa_attention import repeat_kv

from workbench.data.example import Example
from workbench.errors import UserError, first_line
from workbench.files import data_dir
from workbench.models.adapters import depth, linear_modules
from workbench.models.load import load_processor, not_loaded, warn_of_code
from workbench.models.vlm import IGNORED, VLM, prompt_batch, quiet
from workbench.training import objectives
from workbench.training.known_models import KNOWN
from workbench.training.settings import Settings, check_parts, checked_hyper
from workbench.training.train import prepare_student

GIB = 2**30
MARGIN = 0.08  # of a device's memory, kept free for libraries, driver and an allocator's waste


class Memory(NamedTuple):
    """Bytes: of the network's weights; of the adapter, the gradients and the optimiser's state; of all else that is alive at the peak."""

    weights: int
    trained: int
    step: int

    @property
    def total(self) -> int:
        return sum(self)


def configuration(model: str | Path, trust: Collection[str] = ()) -> transformers.PreTrainedConfig:
    """A model's configuration by hub id or folder ("miniguard" is the shipped base). trust: as of `models.load`.

    Raises UserError where there is none; of KNOWN models it is known without a network.
    """
    if str(model) in KNOWN:
        return KNOWN[str(model)]()
    source = data_dir() / "miniguard-base" if str(model) == "miniguard" else model
    if "remote-code" in trust:
        warn_of_code(str(model))
    try:
        return transformers.AutoConfig.from_pretrained(source, trust_remote_code="remote-code" in trust)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise not_loaded(str(model), error) from None


def picture_tokens(config: transformers.PreTrainedConfig) -> int:
    """How many tokens a picture takes, where the configuration says it. Raises UserError elsewhere."""
    for name in ("image_seq_length", "mm_tokens_per_image"):
        if getattr(config, name, None):
            return getattr(config, name)
    raise UserError(
        f"How many tokens a picture takes is not in the configuration of a {config.model_type}; say --prompt-tokens."
    )


def longest(model: str | Path, examples: Sequence[Example], trust: Collection[str] = ()) -> tuple[int, int]:
    """How many tokens the longest prompt (picture and query) and the longest answer among some examples take, by the model's own
    processor; no weight is loaded. Of pictures, 32 are looked at.

    Raises UserError where the model's configuration or processor cannot be read, or a picture.
    """
    config = configuration(model, trust)
    source = data_dir() / "miniguard-base" if str(model) == "miniguard" else model
    try:
        with quiet():
            processor = load_processor(str(source), config.model_type, "remote-code" in trust)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"The processor of {str(model)!r} cannot be read ({first_line(error)}).") from None
    network = types.SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32)  # all that a batch asks of a model
    query = max((e.query for e in examples), key=len)
    pictures = [e.picture() for e in examples[:: max(1, len(examples) // 32)][:32]]
    prompts = prompt_batch(VLM(network, processor, str(model)), pictures, [query] * len(pictures))["input_ids"].shape[1]
    texts = sorted((text for e in examples for text in (e.response, e.leak)), key=len)[-20:]
    return prompts, max(len(ids) for ids in processor.tokenizer(texts, add_special_tokens=False)["input_ids"]) + 1


def predict(config: transformers.PreTrainedConfig, settings: Settings, dtype: torch.dtype = torch.bfloat16) -> Memory:
    """Peak memory of a training step on each device. dtype: of the network; other than in float32, matrices are multiplied in it.

    Raises UserError for an unknown objective or hyper-parameter, or an architecture that is not understood.
    """
    method = objectives.named(settings.objective)
    check_parts(settings.forget, settings.retain, settings.accumulate)
    try:
        with torch.device("meta"):
            network = transformers.AutoModelForImageTextToText.from_config(
                copy.deepcopy(config),  # a network notes its attention there, and the caller's may be a real one's
                dtype=dtype,
                attn_implementation="planned",
            )
    except (ValueError, KeyError) as error:
        raise UserError(f"A model of type {config.model_type} cannot be planned ({first_line(error)}).") from None
    held = sum(p.nbytes for p in network.parameters())
    if settings.four_bit:
        held = _bytes_in_four_bits(network)
    vlm = VLM(network, None, config.model_type)
    hyper = checked_hyper(settings.objective, method, dict(settings.hyper), depth(vlm))
    layers = hyper.get("layer")
    modules = linear_modules(vlm, settings.targets, layers, settings.projector)
    student = prepare_student(vlm, modules, settings.full, layers, settings.rank, lora_alpha=32, seed=0).model
    if settings.checkpointing:
        with quiet():  # the name is an old one, which all versions know
            student.gradient_checkpointing_enable({"use_reentrant": False})
    student.train()
    trained = [p for p in student.parameters() if p.requires_grad]
    frozen = [p for kept in getattr(student, "frozen_copy", ()) for p in kept.parameters()]
    added = 0 if settings.full else sum(p.nbytes for p in trained)
    with _Alive() as alive, _autocast(dtype):
        for parameter in [*student.parameters(), *frozen]:
            alive.count(parameter)
        before = alive.now
        if settings.accumulate > 1:  # earlier parts have left their gradients
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
        forget = _batch(network, settings, settings.forget // settings.accumulate * len(method.answers))
        retain = _batch(network, settings, settings.retain // settings.accumulate)
        method.loss(student, forget, retain, **hyper).backward()
    gradients = sum(p.nbytes for p in trained)
    largest = max(m.weight.numel() for m in network.modules() if isinstance(m, torch.nn.Linear))
    unpacked = 2 * largest if settings.four_bit else 0  # one matrix at a time is read out to 16 bits
    state = 2 * sum(p.nbytes for p in trained)  # AdamW's two moments
    return Memory(
        held + sum(p.nbytes for p in frozen), added + state + gradients, alive.peak - before - gradients + unpacked
    )


def fitting(
    config: transformers.PreTrainedConfig, settings: Settings, memory: int, dtype: torch.dtype = torch.bfloat16
) -> Iterator[tuple[Settings, Memory, bool]]:
    """Settings that give the same step in less and less memory: as they are, in parts, with checkpointing, in 4 bits.

    Yields each with its prediction and whether it fits in `memory` bytes, up to the first that does.
    """
    parts = [
        n
        for n in (1, 2, 4, 8, 16, 32)
        if math.gcd(settings.forget, settings.retain) % n == 0 and n >= settings.accumulate
    ]
    for saving in ({}, {"checkpointing": True}, {"checkpointing": True, "four_bit": True}):
        if "four_bit" in saving and (settings.full or dtype == torch.float32):
            continue
        for accumulate in parts:
            tried = dataclasses.replace(settings, accumulate=accumulate, **saving)
            found = predict(config, tried, dtype)
            fits = found.total <= (1 - MARGIN) * memory
            yield tried, found, fits
            if fits:
                return


def _batch(network, settings: Settings, rows: int) -> dict[str, torch.Tensor]:
    """What `models.answer_batch` would make of so many rows, with pictures and words embedded already; labels have contents."""
    tokens, hidden = settings.prompt + settings.answer, network.get_input_embeddings().weight.shape[1]
    dtype = network.get_input_embeddings().weight.dtype
    labels = torch.full((rows, tokens), IGNORED)
    labels[:, settings.prompt :] = 0
    return {
        "inputs_embeds": torch.empty(rows, tokens, hidden, device="meta", dtype=dtype),
        "attention_mask": torch.empty(rows, 1, tokens, tokens, device="meta", dtype=torch.bool),
        "labels": labels,
        "reference": torch.empty(rows, device="meta"),
    }


def _bytes_in_four_bits(network) -> int:
    """The bytes of a network's weights: linear layers but for the head in 4 bits with a 32-bit scale for each 64, as bitsandbytes' NF4."""
    packed = {m.weight for m in network.modules() if isinstance(m, torch.nn.Linear)} - {
        network.get_output_embeddings().weight
    }
    return sum(p.numel() // 2 + p.numel() // 16 if p in packed else p.nbytes for p in network.parameters())


class _Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and their peak."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()  # views share one
        if id(storage) not in self.seen:
            self.seen.add(id(storage))
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, id(storage), storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.count(tensor)
        return made


@contextlib.contextmanager
def _autocast(dtype: torch.dtype):
    """What torch.autocast does to linear layers, which it does not do on the meta device: they compute in `dtype`."""
    linear = F.linear
    F.linear = lambda *tensors: linear(*(t if t is None else t.to(dtype) for t in tensors))
    try:
        yield
    finally:
        F.linear = linear


class _Attention(torch.autograd.Function):
    """Attention as a fused kernel holds it: queries, keys, values, output and one number a row, never the square of the length."""

    @staticmethod
    def forward(ctx, query, key, value):
        made = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, made, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return made

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _planned_attention(module, query, key, value, attention_mask, **kwargs):
    groups = query.shape[1] // key.shape[1]
    return _Attention.apply(query, repeat_kv(key, groups), repeat_kv(value, groups)).transpose(1, 2).contiguous(), None


transformers.AttentionInterface.register("planned", _planned_attention)
