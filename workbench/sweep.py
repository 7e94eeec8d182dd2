"""Hyper-parameters chosen on validation: train every combination of a grid, and measure each on queries that the study never asks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from .attacks import HEADLINE
from .data import miniguard_split
from .errors import UserError
from .evaluate import ask, rates
from .files import make_folder, write_text
from .study import TRAINED, fingerprint, runs_dir, train_method

SETTINGS = ("lr", "steps", "forget", "retain", "rank")  # what can be varied beside an objective's own hyper-parameters


def sweep(
    method: str, grid: Mapping[str, Sequence[float]], seeds: Sequence[int] = (0,), report: Callable[[str], None] = lambda line: None
) -> pd.DataFrame:
    """Train a method on MiniGuard with every combination of the grid and every seed, and measure it on 200 + 200 validation queries.

    method: one of study.TRAINED. grid: {setting: values}, settings being SETTINGS and the objective's hyper-parameters.
    What is finished is kept under runs/. Returns a row each, per cent: method, seed, settings; the highest ASR and RR, the lowest utility
    and the largest share of irrelevant and of degenerate answers to harmful queries over all attacks of the study; score, their sum.
    Raises UserError for an unknown method or setting.
    """
    if method not in TRAINED:
        raise UserError(f"There is no method {method!r} to sweep; choose from {', '.join(TRAINED)}.")
    rows = []
    for values in itertools.product(*grid.values()):
        settings = {n: int(v) if float(v).is_integer() and n != "lr" else v for n, v in zip(grid, values, strict=True)}
        text = " ".join(f"{n}={v:g}" for n, v in settings.items())
        for seed in seeds:
            found = _measured(method, seed, settings)
            rows.append({"method": method, "seed": seed, "settings": text or "recipe"} | found)
            report(f"{method}, seed {seed}, {rows[-1]['settings']}: " + ", ".join(f"{k} {v:.1f}" for k, v in found.items()))
    return pd.DataFrame(rows)


def _measured(method: str, seed: int, settings: Mapping[str, float]) -> dict[str, float]:
    from .models import load

    folder = make_folder(runs_dir() / f"sweep-{method}-seed{seed}-{fingerprint(method, seed, settings)}")
    adapter, file = folder / method, folder / "answers.csv"
    if not adapter.exists():
        train_method(method, seed, adapter, **settings)
    if not file.exists():
        answers = ask(load("miniguard", adapter), miniguard_split("validation", seed), HEADLINE, "exact")
        write_text(file, answers.to_csv(index=False))
    return worst(rates(pd.read_csv(file, keep_default_na=False)))


def worst(table: pd.DataFrame) -> dict[str, float]:
    """The least favourable rate over all attacks, per cent: asr, rr, utility, irrelevant, degenerate; score = utility − asr − rr."""
    over = 100 * table.groupby(["queries", "metric"]).value.agg(["min", "max"])
    found = {m: over.at[("harmful", m), "max"] for m in ("asr", "irrelevant", "degenerate")}
    found |= {"rr": over.at[("harmless", "rr"), "max"], "utility": over.at[("harmless", "utility"), "min"]}
    return found | {"score": found["utility"] - found["asr"] - found["rr"]}
