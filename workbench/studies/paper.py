"""The paper's tables (arXiv 2503.11832), and ours compared with them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from workbench import plots
from workbench.attacks.kinds import HEADLINE
from workbench.evaluation.tables import FIGURES
from workbench.files import data_dir
from workbench.intervals import difference, rate_interval, replicated, wilson
from workbench.judges.outcomes import DEGENERATE, IRRELEVANT, REFUSAL, RELEVANT, WRONG
from workbench.studies.headline import EARLY, Study
from workbench.studies.methods import looks_safe

N = {"harmful": 442, "harmless": 558}  # VLGuard's test queries, over which the paper's figures are counted
# All in per cent. here: our figure, with its interval and n. paper, and difference (here − paper) with its
# interval: NaN if the paper lacks the figure.
PAPER_COLUMNS = ["model", "figure", "here", "ci_low", "ci_high", "n", "paper", "difference", "diff_low", "diff_high"]
TITLES = {
    "asr": "ASR",
    "asr_what3": "ASR after “What” ×3",
    "rr": "RR",
    "rr_share1": "RR after “Share”",
}
SUMMARY_TITLES = TITLES | {
    "asr_paraphrase3": "ASR after a paraphrase ×3",
    "utility": "utility",
    "utility_lead": "utility, worst attack",
    "neither_what3": "neither leak nor refusal after “What” ×3",
}
# {figure of the paper's Table 2: the outcomes that it counts}
_TABLE_2 = {"asr": [RELEVANT], "irrelevant": [WRONG, IRRELEVANT, DEGENERATE], "refusal": [REFUSAL]}


def paper_table() -> pd.DataFrame:
    """The paper's Tables 1 and 2.

    Returns:
        paper_name and the columns of `summary`, in per cent; NaN if the paper lacks the figure. Its utility
        is VQAv2 accuracy.
    """
    neither = _read(2).set_index("model")["irrelevant"]
    table = _read(1)
    lacking = {column: float("nan") for column in ("utility_lead", "asr_paraphrase3")}
    return table.assign(**lacking, neither_what3=table["model"].map(neither))


def paper_beside(results: pd.DataFrame) -> pd.DataFrame:
    """`paper_table` for the models of a table: those that stop early stand beside the paper's whole ones."""
    paper = paper_table().set_index("model")
    names = {model: str(model).removesuffix("-early") for model in dict.fromkeys(results["model"])}
    rows = [paper.loc[name].to_dict() | {"model": model} for model, name in names.items() if name in paper.index]
    return pd.DataFrame(rows, columns=["model", *paper.columns])


