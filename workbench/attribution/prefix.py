"""One prompt about many pictures, read piece by piece so that nothing is read twice.

Variants of a prompt share most of their columns. The language model reads the text before the picture once,
each picture (and the text up to the query) once, each version of the query once, and each opening of an
answer from there. It keeps what it has read as keys and values. This module knows columns, embeddings and
caches; what a column means, and why its embedding should be blanked, is the caller's business. An
architecture that cannot read a prompt in pieces runs the whole model on every prompt and opening.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from workbench.models.pictures import copied
from workbench.models.vlm import VLM, Batch, bare, with_tokens

TOKENS = 4096  # at most, in one forward pass


class Prefix(NamedTuple):
    """D prompts that the language model has read as far as the query.

    Attributes:
        embedded: Embeddings of the whole prompts and of the tail, (D, T + tail, H).
        cache: Keys and values of all columns before the query.
    """

    embedded: torch.Tensor
    cache: DynamicCache


class SharedPrompt:
    """A prompt of T columns, read with many pictures and with parts of its query blanked.

    A part is a set of columns that are blanked together: other embeddings stand in, or they are masked.

    Args:
        vlm: The model.
        prompt: The prompt as a batch of one row, without padding.
        openings: Token ids of each opening of an answer.
        part_of: The part that each column belongs to, (T,); −1 for none. The query starts at the first part.
        stand_ins: Token ids of prompts whose embeddings stand in for blanked ones (T each). None for the
            unknown token or else the padding; empty if blanked columns are masked.

    Attributes:
        batch: The prompt followed by the tail, one row.
        tail: The longest opening without its last token. It shows how the architecture places what follows a
            prompt.
        shares: Whether the prompt can be read in pieces.
        rows: How many prompts fit into one forward pass.
    """

    def __init__(
        self,
        vlm: VLM,
        prompt: Batch,
        openings: Sequence[list[int]],
        part_of: torch.Tensor,
        stand_ins: Sequence[list[int]] | None = None,
    ) -> None:
        self.vlm = vlm
        self.openings = openings
        self.tail = max(openings, key=len)[:-1]
        self.part_of = torch.nn.functional.pad(part_of, (0, len(self.tail)), value=-1)  # (T + tail,)
        self.batch = with_tokens(vlm, prompt, torch.tensor([self.tail], device=vlm.device, dtype=torch.long))
        ids = self.batch["input_ids"][0].tolist()
        image_token = getattr(bare(vlm.model).config, "image_token_id", None)
        self.picture_start = ids.index(image_token) if image_token in ids else len(ids)
        self.query_start = int((part_of >= 0).nonzero()[0])
        self.end = len(part_of)
        self.rows = max(1, TOKENS // len(ids))
        self.masks = stand_ins == []
        self.blanks = self._blanks(stand_ins)
        with torch.no_grad():
            inputs = decoder_inputs(vlm, self.batch)
        ends = [self.picture_start, self.query_start, self.end]
        self.shares = ends == sorted(ends) and _can_share(vlm, inputs, ends)
        self._text = inputs["inputs_embeds"][:, : self.picture_start]  # before the picture, (1, columns, H)
        self._order = {name: inputs.get(name) for name in ("attention_mask", "position_ids")}  # the same for every row

    def repeated(self, rows: int) -> Batch:
        """`batch` with its row repeated."""
        return {name: tensor.repeat(rows, *[1] * (tensor.dim() - 1)) for name, tensor in self.batch.items()}

    def read(self, batch: Batch) -> Prefix | Batch:
        """Run vision tower and projector, and the language model as far as the query.

        Args:
            batch: D rows of `repeated`, each with a picture of its own.

        Returns:
            What `logprobs` continues from. If the prompt cannot be read in pieces, this is the batch, not yet
            read.
        """
        if not self.shares:
            return batch
        embedded = decoder_inputs(self.vlm, batch)["inputs_embeds"]  # (D, T + tail, H)
        text = _select(self._text_cache, torch.zeros(len(embedded), dtype=torch.long))
        _, cache = self._read(embedded[:, self.picture_start : self.query_start], self.picture_start, text)
        return Prefix(embedded, cache)

    def logprobs(self, prompts: Prefix | Batch, rows: torch.Tensor, weights: torch.Tensor) -> Iterator[torch.Tensor]:
        """Log-probabilities of the openings after N versions of the query, for each of the stand-ins.

        Args:
            prompts: What `read` returned for D prompts.
            rows: Which of the D prompts each version belongs to, (N,). If the prompt cannot be read in
                pieces, this must be 0 … D − 1.
            weights: How much of its embeddings each part keeps, from 0 (blanked) to 1, (N, parts).

        Yields:
            log p of each opening, in nats: (openings, N).
        """
        for blank in self.blanks:
            if isinstance(prompts, Prefix):
                yield torch.stack(list(self._logprobs_in_pieces(prompts, rows, weights, blank)))
            else:
                yield torch.stack(list(self._logprobs_of_whole(prompts, weights, blank)))

    def _logprobs_in_pieces(
        self, prefix: Prefix, rows: torch.Tensor, weights: torch.Tensor, blank: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Continue each picture's cache with its queries, and each query's cache with the openings.

        Args:
            prefix: D prompts.
            rows: Which of the D prompts each version of the query belongs to, (N,).
            weights: How much of its embeddings each part keeps, (N, parts).
            blank: One of `blanks`.

        Yields:
            log p of each opening, (N,).
        """
        query = self._blanked(prefix.embedded[rows, self.query_start : self.end], weights, self.query_start, blank)
        seen = self._seen(weights) if self.masks else None
        first, cache = self._read(query, self.query_start, _select(prefix.cache, rows), seen)  # (N, 1, vocabulary)
        for tokens in self.openings:
            logits = first
            if len(tokens) > 1:
                opening = self._embed(tokens[:-1]).expand(len(rows), -1, -1)
                further, _ = self._read(opening, self.end, copied(cache), seen)
                logits = torch.cat([first, further], dim=1)  # (N, tokens, vocabulary)
            yield _logprob(logits, tokens)

    def _logprobs_of_whole(self, batch: Batch, weights: torch.Tensor, blank: torch.Tensor) -> Iterator[torch.Tensor]:
        """Run the whole model once for each opening.

        Args:
            batch: N prompts with their tail.
            weights: How much of its embeddings each part keeps, (N, parts).
            blank: One of `blanks`.

        Yields:
            log p of each opening, (N,).
        """
        seen = self._seen(weights) if self.masks else None
        for tokens in self.openings:

            def change(inputs: dict[str, Any], tokens: list[int] = tokens) -> dict[str, Any]:
                embedded = self._blanked(inputs["inputs_embeds"], weights, 0, blank)
                embedded[:, self.end : self.end + len(tokens) - 1] = self._embed(tokens[:-1])
                mask = inputs.get("attention_mask")
                return inputs | {"inputs_embeds": embedded, "attention_mask": _hidden(mask, seen)}

            with _decoder_inputs_changed(self.vlm, change):
                logits = self.vlm.model(**batch, use_cache=False, logits_to_keep=len(self.tail) + 1).logits
            yield _logprob(logits[:, : len(tokens)], tokens)

    @functools.cached_property
    def _text_cache(self) -> DynamicCache:
        """Keys and values of the text before the picture, one row."""
        if not self.picture_start:
            return DynamicCache()
        with torch.no_grad():
            return self._read(self._text, 0, DynamicCache())[1]

    def _blanks(self, stand_ins: Sequence[list[int]] | None) -> list[torch.Tensor]:
        """The embeddings that replace blanked ones, for each way to do so: (1, H), or (T + tail, H)."""
        if stand_ins:
            return [self._embed([*tokens, *self.tail]) for tokens in stand_ins]
        tokenizer = self.vlm.tokenizer
        return [self._embed([tokenizer.pad_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id])]

    def _seen(self, weights: torch.Tensor) -> torch.Tensor:
        """Which columns can be attended to (N, T + tail), ones and zeros, from the parts kept (N, parts)."""
        return torch.nn.functional.pad((weights > 0.5).long(), (0, 1), value=1)[:, self.part_of]

    def _embed(self, tokens: Sequence[int]) -> torch.Tensor:
        """The embeddings of token ids: (tokens, H)."""
        with torch.no_grad():
            return self.vlm.model.get_input_embeddings()(torch.tensor(tokens, device=self.vlm.device, dtype=torch.long))

    def _blanked(self, embedded: torch.Tensor, weights: torch.Tensor, begin: int, blank: torch.Tensor) -> torch.Tensor:
        """Blank embeddings of the columns from `begin` on, unless these are masked instead.

        Args:
            embedded: (N, t, H).
            weights: How much of its embeddings each part keeps, (N, parts).
            begin: The first column of `embedded`.
            blank: One of `blanks`.

        Returns:
            The embeddings, mixed with those that stand in: (N, t, H).
        """
        if self.masks:
            return embedded
        end = begin + embedded.shape[1]
        weights = torch.nn.functional.pad(weights.float(), (0, 1), value=1.0)  # part −1, none, is kept whole
        of_column = weights[:, self.part_of[begin:end], None].to(embedded)  # (N, t, 1)
        return of_column * embedded + (1 - of_column) * (blank if len(blank) == 1 else blank[begin:end])

    def _read(
        self, embedded: torch.Tensor, begin: int, cache: DynamicCache, seen: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, DynamicCache]:
        """Read the columns from `begin` on.

        Args:
            embedded: Their embeddings, (N, t, H).
            begin: The first of these columns. From `end` on they belong to an opening.
            cache: Keys and values of all columns before.
            seen: Which columns can be attended to (N, T + tail); all if None.

        Returns:
            Logits of the last column (N, 1, vocabulary), or of every column of an opening (N, t, vocabulary);
            and the cache with these columns added.
        """
        columns = embedded.shape[1]
        order = _cut(self._order, begin, begin + columns, len(embedded))
        if seen is not None:
            order["attention_mask"] = _hidden(order.get("attention_mask"), seen[:, : begin + columns])
        output = self.vlm.model(
            inputs_embeds=embedded,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1 if begin < self.end else columns,
            **order,
        )
        return output.logits, output.past_key_values


