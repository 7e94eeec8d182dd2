"""The study that ships with the workbench: every answer of every run, and what follows from them.

data/study holds, for each base model, method and seed, what `methods.make_answers` made, with a fingerprint
of all that it depends on. So it can be told which runs are out of date, and made again one by one.

Answers are kept in normal form, since most of them are the same few thousand sentences: queries.csv.bz2
numbers the queries, texts.csv.bz2 the answers, and answers.csv.bz2 has a row for each query and a column for
each model.
"""

from __future__ import annotations

import bz2
import functools
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from workbench.dependencies import code_hash
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS, whole_answers
from workbench.evaluation.tables import RESULT_COLUMNS, rates
from workbench.files import atomic_write, data_dir, write_text
from workbench.judges.outcomes import OUTCOMES
from workbench.parallel import call_each
from workbench.runs import kept, log
from workbench.studies import sweep
from workbench.studies.headline import COMPARED, Study
from workbench.studies.methods import BASES, PARTS, SFTS, answers_file, make_answers, run_key, study_curves, trained
from workbench.studies.predictions import effects, fingerprint
from workbench.studies.secrecy import secrets

SEEDS = (0, 1, 2)  # of data and training, on each base
TWINS = tuple(f"{base.replace('miniguard', 'miniguard-never-knew')}" for base in BASES)
TWIN_METHODS = ("base", "sft", "npo")  # what a never-knew twin goes through
_QUERY = ["seed", "id", "attack", "shot", "queries", "query", "picture"]  # what tells a query of the study
_TEXT = ["answer", "cut"]
RESULTS = ["base", "seed", "split", *RESULT_COLUMNS]


class Run(NamedTuple):
    """One model of the study: a base, "base" or a name in methods.TRAINED, and a seed."""

    base: str
    name: str
    seed: int

    @property
    def key(self) -> str:
        """The fingerprint of all that its answers and `secrets` depend on."""
        return f"{run_key(self.name, self.seed, self.base)}-{code_hash(secrets)[:6]}"


def planned() -> list[Run]:
    """Every run of the shipped study."""
    runs = [Run(base, name, seed) for base in BASES for seed in SEEDS for name in ("base", *COMPARED)]
    return runs + [Run(base, name, seed) for base in TWINS for seed in SEEDS for name in TWIN_METHODS]


def shipped(name: str) -> pd.DataFrame:
    """A table of data/study by the name of its file, without .csv.bz2; empty if it is not there."""
    file = _file(name)
    return pd.read_csv(file, keep_default_na=False) if file.exists() else pd.DataFrame()


def _file(name: str) -> Path:
    return data_dir() / "study" / f"{name}.csv.bz2"


def stale() -> list[Run]:
    """The planned runs that data/study lacks, or that something they depend on has changed since."""
    runs = shipped("runs")
    known = (
        set() if runs.empty else set(zip(runs["base"], runs["model"], runs["seed"], runs["fingerprint"], strict=True))
    )
    return [run for run in planned() if (*run, run.key) not in known]


def out_of_date() -> list[str]:
    """What of the shipped tables is out of date, in words."""
    late = [f"{run.base}, {run.name}, seed {run.seed}" for run in stale()]
    if rows := sweep.stale(pd.read_csv(data_dir() / "sweep.csv")):
        late.append(f"{rows} rows of data/sweep.csv (`workbench sweep --method all --out data/sweep.csv`)")
    known = shipped("effects")
    marks = set() if known.empty else set(known["fingerprint"])
    runs = itertools.product(BASES, SEEDS, SFTS)
    return late + [
        f"effects of words, {base}, {name}, seed {seed}"
        for base, seed, name in runs
        if fingerprint(base, seed, name) not in marks
    ]


def make_effects(processes: int = 1) -> None:
    """Measure the effects of words on all bases and seeds, and write them to data/study."""
    write_table("effects", effects(SEEDS, BASES, processes))


def make(runs: Sequence[Run], processes: int = 1, every: int = 6) -> None:
    """Make runs of the study, and write them to data/study, some at a time.

    What is finished is kept under runs/; interrupted, it resumes from there.

    Args:
        runs: Which.
        processes: How many are made at once.
        every: How many are made before they are written.
    """
    for start in range(0, len(runs), every):
        some = runs[start : start + every]
        early = [run for run in some if run.name.endswith("-early")]
        for group in ([run for run in some if run not in early], early):  # early ones are steps of whole ones
            call_each(make_run, [tuple(run) for run in group], processes)
        add(some)
        log.info("%d of %d runs are in data/study", min(start + every, len(runs)), len(runs))


