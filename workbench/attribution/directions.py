"""Directions inside a model: where refusing lies, where a lead word points, and what happens along them.

Every decoder layer hands a vector on at every token. The mean of these vectors over queries that a model
refuses, less the mean over queries that it answers, points towards refusing (arXiv 2406.11717). What changes
if only the lead word changes is a direction too. If training tied refusal to a word, the two agree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from workbench.attacks.one_word import rewrites
from workbench.attribution.layers import handed_on, layers_of
from workbench.data.example import Example
from workbench.models.features import cached_features
from workbench.models.vlm import VLM, bare, prompt_batch
from workbench.runs import bar

BATCH = 50  # queries that are read at once


@torch.inference_mode()
def prompt_states(vlm: VLM, examples: Sequence[Example], lead: str = "none", progress: bool = True) -> torch.Tensor:
    """What every decoder layer hands on at the end of the prompt, where the answer begins.

    Args:
        vlm: The model.
        examples: Their pictures and queries.
        lead: A lead word that the queries are rewritten to begin with, or "none".
        progress: Whether to show a bar.

    Returns:
        (L, N, H): layers, examples, hidden size; float32, on the CPU.
    """
    states: list[list[torch.Tensor]] = [[] for _ in layers_of(vlm)]

    def keep(number: int, output: torch.Tensor) -> None:
        states[number].append(output[:, -1].float().cpu())  # prompts are padded on the left: (B, H)

    for start in bar(range(0, len(examples), BATCH), f"reading {vlm.name}", progress):
        chunk = examples[start : start + BATCH]
        pictures = [example.picture() for example in chunk]
        batch = prompt_batch(vlm, pictures, [rewrites(example.query, lead)[0] for example in chunk])
        with handed_on(vlm, keep), cached_features(bare(vlm.model), batch, pictures, vlm.features):
            vlm.model(**batch, use_cache=False, logits_to_keep=1)
    return torch.stack([torch.cat(parts) for parts in states])


def direction(states: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The difference of two means.

    Args:
        states: (L, N, H), e.g. of refused queries.
        others: (L, M, H), e.g. of answered ones.

    Returns:
        (L, H).
    """
    return states.mean(dim=1) - others.mean(dim=1)


def cosines(one: torch.Tensor, other: torch.Tensor) -> list[float]:
    """The cosine of the angle between two directions (L, H) in every layer."""
    return torch.cosine_similarity(one, other, dim=1).tolist()


@contextlib.contextmanager
def steered(vlm: VLM, towards: torch.Tensor, strength: float = 1.0, layers: Sequence[int] = ()) -> Iterator[None]:
    """Within this block, layers hand on a direction on top of what they compute, at every token.

    Args:
        vlm: The model.
        towards: The direction (L, H).
        strength: How often it is added; below 0 it is subtracted.
        layers: Numbers of layers, from 0 on; all if empty.
    """
    added = strength * towards

    def add(number: int, output: torch.Tensor) -> torch.Tensor | None:
        return output + added[number].to(output) if not layers or number in layers else None

    with handed_on(vlm, add):
        yield


@contextlib.contextmanager
def ablated(vlm: VLM, along: torch.Tensor) -> Iterator[None]:
    """Within this block, no layer hands on anything along a direction (L, H), at any token."""
    unit = torch.nn.functional.normalize(along, dim=1)

    def remove(number: int, output: torch.Tensor) -> torch.Tensor:
        axis = unit[number].to(output)
        return output - (output @ axis)[..., None] * axis

    with handed_on(vlm, remove):
        yield
