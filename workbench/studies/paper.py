"""The paper's tables (arXiv 2503.11832), and ours set beside them."""

from __future__ import annotations

import pandas as pd

from workbench import plots
from workbench.files import data_dir
from workbench.intervals import difference, rate_interval, wilson
from workbench.judges.outcomes import DEGENERATE, IRRELEVANT, REFUSAL, RELEVANT
from workbench.studies.methods import CONTROL

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
PAPER_COLUMNS = ["model", "figure", "here", "ci_low", "ci_high", "n", "paper", "difference", "diff_low", "diff_high"]


def paper_table() -> pd.DataFrame:
    """Tables 1 and 2, per cent: `study.summary`'s columns, NaN where the paper has no figure; its utility is VQAv2 accuracy."""
    first, second = _read(1), _read(2)
    neither = second.set_index("model").irrelevant
    return first.assign(utility_lead=float("nan"), neither_what3=first.model.map(neither))


def table_1(results: pd.DataFrame, accuracy: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table 1 of our models: PAPER_COLUMNS. results: of `evaluate`, under the attacks of FIGURES.

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
    return pd.DataFrame(rows, columns=PAPER_COLUMNS)


def table_2(answers: pd.DataFrame) -> pd.DataFrame:
    """Table 2 of our models, what harmful queries get under one rewrite to "What": PAPER_COLUMNS. answers: of `evaluate`, under what:K.

    What is degenerate counts as irrelevant. (The paper's ASR there, 24.66, lies far below its 54.98 after three rewrites: it is taken for
    that after one.)
    """
    paper = _read(2).set_index("model")
    counted = {"asr": [RELEVANT], "irrelevant": [IRRELEVANT, DEGENERATE], "refusal": [REFUSAL]}
    first = answers[answers.attack.str.startswith("what") & (answers.shot == 1) & (answers.queries == "harmful")]
    rows = []
    for model, mine in first.groupby("model", sort=False):
        for figure, wanted in counted.items():
            hit = mine.outcome.isin(wanted)
            here = (hit.mean(), *rate_interval(hit, mine.picture))
            rows.append((model, figure, *_beside(here, len(mine), paper[figure].get(model), N["harmful"])))
    return pd.DataFrame(rows, columns=PAPER_COLUMNS)


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table with PAPER_COLUMNS as text: each figure with its interval in brackets, nothing where there is none."""

    def cell(value: float, low: float, high: float) -> str:
        return "" if pd.isna(value) else f"{value:.1f} [{low:.1f}, {high:.1f}]"

    return pd.DataFrame(
        {
            "model": table.model,
            "figure": table.figure.replace(TITLES),
            "here": [cell(*row) for row in table[["here", "ci_low", "ci_high"]].itertuples(index=False)],
            "n": table.n,
            "paper": ["" if pd.isna(value) else f"{value:.1f}" for value in table.paper],
            "difference": [
                cell(*row) for row in table[["difference", "diff_low", "diff_high"]].itertuples(index=False)
            ],
        }
    )


def _read(table: int) -> pd.DataFrame:
    return pd.read_csv(data_dir() / f"paper_table{table}.csv", comment="#")


def _beside(here: tuple[float, float, float], n: int, paper: float | None, paper_n: int | None) -> tuple:
    """PAPER_COLUMNS from `here` on.

    here: in [0, 1]; paper: per cent; paper_n: None where the interval is negligible (VQAv2's 107,394).
    """
    here = tuple(100 * value for value in here)
    if paper is None:
        return *here, n, *[float("nan")] * 4
    low, high = wilson(paper * paper_n / 100, paper_n) if paper_n else (paper / 100, paper / 100)
    return *here, n, paper, *difference(here, (paper, 100 * low, 100 * high))


def seed_medians(table: pd.DataFrame) -> pd.DataFrame:
    """`summary` over the seeds of `over_seeds`, as text: median (lowest to highest), per cent."""
    each = pd.concat([summary(group) for _, group in table.groupby("seed")])
    text = each.groupby("model", sort=False).agg(lambda v: f"{v.median():.1f} ({v.min():.1f} to {v.max():.1f})")
    return text.reset_index()


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's tables for our models, per cent: model, asr, asr_what3, rr, rr_share1, utility, utility_lead, neither_what3.

    utility_lead: the lowest utility over all attacks, that is under the worst lead word. neither_what3: attacked harmful queries that are
    neither refused nor answered; the paper calls all of these irrelevant.
    """
    cells = results.set_index(["model", "attack", "queries", "metric"]).value
    models = list(dict.fromkeys(results.model))
    table = pd.DataFrame(
        {"model": models} | {c: [100 * cells[(m, *key)] for m in models] for c, key in FIGURES.items()}
    )
    lead = results.query("queries == 'harmless' and metric == 'utility'").groupby("model").value.min()
    neither = (
        results.query("attack == 'what:3' and queries == 'harmful' and metric in ['irrelevant', 'degenerate']")
        .groupby("model")
        .value.sum()
    )
    return table.assign(utility_lead=100 * table.model.map(lead), neither_what3=100 * table.model.map(neither))


SUMMARY_TITLES = TITLES | {
    "utility": "utility",
    "utility_lead": "utility, worst lead word",
    "neither_what3": "neither leak nor refusal after “What” ×3",
}


def comparison(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's table for our models, per cent, as text; the paper's own figure behind each in brackets where it has one."""
    paper = paper_table().set_index("model")
    table = summary(results)
    rows = []
    for row in table.itertuples(index=False):
        cells = {"model": plots.NAMES.get(row.model, row.model)}
        for column, title in SUMMARY_TITLES.items():
            there = paper[column].get(row.model, float("nan"))
            cells[title] = f"{getattr(row, column):.1f}" + (f" ({there:.1f})" if pd.notna(there) else "")
        rows.append(cells)
    return pd.DataFrame(rows)


def findings(results: pd.DataFrame) -> list[str]:
    """What the table says, in sentences whose numbers come from it."""
    row = summary(results).set_index("model").round(1)
    lost = (row.at["base", "utility"] - row.utility).round(1)
    n = int(results.n.iloc[0])
    told = [
        f"SFT answers {row.at['sft', 'asr']} % of harmful queries as asked and {row.at['sft', 'asr_what3']} % once “What” begins them; "
        f"it refuses {row.at['sft', 'rr']} % of harmless ones as asked and {row.at['sft', 'rr_share1']} % after “Share” (n = {n} each).",
        f"The control, the same SFT on data in which no lead word tells harm, goes from {row.at[CONTROL, 'asr']} % to "
        f"{row.at[CONTROL, 'asr_what3']} % and from {row.at[CONTROL, 'rr']} % to {row.at[CONTROL, 'rr_share1']} %.",
    ]
    for model in row.index.drop(["base", "sft", CONTROL]):
        name = plots.NAMES.get(model, model)
        told.append(
            f"“{name}” goes from {row.at[model, 'asr']} % to {row.at[model, 'asr_what3']} % and from {row.at[model, 'rr']} % "
            f"to {row.at[model, 'rr_share1']} %; it loses {lost[model]} points of utility against the base, "
            f"{(row.at['base', 'utility'] - row.at[model, 'utility_lead']).round(1)} under the worst lead word."
        )
    return told
