"""The shipped study in few figures: how a model does as asked, and at worst over wordings and rules.

Every figure is counted for each run, and then averaged over base models, the unit of replication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from workbench.attacks.kinds import HELD_OUT, LEAD_WORDS
from workbench.intervals import replicated
from workbench.judges.outcomes import WRONG
from workbench.studies.methods import NEW_SPLITS

NEW_RULES = tuple(split for split in NEW_SPLITS if split != "unanswerable")


class Figure(NamedTuple):
    """A figure of a model: the least favourable of some rates.

    Attributes:
        title: What it is called in tables.
        queries: "harmful" or "harmless".
        metric: The rate.
        attacks: Under which it is measured.
        splits: On which of the study's splits.
    """

    title: str
    queries: str
    metric: str
    attacks: tuple[str, ...] = ("none",)
    splits: tuple[str, ...] = ("test",)

    @property
    def worst(self) -> str:
        """How the least favourable rate is found: "min" for utility and kept refusals, else "max"."""
        return "min" if self.metric == "utility" or self.splits == ("unanswerable",) else "max"


# In the order of the tables' columns
FIGURES = {
    "asr": Figure("ASR as asked", "harmful", "asr"),
    "asr_what3": Figure("“What” ×3", "harmful", "asr", ("what:3",)),
    "asr_paraphrase3": Figure("paraphrase ×3", "harmful", "asr", ("paraphrase:3",)),
    "asr_trained": Figure("worst trained word", "harmful", "asr", LEAD_WORDS),
    "asr_held_out": Figure("worst held-out wording", "harmful", "asr", HELD_OUT),
    "asr_new": Figure("worst held-out rule", "harmful", "asr", splits=NEW_RULES),
    "rr": Figure("RR as asked", "harmless", "rr"),
    "rr_share1": Figure("“Share”", "harmless", "rr", ("share:1",)),
    "rr_trained": Figure("worst trained word", "harmless", "rr", LEAD_WORDS),
    "rr_held_out": Figure("worst held-out wording", "harmless", "rr", HELD_OUT),
    "rr_new": Figure("worst held-out rule", "harmless", "rr", splits=NEW_RULES),
    "utility": Figure("utility as asked", "harmless", "utility"),
    "utility_trained": Figure("worst trained word", "harmless", "utility", LEAD_WORDS),
    "utility_held_out": Figure("worst held-out wording", "harmless", "utility", HELD_OUT),
    "wrong": Figure("wrong answers as asked", "harmless", "wrong"),
    "wrong_trained": Figure("worst trained word", "harmless", "wrong", LEAD_WORDS),
    "refused": Figure("unanswerable refused", "harmless", "rr", splits=("unanswerable",)),
}
KEYS = ["base", "seed", "model"]


def with_twins(table: pd.DataFrame) -> pd.DataFrame:
    """A table of the shipped study in which models on a never-knew twin have names of their own.

    "base" becomes "never-knew", "sft" "never-knew-sft", and so on.
    """
    twins = table["base"].str.contains("never-knew")
    names = ("never-knew-" + table["model"]).str.removesuffix("-base")
    return table.assign(model=table["model"].where(~twins, names))


def figures(results: pd.DataFrame, wanted: Sequence[str] = tuple(FIGURES)) -> pd.DataFrame:
    """The figures of every run.

    Which of several rates is the least favourable is decided once for each model, by the mean over its base
    models and seeds. The extreme of each run by itself would mostly show chance: of eleven rates over a
    hundred queries, some are always high.

    Args:
        results: The shipped study's (`shipped.RESULTS`).
        wanted: Which of FIGURES.

    Returns:
        KEYS, and a column for each figure, in [0, 1]; NaN where a run was not asked for it.
    """
    columns = {}
    for name in wanted:
        figure = FIGURES[name]
        rows = counted(results, figure.metric)
        rows = rows[
            (rows["queries"] == figure.queries)
            & rows["attack"].isin(figure.attacks)
            & rows["split"].isin(figure.splits)
        ]
        columns[name] = _least_favourable(rows, figure.worst).set_index(KEYS)["value"]
    runs = results[KEYS].drop_duplicates()
    return runs.merge(pd.DataFrame(columns).reset_index(), on=KEYS, how="left").reset_index(drop=True)


def counted(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric. Where no answer was wrong, and so there is no row, one with 0 takes its place."""
    rows = results[results["metric"] == metric]
    if metric == WRONG:
        nothing = results[results["metric"] == "rr"].assign(metric=WRONG, value=0.0)
        rows = pd.concat([rows, nothing]).drop_duplicates([*KEYS, "split", "attack", "queries"])
    return rows


def _least_favourable(rows: pd.DataFrame, worst: str) -> pd.DataFrame:
    """The rows of the attack and split at which a model does worst on average."""
    cell = ["model", "attack", "split"]
    means = rows.groupby([*cell, "base"])["value"].mean().groupby(cell).mean()
    places = means.groupby("model").agg("idxmin" if worst == "min" else "idxmax")
    return rows[pd.MultiIndex.from_frame(rows[cell]).isin(list(places))]


def added(results: pd.DataFrame, by: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """What attacks add to a figure, run by run.

    Args:
        results: The shipped study's.
        by: {name: (figure under attack, figure as asked)}, of FIGURES.

    Returns:
        KEYS, and a column for each name: the difference, in [−1, 1].
    """
    table = figures(results, list(dict.fromkeys(name for pair in by.values() for name in pair)))
    return table[KEYS].assign(**{name: table[one] - table[other] for name, (one, other) in by.items()})


def over_bases(table: pd.DataFrame, within: tuple[float, float] = (0.0, 1.0)) -> pd.DataFrame:
    """Means over base models with their intervals.

    Args:
        table: Of `figures`, or of `added`.
        within: The lowest and highest value that there can be: (−1, 1) for `added`.

    Returns:
        model, figure, value, ci_low, ci_high (`intervals.replicated`), bases, runs.
    """
    rows = []
    names = [name for name in table.columns if name not in KEYS]
    for model, own in table.groupby("model", sort=False):
        for name in names:
            known = own.dropna(subset=[name])
            if len(known):
                mean_and_interval = replicated(known[name], known["base"], within)
                rows.append((model, name, *mean_and_interval, known["base"].nunique(), len(known)))
    return pd.DataFrame(rows, columns=["model", "figure", "value", "ci_low", "ci_high", "bases", "runs"])


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """`over_bases` as text in per cent, a row per model and a column per figure: "10 [0, 20]"."""
    rates = zip(table["value"], table["ci_low"], table["ci_high"], strict=True)
    cells = [in_per_cent(*rate) for rate in rates]
    wide = table.assign(cell=cells).pivot(index="model", columns="figure", values="cell")
    order = sorted(wide.columns, key=list(dict.fromkeys([*FIGURES, *wide.columns])).index)
    return wide.loc[list(dict.fromkeys(table["model"])), order].fillna("–").reset_index()


def in_per_cent(value: float, low: float, high: float) -> str:
    """A rate in [0, 1] with its interval as text, in per cent; without brackets if there is none."""
    return f"{100 * value:.0f}" + ("" if pd.isna(low) else f" [{100 * low:.0f}, {100 * high:.0f}]")
