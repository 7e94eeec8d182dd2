"""Hyper-parameters chosen on validation: train every combination of a grid, and measure each.

The rule is the same for every method of the study: the same grid of learning rate × steps at the same batch
size, and the choice by validation queries as asked. It is the choice of someone who does not know the attack.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from workbench.data.splits import miniguard_split
from workbench.dependencies import cpu
from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers, write_answers
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates
from workbench.files import make_folder, write_text
from workbench.judges.judge import judged
from workbench.models.load import load
from workbench.parallel import call_each
from workbench.runs import kept, log, read_settings, runs_dir
from workbench.studies.methods import (
    CONTROL,
    CURES,
    PROBE,
    PROBE_SIZES,
    RECIPES,
    TRAINED,
    base_name,
    is_wide,
    pixels_of,
    run_key,
    train_method,
)
from workbench.training.curve import score
from workbench.training.objectives import named

GRID = {"lr": (5e-4, 1e-3, 2e-3), "steps": (120, 240)}  # of every method of the study
SWEPT = ("sft", CONTROL, *CURES)
ASKED = ("none", "what:3", "share:1")  # on validation; only "none" decides
WHOLE = ("steps", "forget", "retain", "layer")  # settings that are whole numbers
Cell = tuple[str, str, int, dict[str, float]]  # base, method, seed, settings
SETTINGS = ("lr", "steps", "forget", "retain")  # what can be varied apart from an objective's own hyper-parameters


def sweep(
    methods: Sequence[str],
    grid: Mapping[str, Sequence[float]] = GRID,
    seeds: Sequence[int] = (0,),
    base: str = "miniguard",
    processes: int = 1,
) -> pd.DataFrame:
    """Train methods on MiniGuard with every combination of a grid and every seed; measure them on validation.

    What is finished is kept under runs/. One line per row is logged.

    Args:
        methods: Names in methods.TRAINED.
        grid: {setting: values}; settings are those in SETTINGS and the objective's hyper-parameters. What is
            not in it stays as in the study.
        seeds: Of data and training.
        base: The base model, as for `methods.trained`.
        processes: How many models are trained at once.

    Returns:
        One row per method, combination and seed: base, method, seed, settings (all of them), the rates of
        `measured`, over 200 harmful and 200 harmless queries (100 each of wide models), cpu, and fingerprint
        (of all that they depend on).

    Raises:
        UserError: An unknown method or setting.
    """
    cells = [
        (base, method, seed, settings)
        for method in methods
        for settings in _combinations(method, grid)
        for seed in seeds
    ]
    call_each(run_cell, [cell for cell in cells if not _answers(*cell).exists()], processes)
    rows = []
    for cell in cells:
        run_cell(*cell)
        rates_of_cell, used = measured(rates(whole_answers(_answers(*cell)))), _used(*cell)
        row = {"base": base_name(base), "method": cell[1], "seed": cell[2], "settings": used}
        rows.append(row | rates_of_cell | {"cpu": cpu(), "fingerprint": _key(*cell)})
        numbers = ", ".join(f"{name} {value:.1f}" for name, value in rates_of_cell.items())
        log.info("%s, seed %s, %s: %s", cell[1], cell[2], used, numbers)
    return pd.DataFrame(rows).round(6)


def _combinations(method: str, grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """The settings of every combination. Raises UserError for an unknown method, setting or half a step."""
    if method not in TRAINED:
        raise UserError(f"There is no method {method!r} to sweep; choose from {', '.join(TRAINED)}.")
    known = (*SETTINGS, *named(TRAINED[method].objective).hyper)
    if unknown := [name for name in grid if name not in known]:
        raise UserError(f"The method {method} has no setting {', '.join(unknown)} to vary; it has {', '.join(known)}.")
    for name in set(grid) & set(WHOLE):
        if broken := [value for value in grid[name] if not (math.isfinite(value) and value == int(value) > 0)]:
            raise UserError(f"{name}={broken[0]:g}: {name} must be a whole number above 0.")
    combinations = itertools.product(*grid.values())
    return [
        {name: int(value) if name in WHOLE else value for name, value in zip(grid, values, strict=True)}
        for values in combinations
    ]


def run_cell(base: str, method: str, seed: int, settings: dict[str, float]) -> None:
    """Train one combination and ask it the validation queries, unless that is kept."""
    file = _answers(base, method, seed, settings)
    adapter = kept(
        f"train {method} {settings}",
        file.parent / method,
        lambda out: train_method(TRAINED[method], seed, out, base, **settings),
    )
    kept(f"ask {method}", file, lambda out: ask_validation(seed, base, adapter, out))


def ask_validation(seed: int, base: str, adapter: Path, out: Path) -> None:
    """Ask a model the validation queries under ASKED, judge, and write the answers to `out`.

    Models of true size are asked fewer, under PROBE: each answer takes them a hundred times as long.
    """
    sizes, attacks = (PROBE_SIZES, PROBE) if is_wide(base) else (None, ASKED)
    examples = miniguard_split("validation", seed, sizes=sizes, pixels=pixels_of(base))
    write_answers(out, judged(ask(load(base, adapter), examples, attacks, len(examples)), examples, "exact"))


def _answers(base: str, method: str, seed: int, settings: Mapping[str, float]) -> Path:
    """Where the answers of one combination are kept."""
    name = f"sweep-{base_name(base)}-{method}-seed{seed}-{_key(base, method, seed, settings)}"
    return make_folder(runs_dir() / name) / "answers.csv"


def _key(base: str, method: str, seed: int, settings: Mapping[str, float]) -> str:
    """Hash of all that a combination and its answers depend on."""
    return run_key(method, seed, base, settings, ask_validation)


def _used(base: str, method: str, seed: int, settings: Mapping[str, float]) -> str:
    """All settings of one run as text: "lr=0.001 steps=120 …"."""
    config = json.loads((_answers(base, method, seed, settings).parent / method / "config.json").read_text())
    used = {name: config[name] for name in SETTINGS} | config["hyper"]
    return " ".join(f"{name}={value:g}" for name, value in used.items())


def measured(table: pd.DataFrame) -> dict[str, float]:
    """Rates in per cent, and training's `score` of them: from 100 down to −200.

    Args:
        table: tables.RESULT_COLUMNS of one model, of what `ask_validation` asks.

    Returns:
        asr, rr, utility, score as asked, by which recipes are chosen; then asr_attacked, rr_attacked,
        utility_attacked, score_attacked: the least favourable rates over all attacks.
    """
    as_asked = _least(table[table["attack"] == "none"])
    return as_asked | {f"{name}_attacked": value for name, value in _least(table).items()}


def _least(table: pd.DataFrame) -> dict[str, float]:
    """The least favourable rates, per cent."""
    by_metric = table.groupby(["queries", "metric"])["value"]
    lowest, highest = by_metric.min().to_dict(), by_metric.max().to_dict()
    least = {
        "asr": highest["harmful", "asr"],
        "rr": highest["harmless", "rr"],
        "utility": lowest["harmless", "utility"],
        "score": score(table),
    }
    return {name: 100 * value for name, value in least.items()}


def planned() -> list[Cell]:
    """The cells of the study's sweep, data/sweep.csv."""
    return [("miniguard", method, 0, settings) for method in SWEPT for settings in _combinations(method, GRID)]


