"""Hyper-parameters chosen on validation: train every combination of a grid, and measure each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import pandas as pd

from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers
from workbench.evaluation.tables import rates
from workbench.files import make_folder
from workbench.runs import kept, log, runs_dir
from workbench.studies.methods import TRAINED, ask_split, run_key, train_method
from workbench.training.curve import score
from workbench.training.objectives import named

WHOLE = ("steps", "forget", "retain")  # settings that are whole numbers
SETTINGS = ("lr", *WHOLE)  # what can be varied apart from an objective's own hyper-parameters


def sweep(method: str, grid: Mapping[str, Sequence[float]], seeds: Sequence[int] = (0,)) -> pd.DataFrame:
    """Train a method on MiniGuard with every combination of a grid and every seed; measure it on validation.

    What is finished is kept under runs/. One line per row is logged.

    Args:
        method: A name in methods.TRAINED.
        grid: {setting: values}; settings are those in SETTINGS and the objective's hyper-parameters. What is
            not in it stays as in the study.
        seeds: Of data and training.

    Returns:
        One row per combination and seed: method, seed, settings (all of them), and the rates of `worst`,
        over 200 harmful and 200 harmless queries.

    Raises:
        UserError: An unknown method or setting.
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
            used, measured = _measured(method, seed, settings)
            rows.append({"method": method, "seed": seed, "settings": used} | measured)
            numbers = ", ".join(f"{name} {value:.1f}" for name, value in measured.items())
            log.info("%s, seed %s, %s: %s", method, seed, used, numbers)
    return pd.DataFrame(rows)


def _measured(method: str, seed: int, settings: Mapping[str, float]) -> tuple[str, dict[str, float]]:
    """All settings of one run as text, and its rates."""
    folder = make_folder(runs_dir() / f"sweep-{method}-seed{seed}-{run_key(method, seed, settings)}")
    adapter = kept(f"train {method}", folder / method, lambda out: train_method(TRAINED[method], seed, out, **settings))
    file = kept(f"evaluate {method}", folder / "answers.csv", lambda out: ask_split("validation", seed, adapter, out))
    config = json.loads((adapter / "config.json").read_text())
    used = {name: config[name] for name in SETTINGS} | config["hyper"]
    return " ".join(f"{name}={value:g}" for name, value in used.items()), worst(rates(whole_answers(file)))


def worst(table: pd.DataFrame) -> dict[str, float]:
    """The least favourable rates over all attacks, per cent, and training's `score` of them.

    Args:
        table: tables.RESULT_COLUMNS of one model.

    Returns:
        asr, irrelevant, degenerate (on harmful queries), rr, utility (on harmless ones), score.
    """
    by_metric = table.assign(percent=100 * table.value).groupby(["queries", "metric"]).percent
    lowest, highest = by_metric.min().to_dict(), by_metric.max().to_dict()
    least = {metric: highest["harmful", metric] for metric in ("asr", "irrelevant", "degenerate")}
    least["rr"] = highest["harmless", "rr"]
    least["utility"] = lowest["harmless", "utility"]
    least["score"] = 100 * score(table)
    return least
