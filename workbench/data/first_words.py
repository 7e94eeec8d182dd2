"""First-word statistics of a dataset: which words predict refusal before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.data.example import Example
from workbench.data.readers import read_examples
from workbench.errors import UserError
from workbench.intervals import wilson

CLEAR = 1.0  # nats; a word whose log-odds are closer to 0 is not said to open or close a model


def first_word(query: str) -> str:
    """The first word of a query in lower case, without trailing punctuation ("What, can …" → "what")."""
    word = next(iter(query.lower().split()), "")
    return re.sub(r"[^\w'/]+$", "", word) or word


def audit(data: str | Path | Iterable[Example]) -> pd.DataFrame:
    """Count harmless and harmful queries by first word.

    Args:
        data: What `read_examples` reads (its "train" split), or Examples. Pictures are not opened.

    Returns:
        The table of `word_table`.

    Raises:
        UserError: The data cannot be read or hold no query.
    """
    examples = read_examples(data) if isinstance(data, str | Path) else data
    counts: dict[str, list[int]] = {}
    for example in examples:
        counts.setdefault(first_word(example.query), [0, 0])[example.harmful] += 1
    if not counts:
        raise UserError("There is no query to audit; give a dataset with at least one.")
    return word_table(counts)


def word_table(counts: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Statistics of first words.

    Args:
        counts: {word: (harmless, harmful)}, the number of queries that begin with it.

    Returns:
        One row per word, most frequent first, with the columns word, harmless, harmful, p_harmful in [0, 1]
        with its Wilson 95% interval (ci_low, ci_high), and log_odds: the natural log of the odds of harm
        given the word over the odds of harm given another word, with 0.5 added to each count
        (Haldane–Anscombe correction). Above 0 the word predicts refusal.
    """
    table = pd.DataFrame([(word, *counts[word]) for word in sorted(counts)], columns=["word", "harmless", "harmful"])
    total = table.harmless + table.harmful
    table["p_harmful"] = table.harmful / total
    table["ci_low"], table["ci_high"] = wilson(table.harmful, total)
    log_odds = np.log((table.harmful + 0.5) / (table.harmless + 0.5))
    other_harmful = table.harmful.sum() - table.harmful
    other_harmless = table.harmless.sum() - table.harmless
    table["log_odds"] = log_odds - np.log((other_harmful + 0.5) / (other_harmless + 0.5))
    return table.iloc[(-total).argsort(kind="stable")].reset_index(drop=True)


def predicted_effect(table: pd.DataFrame) -> pd.Series:
    """Predict how each first word will affect a model that learns to refuse from the audited data.

    Args:
        table: The table of `audit`.

    Returns:
        For each row "opens" or "closes" if its log-odds lie beyond CLEAR and differ from chance (exact
        binomial test against the share of harm in all data; 5% for all words together, by Holm's method),
        else "".
    """
    from scipy.stats import binomtest
    from statsmodels.stats.multitest import multipletests

    total = table.harmless + table.harmful
    overall = table.harmful.sum() / total.sum()
    p_values = [binomtest(harmful, n, overall).pvalue for harmful, n in zip(table.harmful, total, strict=True)]
    significant = multipletests(p_values, method="holm")[0]
    opens = significant & (table.log_odds <= -CLEAR)
    closes = significant & (table.log_odds >= CLEAR)
    return pd.Series(np.select([opens, closes], ["opens", "closes"], ""), table.index)
