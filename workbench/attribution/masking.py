"""A target as a function of which words of a query and which squares of its picture are there, for many such prompts at once.

A feature is a whole word, or a square of the picture as a person sees it; so tiles, crops and pixel shuffles of an architecture need no
map of their own. A word that is taken away becomes the tokenizer's unknown word (or its padding), a square the picture's mean colour: the
length of the prompt never changes, and what prompts share is run once: the text before the picture, each picture, all before an opening.
"""

from __future__ import annotations

import copy
import functools
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache

from workbench.data.example import MAX_PIXELS
from workbench.errors import UserError
from workbench.models.vlm import VLM, Batch, bare, features_kept, plain, prompt, prompt_batch, values_after_prompt

TOKENS = 4096  # at most, in one forward pass
# how refusals begin, in MiniGuard's words and in those of real models; some of these begin an answer with a space
_REFUSALS = (
    "sorry",
    "Sorry",
    "I'm sorry",
    "I am sorry",
    "I apologize",
    "I cannot",
    "I can't",
    "I'm unable",
    "Unfortunately",
)
REFUSALS = tuple(space + opening for opening in _REFUSALS for space in ("", " "))


@dataclass(frozen=True)
class Target:
    """A number that is explained: log p, with p the probability that the answer begins with one of `openings`; or, with `odds`, its logit
    log p − log(1 − p). Openings that the tokenizer has no tokens for are left out.

    The logit of refusal is used, and not refusal against compliance: how a compliant answer opens may itself depend on the lead word.
    """

    openings: tuple[str, ...] = REFUSALS
    odds: bool = True


REFUSAL = Target()


def answer_target(text: str) -> Target:
    """log p of an answer, from its first word to the last of `text`."""
    return Target((text,), odds=False)


class _Seen(NamedTuple):
    """Prompts with D pictures that the language model has read as far as the query's first word; or the batch alone, where it cannot."""

    batch: Batch
    embedded: torch.Tensor | None = None  # the prompts and a tail, (D, T + tail, H)
    order: dict[str, Any] | None = (
        None  # attention_mask and position_ids as the architecture makes them, the same for every row
    )
    cache: DynamicCache | None = None


