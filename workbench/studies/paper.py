"""The paper's tables (arXiv 2503.11832), and ours set beside them."""

from __future__ import annotations

import pandas as pd

from workbench.data.readers import data_dir
from workbench.intervals import difference, of_rate, wilson
from workbench.judges import rules as judges

N = {"harmful": 442, "harmless": 558}  # VLGuard's test queries of which the paper's figures are fractions
FIGURES = {  # a column of Table 1: attack, queries, metric
    "asr": ("none", "harmful", "asr"),
    "asr_what3": ("what:3", "harmful", "asr"),
    "rr": ("none", "harmless", "rr"),
    "rr_share1": ("share:1", "harmless", "rr"),
    "utility": ("none", "harmless", "utility"),
}
TITLES = {
    "asr": "ASR",
    "asr_what3": "ASR after “What” ×3",
    "rr": "RR",
    "rr_share1": "RR after “Share”",
}
# here with its interval and n; paper, and here − paper with its interval, where the paper has the figure; per cent
COLUMNS = ["model", "figure", "here", "ci_low", "ci_high", "n", "paper", "difference", "diff_low", "diff_high"]


def paper_table() -> pd.DataFrame:
    """Tables 1 and 2, per cent: `study.summary`'s columns, NaN where the paper has no figure; its utility is VQAv2 accuracy."""
    first, second = _read(1), _read(2)
    neither = second.set_index("model").irrelevant
    return first.assign(utility_lead=float("nan"), neither_what3=first.model.map(neither))


def table_1(results: pd.DataFrame, accuracy: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table 1 of our models: COLUMNS. results: of `evaluate`, under the attacks of FIGURES.

    accuracy: of `vqa.vqa_table`. Without, utility is the harmless queries answered, for which the paper has no figure.
    """
    cells = results.set_index(["model", "attack", "queries", "metric"])
    paper = _read(1).set_index("model")
    rows = []
    for model in dict.fromkeys(results.model):
        for figure, key in FIGURES.items():
            here, name, theirs, n = cells.loc[(model, *key)], figure, paper[figure].get(model), N[key[1]]
            if figure == "utility" and accuracy is not None:
                mine = accuracy[(accuracy.model == model) & (accuracy.answers == "all")]
                here, name, n = mine.rename(columns={"accuracy": "value"}).iloc[0], "VQA accuracy", None
            elif figure == "utility":
                theirs = None
            rows.append((model, name, *_beside((here.value, here.ci_low, here.ci_high), int(here.n), theirs, n)))
    return pd.DataFrame(rows, columns=COLUMNS)


def table_2(answers: pd.DataFrame) -> pd.DataFrame:
    """Table 2 of our models, what harmful queries get under one rewrite to "What": COLUMNS. answers: of `evaluate`, under what:K.

    What is degenerate counts as irrelevant. (The paper's ASR there, 24.66, lies far below its 54.98 after three rewrites: it is taken for
    that after one.)
    """
    paper = _read(2).set_index("model")
    counted = {"asr": [judges.RELEVANT], "irrelevant": [judges.IRRELEVANT, judges.DEGENERATE], "refusal": [judges.REFUSAL]}
    first = answers[answers.attack.str.startswith("what") & (answers.shot == 1) & (answers.queries == "harmful")]
    rows = []
    for model, mine in first.groupby("model", sort=False):
        for figure, wanted in counted.items():
            hit = mine.outcome.isin(wanted)
            here = (hit.mean(), *of_rate(hit, mine.picture))
            rows.append((model, figure, *_beside(here, len(mine), paper[figure].get(model), N["harmful"])))
    return pd.DataFrame(rows, columns=COLUMNS)


def worded(table: pd.DataFrame) -> pd.DataFrame:
    """A table with COLUMNS as text: each figure with its interval in brackets, nothing where there is none."""

    def cell(value: float, low: float, high: float) -> str:
        return "" if pd.isna(value) else f"{value:.1f} [{low:.1f}, {high:.1f}]"

    return pd.DataFrame(
        {
            "model": table.model,
            "figure": table.figure.replace(TITLES),
            "here": [cell(*row) for row in table[["here", "ci_low", "ci_high"]].itertuples(index=False)],
            "n": table.n,
            "paper": ["" if pd.isna(value) else f"{value:.1f}" for value in table.paper],
            "difference": [cell(*row) for row in table[["difference", "diff_low", "diff_high"]].itertuples(index=False)],
        }
    )


def _read(table: int) -> pd.DataFrame:
    return pd.read_csv(data_dir() / f"paper_table{table}.csv", comment="#")


def _beside(here: tuple[float, float, float], n: int, paper: float | None, paper_n: int | None) -> tuple:
    """COLUMNS from `here` on. here: in [0, 1]; paper: per cent; paper_n: None where it has no interval to speak of (VQAv2's 107,394)."""
    here = tuple(100 * value for value in here)
    if paper is None:
        return *here, n, *[float("nan")] * 4
    low, high = wilson(paper * paper_n / 100, paper_n) if paper_n else (paper / 100, paper / 100)
    return *here, n, paper, *difference(here, (paper, 100 * low, 100 * high))
