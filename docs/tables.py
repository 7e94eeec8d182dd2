"""Fills the tables in README.md and docs/results.md from the shipped study: `python docs/tables.py`.

A table stands between the lines `<!-- table: NAME -->` and `<!-- end -->`. With --check, nothing is written,
and the exit code is 1 if a table differs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.attacks.kinds import HELD_OUT
from workbench.data.miniguard import DUAL_USE_REQUESTS, KINDS, SECRETS, is_harmful, secret_in
from workbench.evaluation.tables import outcomes as outcomes_of
from workbench.files import data_dir
from workbench.intervals import paired_difference, replicated
from workbench.judges.outcomes import REFUSAL, RELEVANT
from workbench.plots.style import NAMES
from workbench.studies import secrecy
from workbench.studies.headline import COMPARED, EARLY
from workbench.studies.methods import BASES, CONTROL, looks_safe
from workbench.studies.paper import SUMMARY_TITLES, paper_table
from workbench.studies.paper import over_bases as summary_of_seeds
from workbench.studies.predictions import correlations, predictions
from workbench.studies.shipped import SEEDS, shipped, shipped_answers, split_of
from workbench.studies.summary import FIGURES, KEYS, as_text, figures, in_per_cent, over_bases, with_twins
from workbench.studies.sweep import choose
from workbench.training.objectives import OBJECTIVES

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/results.md")
IN_README = ("base", *EARLY, "sft", CONTROL, "npo", "never-knew")
TABLES: dict[str, Callable[[], str]] = {}


def table(function: Callable[[], str]) -> Callable[[], str]:
    """Enter a function into TABLES under its own name."""
    TABLES[function.__name__] = function
    return function


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _figures(wanted: Sequence[str], models: Sequence[str] = ()) -> str:
    """Figures of models, as means over bases with their intervals, and the paper's."""
    text = as_text(over_bases(figures(with_twins(shipped("results")), wanted)))
    order = [model for model in models or ["base", *COMPARED, *_twin_models()] if model in set(text["model"])]
    text = text.set_index("model")[list(wanted)]
    rows = [[NAMES[model], *text.loc[model]] for model in order]
    for paper in paper_table().to_dict("records"):
        cells = [paper.get(name, float("nan")) for name in wanted]
        if not models or paper["model"] in ("base", "sft", "npo"):
            rows.append([f"paper: {paper['paper_name']}", *("–" if pd.isna(cell) else f"{cell:.0f}" for cell in cells)])
    return markdown(["model", *(FIGURES[name].title for name in wanted)], rows)


def _twin_models() -> list[str]:
    names = with_twins(shipped("results"))["model"].unique()
    return [name for name in names if name.startswith("never-knew")]


@table
def headline() -> str:
    """The table in README."""
    return _figures(("asr", "asr_what3", "asr_held_out", "asr_new", "rr", "rr_share1", "utility"), IN_README)


@table
def attack_success() -> str:
    """How often harmful queries are answered, by every model."""
    return _figures([name for name in FIGURES if name.startswith("asr")])


@table
def refusals() -> str:
    """How often harmless queries are refused, by every model."""
    return _figures([name for name in FIGURES if name.startswith("rr")])


@table
def ability() -> str:
    """What every model still answers right, and rightly refuses."""
    return _figures(["utility", "utility_trained", "utility_held_out", "refused"])


@table
def outcomes() -> str:
    """What every model does with harmful queries after "What" ×3: means over bases, without intervals.

    The last column counts queries of which an answer holds a harmful secret that is not the query's own.
    """
    results = with_twins(shipped("results"))
    rows = results[(results["attack"] == "what:3") & (results["queries"] == "harmful") & (results["split"] == "test")]
    rates = rows.pivot_table(index=KEYS, columns="metric", values="value").fillna(0)  # what never occurs has no row
    means = 100 * rates.groupby(["model", "base"]).mean().groupby("model").mean()
    metrics = {"asr": "leak", "rr": "refusal", "wrong": "wrong", "irrelevant": "irrelevant", "degenerate": "degenerate"}
    models = [model for model in ("base", *COMPARED, *_twin_models()) if model in means.index]
    others = _other_secrets().groupby(["model", "base"])["holds"].mean().groupby("model").mean()
    cells = (
        [NAMES[model], *(f"{means[metric][model]:.0f}" for metric in metrics), f"{100 * others[model]:.0f}"]
        for model in models
    )
    return markdown(["model", *metrics.values(), "another's secret"], cells)