def decoder_inputs(vlm: VLM, batch: Batch) -> dict[str, Any]:
    """Run a model up to its language model.

    Args:
        vlm: The model.
        batch: B prompts of T columns.

    Returns:
        What the model hands to its language model: inputs_embeds (B, T, H), attention_mask, position_ids …
    """

    class Reached(Exception):
        pass

    def stop(inputs: dict[str, Any]) -> dict[str, Any]:
        raise Reached(inputs)

    try:
        with _decoder_inputs_changed(vlm, stop):
            vlm.model(**batch, use_cache=False, logits_to_keep=1)
    except Reached as reached:
        return reached.args[0]
    raise AssertionError("the language model was not run")


@contextlib.contextmanager
def _decoder_inputs_changed(vlm: VLM, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    """Within this block, the language model gets what `change` makes of its keyword arguments."""
    thread = threading.get_ident()

    def hook(module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        if threading.get_ident() != thread:  # a notebook's cell may use the model while a widget does
            return None
        return args, change(kwargs)

    handle = bare(vlm.model).get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _can_share(vlm: VLM, inputs: dict[str, Any], ends: Sequence[int]) -> bool:
    """Whether a prompt can be read in pieces that end at these columns.

    False if layers take inputs other than embeddings, cache anything but keys and values, or attend to later
    pieces.
    """
    usual = {"inputs_embeds", "attention_mask", "position_ids", "cache_position"}
    if any(isinstance(value, torch.Tensor | list | tuple) for name, value in inputs.items() if name not in usual):
        return False
    layers = getattr(bare(vlm.model).config.get_text_config(), "layer_types", None) or ["full_attention"]
    if not set(layers) <= {"full_attention", "sliding_attention"}:
        return False
    mask = inputs.get("attention_mask")
    if isinstance(mask, dict):  # a mask (B, 1, T, T) for each kind of layer, or None
        return not any(each is None or _looks_ahead(each, ends) for each in mask.values())
    return mask is None or mask.dim() == 2  # causal; `_cut` knows no other way to hand over a mask


def _looks_ahead(mask: torch.Tensor, ends: Sequence[int]) -> bool:
    """Whether a column before one of the ends sees a column after it.

    Args:
        mask: Boolean, or added to attention scores, (B, 1, T, T).
        ends: Columns.
    """
    visible = mask if mask.dtype == torch.bool else mask == 0
    return any(bool(visible[..., :end, end:].any()) for end in ends)


def _hidden(mask: Any, seen: torch.Tensor | None) -> Any:
    """A mask in which some columns can be attended to by none.

    Args:
        mask: None, (N, T), (N, 1, t, T), or a dictionary of the latter for each kind of layer.
        seen: Which columns can be attended to, ones and zeros (N, T); None for all, which leaves the mask.
    """
    if seen is None:
        return mask
    if isinstance(mask, dict):
        return {name: _hidden(each, seen) for name, each in mask.items()}
    if mask is None:
        return seen
    if mask.dim() == 2:
        return mask * seen
    gone = seen[:, None, None, :] == 0
    return mask & ~gone if mask.dtype == torch.bool else mask.masked_fill(gone, torch.finfo(mask.dtype).min)


def _select(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """A copy of the rows with these indices, (N,)."""
    selected = copied(cache)
    selected.batch_select_indices(rows)
    return selected


def _cut(order: dict[str, Any], begin: int, end: int, rows: int) -> dict[str, Any]:
    """The attention mask and position ids of columns begin … end, for prompts without padding.

    Args:
        order: The model's attention_mask, a dictionary of masks (B, 1, T, T) or else causal, and its
            position_ids (B, T), or (axes, B, T) for axes of time, height and width, or None.
        begin: The first column.
        end: The column after the last.
        rows: How many rows to make.

    Returns:
        Keyword arguments of the model: masks (rows, 1, end − begin, end) and position_ids
        (…, rows, end − begin).
    """
    arguments: dict[str, Any] = {}
    mask, position = order["attention_mask"], order["position_ids"]
    if isinstance(mask, dict):
        arguments["attention_mask"] = {
            name: each[:1, :, begin:end, :end].expand(rows, -1, -1, -1) for name, each in mask.items()
        }
    if position is not None:
        row = position[..., :1, begin:end]
        arguments["position_ids"] = row.expand(*row.shape[:-2], rows, -1)
    return arguments


def _logprob(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Score a sequence of tokens, in float64.

    Args:
        logits: From which each token is predicted, (N, tokens, vocabulary).
        tokens: Token ids.

    Returns:
        log p, in nats: (N,).
    """
    ids = torch.tensor(tokens, device=logits.device).expand(len(logits), -1)[..., None]  # (N, tokens, 1)
    return logits.double().log_softmax(-1).gather(-1, ids).sum(dim=(1, 2))
