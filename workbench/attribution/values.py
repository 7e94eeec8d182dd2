"""A target's values for many prompts at once; `Perturbed` computes those of one prompt with parts missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from workbench.attribution.masking import Perturbed
from workbench.attribution.prefix import TOKENS
from workbench.attribution.target import REFUSAL, Target, opening_tokens
from workbench.data.pictures import MAX_PIXELS
from workbench.models.pictures import ReadPictures
from workbench.models.vlm import VLM, prompt_batch


def target_values(
    read: ReadPictures, images: Sequence[Image.Image], queries: Sequence[str], target: Target = REFUSAL
) -> list[float]:
    """The target of N prompts, in one batch.

    Args:
        read: The model, with what it has read of the pictures for other queries about them.
        images: N pictures.
        queries: Query i goes with image i.
        target: The number to compute.

    Returns:
        N numbers, in nats.

    Raises:
        UserError: As `Perturbed`.
    """
    openings = opening_tokens(read.vlm, target.openings)
    beginnings = sorted({tuple(tokens[:end]) for tokens in openings for end in range(len(tokens))})
    queries = [query.strip() for query in queries]  # as `Perturbed` does
    logits = read.next_logits(images, queries, beginnings)
    if logits is None:
        return [
            Perturbed(read.vlm, image, query, target, grid=1).value
            for image, query in zip(images, queries, strict=True)
        ]
    after = dict(zip(beginnings, logits.double().log_softmax(-1), strict=True))  # {tokens: (N, vocabulary)}
    log_p = [
        sum((after[tuple(tokens[:end])][:, token] for end, token in enumerate(tokens)), torch.zeros(()))
        for tokens in openings
    ]
    return target.of(torch.stack(log_p)).tolist()


def batch_rows(vlm: VLM, image: Image.Image, query: str) -> int:
    """How many prompts like this one are read in one forward pass."""
    tokens = prompt_batch(vlm, [image], [query])["input_ids"].shape[1]
    return max(1, min(TOKENS // tokens, MAX_PIXELS // (image.width * image.height)))
