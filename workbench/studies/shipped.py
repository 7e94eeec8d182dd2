"""The study that ships with the workbench: every answer of every run, and what follows from them.

data/study holds, for each base model, method and seed, what `methods.make_answers` made (making.py), with a
fingerprint of all that it depends on (provenance.py).

Answers are kept in normal form, since most of them are the same few thousand sentences: queries.csv.bz2
numbers the queries, texts.csv.bz2 the answers, and answers.csv.bz2 has a row for each query and a column for
each model.
"""

from __future__ import annotations

import bz2
import functools
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from workbench.attacks.kinds import HEADLINE
from workbench.dependencies import code_hash
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.tables import RESULT_COLUMNS, rates
from workbench.files import atomic_write, data_dir
from workbench.judges.outcomes import OUTCOMES
from workbench.studies.headline import COMPARED, Study
from workbench.studies.methods import BASES, run_key
from workbench.studies.secrecy import secrets
from workbench.studies.summary import with_twins

SEEDS = (0, 1, 2)  # of data and training, on each base
ONE_SEED = ("simnpo", "graddiff", "ga", "dpo", "dpo-repaired")  # rivals of which no claim is made: only the first seed
TWINS = tuple(f"{base.replace('miniguard', 'miniguard-never-knew')}" for base in BASES)
TWIN_OF: dict[str, str] = dict(zip(BASES, TWINS, strict=True))
TWIN_METHODS = ("base", "sft-early", "npo-early", "sft", "npo")  # what a never-knew twin goes through
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
        return f"{run_key(self.name, self.seed, self.base)}-{key_of_secrets()}"


def planned() -> list[Run]:
    """Every run of the shipped study."""
    runs = [Run(base, name, seed) for base in BASES for seed in SEEDS for name in ("base", *COMPARED)]
    runs += [Run(base, name, seed) for base in TWINS for seed in SEEDS for name in TWIN_METHODS]
    return [run for run in runs if run.name not in ONE_SEED or run.seed == SEEDS[0]]


def shipped(name: str) -> pd.DataFrame:
    """A table of data/study by the name of its file, without .csv.bz2; empty if it is not there."""
    file = _file(name)
    return pd.read_csv(file, keep_default_na=False, low_memory=False) if file.exists() else pd.DataFrame()


def write_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    """Replace tables of data/study, all of them or, if interrupted, none.

    Args:
        tables: By their names. Others stay as they are.
    """
    with atomic_write(data_dir() / "study") as folder:
        folder.mkdir()
        for file in (data_dir() / "study").glob("*.csv.bz2"):
            shutil.copy2(file, folder)
        for name, table in tables.items():
            (folder / _file(name).name).write_bytes(bz2.compress(table.to_csv(index=False).encode()))


def _file(name: str) -> Path:
    return data_dir() / "study" / f"{name}.csv.bz2"


def key_of_secrets() -> str:
    """Hash of the code that tries a model's secrets."""
    return code_hash(secrets)[:6]


def split_of(ids: pd.Series) -> pd.Series:
    """The split that an example of the study belongs to, from its id."""
    return ids.str.rsplit("_", n=1).str[0]


def rates_of(answers: pd.DataFrame) -> pd.DataFrame:
    """Rates of the study's answers: RESULTS. what:1 is the first shot of what:3.

    Args:
        answers: ANSWER_COLUMNS, base and seed.
    """
    tables = []
    first = answers[(answers["attack"] == "what:3") & (answers["shot"] == 1)].assign(attack="what:1")
    answers = pd.concat([answers, first])
    answers = answers.assign(split=split_of(answers["id"]))
    for _, part in answers.groupby(["base", "seed", "split", "model"], sort=False):
        base, seed, split = part.iloc[0][["base", "seed", "split"]]
        tables.append(rates(part).assign(base=base, seed=seed, split=split))
    return pd.concat(tables, ignore_index=True)[RESULTS]


def normal_form(answers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Answers as the three tables in which they are kept, and their outcomes."""
    queries = answers[_QUERY].drop_duplicates().sort_values(_QUERY, kind="stable").reset_index(drop=True)
    texts = answers[_TEXT].drop_duplicates().sort_values(_TEXT, kind="stable").reset_index(drop=True)
    numbers = answers.merge(queries.reset_index(names="number"), on=_QUERY)
    numbers = numbers.merge(texts.reset_index(names="text"), on=_TEXT)
    numbers["run"] = numbers["base"] + "/" + numbers["model"]
    numbers["verdict"] = numbers["outcome"].map(list(OUTCOMES).index)
    wide = {
        name: numbers.pivot(index="number", columns="run", values=column).sort_index().astype("Int64")
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
    if not parts:
        return pd.DataFrame(columns=["base", "seed", *ANSWER_COLUMNS])
    answers = pd.concat(parts, ignore_index=True)
    texts = tables["texts"].loc[answers["text"].astype(int)].reset_index(drop=True)
    answers["outcome"] = np.array(OUTCOMES, dtype=object)[answers["verdict"].astype(int)]
    return answers.assign(answer=texts["answer"], cut=texts["cut"])[["base", "seed", *ANSWER_COLUMNS]]


def never_knew(base: str = "miniguard", seed: int = 0) -> pd.DataFrame:
    """The headline results of models on a base's twin, which never knew the secrets: tables.RESULT_COLUMNS.

    Empty if the twin is not in the shipped study. The models' names are those of plots.NAMES.
    """
    results = shipped("results")
    if base not in BASES or results.empty:
        return pd.DataFrame(columns=RESULT_COLUMNS)
    of_twin = (results["base"] == TWINS[BASES.index(base)]) & (results["seed"] == seed) & (results["split"] == "test")
    return with_twins(results[of_twin])[RESULT_COLUMNS]


@functools.cache
def shipped_study(base: str = "miniguard", seed: int = 0) -> Study:
    """What `headline` gives for one base model, one seed and all of COMPARED, as it ships."""
    answers = shipped_answers([base], [seed])
    answers = answers[(split_of(answers["id"]) == "test") & answers["attack"].isin(HEADLINE)]
    curves = shipped("curves")
    curves = curves[(curves["base"] == base) & (curves["seed"] == seed)].drop(columns=["base", "seed"])
    order = [*HEADLINE, "base", *COMPARED]
    own = answers[ANSWER_COLUMNS].sort_values(
        ["model", "attack"], key=lambda names: names.map(order.index), kind="stable"
    )
    return Study(rates(own), own, curves)
