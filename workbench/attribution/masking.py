"""A target as a function of which words of a query and which squares of its picture are present.

A feature is a whole word, or a square of the picture as a person sees it, so an architecture's tiles, crops
and pixel shuffles need no map of their own. In place of a missing word stands what baselines.py says, and in
place of a missing square the picture's mean colour. The length of the prompt never changes, so prompts can
share what they have in common (prefix.py).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from workbench.attribution.baselines import MASKED, UNKNOWN, Baseline
from workbench.attribution.prefix import Prefix, SharedPrompt
from workbench.attribution.target import REFUSAL, Target, opening_tokens
from workbench.attribution.words import tokens_of_words, words_of_tokens
from workbench.data.pictures import MAX_PIXELS
from workbench.errors import UserError
from workbench.models.features import cached_features
from workbench.models.template import plain_text
from workbench.models.turns import in_turn
from workbench.models.vlm import VLM, Batch, bare, prompt_batch


class Perturbed:
    """A target as a function of F features: the words of the query, then the squares of the picture.

    Raises UserError if the query has no words, if the picture is too large or too small for the grid, if the
    model's prompt has no place for a picture, if the tokenizer cannot express the openings, or if the
    baseline does not fit the query or the model.

    Args:
        vlm: The model that is asked.
        image: The picture.
        query: The query.
        target: The number to explain.
        grid: Squares along each side of the picture.
        baseline: What stands in place of a missing word (baselines.py).

    Attributes:
        query: The query, without special tokens.
        words: Its words.
        features: F, the number of words and squares.
        openings: Token ids of each of the target's openings.
        word_of: The word that each of the prompt's T tokens belongs to, (T,); −1 for none.
        pixels: The picture's, (height, width, 3).
        square_of: The square that each pixel belongs to, (height, width).
        rows: How many prompts run in one forward pass.
        known: The values computed so far, by which features were present.
    """

    def __init__(
        self,
        vlm: VLM,
        image: Image.Image,
        query: str,
        target: Target = REFUSAL,
        grid: int = 6,
        baseline: Baseline = UNKNOWN,
    ) -> None:
        self.vlm, self.image, self.target, self.grid, self.baseline = vlm, image, target, grid, baseline
        self.query = plain_text(vlm.processor, query).strip()  # chat templates strip it too
        self.words = self.query.split()
        if not self.words:
            raise UserError("The query has no words to attribute to; write one.")
        _check_size(image, grid)
        self.features = len(self.words) + grid**2
        self.openings = opening_tokens(vlm, target.openings)
        self.word_of = torch.tensor(words_of_tokens(vlm, image, self.query))
        self.pixels = np.asarray(image.convert("RGB"))
        row_of, column_of = (np.arange(side) * grid // side for side in (image.height, image.width))
        self.square_of = row_of[:, None] * grid + column_of
        with in_turn(bare(vlm.model)):
            whole = prompt_batch(vlm, [image], [self.query])
            stand_ins = None if baseline == UNKNOWN else [] if baseline == MASKED else self._stand_ins(baseline)
            self.prompt = SharedPrompt(vlm, whole, self.openings, self.word_of, stand_ins)
        self.rows = max(1, min(self.prompt.rows, MAX_PIXELS // (image.width * image.height)))
        self.known: dict[bytes, float] = {}

    def _stand_ins(self, queries: Baseline) -> list[list[int]]:
        """The prompt's tokens with each of these queries in it. Raises UserError if its words do not fit."""
        if isinstance(queries, str):
            raise UserError(f"There is no baseline {queries!r}; choose {UNKNOWN} or {MASKED}, or give other queries.")
        own, tokens = tokens_of_words(self.vlm, self.query), []
        for text in (plain_text(self.vlm.processor, query).strip() for query in queries):
            if tokens_of_words(self.vlm, text) != own:
                raise UserError(
                    f"{text!r} cannot stand in for {self.query!r}: they must have as many words, and each word as many "
                    "tokens."
                )
            tokens.append(prompt_batch(self.vlm, [self.image], [text])["input_ids"][0].tolist())
        return tokens

    def __call__(self, present: torch.Tensor) -> torch.Tensor:
        """The target of N perturbed prompts; values that are already known are not computed again.

        Args:
            present: Which features are present, ones and zeros, (N, F).

        Returns:
            (N,).
        """
        present = present > 0.5
        keys = [row.numpy().tobytes() for row in present]
        new = {key: row for row, key in enumerate(keys) if key not in self.known}
        if new:
            self.known |= zip(new, self._values(present[list(new.values())]).tolist(), strict=True)
        return torch.tensor([self.known[key] for key in keys])

    @property
    def value(self) -> float:
        """The target of the unperturbed prompt."""
        return self(torch.ones(1, self.features)).item()

    def soft(self, present: torch.Tensor) -> torch.Tensor:
        """The same function for numbers between 0 and 1, differentiable.

        Word embeddings and pixels are mixed linearly from what stands in (0) and what they are (1).

        Args:
            present: How much of each feature is present, (N, F).

        Returns:
            (N,).
        """
        if self.prompt.masks:
            raise UserError("Words that are masked are there or not; choose another method, or another baseline.")
        words, squares = present.split([len(self.words), self.grid**2], dim=1)
        blank, steps = self._squares
        batch = self.prompt.repeated(len(present))
        mixed = squares.to(steps) @ steps + blank
        batch["pixel_values"] = mixed.reshape(batch["pixel_values"].shape)
        return self._target_values(self.prompt.read(batch), torch.arange(len(present)), words).to(present)

    def _values(self, present: torch.Tensor) -> torch.Tensor:
        """The target of prompts with these features (N, F), computed picture by picture: (N,)."""
        words, squares = present.split([len(self.words), self.grid**2], dim=1)
        if self.prompt.shares:  # rows that differ in words alone share a picture
            shown, picture_of = squares.unique(dim=0, return_inverse=True)
        else:
            shown, picture_of = squares, torch.arange(len(present))
        values = torch.empty(len(present), dtype=torch.float64)
        with torch.no_grad():
            for chunk in torch.arange(len(shown)).split(self.rows):
                pictures = [self._picture(row) for row in shown[chunk].numpy()]
                batch = self._batch(pictures)
                with cached_features(bare(self.vlm.model), batch, pictures, self.vlm.features):
                    prompts = self.prompt.read(batch)
                    for rows in torch.isin(picture_of, chunk).nonzero()[:, 0].split(self.rows):
                        of_chunk = picture_of[rows] - chunk[0]
                        values[rows] = self._target_values(prompts, of_chunk, words[rows]).cpu()
        return values

    def _target_values(self, prompts: Prefix | Batch, rows: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """The target of prompts that have been read, averaged over the queries that stand in.

        Args:
            prompts: D prompts, each with its picture.
            rows: Which of the D prompts each value is about, (N,).
            words: How much of each word is present, (N, W).

        Returns:
            (N,).
        """
        found = [self.target.of(log_p) for log_p in self.prompt.logprobs(prompts, rows, words)]
        return torch.stack(found).mean(dim=0)

    def _picture(self, present: np.ndarray) -> Image.Image:
        """The picture with these of its squares, (grid²,); the others have its mean colour."""
        mean = self.pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
        return Image.fromarray(np.where(present[self.square_of][..., None], self.pixels, mean))

    def _batch(self, pictures: Sequence[Image.Image]) -> Batch:
        """The prompt with each of these pictures; all have the same size, so nothing but pixels differs."""
        processed = self.vlm.processor.image_processor([[picture] for picture in pictures], return_tensors="pt")
        pixels = processed["pixel_values"].to(self.vlm.device, self.vlm.model.dtype)
        return self.prompt.repeated(len(pictures)) | {"pixel_values": pixels}

    @functools.cached_property
    def _squares(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The processed picture without any square, and what each square adds to it.

        Shapes are (1, values) and (grid², values). Processing is linear in the pixels, so any mixture of
        squares is a sum of these.
        """
        n = self.grid**2
        without_each, whole, without_all = ~np.eye(n, dtype=bool), np.ones((1, n), bool), np.zeros((1, n), bool)
        pictures = [self._picture(row) for row in np.concatenate([without_each, whole, without_all])]
        processed = self._batch(pictures)["pixel_values"]
        values = processed.reshape(len(pictures), -1)  # all tiles and patches of a picture in one row
        return values[-1:], values[-2] - values[:-2]


def _check_size(image: Image.Image, grid: int) -> None:
    """Raise UserError if a picture is too large, or too small for the grid."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise UserError(f"A picture of {width} × {height} pixels is too large; scale it below {limit} million pixels.")
    if min(width, height) < grid:
        raise UserError(f"A picture of {width} × {height} pixels has no {grid} × {grid} squares; take a larger one.")
