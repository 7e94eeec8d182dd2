"""Many queries about the same pictures: the language model reads each picture once.

In a prompt the picture comes before the query, and takes most of its tokens. What a language model keeps of
it, keys and values, is the same for every query about that picture.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import DynamicCache

from workbench.data.example import digest
from workbench.models.features import cached_features
from workbench.models.generation import Answer
from workbench.models.template import tokenizer_options
from workbench.models.turns import in_turn
from workbench.models.vlm import VLM, Batch, bare, generate, prompt, prompt_batch, quiet, with_opening, with_tokens

TEXT = ("input_ids", "attention_mask")


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
        with self._turn():
            batch, cache = self._prompts(images, queries)
            batch = with_opening(self.vlm, batch, opening)
            if cache:
                return generate(self.vlm, batch, past_key_values=cache)
            with cached_features(bare(self.vlm.model), batch, images, self.vlm.features):
                return generate(self.vlm, batch)

    def next_logits(
        self, images: Sequence[Image.Image], queries: Sequence[str], beginnings: Sequence[Sequence[int]]
    ) -> torch.Tensor | None:
        """Logits of the token that comes next where answers have begun.

        Args:
            images: B pictures.
            queries: Query i goes with image i.
            beginnings: What answers have begun with, in tokens; () for nothing yet.

        Returns:
            (beginnings, B, vocabulary); None if these prompts cannot be read in pieces.
        """
        with self._turn():
            batch, cache = self._prompts(images, queries)
            if cache is None:
                return None
            logits = []
            for tokens in beginnings:
                ids = torch.tensor(tokens, dtype=torch.long, device=self.vlm.device).expand(len(queries), -1)
                logits.append(next_logits(self.vlm, with_tokens(self.vlm, batch, ids), copied(cache)))
            return torch.stack(logits)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Within this block no other thread uses the model; if it fails, the memory is free again."""
        try:
            with in_turn(bare(self.vlm.model)):
                yield
        except (MemoryError, RuntimeError):
            self.known.clear()
            raise

    def _prompts(self, images: Sequence[Image.Image], queries: Sequence[str]) -> tuple[Batch, DynamicCache | None]:
        """A batch of prompts, and keys and values of their first columns; None if they must be read whole."""
        key = tuple(map(digest, images))
        before, after = self._by_text(queries)
        read = self.known.get(key)
        if read and read.before == before:
            return self._continued(read, after), copied(read.cache)
        batch = prompt_batch(self.vlm, images, queries)
        if not (parted := _parted(self.vlm, batch)):
            return batch, None
        start, ends = parted
        if not read or not torch.equal(read.ids, start):  # where the query comes first, it is part of the start
            read = None
            self.known.clear()  # the latest only, and never two: memory
            cache = self._read(batch, start, images)
            read = self.known[key] = Read(start, cache, before if after == ends else None)
        return self._continued(read, ends), copied(read.cache)

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

    def _continued(self, read: Read, ends: Sequence[Sequence[int]]) -> Batch:
        """Prompts of which the beginning has been read, and these tokens follow."""
        width = max(map(len, ends))
        ids = torch.full((len(ends), width), self.vlm.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, end in enumerate(ends):  # padding comes between picture and query; positions skip it
            ids[row, width - len(end) :] = torch.tensor(end)
            mask[row, width - len(end) :] = 1
        return {
            "input_ids": torch.cat([read.ids, ids.to(read.ids.device)], dim=1),  # (B, P + width)
            "attention_mask": torch.cat([torch.ones_like(read.ids), mask.to(read.ids.device)], dim=1),
        }


def next_logits(vlm: VLM, batch: Batch, cache: DynamicCache) -> torch.Tensor:
    """Logits of the token that follows each of B prompts, as `generate` computes them: (B, vocabulary).

    Args:
        vlm: The model.
        batch: The prompts.
        cache: Keys and values of their first columns; more are added to it.
    """
    options = vlm.generation.options(vlm.model) | {"pad_token_id": vlm.tokenizer.pad_token_id}
    options |= {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with torch.inference_mode(), quiet():
        return vlm.model.generate(**batch, past_key_values=cache, **options).logits[0]


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
    by_shape = any(hasattr(module, "get_rope_index") for module in (network, getattr(network, "model", None)))
    columns = batch["input_ids"].shape  # (B, T)
    marked = any(value.shape[:2] == columns for name, value in batch.items() if name not in TEXT)  # by other tensors
    if set(layers) != {"full_attention"} or by_shape or marked:
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
