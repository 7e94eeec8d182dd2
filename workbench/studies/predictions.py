"""Do first words predict the mirage? What a dataset says of each word, and what a model makes of it.

Six MiniGuard datasets differ in their first words alone, and a model is safety fine-tuned on each: a word
that opens one model closes another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from workbench.attribution.lead_word import word_effects
from workbench.data.first_words import audit, predicted_effect
from workbench.data.splits import miniguard_split
from workbench.intervals import cluster_bootstrap, resampled
from workbench.runs import log
from workbench.studies.methods import SFTS, trained


def predictions(seeds: Sequence[int] = (0,), queries: int = 30) -> pd.DataFrame:
    """Predicted and measured effects of each lead word on models trained with six first-word statistics.

    Models are kept as the study's are. Training one takes half a minute, asking it as long.

    Args:
        seeds: Of data and training.
        queries: Harmful, and as many harmless, validation queries to measure with.

    Returns:
        One row per dataset, seed and word: data, seed, word, p_harmful, said ("opens", "closes" or ""),
        predicted, effect, ci_low, ci_high, n. predicted: the word's log-odds of harm in the training data
        (`audit`), minus the mean over words. effect: how much the word raises the log-odds of a refusal,
        compared with all words equally often, with its 95% interval, bootstrapped over pictures. Both are in
        nats.
    """
    rows = []
    for seed in seeds:
        log.info("seed %s", seed)
        examples = miniguard_split("validation", seed, "balanced", (queries, queries))
        for name, method in SFTS.items():
            words = audit(miniguard_split("train", seed, method.data)).set_index("word").assign(said=predicted_effect)
            effects = word_effects(trained(name, seed), examples, list(words.index))
            for word, table in effects.groupby("word", sort=False):
                interval = cluster_bootstrap(table.effect, table.picture, seed)
                predicted = words.log_odds[word] - words.log_odds.mean()
                said = words.loc[word, ["p_harmful", "said"]]
                rows.append((method.data, seed, word, *said, predicted, table.effect.mean(), *interval, len(table)))
    columns = ["data", "seed", "word", "p_harmful", "said", "predicted", "effect", "ci_low", "ci_high", "n"]
    return pd.DataFrame(rows, columns=columns)


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ between predicted and measured effects.

    Args:
        table: From `predictions`.

    Returns:
        data ("all", then each dataset), rho, ci_low, ci_high, words, n (rows). The 95% intervals are
        bootstrapped over a dataset's words, each with all of its seeds.
    """
    rows = []
    for name, group in [("all", table), *table.groupby("data", sort=False)]:
        by_word = group.groupby(["data", "word"])[["predicted", "effect"]]
        words = [pair.to_numpy() for _, pair in by_word]  # (seeds, 2) each

        def rho(chosen: np.ndarray, words: list[np.ndarray] = words) -> float:
            result: Any = spearmanr(*np.concatenate([words[i] for i in chosen]).T)
            return result.statistic

        rows.append((name, rho(np.arange(len(words))), *resampled(rho, len(words)), len(words), len(group)))
    return pd.DataFrame(rows, columns=["data", "rho", "ci_low", "ci_high", "words", "n"])
