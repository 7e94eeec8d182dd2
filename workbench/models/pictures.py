"""Many queries about the same pictures: the language model reads each picture once.

In a prompt the picture comes before the query, and takes most of its tokens. What a language model keeps of
it, keys and values, is the same for every query about that picture.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import DynamicCache

from workbench.data.example import digest
from workbench.models.features import cached_features
from workbench.models.generation import Answer
from workbench.models.template import tokenizer_options
from workbench.models.turns import in_turn
from workbench.models.vlm import VLM, Batch, bare, generate, prompt, prompt_batch, with_opening


class Read(NamedTuple):
    """B prompts that a language model has read to the end of the picture.

    Attributes:
        ids: Their tokens, (B, P).
        cache: Keys and values of these P columns.
        before: The tokens before each picture, if tokenizing the text alone gives those around it.
    """

    ids: torch.Tensor
    cache: DynamicCache
    before: list[list[int]] | None


class ReadPictures:
    """What a model has read of some pictures, for as long as its weights stay as they are.

    Prompts that cannot be read in pieces are read whole: where columns see later ones, or look back only so
    far, where positions follow from the picture's shape, and where pictures take different numbers of tokens.
    """

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm
        self.known: dict[tuple[str, ...], Read] = {}

    def written(self, images: Sequence[Image.Image], queries: Sequence[str], opening: str = "") -> list[Answer]:
        """Answers to one batch of queries, as the model gives them without it; image i goes with query i."""
        try:
            return self._written(images, queries, opening)
        except (MemoryError, RuntimeError):
            self.known.clear()
            raise

    def _written(self, images: Sequence[Image.Image], queries: Sequence[str], opening: str) -> list[Answer]:
        key = tuple(map(digest, images))
        with in_turn(bare(self.vlm.model)):
            before, after = self._by_text(queries)
            read = self.known.get(key)
            if read and read.before == before:
                return self._answers(read, after, opening)
            batch = prompt_batch(self.vlm, images, queries)
            if not (parted := _parted(self.vlm, batch)):
                with cached_features(bare(self.vlm.model), batch, images, self.vlm.features):
                    return generate(self.vlm, with_opening(self.vlm, batch, opening))
            start, ends = parted
            if not read or not torch.equal(read.ids, start):  # where the query comes first, it is part of the start
                cache = self._read(batch, start, images)
                read = Read(start, cache, before if after == ends else None)
                self.known = {key: read}  # the latest only: memory
            return self._answers(read, ends, opening)

    def _read(self, batch: Batch, ids: torch.Tensor, images: Sequence[Image.Image]) -> DynamicCache:
        """Read prompts to the end of the picture. ids: their tokens that far, (B, P)."""
        inputs = batch | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.inference_mode(), cached_features(bare(self.vlm.model), batch, images, self.vlm.features):
            return self.vlm.model(**inputs, use_cache=True, logits_to_keep=1).past_key_values

    def _by_text(self, queries: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        """The tokens before and after each picture, from the text alone, in which it is a single token."""
        texts, token = [prompt(self.vlm, query) for query in queries], _image_token(self.vlm)
        rows = self.vlm.tokenizer(texts, **tokenizer_options(self.vlm.processor, texts[0]))["input_ids"]
        before = [row[: row.index(token)] if token in row else [] for row in rows]
        return before, [_after(row, token) for row in rows]

    def _answers(self, read: Read, ends: Sequence[Sequence[int]], opening: str) -> list[Answer]:
        """Answers to prompts of which the beginning has been read.

        Args:
            read: Their beginnings.
            ends: The tokens that follow each.
            opening: Words with which each answer begins.
        """
        width = max(map(len, ends))
        ids = torch.full((len(ends), width), self.vlm.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, end in enumerate(ends):  # padding comes between picture and query; positions skip it
            ids[row, width - len(end) :] = torch.tensor(end)
            mask[row, width - len(end) :] = 1
        batch = {
            "input_ids": torch.cat([read.ids, ids.to(read.ids.device)], dim=1),  # (B, P + width)
            "attention_mask": torch.cat([torch.ones_like(read.ids), mask.to(read.ids.device)], dim=1),
        }
        return generate(self.vlm, with_opening(self.vlm, batch, opening), past_key_values=copied(read.cache))


def _image_token(vlm: VLM) -> int | None:
    """The token that stands for a piece of a picture."""
    return getattr(bare(vlm.model).config, "image_token_id", None)


def _after(row: Sequence[int], token: int | None) -> list[int]:
    """What follows a token's last occurrence; [] if there is none."""
    return list(row[len(row) - row[::-1].index(token) :]) if token in row else []


def _parted(vlm: VLM, batch: Batch) -> tuple[torch.Tensor, list[list[int]]] | None:
    """Prompts in two parts: to the end of the picture, and the rest.

    Args:
        vlm: The model.
        batch: A `prompt_batch`.

    Returns:
        Tokens of the first parts (B, P), and of the second ones; None if these prompts cannot be read in
        pieces.
    """
    network: Any = bare(vlm.model)
    text, token = network.config.get_text_config(), _image_token(vlm)
    windowed = getattr(text, "sliding_window", None) is not None
    layers = getattr(text, "layer_types", None) or ["sliding_attention" if windowed else "full_attention"]
    by_shape = any(hasattr(module, "get_rope_index") for module in (network, network.model))
    if set(layers) != {"full_attention"} or by_shape or "token_type_ids" in batch:
        return None
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    ends = [_after(row, token) for row in rows]
    starts = [row[: len(row) - len(end)] for row, end in zip(rows, ends, strict=True)]
    if not all(ends) or len({len(start) for start in starts}) > 1:
        return None
    return torch.tensor(starts, device=vlm.device), ends


def copied(cache: DynamicCache) -> DynamicCache:
    """A copy that can grow alone; reading replaces the tensors of a layer and never changes them."""
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    return own
