"""Whether the shipped tables are what today's code makes: what is out of date; some of it made anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from workbench.dependencies import cpu
from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers
from workbench.files import data_dir
from workbench.parallel import call_each
from workbench.runs import runs_dir, runs_in
from workbench.studies import predictions, recovery, secrecy, sweep
from workbench.studies.making import make_run, secrets_file, stale, stale_attacks, stale_effects, stamp
from workbench.studies.methods import BASES, PARTS, SFTS, answers_file, study_curves
from workbench.studies.shipped import TWIN_OF, planned, rates_of, shipped

POINTS = 0.03  # by which a rate may differ on another processor, at least


class Piece(NamedTuple):
    """Something of the shipped tables that can be made anew by itself.

    Attributes:
        kind: "run" of the study, "effects" of words on a model, "sweep": one combination of settings, or
            "recovery": one attack on a model and its twin.
        base: The base model.
        name: The method.
        seed: Of data and training.
        settings: Of a combination, as sweep.csv has them; or arm, learning rate and half of an attack.
    """

    kind: str
    base: str
    name: str
    seed: int
    settings: str = ""

    def __str__(self) -> str:
        """The piece in words."""
        return " ".join(filter(None, [self.kind, self.base, self.name, f"seed {self.seed}", self.settings]))


def out_of_date() -> list[str]:
    """What of the shipped tables is out of date, in words."""
    late = [f"{run.base}, {run.name}, seed {run.seed}" for run in stale()]
    swept = sweep.stale(pd.read_csv(data_dir() / "sweep.csv"))
    late += [f"sweep, {base}, {method}, seed {seed}, {settings}" for base, method, seed, settings in swept]
    late += [f"effects of words, {base}, {name}, seed {seed}" for base, seed, name in stale_effects()]
    return late + [f"recovery, {run.base}, {run.model}, {run.arm}, lr {run.lr:g}" for run in stale_attacks()]


def pieces() -> list[Piece]:
    """All pieces of the shipped tables."""
    names = {method.data: name for name, method in SFTS.items()}
    effects = shipped("effects").reindex(columns=["base", "data", "seed"]).drop_duplicates()
    swept = pd.read_csv(data_dir() / "sweep.csv")[["base", "method", "seed", "settings"]].to_numpy().tolist()
    return [
        *(Piece("run", *run) for run in planned()),
        *(Piece("effects", row["base"], names[row["data"]], row["seed"]) for row in _records(effects)),
        *(Piece("sweep", *row) for row in swept),
        *(Piece("recovery", *run[:3], _settings(run)) for run in recovery.planned() if not shipped("recovery").empty),
    ]


def drawn(commit: str, count: int = 2) -> list[Piece]:
    """Some pieces to check, drawn by a commit's hash: nobody can choose them, anybody can draw them again."""
    if not commit:
        raise UserError("There is no commit to draw by; run this in a git checkout.")
    known = pieces()
    places = _generator(commit).choice(len(known), size=min(count, len(known)), replace=False)
    return [known[place] for place in places]


def _generator(commit: str) -> np.random.Generator:
    """What draws by a commit's hash."""
    return np.random.default_rng(list(commit.encode()))


def check(some: Sequence[Piece], commit: str, processes: int = 1) -> pd.DataFrame:
    """Make pieces anew, in a folder of the commit's own under runs/, and compare them with the shipped ones.

    Args:
        some: Which pieces.
        commit: The commit's hash; interrupted, a check of the same commit goes on.
        processes: How many are made at once.

    Returns:
        piece and number (both in words), here, shipped (NaN where one lacks it), and same. On the processor
        that made the shipped one, they must be equal; on another, differ by no more than `tolerance`: for
        rates 3 points or two binomial standard errors, for log-odds 0.5 nats or two standard errors,
        whichever is larger.
    """
    with runs_in(runs_dir() / f"check-{commit[:10]}"):
        call_each(make_run, [(p.base, p.name, p.seed) for p in some if p.kind == "run"], processes)
        made = {piece: _made(piece) for piece in some}
    tables = []
    for piece, here in made.items():
        known, processor = _known(piece)
        same_cpu = processor == cpu()
        both = here[["value"]].rename(columns={"value": "here"}).join(known, how="outer")
        both = both.rename(columns={"value": "shipped"})
        if not same_cpu:
            both = both[~both.index.str.startswith("step")]  # how it got there may differ
        # what never occurs has no row
        occurring = both.index.str.endswith((" wrong", " cut"))
        both.loc[occurring, ["here", "shipped"]] = both.loc[occurring, ["here", "shipped"]].fillna(0)
        both.loc[occurring, "tolerance"] = both.loc[occurring, "tolerance"].fillna(POINTS)
        limit = 1e-6 if same_cpu else both["tolerance"].fillna(0)
        both["same"] = (both["here"] - both["shipped"]).abs() <= limit
        tables.append(both.rename_axis("number").reset_index().assign(piece=str(piece)))
    return pd.concat(tables, ignore_index=True)[["piece", "number", "here", "shipped", "tolerance", "same"]]