def make_run(base: str, name: str, seed: int) -> None:
    """Train and ask one model of the study, and try its secrets, unless that is kept."""
    make_answers(name, seed, base, everything=True)
    kept(f"try secrets of {name}", _secrets_file(base, name, seed), lambda out: _try_secrets(base, name, seed, out))


def _secrets_file(base: str, name: str, seed: int) -> Path:
    return answers_file(name, seed, base, f"secrets-{code_hash(secrets)[:6]}")


def _try_secrets(base: str, name: str, seed: int, out: Path) -> None:
    table = secrets(trained(name, seed, base), seed).assign(base=base, model=name, seed=seed)
    columns = ["base", "model", "seed", "id", "secret", "composed", "rank", "logprob"]
    write_text(out, table[columns].round(4).to_csv(index=False))


def add(runs: Iterable[Run]) -> None:
    """Write finished runs to data/study, in place of what it holds of them, and drop what is not planned."""
    runs = list(runs)
    new_answers, new_curves, new_secrets, new_runs = [], [], [], []
    for run in runs:
        parts = [whole_answers(answers_file(run.name, run.seed, run.base, part)) for part in PARTS]
        new_answers.append(pd.concat(parts).assign(base=run.base, seed=run.seed))
        new_secrets.append(pd.read_csv(_secrets_file(*run)))
        step, seconds = 0, 0.0
        if run.name != "base":
            curve = study_curves(run.name, run.seed, run.base)
            step, seconds = int(curve["step"].max()), float(curve["seconds"].max())
            new_curves.append(curve.assign(base=run.base, seed=run.seed))
        new_runs.append((run.base, run.name, run.seed, step, seconds, run.key))
    columns = ["base", "model", "seed", "steps", "seconds", "fingerprint"]
    answers = _joined(shipped_answers(), pd.concat(new_answers))
    results = _joined(shipped("results"), _rates(pd.concat(new_answers)))
    tables = _normal_form(answers) | {
        "runs": _joined(shipped("runs"), pd.DataFrame(new_runs, columns=columns)),
        "curves": _joined(shipped("curves"), pd.concat(new_curves)) if new_curves else shipped("curves"),
        "results": results,
        "secrets": _joined(shipped("secrets"), pd.concat(new_secrets)),
    }
    for name, table in tables.items():
        write_table(name, table)


def write_table(name: str, table: pd.DataFrame) -> None:
    """Write a table of data/study, unless it is there already and the same."""
    packed = bz2.compress(table.to_csv(index=False).encode())
    if not _file(name).exists() or _file(name).read_bytes() != packed:
        with atomic_write(_file(name)) as temporary:
            temporary.write_bytes(packed)


