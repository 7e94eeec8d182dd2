"""How much of a refusal is due to the lead word: by attribution, by swapping it, and over all lead words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from workbench.attacks.one_word import parse, rewrites
from workbench.attribution.baselines import UNKNOWN, baseline_of
from workbench.attribution.methods import attribute
from workbench.attribution.target import REFUSAL, Target
from workbench.attribution.values import batch_rows, target_values
from workbench.data.example import Example
from workbench.data.miniguard import LEADS
from workbench.intervals import cluster_bootstrap
from workbench.models.pictures import ReadPictures
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
    baseline: str = UNKNOWN,
    progress: bool = True,
) -> pd.DataFrame:
    """How much a target depends on the lead word of each query.

    Args:
        vlm: The model.
        examples: Their queries are rewritten to begin with `lead`.
        lead: The lead word under suspicion.
        other: The lead word that replaces it.
        target: The number to explain.
        method: As for `attribute`.
        grid: As for `attribute`.
        baseline: A name in baselines.NAMES; words are resampled from the examples' own queries.
        progress: Whether to show a progress bar.

    Returns:
        A row for each query, with id, picture (a hash), query, value (of the target), blank (the target with
        everything taken away), share and swap. share: the part of the absolute attribution over all words and
        squares that falls on the lead word, in [0, 1]. swap: how much higher the target is than under the
        lead word `other`, in nats; this is the causal counterpart, in which no word is missing.

    Raises:
        UserError: As `attribute`, or a lead word is unusable.
    """
    swapped = lead_word_values(vlm, examples, [other], target, progress=False)[other]
    rows, pool = [], [rewrites(e.query, lead)[0] for e in examples] + [rewrites(e.query, other)[0] for e in examples]
    for example, value in zip(bar(examples, f"reliance of {vlm.name}", progress), swapped, strict=True):
        query = rewrites(example.query, lead)[0]
        instead = baseline_of(baseline, vlm, query, pool)
        attribution = attribute(vlm, example.picture(), query, target, method, grid, baseline=instead)
        swap = attribution.value - value
        absolute = np.abs(attribution.flat)
        share = absolute[0] / absolute.sum() if absolute.any() else 0.0  # a target that never moves relies on nothing
        rows.append((example.id, example.digest, query, attribution.value, attribution.baseline, share, swap))
    return pd.DataFrame(rows, columns=["id", "picture", "query", "value", "blank", "share", "swap"])


def reliance_table(reliances: Mapping[str, pd.DataFrame], seed: int = 0) -> pd.DataFrame:
    """Summarise the reliance of several models.

    Args:
        reliances: What `reliance` returned, by the model's name.
        seed: Of the bootstrap.

    Returns:
        Columns model, measure (share, swap), value (the mean), ci_low, ci_high, n (queries). The 95%
        intervals are bootstrapped over pictures, since queries about the same picture are not independent.
    """
    rows = [
        (model, measure, table[measure].mean(), *cluster_bootstrap(table[measure], table.picture, seed), len(table))
        for model, table in reliances.items()
        for measure in ("share", "swap")
    ]
    return pd.DataFrame(rows, columns=["model", "measure", "value", "ci_low", "ci_high", "n"])


def word_effects(
    vlm: VLM, examples: Sequence[Example], words: Sequence[str] = tuple(LEADS), progress: bool = True
) -> pd.DataFrame:
    """How much each lead word raises the log-odds of a refusal, query by query.

    Args:
        vlm: The model.
        examples: Whose queries are asked, as they are and with each lead word.
        words: The lead words.
        progress: Whether to show a progress bar.

    Returns:
        A row for each query and word, with word, queries (harmful, harmless), effect (compared with the query
        as it is, in nats), log_odds (under the word, in nats), picture (a hash).

    Raises:
        UserError: A word cannot be a lead word.
    """
    words = list(dict.fromkeys(parse(word)[0] for word in words))
    log_odds = lead_word_values(vlm, examples, ["none", *words], progress=progress)
    rows = [
        (word, example.kind, log_odds[word][place] - log_odds["none"][place], log_odds[word][place], example.digest)
        for place, example in enumerate(examples)
        for word in words
    ]
    return pd.DataFrame(rows, columns=["word", "queries", "effect", "log_odds", "picture"])


def lead_word_values(
    vlm: VLM, examples: Sequence[Example], words: Sequence[str], target: Target = REFUSAL, progress: bool = True
) -> dict[str, list[float]]:
    """The target under each lead word, {word: a value for each example}. Each picture is read once."""
    values: dict[str, list[float]] = {word: [] for word in words}
    if not examples:
        return values
    size = batch_rows(vlm, examples[0].picture(), examples[0].query)
    with bar(desc=f"words for {vlm.name}", show=progress, total=len(examples)) as progress_bar:
        for start in range(0, len(examples), size):
            chunk, read = examples[start : start + size], ReadPictures(vlm)
            pictures = [example.picture() for example in chunk]
            for word in words:
                queries = [rewrites(example.query, word)[0] for example in chunk]
                values[word] += target_values(read, pictures, queries, target)
            progress_bar.update(len(chunk))
    return values


def word_search(
    vlm: VLM, examples: Sequence[Example], words: Sequence[str] = tuple(LEADS), seed: int = 0, progress: bool = True
) -> pd.DataFrame:
    """Rank lead words by their causal effect on the log-odds of a refusal (`word_effects`).

    On harmful queries the lowest is the best jailbreak; on harmless ones the highest is the worst
    over-refusal.

    Args:
        vlm: The model.
        examples: Whose queries are asked.
        words: The lead words.
        seed: Of the bootstrap.
        progress: Whether to show a progress bar.

    Returns:
        Columns word, queries (harmful, harmless), effect (mean), ci_low, ci_high (95%, bootstrapped over
        pictures), log_odds (mean, under the word), n. Harmful queries come first, each kind from the lowest
        effect to the highest.

    Raises:
        UserError: A word cannot be a lead word.
    """
    effects = word_effects(vlm, examples, words, progress)
    rows = []
    for (word, queries), group in effects.groupby(["word", "queries"], sort=False):
        low, high = cluster_bootstrap(group.effect, group.picture, seed)
        rows.append((word, queries, group.effect.mean(), low, high, group.log_odds.mean(), len(group)))
    columns = ["word", "queries", "effect", "ci_low", "ci_high", "log_odds", "n"]
    return pd.DataFrame(rows, columns=columns).sort_values(["queries", "effect"], ignore_index=True)


def predicted(effects: pd.DataFrame, words: pd.DataFrame) -> pd.DataFrame:
    """Add to `word_search`'s table what the training data said of each word.

    Args:
        effects: What `word_search` returned.
        words: `audit`'s table of the training data.

    Returns:
        The table with a column p_harmful, which is NaN for a word that begins none of the training queries.
    """
    return effects.assign(p_harmful=effects.word.map(words.set_index("word").p_harmful))
