"""First-word statistics of a dataset: which words predict refusal before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from workbench.data.example import Example

CLEAR = 1.0  # nats from which on a word's log-odds are said to open or to close a model


def first_word(query: str) -> str:
    """The first word of a query, lower case, without the punctuation that follows it ("What, can …" → "what")."""
    word = query.split()[0].lower() if query.split() else ""
    return re.sub(r"[^\w'/]+$", "", word) or word


def audit(data: str | Path | Iterable[Example]) -> pd.DataFrame:
    """Count harmless and harmful queries by first word, most frequent first.

    data: a VLGuard-format file or folder (its train.json), a JSONL file, "miniguard", or Examples; pictures are not opened.
    Returns `word_table`'s columns. Raises UserError where the data cannot be read.
    """
    from workbench.data.readers import read_examples

    examples = read_examples(data) if isinstance(data, str | Path) else data
    counts: dict[str, list[int]] = {}
    for example in examples:
        counts.setdefault(first_word(example.query), [0, 0])[example.harmful] += 1
    if not counts:
        raise UserError("There is no query to audit; give a dataset with at least one.")
    return word_table(counts)


def word_table(counts: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Statistics of first words from their counts, {word: (harmless, harmful)}, most frequent first.

    Columns: word, harmless, harmful, p_harmful in [0, 1] with its Wilson 95% interval (ci_low, ci_high), and log_odds: the natural log
    of the odds of harm given the word over the odds of harm elsewhere, with 0.5 added to each count (Haldane–Anscombe), so that above 0
    the word predicts refusal.
    """
    import numpy as np
    import pandas as pd

    from workbench.intervals import wilson

    table = pd.DataFrame([(w, *counts[w]) for w in sorted(counts)], columns=["word", "harmless", "harmful"])
    total = table.harmless + table.harmful
    table["p_harmful"] = table.harmful / total
    table["ci_low"], table["ci_high"] = wilson(table.harmful, total)
    inside = np.log((table.harmful + 0.5) / (table.harmless + 0.5))
    outside = np.log((table.harmful.sum() - table.harmful + 0.5) / (table.harmless.sum() - table.harmless + 0.5))
    table["log_odds"] = inside - outside
    return table.iloc[(-total).argsort(kind="stable")].reset_index(drop=True)


def predicted_effect(table: pd.DataFrame) -> pd.Series:
    """What beginning with each word of `audit`'s table will do to a model that learns to refuse from these data.

    "opens" or "closes" where its log_odds are beyond CLEAR and not by chance (exact binomial tests against the share of harm in all of the
    data; 5% for all words together, by Holm's method); else "".
    """
    import numpy as np
    import pandas as pd
    from scipy.stats import binomtest
    from statsmodels.stats.multitest import multipletests

    total = table.harmless + table.harmful
    overall = table.harmful.sum() / total.sum()
    by_chance = [binomtest(harmful, n, overall).pvalue for harmful, n in zip(table.harmful, total, strict=True)]
    sure = multipletests(by_chance, method="holm")[0]
    return pd.Series(
        np.select([sure & (table.log_odds <= -CLEAR), sure & (table.log_odds >= CLEAR)], ["opens", "closes"], ""),
        table.index,
    )
