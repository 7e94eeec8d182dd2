"""Is the mirage foretold? What a dataset's first words say, set beside what a model trained on it makes of each word.

Six MiniGuard datasets that differ in their first words alone, a safety fine-tuning each: so a word that opens one model closes another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from workbench.attribution.lead_word import word_effects
from workbench.data.first_words import audit, predicted_effect
from workbench.data.splits import miniguard_split
from workbench.intervals import cluster_bootstrap, resampled
from workbench.studies.methods import SFTS, trained


def predictions(
    seeds: Sequence[int] = (0,), queries: int = 30, report: Callable[[str], None] = lambda line: None
) -> pd.DataFrame:
    """A row each dataset, seed and lead word: data, seed, word, p_harmful, said ("opens", "closes" or ""), predicted, effect, ci_low,
    ci_high, n.

    predicted: the word's log-odds of harm in the training data (`audit`), over the mean of all words. effect: how much higher the log-odds
    of a refusal are where a query begins with the word, over queries in which all words are equally frequent: the mean over `queries`
    harmful and as many harmless validation queries, with its 95% interval, bootstrapped over pictures. Both in nats.
    Models are kept as the study's are; training one takes half a minute, asking it as long. report: called with a line each dataset.
    """
    rows = []
    for seed in seeds:
        asked = miniguard_split("validation", seed, "balanced", (queries, queries))
        for name, method in SFTS.items():
            told = audit(miniguard_split("train", seed, method.data)).set_index("word").assign(said=predicted_effect)
            effects = word_effects(
                trained(name, seed, lambda line, s=seed: report(f"seed {s}: {line}")), asked, list(told.index)
            )
            for word, found in effects.groupby("word", sort=False):
                interval = cluster_bootstrap(found.effect, found.picture, seed)
                predicted = told.log_odds[word] - told.log_odds.mean()
                said = told.loc[word, ["p_harmful", "said"]]
                rows.append((method.data, seed, word, *said, predicted, found.effect.mean(), *interval, len(found)))
    columns = ["data", "seed", "word", "p_harmful", "said", "predicted", "effect", "ci_low", "ci_high", "n"]
    return pd.DataFrame(rows, columns=columns)


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ between predicted and measured effects: data ("all", then each of them), rho, ci_low, ci_high, words, n (rows).

    The 95% intervals are bootstrapped over a dataset's words, each with all of its seeds.
    """
    rows = []
    for name, found in [("all", table), *table.groupby("data", sort=False)]:
        words = [
            pair.to_numpy() for _, pair in found.groupby(["data", "word"])[["predicted", "effect"]]
        ]  # (seeds, 2) each

        def rho(chosen: Sequence[int], words=words) -> float:
            return spearmanr(*np.concatenate([words[i] for i in chosen]).T).statistic

        rows.append((name, rho(range(len(words))), *resampled(rho, len(words)), len(words), len(found)))
    return pd.DataFrame(rows, columns=["data", "rho", "ci_low", "ci_high", "words", "n"])