def _joined(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Old and new rows of runs, in the order of `planned`; new rows replace old ones of the same run."""
    order = {tuple(run): place for place, run in enumerate(planned())}

    def places(table: pd.DataFrame) -> pd.Series:
        runs = zip(table["base"], table["model"], table["seed"], strict=True)
        return pd.Series([order.get(run, -1) for run in runs], index=table.index, dtype=int)

    if not old.empty:
        replaced = set(places(new))
        kept = places(old)
        new = pd.concat([old[~kept.isin(replaced) & (kept >= 0)], new], ignore_index=True)
    new = new.reset_index(drop=True)
    return new.loc[places(new).sort_values(kind="stable").index].reset_index(drop=True)


def split_of(ids: pd.Series) -> pd.Series:
    """The split that an example of the study belongs to, from its id."""
    return ids.str.rsplit("_", n=1).str[0]


def _rates(answers: pd.DataFrame) -> pd.DataFrame:
    """Rates of answers with `base` and `seed`: RESULTS. what:1 is the first shot of what:3."""
    tables = []
    first = answers[(answers["attack"] == "what:3") & (answers["shot"] == 1)].assign(attack="what:1")
    answers = pd.concat([answers, first])
    answers = answers.assign(split=split_of(answers["id"]))
    for _, part in answers.groupby(["base", "seed", "split"], sort=False):
        tables.append(rates(part).assign(**part.iloc[0][["base", "seed", "split"]].to_dict()))
    return pd.concat(tables, ignore_index=True)[RESULTS]


def _normal_form(answers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Answers as the three tables in which they are kept, and their outcomes."""
    queries = answers[_QUERY].drop_duplicates().sort_values(_QUERY, kind="stable").reset_index(drop=True)
    texts = answers[_TEXT].drop_duplicates().sort_values(_TEXT, kind="stable").reset_index(drop=True)
    numbers = answers.merge(queries.reset_index(names="number"), on=_QUERY)
    numbers = numbers.merge(texts.reset_index(names="text"), on=_TEXT)
    numbers["run"] = numbers["base"] + "/" + numbers["model"]
    numbers["verdict"] = numbers["outcome"].map(list(OUTCOMES).index)
    wide = {
        name: numbers.pivot_table(index="number", columns="run", values=column, sort=True).astype("Int64")
        for name, column in (("answers", "text"), ("outcomes", "verdict"))
    }
    return {"queries": queries, "texts": texts, **wide}


def shipped_answers(bases: Iterable[str] = (), seeds: Iterable[int] = (), models: Iterable[str] = ()) -> pd.DataFrame:
    """The answers of the shipped study.

    Args:
        bases: Of these base models only; empty for all.
        seeds: Of these seeds only; empty for all.
        models: Of these models only; empty for all.

    Returns:
        base, seed, and ANSWER_COLUMNS.
    """
    tables = {name: shipped(name) for name in ("queries", "texts", "answers", "outcomes")}
    if tables["queries"].empty:
        return pd.DataFrame(columns=["base", "seed", *ANSWER_COLUMNS])
    chosen = [seed in set(seeds) for seed in tables["queries"]["seed"]] if seeds else slice(None)
    parts = []
    for run in tables["answers"].columns:
        base, model = run.rsplit("/", 1)
        if (bases and base not in bases) or (models and model not in models):
            continue
        part = tables["queries"].assign(base=base, model=model, sample=1)
        part["text"] = pd.to_numeric(tables["answers"][run])
        part["verdict"] = pd.to_numeric(tables["outcomes"][run])
        parts.append(part[chosen].dropna())
    answers = pd.concat(parts, ignore_index=True)
    texts = tables["texts"].loc[answers["text"].astype(int)].reset_index(drop=True)
    answers["outcome"] = np.array(OUTCOMES, dtype=object)[answers["verdict"].astype(int)]
    return answers.assign(answer=texts["answer"], cut=texts["cut"])[["base", "seed", *ANSWER_COLUMNS]]


@functools.cache
def shipped_study(base: str = "miniguard", seed: int = 0) -> Study:
    """The headline study as it ships, of one base model and seed, with all of COMPARED."""
    answers = shipped_answers([base], [seed])
    answers = answers[split_of(answers["id"]) == "test"]
    curves = shipped("curves")
    curves = curves[(curves["base"] == base) & (curves["seed"] == seed)].drop(columns=["base", "seed"])
    own = answers[ANSWER_COLUMNS]
    return Study(rates(own), own, curves)


def check(runs: Sequence[Run], processes: int = 1) -> pd.DataFrame:
    """Train runs of the study anew, and compare their rates with the shipped ones.

    Args:
        runs: Which.
        processes: How many are made at once.

    Returns:
        RESULTS' keys, `here` and `shipped` (rates in [0, 1]; NaN where one lacks it), n, and `same`: whether
        they differ by less than 3 points or two binomial standard errors, whichever is larger.
    """
    call_each(make_run, [tuple(run) for run in runs], processes)
    keys = ["base", "seed", "split", "model", "attack", "queries", "metric"]
    made = []
    for run in runs:
        parts = [whole_answers(answers_file(run.name, run.seed, run.base, part)) for part in PARTS]
        made.append(_rates(pd.concat(parts).assign(base=run.base, seed=run.seed)))
    here = pd.concat(made).set_index(keys)[["value", "n"]]
    known = shipped("results")
    of_runs = [Run(*run) in runs for run in zip(known["base"], known["model"], known["seed"], strict=True)]
    both = here.join(known[of_runs].set_index(keys)["value"].rename("shipped"), how="outer").reset_index()
    both = both.rename(columns={"value": "here"})
    error = (both["shipped"] * (1 - both["shipped"]) / both["n"]) ** 0.5
    both["same"] = (both["here"] - both["shipped"]).abs() <= np.maximum(0.03, 2 * error)
    return both


def drawn(commit: str, count: int = 2) -> list[Run]:
    """Some runs to check, drawn by a commit's hash: nobody can choose them, anybody can draw them again."""
    if not commit:
        raise UserError("There is no commit to draw runs by; run this in a git checkout.")
    runs = [run for run in planned() if run not in stale()]
    rng = np.random.default_rng(list(commit.encode()))
    return [runs[place] for place in rng.choice(len(runs), size=min(count, len(runs)), replace=False)]
