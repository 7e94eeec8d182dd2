"""Do explanations find the word that is known to matter? Methods and baselines, compared on known truth.

A model that was fine-tuned on MiniGuard's biased data refuses after "Share" because of that word: the
balanced control shows it, and so does another word in its place. So a map of that refusal should name it
first.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from workbench.attacks.one_word import rewrites
from workbench.attribution.baselines import MASKED, NAMES, baseline_of
from workbench.attribution.methods import METHODS, attribute
from workbench.attribution.target import REFUSAL, Target
from workbench.data.example import Example
from workbench.intervals import rate_interval
from workbench.models.vlm import VLM
from workbench.runs import bar

SOFT = ("integrated-gradients", "gradient-x-input")  # methods that mix words, which cannot be masked a little
LEVEL = 0.05  # of all comparisons together


def lead_word_found(
    vlm: VLM,
    examples: Sequence[Example],
    lead: str = "share",
    methods: Sequence[str] = tuple(METHODS),
    baselines: Sequence[str] = NAMES,
    target: Target = REFUSAL,
    progress: bool = True,
) -> pd.DataFrame:
    """Which explanations of a target name the lead word first.

    Args:
        vlm: The model.
        examples: Their queries are rewritten to begin with `lead`; words are resampled from them.
        lead: The word that is known to matter.
        methods: Names in METHODS.
        baselines: Names in baselines.NAMES.
        target: The number to explain.
        progress: Whether to show a bar.

    Returns:
        A row for each query, method and baseline: id, picture (a hash), method, baseline, value and blank
        (the target, and without words and picture), first: whether no other word has as much attribution for
        the target.
    """
    queries = [rewrites(example.query, lead)[0] for example in examples]
    pool, rows = [*queries, *(example.query for example in examples)], []
    for example, query in zip(bar(examples, f"explaining {vlm.name}", progress), queries, strict=True):
        for baseline in baselines:
            instead = baseline_of(baseline, vlm, query, pool)
            for method in methods:
                if baseline == MASKED and method in SOFT:
                    continue
                found = attribute(vlm, example.picture(), query, target, method, grid=1, baseline=instead)
                first = bool(found.words[0] > found.words[1:].max(initial=0.0))
                rows.append((example.id, example.digest, method, baseline, found.value, found.baseline, first))
    return pd.DataFrame(rows, columns=["id", "picture", "method", "baseline", "value", "blank", "first"])


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """How often each method and baseline names the lead word first, beside the one that does so most often.

    Args:
        table: Of `lead_word_found`.

    Returns:
        method, baseline, value (the share of queries) with its 95% interval, n, blank (mean, nats), p:
        McNemar's exact test against the best, by Holm's correction for all of them; as_good: whether it is
        not shown to be worse. The best come first.
    """
    wide = table.pivot(index="id", columns=["method", "baseline"], values="first")
    pictures = table.drop_duplicates("id").set_index("id")["picture"].loc[wide.index]
    best = wide[wide.mean().idxmax()].to_numpy(dtype=bool)
    rows, tests = [], []
    for method, baseline in wide.columns:
        own = wide[method, baseline].to_numpy(dtype=bool)
        lost, won = int((best & ~own).sum()), int((own & ~best).sum())
        tests.append(binomtest(lost, lost + won).pvalue if lost + won else 1.0)
        blank = table[(table["method"] == method) & (table["baseline"] == baseline)]["blank"].mean()
        rows.append((method, baseline, own.mean(), *rate_interval(own, pictures), len(own), blank))
    columns = ["method", "baseline", "value", "ci_low", "ci_high", "n", "blank"]
    found = pd.DataFrame(rows, columns=columns).assign(p=multipletests(tests, LEVEL, method="holm")[1])
    found["as_good"] = found["p"] > LEVEL
    return found.sort_values("value", ascending=False, kind="stable", ignore_index=True)
