"""Do first words predict the mirage? What a dataset says of each word, and what a model makes of it.

Six MiniGuard datasets differ in their first words alone, and a model is safety fine-tuned on each until it
looks safe: a word that opens one model closes another.
"""

from __future__ import annotations

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
from workbench.dependencies import code_hash, cpu
from workbench.files import write_text
from workbench.intervals import cluster_bootstrap, crossed_bootstrap
from workbench.parallel import call_each
from workbench.runs import kept
from workbench.studies.methods import SFTS, answers_file, pixels_of, run_key, trained

QUERIES = 30  # harmful, and as many harmless, validation queries with which effects are measured
EFFECTS = ["base", "data", "seed", "word", "queries", "picture", "log_odds", "cpu", "fingerprint"]
Measured = tuple[str, int, str]  # a base, a seed, a name in SFTS
COLUMNS = ["base", "data", "seed", "word", "p_harmful", "said", "predicted", "effect", "ci_low", "ci_high", "n"]


def effects(runs: Sequence[Measured], processes: int = 1) -> pd.DataFrame:
    """The log-odds of a refusal after each lead word, of models trained with six first-word statistics.

    Models are kept as the study's are, and so is what is measured. Training a model takes half a minute,
    measuring it as long.

    Args:
        runs: Which models.
        processes: How many models are made at once.

    Returns:
        EFFECTS, a row for each query and word: log_odds in nats, picture (a hash, one per query), cpu,
        fingerprint (of all that the row depends on).
    """
    call_each(measure, [run for run in runs if not _file(*run).exists()], processes)
    tables = []
    for base, seed, name in runs:
        measure(base, seed, name)
        own = {"base": Path(base).name, "data": SFTS[name].data, "seed": seed}
        own |= {"cpu": cpu(), "fingerprint": fingerprint(base, seed, name)}
        tables.append(pd.read_csv(_file(base, seed, name)).assign(**own))
    return pd.concat(tables, ignore_index=True)[EFFECTS]


def fingerprint(base: str, seed: int, name: str) -> str:
    """Hash of all that a model's effects depend on."""
    return f"{run_key(f'{name}-early', seed, base)}-{code_hash(_measured)[:6]}"


def measure(base: str, seed: int, name: str) -> None:
    """Train one of SFTS until it looks safe, and measure its words, unless that is kept."""
    kept(f"effects of words on {name}", _file(base, seed, name), lambda out: _measured(base, seed, name, out))


def _measured(base: str, seed: int, name: str, out: Path) -> None:
    """Write `word_effects` of a model to a file."""
    examples = miniguard_split("validation", seed, "balanced", (QUERIES, QUERIES), pixels_of(base))
    table = word_effects(trained(f"{name}-early", seed, base), examples, progress=False)
    write_text(out, table[["word", "queries", "picture", "log_odds"]].round(6).to_csv(index=False))


def _file(base: str, seed: int, name: str) -> Path:
    return answers_file(f"{name}-early", seed, base, f"effects-{code_hash(_measured)[:6]}")


def predictions(table: pd.DataFrame) -> pd.DataFrame:
    """Predicted and measured effects of each lead word.

    Args:
        table: From `effects`.

    Returns:
        COLUMNS, one row per base, dataset, seed and word: said is "opens", "closes" or "". predicted: the
        word's log-odds of harm in the training data (`audit`), minus the mean over words. effect: how much
        the word raises the log-odds of a refusal, compared with the mean of all words on the same query, with
        its 95% interval, bootstrapped over pictures. Both are in nats.
    """
    audits = {}
    for data, seed in table[["data", "seed"]].drop_duplicates().itertuples(index=False):
        examples = miniguard_split("train", seed, data, pixels=8)  # small: only their words are read
        audits[data, seed] = audit(examples).set_index("word").assign(said=predicted_effect)
    rows = []
    for _, own in table.groupby(["base", "data", "seed"], sort=False):
        base, data, seed = own.iloc[0][["base", "data", "seed"]]
        words = audits[data, seed]
        own = own.assign(effect=own["log_odds"] - own.groupby("picture")["log_odds"].transform("mean"))
        for word, of_word in own.groupby("word", sort=False):
            predicted = words["log_odds"][word] - words["log_odds"].mean()
            interval = cluster_bootstrap(of_word["effect"], of_word["picture"], int(seed))
            measured = (predicted, of_word["effect"].mean(), *interval, len(of_word))
            rows.append((base, data, seed, word, *words.loc[word, ["p_harmful", "said"]], *measured))
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