@dataclass
class Perturbed:
    """A target as a function of which features are there: a call takes (N, F) of ones and zeros, words first, and returns (N,).

    grid: squares along each side of the picture.
    Raises UserError for a query without words, a picture too small for the grid or too large, a model whose prompt has no place for a
    picture, or openings that the tokenizer cannot express.
    """

    vlm: VLM
    image: Image.Image
    query: str
    target: Target = REFUSAL
    grid: int = 6
    words: list[str] = field(init=False)
    known: dict[bytes, float] = field(init=False, default_factory=dict, repr=False)
    _text: DynamicCache | None = field(init=False, default=None, repr=False)

    def __post_init__(self):
        self.query = plain(self.vlm, self.query).strip()  # as templates do
        spans = [match.span() for match in re.finditer(r"\S+", self.query)]
        if not spans:
            raise UserError("The query has no words to attribute to; write one.")
        width, height = self.image.size
        if width * height > MAX_PIXELS:
            raise UserError(
                f"A picture of {width} × {height} pixels is too large; scale it below {MAX_PIXELS // 10**6} million pixels."
            )
        if min(width, height) < self.grid:
            raise UserError(
                f"A picture of {width} × {height} pixels has no {self.grid} × {self.grid} squares; take a larger one."
            )
        self.words = [self.query[start:end] for start, end in spans]
        self.features = len(spans) + self.grid**2
        self.openings = opening_tokens(self.vlm, self.target.openings)
        self.tail = max(self.openings, key=len)[
            :-1
        ]  # stands behind the prompt, to see how the architecture places what follows
        self.word_of = torch.tensor(_words_of_tokens(self.vlm, self.image, self.query, spans))  # (T,), −1 outside
        self.pixels = np.asarray(self.image.convert("RGB"))
        rows, columns = np.arange(height) * self.grid // height, np.arange(width) * self.grid // width
        self.square_of = rows[:, None] * self.grid + columns  # (height, width)
        ids, token = self._whole["input_ids"][0].tolist(), getattr(bare(self.vlm.model).config, "image_token_id", None)
        self.first_picture = ids.index(token) if token in ids else len(ids)
        self.first_word = int((self.word_of >= 0).nonzero()[0])
        self.rows = max(1, min(TOKENS // len(ids), MAX_PIXELS // (width * height)))
        with torch.no_grad():
            made = decoder_inputs(self.vlm, self._whole)
        ends = [self.first_picture, self.first_word, len(self.word_of)]  # of what is read piece by piece
        self.shares = ends == sorted(ends) and _can_share(self.vlm, made, ends)

    def __call__(self, there: torch.Tensor) -> torch.Tensor:
        rows = [row.numpy().tobytes() for row in there > 0.5]
        new = list(
            {row: i for i, row in enumerate(rows) if row not in self.known}.values()
        )  # methods and measures ask the same again
        if new:
            self.known |= zip([rows[i] for i in new], self._values(there[new] > 0.5).tolist(), strict=True)
        return torch.tensor([self.known[row] for row in rows])

    @property
    def value(self) -> float:
        """The target of the prompt as it is."""
        return self(torch.ones(1, self.features)).item()

    def _values(self, there: torch.Tensor) -> torch.Tensor:
        words, squares = there.split([len(self.words), self.grid**2], dim=1)
        shown, which = squares.unique(dim=0, return_inverse=True)  # rows that differ in words alone share a picture
        if not self.shares:
            shown, which = squares, torch.arange(len(there))
        found = torch.empty(len(there), dtype=torch.float64)
        with torch.no_grad():
            for some in torch.arange(len(shown)).split(self.rows):
                pictures = [self._picture(row) for row in shown[some].numpy()]
                batch = self._batch(pictures)
                with features_kept(self.vlm, batch, pictures):
                    seen = self._see(batch)
                    for rows in torch.isin(which, some).nonzero()[:, 0].split(self.rows):
                        found[rows] = self._scores(seen, which[rows] - some[0], words[rows]).cpu()
        return found

    def soft(self, there: torch.Tensor) -> torch.Tensor:
        """The same for numbers between 0 and 1, differentiable: word embeddings and pixels lie between blank (0) and what they are (1)."""
        words, squares = there.split([len(self.words), self.grid**2], dim=1)
        blank, steps = self._squares  # (1, numbers), (squares, numbers)
        batch = self._repeated(len(there))
        mixed = squares.to(steps) @ steps + blank
        batch["pixel_values"] = mixed.reshape(batch["pixel_values"].shape)
        return self._scores(self._see(batch), torch.arange(len(there)), words).to(there)

    def _picture(self, there: np.ndarray) -> Image.Image:
        mean = self.pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
        return Image.fromarray(np.where(there[self.square_of][..., None], self.pixels, mean))

    @functools.cached_property
    def _whole(self) -> Batch:
        """The prompt with the tail behind it, one row."""
        batch = prompt_batch(self.vlm, [self.image], [self.query])
        tail, tokens = torch.tensor([self.tail], device=self.vlm.device, dtype=torch.long), batch["input_ids"].shape
        for name, tensor in batch.items():
            if tensor.shape == tokens:  # ids, mask, and whatever else counts one value a token
                batch[name] = torch.cat([tensor, values_after_prompt(self.vlm, name, tail).to(tensor.dtype)], dim=1)
        return batch

    def _batch(self, pictures: Sequence[Image.Image]) -> Batch:
        """The same with each of these pictures; their size is the same, so all else is."""
        seen = self.vlm.processor.image_processor([[picture] for picture in pictures], return_tensors="pt")
        return self._repeated(len(pictures)) | {
            "pixel_values": seen["pixel_values"].to(self.vlm.device, self.vlm.model.dtype)
        }

    def _repeated(self, rows: int) -> Batch:
        return {name: tensor.repeat(rows, *[1] * (tensor.dim() - 1)) for name, tensor in self._whole.items()}

    @functools.cached_property
    def _squares(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The processed picture without any square, and what each square adds to it: processing a picture is linear."""
        n = self.grid**2
        kept = np.concatenate([~np.eye(n, dtype=bool), np.ones((1, n), dtype=bool), np.zeros((1, n), dtype=bool)])
        pictures = [self._picture(row) for row in kept]  # without each, whole, without all
        each = self._batch(pictures)["pixel_values"].reshape(
            len(pictures), -1
        )  # whatever tiles and patches make up one picture
        return each[-1:], each[-2] - each[:-2]

    @functools.cached_property
    def _nothing(self) -> torch.Tensor:
        """The embedding of what stands for a word that is taken away: (H,)."""
        tokenizer = self.vlm.processor.tokenizer
        return self._embed([tokenizer.pad_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id])[0]

    def _embed(self, tokens: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            return self.vlm.model.get_input_embeddings()(
                torch.tensor(tokens, device=self.vlm.device, dtype=torch.long)
            )  # (tokens, H)

    def _see(self, batch: Batch) -> _Seen:
        """Run vision tower and projector, and the language model from the picture to the first word."""
        if not self.shares:
            return _Seen(batch)
        made = decoder_inputs(self.vlm, batch)
        seen = _Seen(
            batch,
            made["inputs_embeds"],
            {name: made.get(name) for name in ("attention_mask", "position_ids")},
            DynamicCache(),
        )
        cache = _select(self._before(seen), torch.zeros(len(seen.embedded), dtype=torch.long))
        between = seen.embedded[:, self.first_picture : self.first_word]
        return seen._replace(cache=self._read(seen, between, self.first_picture, cache)[1])

    def _before(self, seen: _Seen) -> DynamicCache:
        """What the language model makes of the text before the picture, of one row."""
        if self._text is None:
            text = seen.embedded[:1, : self.first_picture].detach()
            with torch.no_grad():
                self._text = self._read(seen, text, 0, seen.cache)[1] if self.first_picture else seen.cache
        return self._text

    def _scores(self, seen: _Seen, which: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """The target of rows: the picture of each, and which words are there (N, W) → (N,)."""
        logprobs = torch.stack(
            list((self._shared if self.shares else self._unshared)(seen, which, words))
        )  # (openings, N)
        pooled = logprobs.logsumexp(dim=0)
        return pooled - torch.log(-torch.expm1(pooled.clamp(max=-1e-15))) if self.target.odds else pooled

    def _shared(self, seen: _Seen, which: torch.Tensor, words: torch.Tensor) -> Iterator[torch.Tensor]:
        """log p of each opening: (N,) each. Rows go on from the cache of their picture, openings from that of their row."""
        end = len(self.word_of)
        query = self._without(seen.embedded[which, self.first_word : end], words, self.first_word)
        logits, cache = self._read(seen, query, self.first_word, _select(seen.cache, which))
        for tokens in self.openings:
            said = logits[:, -1:]  # (N, tokens, vocabulary)
            if len(tokens) > 1:
                begun = self._embed(tokens[:-1]).expand(len(which), -1, -1)
                said = torch.cat([said, self._read(seen, begun, end, _select(cache))[0]], dim=1)
            yield _logprob(said, tokens)

    def _unshared(self, seen: _Seen, which: torch.Tensor, words: torch.Tensor) -> Iterator[torch.Tensor]:
        """The same, one run of the whole model an opening, for those whose language model is given more than embeddings."""
        mine = threading.get_ident()
        for tokens in self.openings:

            def change(module, args, kwargs, tokens=tokens):
                if threading.get_ident() != mine:
                    return None
                embedded = self._without(kwargs["inputs_embeds"], words, 0)
                begun = slice(len(self.word_of), len(self.word_of) + len(tokens) - 1)
                embedded[:, begun] = self._embed(tokens[:-1])
                return args, kwargs | {"inputs_embeds": embedded}

            hook = bare(self.vlm.model).get_decoder().register_forward_pre_hook(change, with_kwargs=True)
            try:
                logits = self.vlm.model(**seen.batch, use_cache=False, logits_to_keep=len(self.tail) + 1).logits
            finally:
                hook.remove()
            yield _logprob(logits[:, : len(tokens)], tokens)

    def _without(self, embedded: torch.Tensor, words: torch.Tensor, begin: int) -> torch.Tensor:
        """Embeddings (N, t, H) from column `begin` on, with the words (N, W) that are not there made blank."""
        of_word = torch.nn.functional.pad(self.word_of, (0, len(self.tail)), value=-1)[
            begin : begin + embedded.shape[1]
        ]
        kept = torch.where(of_word >= 0, words[:, of_word.clamp(min=0)].to(torch.float32), 1.0)[..., None].to(embedded)
        return kept * embedded + (1 - kept) * self._nothing

    def _read(
        self, seen: _Seen, embedded: torch.Tensor, begin: int, cache: DynamicCache
    ) -> tuple[torch.Tensor, DynamicCache]:
        """Read embeddings (N, t, H) from column `begin` on: logits of the last column, or of all behind the prompt, and the grown cache."""
        output = self.vlm.model(
            inputs_embeds=embedded,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1 if begin < len(self.word_of) else embedded.shape[1],
            **_columns(seen.order, begin, begin + embedded.shape[1], len(embedded)),
        )
        return output.logits, output.past_key_values


def decoder_inputs(vlm: VLM, batch: Batch) -> dict[str, Any]:
    """What a model hands to its language model, which is not run: inputs_embeds (B, T, H), attention_mask, position_ids …"""

    class Reached(Exception):
        pass

    mine = threading.get_ident()

    def stop(module, args, kwargs):
        if threading.get_ident() == mine:  # a notebook's cell may use the model while a widget does
            raise Reached(kwargs)

    hook = bare(vlm.model).get_decoder().register_forward_pre_hook(stop, with_kwargs=True)
    try:
        vlm.model(**batch, use_cache=False, logits_to_keep=1)
    except Reached as reached:
        return reached.args[0]
    finally:
        hook.remove()
    raise AssertionError("the language model was not run")


def _can_share(vlm: VLM, made: dict[str, Any], ends: Sequence[int]) -> bool:
    """Can a prompt be read in pieces that end at these columns?

    Not where layers are given more than embeddings, keep other than keys and values, or where a piece looks at what comes after it.
    """
    known = {"inputs_embeds", "attention_mask", "position_ids", "cache_position"}
    beside = [
        name for name, value in made.items() if name not in known and isinstance(value, torch.Tensor | list | tuple)
    ]
    layers = getattr(bare(vlm.model).config.get_text_config(), "layer_types", None) or ["full_attention"]
    mask = made.get("attention_mask")
    masks = (
        list(mask.values()) if isinstance(mask, dict) else [] if mask is None or mask.dim() == 2 else [None]
    )  # (B, 1, T, T) each
    behind = any(m is None or _seen_by(m)[..., :end, end:].any() for m in masks for end in ends)
    return not (beside or behind) and set(layers) <= {"full_attention", "sliding_attention"}


def _seen_by(mask: torch.Tensor) -> torch.Tensor:
    """Which columns a row sees: of a mask of truth values as it is, of one that is added where it adds nothing."""
    return mask if mask.dtype == torch.bool else mask == 0


def _select(cache: DynamicCache, rows: torch.Tensor | slice = slice(None)) -> DynamicCache:
    """A cache of these rows; the one that is given stays as it is when this one grows."""
    taken = copy.copy(cache)
    taken.layers = [copy.copy(layer) for layer in cache.layers]
    taken.batch_select_indices(rows)
    return taken


def _columns(order: dict[str, Any], begin: int, end: int, rows: int) -> dict[str, Any]:
    """The attention mask and position ids of columns begin … end of prompts that are not padded."""

    def cut(mask):  # (B, 1, T, T), where the architecture has made one
        return mask[:1, :, begin:end, :end].expand(rows, -1, -1, -1)

    mask, position = order["attention_mask"], order["position_ids"]
    masks = {"attention_mask": {name: cut(one) for name, one in mask.items()}} if isinstance(mask, dict) else {}
    if position is None:
        return masks
    row = position[..., :1, begin:end]  # (B, T), or one such for each of the axes of time, height and width
    return masks | {"position_ids": row.expand(*row.shape[:-2], rows, -1)}


def _logprob(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """log p of tokens, each from the logits before it (N, tokens, vocabulary): (N,)."""
    wanted = torch.tensor(tokens, device=logits.device).expand(len(logits), -1)[..., None]
    return logits.double().log_softmax(-1).gather(-1, wanted).sum(dim=(1, 2))


def _words_of_tokens(vlm: VLM, image: Image.Image, query: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The word that each token of the prompt belongs to, −1 where none.

    The processor writes a picture's tokens into the text before it is tokenized, so the query is found by its distance from the end.
    """
    text = prompt(vlm, query)
    inside = vlm.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    offsets = prompt_batch(vlm, [image], [query], return_offsets_mapping=True)["offset_mapping"][0].tolist()
    shift = max(end for _, end in offsets) - max(end for _, end in inside)  # what the picture's tokens add
    begin = text.rindex(query) + shift
    found = []
    for start, end in offsets:
        owners = [w for w, (a, b) in enumerate(spans) if start < begin + b and end > begin + a]
        found.append(owners[0] if owners else -1)
    return found


def opening_tokens(vlm: VLM, openings: Sequence[str]) -> list[list[int]]:
    """The token ids of each opening that the tokenizer can express; none is the beginning of another, so that they exclude one another.

    Raises UserError where it can express none.
    """
    tokenizer, found = vlm.processor.tokenizer, []
    for opening in openings:
        ids = tokenizer(opening, add_special_tokens=False)["input_ids"]
        if ids and tokenizer.unk_token_id not in ids and ids not in found:
            found.append(ids)
    if not found:
        raise UserError(
            f"The tokenizer cannot express {', '.join(map(repr, openings))}; give openings in the model's own words."
        )
    return [ids for ids in found if not any(ids != other and ids[: len(other)] == other for other in found)]
