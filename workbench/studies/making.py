"""Makes what the shipped study lacks, or what is out of date, and writes it to data/study (shipped.py)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from workbench.dependencies import cpu
from workbench.evaluation.answers import whole_answers
from workbench.files import data_dir, write_text
from workbench.parallel import call_each
from workbench.runs import kept, log
from workbench.studies import recovery, sweep
from workbench.studies.methods import BASES, PARTS, SFTS, answers_file, make_answers, study_curves, trained
from workbench.studies.predictions import Measured, effects, fingerprint
from workbench.studies.secrecy import secrets
from workbench.studies.shipped import (
    SEEDS,
    TWIN_OF,
    Run,
    key_of_secrets,
    normal_form,
    planned,
    rates_of,
    shipped,
    shipped_answers,
    write_tables,
)


def stale() -> list[Run]:
    """The planned runs that data/study lacks, or that something they depend on has changed since."""
    runs = shipped("runs")
    known = (
        set() if runs.empty else set(zip(runs["base"], runs["model"], runs["seed"], runs["fingerprint"], strict=True))
    )
    return [run for run in planned() if (*run, run.key) not in known]


def stale_effects() -> list[Measured]:
    """The models whose effects of words data/study lacks, or that something has changed since."""
    known = shipped("effects")
    marks = set() if known.empty else set(known["fingerprint"])
    return [run for run in _measured() if fingerprint(*run) not in marks]


def make_sweep(processes: int = 1) -> None:
    """Make the combinations of settings that data/sweep.csv lacks, or that are out of date."""
    file = data_dir() / "sweep.csv"
    table = pd.read_csv(file)
    if late := sweep.stale(table):
        write_text(file, sweep.make(table, late, processes).to_csv(index=False))


def stale_attacks() -> list[recovery.Attack]:
    """The attacks whose outcome data/study lacks, or that something has changed since."""
    known = shipped("recovery").reindex(columns=[*recovery.RUN, "fingerprint"]).drop_duplicates()
    twin = known["model"] == recovery.NEVER_KNEW
    marks = set(known[~twin].itertuples(index=False, name=None))
    twins = set(known[twin].drop(columns=["model"]).itertuples(index=False, name=None))
    return [
        run
        for run in recovery.planned()
        if (*run, recovery.fingerprint(run)) not in marks
        or (run.base, *run[2:], recovery.fingerprint(twin_of(run))) not in twins
    ]


def twin_of(run: recovery.Attack) -> recovery.Attack:
    """The same attack on a model that never knew."""
    return run._replace(base=TWIN_OF[run.base], model="base")


def make_attacks(wanted: Sequence[recovery.Attack], processes: int = 1) -> None:
    """Attack models, and write what came back to data/study in place of older rows.

    Args:
        wanted: Which attacks; those on twins come with them.
        processes: How many run at once.
    """
    if wanted:
        table = pd.concat([recovery.recovery(wanted, TWIN_OF, processes), shipped("recovery")], ignore_index=True)
        table = table.drop_duplicates([*recovery.RUN, "step", "request", "kind"])
        order = {run: place for place, run in enumerate(recovery.planned())}
        table = table.assign(order=[order.get(run._replace(model=recovery.MODELS[0]), -1) for run in _attacks(table)])
        write_tables({"recovery": table.sort_values(["model", "order"], kind="stable").drop(columns="order")})


def _attacks(table: pd.DataFrame) -> list[recovery.Attack]:
    return [recovery.Attack(*row) for row in table[recovery.RUN].itertuples(index=False, name=None)]


def _measured() -> list[Measured]:
    """The models whose effects of words are shipped."""
    return list(itertools.product(BASES, SEEDS, SFTS))


def make_effects(runs: Sequence[Measured], processes: int = 1) -> None:
    """Measure the effects of words on models, and write them to data/study in place of older ones.

    Args:
        runs: Which models.
        processes: How many are trained and measured at once.
    """
    if not runs:
        return
    marks = [fingerprint(*run) for run in _measured()]
    table = pd.concat([shipped("effects"), effects(runs, processes)], ignore_index=True)
    order = table["fingerprint"].map({mark: place for place, mark in enumerate(marks)})  # NaN if out of date
    table = table.assign(order=order).dropna(subset="order").sort_values("order", kind="stable")
    write_tables({"effects": table.drop(columns="order")})


def stamp(commit: str) -> None:
    """Give all that is shipped the fingerprints of today's code, and note the commit (provenance.accept)."""
    runs, measured, accepted = shipped("runs"), shipped("effects"), shipped("accepted")
    keys = [Run(*run).key for run in zip(runs["base"], runs["model"], runs["seed"], strict=True)]
    names = {method.data: name for name, method in SFTS.items()}
    models = zip(measured["base"], measured["seed"], measured["data"].map(names), strict=True)
    tables = {
        "runs": runs.assign(fingerprint=keys),
        "effects": measured.assign(fingerprint=[fingerprint(*model) for model in models]),
        "accepted": pd.concat([accepted, pd.DataFrame({"commit": [commit]})], ignore_index=True),
    }
    if len(attacks := _stamped_attacks()):
        tables["recovery"] = attacks
    write_tables(tables)
    file = data_dir() / "sweep.csv"
    write_text(file, sweep.stamped(pd.read_csv(file)).to_csv(index=False))


def _stamped_attacks() -> pd.DataFrame:
    """The shipped attacks with the fingerprints of today's code."""
    table = shipped("recovery")
    if table.empty:
        return table
    runs = [twin_of(run) if run.model == recovery.NEVER_KNEW else run for run in _attacks(table)]
    marks = {run: recovery.fingerprint(run) for run in set(runs)}
    return table.assign(fingerprint=[marks[run] for run in runs])


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
    kept(f"try secrets of {name}", secrets_file(base, name, seed), lambda out: _try_secrets(base, name, seed, out))


def secrets_file(base: str, name: str, seed: int) -> Path:
    """Where `make_run` keeps what came of trying a model's secrets."""
    return answers_file(name, seed, base, f"secrets-{key_of_secrets()}")


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
        new_secrets.append(pd.read_csv(secrets_file(*run)))
        step, seconds = 0, 0.0
        if run.name != "base":
            curve = study_curves(run.name, run.seed, run.base)
            step, seconds = int(curve["step"].max()), float(curve["seconds"].max())
            new_curves.append(curve.assign(base=run.base, seed=run.seed))
        new_runs.append((run.base, run.name, run.seed, step, seconds, cpu(), run.key))
    columns = ["base", "model", "seed", "steps", "seconds", "cpu", "fingerprint"]
    answers = _joined(shipped_answers(), pd.concat(new_answers))
    results = _joined(shipped("results"), rates_of(pd.concat(new_answers)))
    tables = normal_form(answers) | {
        "runs": _joined(shipped("runs"), pd.DataFrame(new_runs, columns=columns)),
        "curves": _joined(shipped("curves"), pd.concat(new_curves)) if new_curves else shipped("curves"),
        "results": results,
        "secrets": _joined(shipped("secrets"), pd.concat(new_secrets)),
    }
    write_tables(tables)


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