def _other_secrets() -> pd.DataFrame:
    """Which harmful queries, after "What" ×3, get another query's harmful secret: KEYS, id, holds."""
    harmful = {SECRETS[request][kind] for request in DUAL_USE_REQUESTS for kind in KINDS if is_harmful(kind, request)}
    answers = shipped_answers()
    rows = (answers["attack"] == "what:3") & (answers["queries"] == "harmful") & (split_of(answers["id"]) == "test")
    answers = with_twins(answers[rows])
    answers["holds"] = answers["answer"].map(secret_in).isin(harmful) & (answers["outcome"] != RELEVANT)
    return answers.groupby([*KEYS, "id"], sort=False)["holds"].any().reset_index()


@table
def confirmation() -> str:
    """What `workbench seeds` prints of a base model that nothing was chosen on."""
    text = summary_of_seeds(pd.read_csv(data_dir() / "confirmation.csv"))
    text["model"] = text["model"].map(NAMES)
    return markdown(list(text.rename(columns=SUMMARY_TITLES)), text.to_numpy().tolist())


@table
def wordings() -> str:
    """Harmful queries answered after each held-out wording."""
    titles = {name: f"“{word}”" for name, word in zip(HELD_OUT[:3], ("Tell me", "Give me", "List"), strict=True)}
    titles |= dict(zip(HELD_OUT[3:], ("topic alone", "“What” in front", "other mark"), strict=True))
    rows = _harmful_answered().query("split == 'test'")
    return _by_model(rows[rows["attack"].isin(HELD_OUT)], "attack", titles)


@table
def rules() -> str:
    """Harmful queries answered as asked, by what of them is held out."""
    titles = {
        "test": "trained rules",
        "new-requests": "new request",
        "new-kinds": "new kind",
        "new-colours": "new colour",
    }
    return _by_model(_harmful_answered().query("attack == 'none'"), "split", titles)


def _harmful_answered() -> pd.DataFrame:
    """The rates at which harmful queries are answered."""
    results = with_twins(shipped("results"))
    return results[(results["queries"] == "harmful") & (results["metric"] == "asr")]


def _by_model(rows: pd.DataFrame, column: str, titles: Mapping[str, str]) -> str:
    """A row for each model, and a column for each value of a column of `rows`."""
    lines = []
    for model in ("base", *COMPARED, *_twin_models()):
        own = rows[rows["model"] == model]
        if len(own):
            lines.append([NAMES[model], *(_spread(own[own[column] == value]) for value in titles)])
    return markdown(["model", *titles.values()], lines)


def _spread(rows: pd.DataFrame) -> str:
    """A rate over bases as text."""
    return in_per_cent(*replicated(rows["value"], rows["base"]))


@table
def control() -> str:
    """What the attacks add to the control on each base: pairs of answers of its three seeds."""
    attacks = {"“What” ×3 adds to ASR": "what:3", "paraphrase ×3 adds to ASR": "paraphrase:3"}
    attacks |= {"“Share” adds to RR": "share:1"}
    rows = []
    for base in BASES:
        for model in (f"{CONTROL}-early", CONTROL):
            answers = shipped_answers([base], SEEDS, [model])
            rows.append([base, NAMES[model], *(added(answers, attack) for attack in attacks.values())])
    return markdown(["base", "control", *attacks], rows)


def added(answers: pd.DataFrame, attack: str) -> str:
    """What an attack adds in points: to the refusals of harmless queries if it is "share:1", else to leaks.

    Args:
        answers: Of one model on one base, with `seed`.
        attack: It is compared with the same queries as asked.

    Returns:
        The difference with the 95% interval of the pairs, which holds for these models only; then the
        lowest and the highest seed's difference.
    """
    kind, counted = ("harmless", REFUSAL) if attack == "share:1" else ("harmful", RELEVANT)
    answers = answers[(split_of(answers["id"]) == "test") & (answers["queries"] == kind)]
    columns = {}
    for name in ("none", attack):
        one = outcomes_of(answers[answers["attack"] == name], ["seed", "attack", "queries"])
        columns[name] = one.set_index(["seed", "id"])["outcome"] == counted
    pairs = pd.concat(columns, axis=1, join="inner")  # queries asked both ways
    asked, attacked = pairs["none"], pairs[attack]
    counts = (int((one & other).sum()) for one, other in ((asked, ~attacked), (~asked, attacked), (asked, attacked)))
    difference, low, high = (100 * value for value in paired_difference(*counts, len(pairs)))
    of_seeds = 100 * (attacked.astype(int) - asked.astype(int)).groupby("seed").mean()
    return f"{difference:.1f} [{low:.1f}, {high:.1f}]; seeds {of_seeds.min():.1f} to {of_seeds.max():.1f}"


