"""The lead word's part in a refusal: how much of it is attributed to the word, what swapping it does, and which word does most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from workbench.attacks.one_word import parse, rewrites
from workbench.attribution.masking import REFUSAL, Perturbed, Target
from workbench.attribution.methods import attribute
from workbench.data.example import Example
from workbench.data.miniguard import LEADS
from workbench.intervals import cluster_bootstrap
from workbench.models.vlm import VLM
from workbench.runs import bar


def reliance(
    vlm: VLM,
    examples: Sequence[Example],
    lead: str = "share",
    other: str = "what",
    target: Target = REFUSAL,
    method: str = "ablation",
    grid: int = 6,
    progress: bool = True,
) -> pd.DataFrame:
    """Each query is rewritten to begin with `lead`: a row each, with id, picture (a hash), query, value (of the target), share, swap.

    share: of the absolute attribution over all words and squares, what falls on the lead word, in [0, 1]. swap: how much higher the target
    is than under the lead word `other`, all else being equal (in nats): the causal counterpart, in which no word is missing.
    method, grid: as of `attribute`. Raises UserError as that does.
    """
    rows = []
    for example in bar(examples, f"reliance of {vlm.name}", progress):
        picture, query, swapped = example.picture(), *(rewrites(example.query, word)[0] for word in (lead, other))
        found = attribute(vlm, picture, query, target, method, grid)
        swap = found.value - Perturbed(vlm, picture, swapped, target, grid=1).value
        absolute = np.abs(found.flat)
        share = absolute[0] / absolute.sum() if absolute.any() else 0.0  # what does not move at all relies on nothing
        rows.append((example.id, example.digest, query, found.value, share, swap))
    return pd.DataFrame(rows, columns=["id", "picture", "query", "value", "share", "swap"])


def reliance_table(found: Mapping[str, pd.DataFrame], seed: int = 0) -> pd.DataFrame:
    """`reliance` of several models, by name: model, measure (share, swap), value (the mean), ci_low, ci_high, n (queries).

    The 95% intervals are bootstrapped over pictures, since queries about the same picture are not independent.
    """
    rows = [
        (model, measure, table[measure].mean(), *cluster_bootstrap(table[measure], table.picture, seed), len(table))
        for model, table in found.items()
        for measure in ("share", "swap")
    ]
    return pd.DataFrame(rows, columns=["model", "measure", "value", "ci_low", "ci_high", "n"])


def word_effects(
    vlm: VLM, examples: Sequence[Example], words: Sequence[str] = tuple(LEADS), progress: bool = True
) -> pd.DataFrame:
    """What every query gains in log-odds of a refusal, in nats, by beginning with each word, over the same query as asked: a row each, with
    word, queries (harmful, harmless), effect, log_odds (under the word), picture (a hash). Raises UserError for what is no lead word.
    """
    words = list(dict.fromkeys(parse(word)[0] for word in words))
    rows = []
    for example in bar(examples, f"words for {vlm.name}", progress):
        picture = example.picture()
        values = {w: Perturbed(vlm, picture, rewrites(example.query, w)[0], grid=1).value for w in ("none", *words)}
        rows += [(word, example.kind, values[word] - values["none"], values[word], example.digest) for word in words]
    return pd.DataFrame(rows, columns=["word", "queries", "effect", "log_odds", "picture"])


def word_search(
    vlm: VLM, examples: Sequence[Example], words: Sequence[str] = tuple(LEADS), seed: int = 0, progress: bool = True
) -> pd.DataFrame:
    """Rank lead words by their causal effect on the log-odds of a refusal (`word_effects`). On harmful queries the lowest is the best
    jailbreak, on harmless ones the highest the worst over-refusal.

    Returns word, queries (harmful, harmless), effect (mean), ci_low, ci_high (95%, bootstrapped over pictures), log_odds (mean, under the
    word), n; harmful queries first, each from the lowest effect to the highest. Raises UserError for what is no lead word.
    """
    each = word_effects(vlm, examples, words, progress)
    table = [
        (
            word,
            queries,
            found.effect.mean(),
            *cluster_bootstrap(found.effect, found.picture, seed),
            found.log_odds.mean(),
            len(found),
        )
        for (word, queries), found in each.groupby(["word", "queries"], sort=False)
    ]
    columns = ["word", "queries", "effect", "ci_low", "ci_high", "log_odds", "n"]
    return pd.DataFrame(table, columns=columns).sort_values(["queries", "effect"], ignore_index=True)


def predicted(effects: pd.DataFrame, words: pd.DataFrame) -> pd.DataFrame:
    """`word_search`'s table with what the training data said of each word: p_harmful, NaN of a word that begins none of their queries.

    words: `audit`'s table of the training data.
    """
    return effects.assign(p_harmful=effects.word.map(words.set_index("word").p_harmful))
