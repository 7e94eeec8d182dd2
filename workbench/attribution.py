"""Why did it refuse? Captum's methods over the words of a query and the patches of its picture, of any VLM.

A feature is a whole word, or a square of the picture as a person sees it; so tiles, crops and pixel shuffles of an architecture need no
map of their own. A word that is taken away becomes the tokenizer's unknown word (or its padding), a square the picture's mean colour: the
length of the prompt never changes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import captum.attr
import numpy as np
import torch
from PIL import Image

from .errors import UserError
from .models import VLM, Batch, plain, prompt, prompt_batch

BATCH = 64  # perturbed prompts in one forward pass
# how refusals begin, in MiniGuard's words and in those of real models
REFUSALS = ("sorry", "Sorry", "I'm sorry", "I am sorry", "I cannot", "I can't", "I'm unable", "Unfortunately")


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


class Attribution(NamedTuple):
    """What each feature adds to the target: words (W,), patches (rows, columns); value: f(x); baseline: f with everything taken away."""

    query: list[str]
    words: np.ndarray
    patches: np.ndarray
    value: float
    baseline: float
    method: str

    def minus(self, other: Attribution) -> Attribution:
        """The attribution of the difference between two models' targets, for the same picture and query."""
        return self._replace(
            words=self.words - other.words,
            patches=self.patches - other.patches,
            value=self.value - other.value,
            baseline=self.baseline - other.baseline,
        )

    @property
    def gap(self) -> float:
        """How far the attributions' sum is from f(x) − f(baseline): 0 for a complete method."""
        return float(self.words.sum() + self.patches.sum()) - (self.value - self.baseline)


def _gradients(method: type, **options) -> Callable:
    """A method of Captum that needs gradients, on the softened target."""
    return lambda f, x: method(f.soft).attribute(x.requires_grad_(), **options).detach()


# name → what runs it: (Perturbed, ones (1, F)) → attributions (1, F)
METHODS: dict[str, Callable] = {
    "ablation": lambda f, x: captum.attr.FeatureAblation(f).attribute(x, perturbations_per_eval=BATCH),
    "shapley": lambda f, x: captum.attr.ShapleyValueSampling(f).attribute(x, n_samples=25, perturbations_per_eval=BATCH),
    "integrated-gradients": _gradients(captum.attr.IntegratedGradients, n_steps=64, internal_batch_size=BATCH),
    "gradient-x-input": _gradients(captum.attr.InputXGradient),
}


def attribute(
    vlm: VLM, image: Image.Image, query: str, target: Target = REFUSAL, method: str = "ablation", grid: int = 6, seed: int = 0
) -> Attribution:
    """Attribute a target to the words of a query and the squares of its picture.

    method: "ablation", what is lost when a feature alone is taken away; "shapley", the mean of that over random orders;
    "integrated-gradients", along the straight line from everything blank (in the space of word embeddings and pixels);
    "gradient-x-input", the first step of that line back from the prompt. shapley and integrated-gradients sum to f(x) − f(baseline).
    grid: squares along each side of the picture. seed: of shapley's orders.
    Raises UserError for an unknown method, a query without words, or openings that the tokenizer cannot express.
    """
    if method not in METHODS:
        raise UserError(f"There is no attribution method {method!r}; choose one of {', '.join(METHODS)}.")
    perturbed = Perturbed(vlm, image, query, target, grid)
    torch.manual_seed(seed)
    whole = torch.ones(1, perturbed.features)
    value, baseline = perturbed(torch.cat([whole, torch.zeros_like(whole)])).tolist()
    found = METHODS[method](perturbed, whole)[0].double().numpy()
    n = len(perturbed.words)
    return Attribution(perturbed.words, found[:n], found[n:].reshape(grid, grid), value, baseline, method)