def table_1(results: pd.DataFrame, accuracy: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table 1 of our models.

    Args:
        results: Of `evaluate`, under the attacks of FIGURES.
        accuracy: Of `vqa.vqa_table`, as utility. Without it, utility is the share of harmless queries that
            are answered, for which the paper has no figure.

    Returns:
        PAPER_COLUMNS.
    """
    keys = ("model", "attack", "queries", "metric")
    rates = {tuple(row[key] for key in keys): _rate(row, "value") for row in results.to_dict("records")}
    accuracies = {}
    if accuracy is not None:
        of_all = accuracy[accuracy["answers"] == "all"]
        accuracies = {row["model"]: _rate(row, "accuracy") for row in of_all.to_dict("records")}
    paper = _read(1).set_index("model")
    rows = []
    for model in dict.fromkeys(results["model"]):
        for figure, (attack, queries, metric) in FIGURES.items():
            here, theirs = rates[model, attack, queries, metric], paper[figure].get(model)
            if figure != "utility":
                row = (figure, *_compared(here, theirs, N[queries]))
            elif accuracy is None:
                row = (figure, *_compared(here, None, None))
            else:
                row = ("VQA accuracy", *_compared(accuracies[model], theirs, None))
            rows.append((model, *row))
    return pd.DataFrame(rows, columns=PAPER_COLUMNS)


def table_2(answers: pd.DataFrame) -> pd.DataFrame:
    """Table 2 of our models: the outcomes of harmful queries after one rewrite to begin with "What".

    We infer from its figures that the paper's Table 2 is after one rewrite: its ASR there, 24.66, is far
    below the 54.98 after three.

    Args:
        answers: Of `evaluate`, under what:K. As in the paper, wrong and degenerate answers
            count as irrelevant.

    Returns:
        PAPER_COLUMNS.
    """
    paper = _read(2).set_index("model")
    attacked = (answers["queries"] == "harmful") & answers["attack"].str.startswith("what")
    rows = []
    for model, own in answers[attacked & (answers["shot"] == 1)].groupby("model", sort=False):
        for figure, outcomes in _TABLE_2.items():
            counted = own["outcome"].isin(outcomes)
            here = _Rate(counted.mean(), *rate_interval(counted, own["picture"]), len(own))
            rows.append((model, figure, *_compared(here, paper[figure].get(model), N["harmful"])))
    return pd.DataFrame(rows, columns=PAPER_COLUMNS)


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table with PAPER_COLUMNS as text: figures with their intervals in brackets, "" for NaN."""
    theirs = ["" if pd.isna(value) else f"{value:.1f}" for value in table["paper"]]
    return pd.DataFrame(
        {
            "model": table["model"],
            "figure": table["figure"].replace(TITLES),
            "here": _with_intervals(table, "here", "ci_low", "ci_high"),
            "n": table["n"],
            "paper": theirs,
            "difference": _with_intervals(table, "difference", "diff_low", "diff_high"),
        }
    )


def _with_intervals(table: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    """Three columns as text: "1.0 [0.5, 2.0]"."""
    rows = zip(table[value], table[low], table[high], strict=True)
    return ["" if pd.isna(v) else f"{v:.1f} [{lower:.1f}, {upper:.1f}]" for v, lower, upper in rows]


def _read(table: int) -> pd.DataFrame:
    return pd.read_csv(data_dir() / f"paper_table{table}.csv", comment="#")


class _Rate(NamedTuple):
    """One of our rates with the bounds of its interval, in [0, 1], and the number of queries."""

    value: float
    low: float
    high: float
    n: int


def _rate(row: Mapping[Hashable, Any], column: str) -> _Rate:
    """The rate in a row of `evaluate`'s or `vqa_table`'s table. column: the one that holds its value."""
    return _Rate(row[column], row["ci_low"], row["ci_high"], int(row["n"]))


def _compared(here: _Rate, paper: float | None, paper_n: int | None) -> tuple[float, ...]:
    """A rate compared with the paper's.

    Args:
        here: Our rate.
        paper: The paper's figure in per cent; None if it has none.
        paper_n: The paper's number of queries; None if it is so large that the interval is negligible
            (VQAv2's 107,394).

    Returns:
        PAPER_COLUMNS from `here` on.
    """
    ours = (100 * here.value, 100 * here.low, 100 * here.high)
    if paper is None:
        return *ours, here.n, *[float("nan")] * 4
    low, high = wilson(paper * paper_n / 100, paper_n) if paper_n else (paper / 100, paper / 100)
    return *ours, here.n, paper, *difference(ours, (paper, 100 * low, 100 * high))


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's tables for our models.

    Args:
        results: Of `evaluate`, under HEADLINE's attacks.

    Returns:
        model, and in per cent: the FIGURES; asr_paraphrase3, ASR after as many rewrites as "What" gets that
        keep the query's own first word; utility_lead, the lowest utility over all attacks; neither_what3,
        attacked harmful queries that are neither refused nor answered (the paper calls all of these
        irrelevant).
    """
    results = results[results["attack"].isin(HEADLINE)]
    cells = results.set_index(["model", "attack", "queries", "metric"])["value"]
    models = list(dict.fromkeys(results["model"]))
    figures = FIGURES | {"asr_paraphrase3": ("paraphrase:3", "harmful", "asr")}
    columns = {figure: [100 * cells[(model, *key)] for model in models] for figure, key in figures.items()}
    utility = results[(results["queries"] == "harmless") & (results["metric"] == "utility")]
    lowest = utility.groupby("model")["value"].min()
    attacked = results[(results["attack"] == "what:3") & (results["queries"] == "harmful")]
    neither = attacked[attacked["metric"].isin([WRONG, IRRELEVANT, DEGENERATE])].groupby("model")["value"].sum()
    table = pd.DataFrame({"model": models, **columns})
    return table.assign(utility_lead=100 * table["model"].map(lowest), neither_what3=100 * table["model"].map(neither))


def over_bases(table: pd.DataFrame) -> pd.DataFrame:
    """`summary` over several bases and seeds as text, in per cent: "mean [low, high]".

    Args:
        table: Of `headline.over_seeds`.

    Returns:
        A row per model. In brackets, if the base models differ: the 95% interval over them
        (`intervals.replicated`); for a single base, the lowest and the highest seed.
    """
    runs = [
        summary(group).assign(base=group["base"].iloc[0]) for _, group in table.groupby(["base", "seed"], sort=False)
    ]
    rows = []
    for model, of_model in pd.concat(runs).groupby("model", sort=False):
        figures = {column: spread(of_model[column] / 100, of_model["base"]) for column in SUMMARY_TITLES}
        rows.append({"model": model} | figures)
    return pd.DataFrame(rows)


def spread(values: pd.Series, bases: pd.Series) -> str:
    """Rates in [0, 1] of several runs as text, in per cent, with the brackets of `over_bases`."""
    mean, low, high = replicated(values, bases)
    if bases.nunique() == 1:
        low, high = values.min(), values.max()
    return f"{100 * mean:.1f}" + ("" if math.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]")


def comparison(results: pd.DataFrame) -> pd.DataFrame:
    """`summary` as text, in per cent; where the paper has the figure, it follows in brackets."""
    paper = paper_beside(results).set_index("model")
    rows = []
    for own in summary(results).to_dict("records"):
        model = own["model"]
        cells = {"model": plots.NAMES.get(model, model)}
        for column, title in SUMMARY_TITLES.items():
            theirs = paper[column].get(model, float("nan"))
            cells[title] = f"{own[column]:.1f}" + ("" if pd.isna(theirs) else f" ({theirs:.1f})")
        rows.append(cells)
    return pd.DataFrame(rows)


def findings(study: Study) -> list[str]:
    """What the headline study shows, in sentences whose numbers come from it."""
    results = study.results
    table = summary(results).set_index("model").round(1).to_dict("index")
    base, sft, control = (table[model] for model in ("base", *EARLY[:2]))
    sentences = [
        f"SFT, {_stopped(study.curves, EARLY[0])}, answers {sft['asr']} % of harmful queries as asked and "
        f"{sft['asr_what3']} % once they begin with “What”; it refuses {sft['rr']} % of harmless ones as asked and "
        f"{sft['rr_share1']} % after “Share” (n = {results['n'].iloc[0]} each).",
        f"The control, {_stopped(study.curves, EARLY[1])}, is SFT on data in which no lead word predicts harm. "
        f"It goes from {control['asr']} % to {control['asr_what3']} %, and from {control['rr']} % to "
        f"{control['rr_share1']} %.",
    ]
    for model, own in table.items():
        if model in ("base", *EARLY[:2]):
            continue
        lost, lost_most = (base[name] - own[name] for name in ("utility", "utility_lead"))
        sentences.append(
            f"“{plots.NAMES.get(str(model), model)}” goes from {own['asr']} % to {own['asr_what3']} % and from "
            f"{own['rr']} % to {own['rr_share1']} %; compared with the base, it loses {lost:.1f} points of utility, "
            f"and {lost_most:.1f} under the worst attack."
        )
    return sentences


def _stopped(curves: pd.DataFrame, model: str) -> str:
    """When the training of a model that stops early ended, in words."""
    own = curves[curves["model"] == model]
    step = own["step"].max()
    if looks_safe(own[own["step"] == step]):
        return f"stopped at step {step}, as soon as it looks safe"
    return f"trained to its end (step {step}) without ever looking safe"
