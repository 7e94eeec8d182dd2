"""Repair: the same safety data with lead words that tell nothing of harm (counterfactual rebalancing)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from workbench.attacks.kinds import rewrites
from workbench.data.first_words import first_word
from workbench.data.miniguard import LEADS
from workbench.data.readers import Example
from workbench.errors import UserError


def repair(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """The same pictures, questions and answers, every query rewritten to begin with a word drawn evenly, whatever its harm.

    The words are those that the data begin with and that a question can be rewritten to (miniguard.LEADS). Answers stay as they are.
    Raises UserError where the data begin with no such word.
    """
    words = sorted({first_word(e.query) for e in examples} & set(LEADS))
    if not words:
        raise UserError(f"No query begins with a word that others can be rewritten to ({', '.join(LEADS)}); these data cannot be repaired.")
    rng = np.random.default_rng(seed)
    drawn = {}  # each word equally often on harmful and on harmless queries, in random order
    for harmful in (True, False):
        count = sum(e.harmful == harmful for e in examples)
        drawn[harmful] = iter(rng.permutation(np.resize(words, count)))
    repaired = []
    for example in examples:
        ways = rewrites(example.query, f"{next(drawn[example.harmful])}:3")
        repaired.append(dataclasses.replace(example, query=ways[rng.integers(len(ways))]))
    return repaired
