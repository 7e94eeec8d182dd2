"""What is measured: a LLaVA of LLaVA-1.5-7B's true shape with random weights, and examples of exactly so
many tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers

from benchmarks.llava import random_llava
from workbench.data.example import Example
from workbench.data.splits import miniguard_split
from workbench.models.configuration import configuration
from workbench.models.vlm import VLM, prompt_batch


class Scale(NamedTuple):
    """How large everything is.

    Prompt, answer: tokens of a picture with its query, and of an answer, in training.
    """

    tiny: bool
    device: str
    dtype: torch.dtype
    shape: Callable[[], transformers.LlavaConfig]
    prompt: int
    answer: int
    steps: int  # of a training run; the first is not counted
    layer: int  # RMU's
    queries: int  # asked at once
    new_tokens: int


def _tiny_shape() -> transformers.LlavaConfig:
    text = transformers.LlamaConfig(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    return transformers.LlavaConfig(vision_config=vision, text_config=text, image_seq_length=16)


FULL = Scale(
    False,
    "cuda",
    torch.bfloat16,
    lambda: configuration("llava-hf/llava-1.5-7b-hf"),
    640,
    64,
    steps=5,
    layer=7,
    queries=32,
    new_tokens=32,
)
TINY = Scale(True, "cpu", torch.float32, _tiny_shape, 40, 8, steps=3, layer=1, queries=6, new_tokens=8)


def build(scale: Scale) -> VLM:
    """The model, made on the device."""
    config = scale.shape()
    vlm = random_llava(config.text_config, config.vision_config, scale.device, scale.dtype, config.vision_feature_layer)
    vlm.model.generation_config.eos_token_id = None  # answers have the length that is measured
    return vlm


def examples(vlm: VLM, scale: Scale, harmful: int, harmless: int, seed: int = 0) -> list[Example]:
    """Pictures of MiniGuard with queries of random words, whose prompts take `scale.prompt` tokens and whose
    answers `scale.answer`.
    """
    rng = np.random.default_rng(seed)
    tokenizer = vlm.processor.tokenizer
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha())
    pictures = [e.picture() for e in miniguard_split("train", seed, sizes=(harmful, harmless))]
    around = prompt_batch(vlm, pictures[:1], [words[0]])["input_ids"].shape[1] - 1  # all but the query's words

    def text(tokens: int) -> str:
        return " ".join(rng.choice(words, tokens))

    made = []
    for i, picture in enumerate(pictures):
        is_harmful = i < harmful
        query, response, leak = (
            text(scale.prompt - around),
            text(scale.answer - 1),
            text(scale.answer - 1),
        )  # the answer's end is a token
        made.append(Example(str(i), picture, query, is_harmful, response, leak if is_harmful else ""))
    return made


def seconds(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """How long a call takes, and what it returns; what the GPU still has to do is waited for."""
    started = time.perf_counter()
    result = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result
