"""Do first words predict the mirage? What a dataset says of each word, and what a model makes of it.

Six MiniGuard datasets differ in their first words alone, and a model is safety fine-tuned on each: a word
that opens one model closes another.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from workbench.attribution.lead_word import word_effects
from workbench.data.first_words import audit, predicted_effect
from workbench.data.splits import miniguard_split
from workbench.intervals import cluster_bootstrap, crossed_bootstrap
from workbench.runs import log
from workbench.studies.methods import SFTS, trained

COLUMNS = ["base", "data", "seed", "word", "p_harmful", "said", "predicted", "effect", "ci_low", "ci_high", "n"]


def predictions(seeds: Sequence[int] = (0,), bases: Sequence[str] = ("miniguard",), queries: int = 30) -> pd.DataFrame:
    """Predicted and measured effects of each lead word on models trained with six first-word statistics.

    The models stop when they look safe; they are kept as the study's are. Training one takes half a minute,
    asking it as long.

    Args:
        seeds: Of data and training.
        bases: Base models, as for `methods.trained`.
        queries: Harmful, and as many harmless, validation queries to measure with.

    Returns:
        One row per base, dataset, seed and word: base, data, seed, word, p_harmful, said ("opens", "closes"
        or ""), predicted, effect, ci_low, ci_high, n. predicted: the word's log-odds of harm in the training
        data (`audit`), minus the mean over words. effect: how much the word raises the log-odds of a refusal,
        compared with the mean of all words on the same query, with its 95% interval, bootstrapped over
        pictures. Both are in nats.
    """
    rows = []
    for base, seed in itertools.product(bases, seeds):
        log.info("base %s, seed %s", base, seed)
        examples = miniguard_split("validation", seed, "balanced", (queries, queries))
        for name, method in SFTS.items():
            words = audit(miniguard_split("train", seed, method.data)).set_index("word").assign(said=predicted_effect)
            effects = word_effects(trained(f"{name}-early", seed, base), examples, list(words.index))
            effects["effect"] = effects["log_odds"] - effects.groupby("picture")["log_odds"].transform("mean")
            for word, table in effects.groupby("word", sort=False):
                interval = cluster_bootstrap(table.effect, table.picture, seed)
                predicted = words.log_odds[word] - words.log_odds.mean()
                said = words.loc[word, ["p_harmful", "said"]]
                measured = (predicted, table.effect.mean(), *interval, len(table))
                rows.append((Path(base).name, method.data, seed, word, *said, *measured))
    return pd.DataFrame(rows, columns=COLUMNS)


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ between predicted and measured effects.

    Args:
        table: From `predictions`.

    Returns:
        data ("all", then each dataset), rho, ci_low, ci_high, datasets, words, n (rows). The 95% intervals
        are bootstrapped over datasets and words, both at once, each pair with all of its bases and seeds.
    """
    rows = []
    for name, group in [("all", table), *table.groupby("data", sort=False)]:
        datasets, words = list(group["data"].unique()), list(group["word"].unique())
        cells = {key: pair.to_numpy() for key, pair in group.groupby(["data", "word"])[["predicted", "effect"]]}

        def rho(
            drawn_datasets: NDArray[np.int64],
            drawn_words: NDArray[np.int64],
            datasets: list[str] = datasets,
            words: list[str] = words,
            cells: Mapping[Any, NDArray[np.float64]] = cells,
        ) -> float:
            pairs = [cells[datasets[d], words[w]] for d in drawn_datasets for w in drawn_words]
            result: Any = spearmanr(*np.concatenate(pairs).T)
            return result.statistic

        whole = rho(np.arange(len(datasets)), np.arange(len(words)))
        interval = crossed_bootstrap(rho, len(datasets), len(words))
        rows.append((name, whole, *interval, len(datasets), len(words), len(group)))
    return pd.DataFrame(rows, columns=["data", "rho", "ci_low", "ci_high", "datasets", "words", "n"])