@table
def recipes() -> str:
    """Which recipe each method got, and which it would get from someone who knows the attack."""
    swept = pd.read_csv(data_dir() / "sweep.csv")
    as_asked, attacked = choose(swept), choose(swept, "score_attacked")
    rows = swept.set_index(["method", "settings"])
    lines = []
    for method, settings in as_asked.items():
        one, other = rows.loc[(method, settings)], rows.loc[(method, attacked[method])]
        lines.append(
            [
                NAMES[method],
                *_recipe(settings),
                *(f"{one[name]:.0f}" for name in ("asr", "rr", "utility", "asr_attacked", "rr_attacked")),
                *_recipe(attacked[method]),
                *(f"{other[name]:.0f}" for name in ("asr_attacked", "rr_attacked")),
            ]
        )
    head = ["method", "learning rate", "steps", "ASR", "RR", "utility", "ASR attacked", "RR attacked"]
    return markdown([*head, "knowing the attack: learning rate", "steps", "ASR attacked", "RR attacked"], lines)


def _recipe(settings: str) -> tuple[str, str]:
    """Learning rate and steps of a recipe."""
    values = dict(part.split("=") for part in settings.split())
    return values["lr"], values["steps"]


@table
def cost() -> str:
    """Steps, examples and seconds of training, medians over runs; how many look safe where they end."""
    runs, curves = with_twins(shipped("runs")), with_twins(shipped("curves"))
    last = curves[curves["step"] == curves.groupby(KEYS)["step"].transform("max")]
    safe = last.groupby(KEYS).apply(looks_safe).groupby("model").agg(["sum", "size"])
    medians = runs.groupby("model")[["steps", "seconds"]].median()
    per_step = next(iter(OBJECTIVES.values())).forget + next(iter(OBJECTIVES.values())).retain
    models = [model for model in COMPARED if model in medians.index]
    cells = (
        [NAMES[m], *(f"{v:.0f}" for v in _costs(medians, m, per_step)), f"{safe['sum'][m]} of {safe['size'][m]}"]
        for m in models
    )
    return markdown(["model", "steps", "examples seen", "seconds", "look safe"], cells)


def _costs(medians: pd.DataFrame, model: str, per_step: int) -> tuple[float, float, float]:
    steps, seconds = medians.loc[model]
    return steps, steps * per_step, seconds


@table
def secrets() -> str:
    """Whether secrets can be composed, and whether models rank them first or last."""
    known = with_twins(shipped("secrets"))
    lines = []
    for model in ("base", *COMPARED, *_twin_models()):
        own = known[known["model"] == model]
        if own.empty:
            continue
        runs = [secrecy.summary(run).assign(base=run["base"].iloc[0]) for _, run in own.groupby(KEYS)]
        found = pd.concat(runs)
        lines.append(
            [NAMES[model], *(_spread(found[found["metric"] == metric]) for metric in ("composed", "first", "last"))]
        )
    return markdown(["model", "composed", "true secret ranked first", "ranked last"], lines)


@table
def certainty() -> str:
    """How probable the base models find the harmful answers: quantiles over harmful queries."""
    known = shipped("secrets")
    probability = np.exp(
        known[known["model"] == "base"].groupby("base")["logprob"].quantile([0.1, 0.25, 0.5, 0.75, 0.9])
    )
    rows = [[base, *(f"{probability[base, share]:.2f}" for share in (0.1, 0.25, 0.5, 0.75, 0.9))] for base in BASES]
    return markdown(["base", "10%", "25%", "50%", "75%", "90%"], rows)


@table
def foretold() -> str:
    """How well first words predict what they do to a model."""
    found = correlations(predictions(shipped("effects")))
    rows = [
        [row.data, f"{row.rho:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]", row.datasets, row.words, row.n]
        for row in found.itertuples()
    ]
    return markdown(["data", "ρ", "datasets", "words", "pairs"], rows)


def filled(text: str) -> str:
    """A page with its tables made anew."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", replaced, text, flags=re.DOTALL)


def main() -> int:
    """Fill the pages, or with --check compare them."""
    differing = 0
    for name in PAGES:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = filled(old)
        if old != new and "--check" not in sys.argv:
            path.write_text(new, encoding="utf-8")
        if old != new:
            differing += 1
            print(f"{name}: tables {'differ' if '--check' in sys.argv else 'filled'}")
    return int(bool(differing) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
