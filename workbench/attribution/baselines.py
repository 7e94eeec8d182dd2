"""What stands in place of a missing word. It decides what an attribution answers.

A feature's attribution compares the prompt with it and without it, so a map explains how far the prompt is
from one in which everything is missing. If that one is refused itself, the map of a refusal is about nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.attacks.one_word import rewrites
from workbench.errors import UserError

if TYPE_CHECKING:
    from workbench.models.vlm import VLM

UNKNOWN = "unknown"  # the tokenizer's unknown token, or its padding; models have never seen a query with it
MASKED = "masked"  # the word is there, but nothing after it can attend to it
RESAMPLED = "resampled"  # words of other queries stand in, see `resampled`
NAMES = (UNKNOWN, MASKED, RESAMPLED)
Baseline = str | Sequence[str]  # UNKNOWN, MASKED, or queries whose words stand in; targets are averaged over them


def baseline_of(name: str, vlm: VLM, query: str, pool: Iterable[str]) -> Baseline:
    """The baseline of a query by a name in NAMES.

    Args:
        name: In NAMES.
        vlm: As for `resampled`.
        query: As for `resampled`.
        pool: As for `resampled`.

    Raises:
        UserError: There is no such name, or as `resampled`.
    """
    if name not in NAMES:
        raise UserError(f"There is no baseline {name!r}; choose from {', '.join(NAMES)}.")
    return resampled(vlm, query, pool) if name == RESAMPLED else name


def other_lead(query: str, lead: str) -> list[str]:
    """The counterfactual that only the lead word differs: the query with another one, as a baseline.

    Args:
        query: The query that is explained.
        lead: The other lead word.

    Raises:
        UserError: The query cannot begin with that word.
    """
    return [rewrites(query, lead)[0]]


def resampled(vlm: VLM, query: str, pool: Iterable[str], count: int = 8, seed: int = 0) -> list[str]:
    """Queries of other words as a baseline: each word is one that stands in a like place in the pool.

    First words stand in for the first, last words for the last. They have as many tokens.

    Args:
        vlm: The model, whose tokenizer counts.
        query: The query that is explained.
        pool: Queries of the data, e.g. of the same split.
        count: How many queries to make.
        seed: Of the draws.

    Raises:
        UserError: The pool has no other word for one of the query's.
    """
    known: dict[tuple[str, int], list[str]] = defaultdict(list)
    for text in pool:
        for place, word, tokens in _placed(vlm, text):
            known[place, tokens].append(word)
    rng, choices = np.random.default_rng(seed), []
    for place, word, tokens in _placed(vlm, query):
        others = [other for other in known[place, tokens] if other != word]
        if not others:
            raise UserError(
                f"The data have no other {place} word of {tokens} tokens that could stand in for {word!r}; give more "
                "queries, or choose another baseline."
            )
        choices.append([others[i] for i in rng.integers(len(others), size=count)])
    return [" ".join(words) for words in zip(*choices, strict=True)]


def _placed(vlm: VLM, query: str) -> list[tuple[str, str, int]]:
    """Each word of a query with its place (first, middle, last) and its number of tokens."""
    from workbench.attribution.words import tokens_of_words  # imports torch, which command-line help must not

    words, counts = query.split(), tokens_of_words(vlm, query)
    places = ["first", *["middle"] * (len(words) - 2), "last"][: len(words)]
    return list(zip(places, words, counts, strict=True))