def accept(commit: str, processes: int = 1) -> pd.DataFrame:
    """Take today's code for that which made the tables, if it makes a piece of every kind exactly so again.

    It is meant for changes that leave every number as it is, such as a faster way to the same answers: to
    make all pieces anew takes hours. The base model is drawn by the commit's hash; of the others, only the
    base models themselves are asked again.

    Args:
        commit: The commit's hash, which is noted in data/study/accepted.csv.bz2.
        processes: How many pieces are made at once.

    Returns:
        `check` of the pieces: a run of every method, effects of words, and a row of the sweep. Only if all
        numbers are the same, the shipped fingerprints are today's.

    Raises:
        UserError: The tables were made on another processor, where numbers may differ for that reason; or
            there is no commit.
    """
    if not commit:
        raise UserError("There is no commit to note; run this in a git checkout.")
    if others := set(shipped("runs")["cpu"]) - {cpu()}:
        raise UserError(
            f"The shipped tables were made on another processor ({', '.join(sorted(others))}), so a small difference "
            "would say nothing; make what is out of date anew (workbench tables --make)."
        )
    base = BASES[_generator(commit).integers(len(BASES))]
    first = {}  # of each kind and method on that base, of each untrained base, and of the sweep
    for piece in pieces():
        if piece.base == base or piece.kind == "sweep" or piece.name == "base":
            where = piece.base if piece.name == "base" else ""
            first.setdefault((piece.kind, where, piece.name if piece.kind == "run" else ""), piece)
    compared = check(list(first.values()), commit, processes)
    if compared["same"].all():
        stamp(commit)
    return compared


def _made(piece: Piece) -> pd.DataFrame:
    """The numbers of a piece that is made now."""
    base, name, seed = piece.base, piece.name, piece.seed
    if piece.kind == "effects":
        return _effects(predictions.effects([(base, seed, name)]))
    if piece.kind == "recovery":
        return _attack(recovery.recovery([_attack_of(piece)], TWIN_OF))
    if piece.kind == "sweep":
        settings = sweep.parsed(piece.settings)
        table = sweep.sweep([name], {setting: [value] for setting, value in settings.items()}, [seed], base)
        return _combination(table.iloc[0])
    answers = pd.concat([whole_answers(answers_file(name, seed, base, part)) for part in PARTS])
    curves = study_curves(name, seed, base) if name != "base" else shipped("curves").iloc[:0]
    results = rates_of(answers.assign(base=base, seed=seed))
    return _run(results, pd.read_csv(secrets_file(base, name, seed)), curves)


def _known(piece: Piece) -> tuple[pd.DataFrame, str]:
    """The numbers of a piece as it ships, and the processor that made it."""

    def own(table: pd.DataFrame, **columns: object) -> pd.DataFrame:
        return table[np.logical_and.reduce([table[column] == value for column, value in columns.items()])]

    place = {"base": piece.base, "seed": piece.seed}
    if piece.kind == "effects":
        table = own(shipped("effects"), **place, data=SFTS[piece.name].data)
        return _effects(table), table["cpu"].iloc[0]
    if piece.kind == "recovery":
        run, known = _attack_of(piece), shipped("recovery")
        both = [own(known, **run._replace(model=name)._asdict()) for name in (run.model, recovery.NEVER_KNEW)]
        return _attack(pd.concat(both)), both[0]["cpu"].iloc[0]
    if piece.kind == "sweep":
        row = own(pd.read_csv(data_dir() / "sweep.csv"), **place, method=piece.name, settings=piece.settings).iloc[0]
        return _combination(row), row["cpu"]
    results, secrets, curves, runs = (
        own(shipped(table), **place, model=piece.name) for table in ("results", "secrets", "curves", "runs")
    )
    return _run(results, secrets, curves), runs["cpu"].iloc[0] if len(runs) else ""


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table."""
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def _numbers(rows: Iterable[tuple[str, float, float]]) -> pd.DataFrame:
    """Value and tolerance, by the number's name."""
    return pd.DataFrame(list(rows), columns=["number", "value", "tolerance"]).set_index("number")


def _rate(name: str, value: float, n: float) -> tuple[str, float, float]:
    return name, value, max(POINTS, 2 * (value * (1 - value) / n) ** 0.5)


def _run(results: pd.DataFrame, secrets: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a run of the study."""
    curves = curves[~curves["metric"].isin(["wrong", "cut"])]  # they have rows only where they occur
    rates = {
        "{split} {attack} {queries} {metric}": results,
        "secrets {metric}": secrecy.summary(secrets),
        "step {step} {attack} {queries} {metric}": curves,
    }
    rows = [
        _rate(name.format(**row), row["value"], row["n"]) for name, table in rates.items() for row in _records(table)
    ]
    return _numbers(rows)


def _effects(table: pd.DataFrame) -> pd.DataFrame:
    """The numbers of `predictions.effects` of one model."""
    groups = table.groupby(["word", "queries"])["log_odds"].agg(["mean", "sem"]).reset_index()
    return _numbers(
        (f"{row['word']} {row['queries']}", row["mean"], max(0.5, 2 * row["sem"])) for row in _records(groups)
    )


def _settings(run: recovery.Attack) -> str:
    return f"{run.arm}; {run.lr:g}; {run.half}"


def _attack_of(piece: Piece) -> recovery.Attack:
    arm, lr, half = piece.settings.split("; ")
    return recovery.Attack(piece.base, piece.name, piece.seed, arm, float(lr), int(half))


def _attack(table: pd.DataFrame) -> pd.DataFrame:
    """The numbers of `recovery.recovery` of one attack."""
    groups = table.groupby(["model", "step", "harmful", "taught"])[["right", "n"]].sum().reset_index()
    name = "{model} step {step} harmful {harmful} taught {taught}"
    return _numbers(_rate(name.format(**row), row["right"] / row["n"], row["n"]) for row in _records(groups))


def _combination(row: pd.Series) -> pd.DataFrame:
    """The numbers of one combination of a sweep; all of its rates are in per cent, of 200 queries each."""
    rates = ["asr", "rr", "utility", "asr_attacked", "rr_attacked", "utility_attacked"]
    return _numbers(_rate(name, row[name] / 100, 200) for name in rates)
