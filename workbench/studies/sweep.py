"""Hyper-parameters chosen on validation: train every combination of a grid, and measure each on queries that the study never asks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from workbench.attacks.kinds import HEADLINE
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers, write_answers
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates
from workbench.files import make_folder
from workbench.runs import runs_dir
from workbench.studies.methods import TRAINED, fingerprint, train_method
from workbench.training.curve import score
from workbench.training.objectives import named

WHOLE = ("steps", "forget", "retain")
SETTINGS = ("lr", *WHOLE)  # what can be varied beside an objective's own hyper-parameters


def sweep(
    method: str,
    grid: Mapping[str, Sequence[float]],
    seeds: Sequence[int] = (0,),
    report: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Train a method on MiniGuard with every combination of the grid and every seed, and measure it on 200 + 200 validation queries.

    method: one of study.TRAINED. grid: {setting: values}, settings being SETTINGS and the objective's hyper-parameters; what is not in it
    stays as in the study. What is finished is kept under runs/. report: called with a line per row.
    Returns a row each: method, seed, settings (all of them), and what `worst` says.
    Raises UserError for an unknown method or setting.
    """
    if method not in TRAINED:
        raise UserError(f"There is no method {method!r} to sweep; choose from {', '.join(TRAINED)}.")
    known = (*SETTINGS, *named(TRAINED[method].objective).hyper)
    unknown = [name for name in grid if name not in known]
    if unknown:
        raise UserError(f"The method {method} has no setting {', '.join(unknown)} to vary; it has {', '.join(known)}.")
    rows = []
    for values in itertools.product(*grid.values()):
        settings = {name: int(value) if name in WHOLE else value for name, value in zip(grid, values, strict=True)}
        for seed in seeds:
            used, found = _measured(method, seed, settings)
            rows.append({"method": method, "seed": seed, "settings": used} | found)
            report(
                f"{method}, seed {seed}, {used}: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items())
            )
    return pd.DataFrame(rows)


def _measured(method: str, seed: int, settings: Mapping[str, float]) -> tuple[str, dict[str, float]]:
    from workbench.models.load import load

    folder = make_folder(runs_dir() / f"sweep-{method}-seed{seed}-{fingerprint(method, seed, settings)}")
    adapter, file = folder / method, folder / "answers.csv"
    if not adapter.exists():
        train_method(method, seed, adapter, **settings)
    if not file.exists():
        answers = ask(load("miniguard", adapter), miniguard_split("validation", seed), HEADLINE, "exact")
        write_answers(file, answers)
    config = json.loads((adapter / "config.json").read_text())
    used = {name: config[name] for name in SETTINGS} | config["hyper"]
    return " ".join(f"{name}={value:g}" for name, value in used.items()), worst(rates(whole_answers(file)))


def worst(table: pd.DataFrame) -> dict[str, float]:
    """The least favourable rate over all attacks, per cent: asr, rr, utility, irrelevant, degenerate; and training's `score` of them."""
    over = 100 * table.groupby(["queries", "metric"]).value.agg(["min", "max"])
    found = {m: over.at[("harmful", m), "max"] for m in ("asr", "irrelevant", "degenerate")}
    found |= {"rr": over.at[("harmless", "rr"), "max"], "utility": over.at[("harmless", "utility"), "min"]}
    return found | {"score": 100 * score(table)}