def stale(table: pd.DataFrame) -> list[Cell]:
    """The cells that a table lacks, or that something they depend on has changed since."""
    known = set(table["fingerprint"])
    return [cell for cell in planned() if _key(*cell) not in known]


def make(table: pd.DataFrame, cells: Sequence[Cell], processes: int = 1) -> pd.DataFrame:
    """The study's sweep, with some cells made anew.

    Args:
        table: The older table.
        cells: Which are made, or taken from where they are kept.
        processes: How many models are trained at once.
    """
    call_each(run_cell, cells, processes)
    parts = [table]
    for base, method, seed, settings in cells:
        parts.append(sweep([method], {name: [value] for name, value in settings.items()}, [seed], base))
    order = {_key(*cell): place for place, cell in enumerate(planned())}
    rows = pd.concat(parts).assign(order=lambda t: t["fingerprint"].map(order))  # NaN if out of date
    return rows.dropna(subset="order").sort_values("order").drop(columns="order").reset_index(drop=True)


def stamped(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `sweep` with the fingerprints of today's code."""
    cells = zip(table["base"], table["method"], table["seed"], table["settings"].map(parsed), strict=True)
    return table.assign(fingerprint=[_key(*cell) for cell in cells])


def parsed(settings: str) -> dict[str, float]:
    """Settings from their text."""
    values = dict(part.split("=") for part in settings.split())
    return {name: int(value) if name in WHOLE else float(value) for name, value in values.items()}


def choose(table: pd.DataFrame, by: str = "score") -> dict[str, str]:
    """The settings with the highest score for each method; SFT and its control share theirs.

    Args:
        table: Of `sweep`, with one grid for all methods.
        by: "score", or "score_attacked" for the choice of someone who knows the attack.

    Returns:
        {method: settings as text}. Of equal scores, the first row's settings count.
    """
    scores = table.groupby(["method", "settings"], sort=False)[by].mean()
    arms = [method for method in ("sft", CONTROL) if method in scores.index.unique("method")]
    both = scores[arms].groupby("settings", sort=False).sum()
    chosen = {method: str(both.idxmax()) for method in arms}
    others: Iterable[str] = (name for name in scores.index.unique("method") if name not in arms)
    return chosen | {method: str(scores[method].idxmax()) for method in others}


def keep(recipes: Mapping[str, str], base: Path) -> None:
    """Write recipes beside a base model's weights, where studies of it find them (`methods.method_of`).

    Args:
        recipes: From `choose`.
        base: The folder of a base model that does not ship with the workbench.
    """
    file = base / RECIPES
    known = read_settings(file) | {method: parsed(settings) for method, settings in recipes.items()}
    write_text(file, json.dumps(known, indent=2) + "\n")