@dataclass
class Perturbed:
    """A target as a function of which features are there: a call takes (N, F) of ones and zeros, words first, and returns (N,)."""

    vlm: VLM
    image: Image.Image
    query: str
    target: Target
    grid: int
    words: list[str] = field(init=False)

    def __post_init__(self):
        self.query = plain(self.vlm, self.query)
        spans = [match.span() for match in re.finditer(r"\S+", self.query)]
        if not spans:
            raise UserError("The query has no words to attribute to; write one.")
        if min(self.image.size) < self.grid:
            width, height = self.image.size
            raise UserError(f"A picture of {width} × {height} pixels has no {self.grid} × {self.grid} squares; take a larger one.")
        self.words = [self.query[start:end] for start, end in spans]
        self.features = len(spans) + self.grid**2
        self.word_of = torch.tensor(_words_of_tokens(self.vlm, self.image, self.query, spans))  # (T,), −1 outside
        self.openings = opening_tokens(self.vlm, self.target.openings)
        self.pixels = np.asarray(self.image.convert("RGB"))
        height, width = self.pixels.shape[:2]
        rows, columns = np.arange(height) * self.grid // height, np.arange(width) * self.grid // width
        self.square_of = rows[:, None] * self.grid + columns  # (height, width)

    def __call__(self, there: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            parts = [self._scores(chunk) for chunk in (there > 0.5).split(BATCH)]
        return torch.cat(parts).float().cpu()

    def soft(self, there: torch.Tensor) -> torch.Tensor:
        """The same for numbers between 0 and 1, differentiable: word embeddings and pixels lie between blank (0) and what they are (1)."""
        words, squares = there.to(self.vlm.device).split([len(self.words), self.grid**2], dim=1)
        batch = self._batch([self.image] * len(there))
        blank, steps = self._squares  # (1, numbers), (squares, numbers)
        mixed = squares.to(steps.dtype) @ steps + blank
        batch["pixel_values"] = mixed.reshape(batch["pixel_values"].shape)
        embedding, of_word = self.vlm.model.get_input_embeddings(), self.word_of.to(self.vlm.device)
        kept = torch.where(of_word >= 0, words[:, of_word.clamp(min=0)], 1.0)[..., None]  # (N, T, 1)

        def mix(module, args, embedded):  # openings behind the prompt stay as they are
            nothing = torch.nn.functional.embedding(torch.tensor(self.blank, device=embedded.device), module.weight)
            weight = torch.nn.functional.pad(kept, (0, 0, 0, embedded.shape[1] - kept.shape[1]), value=1.0).to(embedded.dtype)
            return weight * embedded + (1 - weight) * nothing

        hook = embedding.register_forward_hook(mix)
        try:
            return self._pooled(batch)
        finally:
            hook.remove()

    @functools.cached_property
    def blank(self) -> int:
        """The token that a word becomes which is taken away."""
        tokenizer = self.vlm.processor.tokenizer
        return tokenizer.pad_token_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id

    @functools.cached_property
    def _squares(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The processed picture without any square, and what each square adds to it: processing a picture is linear."""
        n = self.grid**2
        kept = np.concatenate([~np.eye(n, dtype=bool), np.ones((1, n), dtype=bool), np.zeros((1, n), dtype=bool)])
        pictures = [self._picture(row) for row in kept]  # without each, whole, without all
        each = self._batch(pictures)["pixel_values"].reshape(
            len(pictures), -1
        )  # whatever tiles and patches a processor makes of one picture
        return each[-1:], each[-2] - each[:-2]

    def _scores(self, there: torch.Tensor) -> torch.Tensor:
        words, squares = there[:, : len(self.words)], there[:, len(self.words) :].numpy()
        distinct, which = np.unique(squares, axis=0, return_inverse=True)  # rows that differ in words alone share a picture
        made = [self._picture(row) for row in distinct]
        batch = self._batch([made[i] for i in which])
        gone = (self.word_of >= 0) & ~words[:, self.word_of.clamp(min=0)]  # (N, T)
        batch["input_ids"] = batch["input_ids"].masked_fill(gone.to(self.vlm.device), self.blank)
        return self._pooled(batch)

    def _batch(self, pictures: Sequence[Image.Image]) -> Batch:
        """The query with each of these pictures; of equal length, so that nothing is padded."""
        return prompt_batch(self.vlm, pictures, [self.query] * len(pictures))

    def _pooled(self, batch: Batch) -> torch.Tensor:
        """The target of each row: (N,)."""
        pooled = torch.stack([_opening_logprob(self.vlm, batch, tokens) for tokens in self.openings]).logsumexp(dim=0)
        return pooled - torch.log(-torch.expm1(pooled.clamp(max=-1e-15))) if self.target.odds else pooled

    def _picture(self, there: np.ndarray) -> Image.Image:
        mean = self.pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
        return Image.fromarray(np.where(there[self.square_of][..., None], self.pixels, mean))


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
        raise UserError(f"The tokenizer cannot express {', '.join(map(repr, openings))}; give openings in the model's own words.")
    return [ids for ids in found if not any(ids != other and ids[: len(other)] == other for other in found)]


def _opening_logprob(vlm: VLM, batch: Batch, tokens: Sequence[int]) -> torch.Tensor:
    """log p that the answer begins with these tokens: (N,)."""
    rows, before = len(batch["input_ids"]), torch.tensor(tokens[:-1], device=vlm.device, dtype=torch.long)
    inputs = dict(batch)
    for name, tensor in batch.items():
        if tensor.shape == batch["input_ids"].shape:  # ids, mask, and whatever else counts one value a token
            value = before if name == "input_ids" else torch.full_like(before, int(name == "attention_mask"))
            inputs[name] = torch.cat([tensor, value.to(tensor.dtype).expand(rows, -1)], dim=1)
    logits = vlm.model(**inputs, use_cache=False, logits_to_keep=len(tokens)).logits.double()  # (N, tokens, vocabulary)
    wanted = torch.tensor(tokens, device=logits.device).expand(rows, -1)[..., None]
    return logits.log_softmax(-1).gather(-1, wanted).sum(dim=(1, 2))
