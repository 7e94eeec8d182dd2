"""The headline study: the mirage and its cure on MiniGuard, from the base model to the table beside the paper's.

Every model is trained (but for the base) and evaluated. What is finished is kept under `runs/`, in a folder named after a hash of all
that it depends on, so that a second run reads it and a killed one goes on from there.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from workbench.attacks.kinds import HEADLINE
from workbench.data.readers import STATISTICS, data_dir, miniguard_split
from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers, write_answers
from workbench.evaluation.ask import ask, outcome_shares, rates
from workbench.files import make_folder
from workbench.training import objectives

if TYPE_CHECKING:
    from workbench.models.vlm import VLM


class Method(NamedTuple):
    """How a model of the study is trained: objective, safety data, and what differs from the objective's own recipe (sweep.py).

    data: MiniGuard's, with first-word statistics from data.STATISTICS; or "repaired": with VLGuard's, then rewritten so that no lead word
    tells harm (repair.py).
    """

    objective: str
    data: str = "vlguard"
    settings: Mapping[str, float] = MappingProxyType({})


CONTROL = "sft-balanced"  # differs from SFT in its data alone: there must be no mirage
# what can be compared with SFT as a cure: every objective that unlearns, and the best of them and SFT itself on repaired data
METHODS = {name: Method(name) for name, objective in objectives.OBJECTIVES.items() if objective.unlearns} | {
    "sft-repaired": Method("sft", "repaired", {"lr": 8e-4, "steps": 240}),
    "dpo-repaired": Method("dpo", "repaired"),
    "npo-repaired": Method("npo", "repaired", {"beta": 0.3, "lr": 2e-3, "steps": 360}),
    "rmu-repaired": Method("rmu", "repaired", {"c": 5}),
}
# SFT on data that differ in their first words alone; those that are neither VLGuard's nor the control's are for prediction.py
SFTS = {"sft" if words == "vlguard" else f"sft-{words}": Method("sft", words) for words in STATISTICS}
TRAINED = SFTS | METHODS
_PROBE = ("none", "what:1", "share:1")  # attacks on the validation slice while training
_PROBE_SIZES = (60, 60)
_DEPENDS = (
    "data/miniguard",
    "data/readers",
    "models/architectures",
    "models/vlm",
    "training/train",
    "attacks/kinds",
    "attacks/grammar",
    "training/repair",
    "judges/rules",
    "evaluation/ask",
    "evaluation/answers",
    "intervals",
    "data/first_words",
    "files",
)


class Study(NamedTuple):
    """results: rates with intervals. answers: every answer. curves: validation rates while training. All as `evaluate` names columns."""

    results: pd.DataFrame
    answers: pd.DataFrame
    curves: pd.DataFrame

    @property
    def outcomes(self) -> pd.DataFrame:
        """The four outcomes of every model under every attack, as shares."""
        return outcome_shares(self.answers)


def headline(seed: int = 0, methods: Sequence[str] = ("npo",), report: Callable[[str], None] = lambda line: None) -> Study:
    """Base, SFT, SFT on balanced data and every one of `methods` (names of METHODS), each under every attack of attacks.HEADLINE.

    seed: of safety data, training and test pictures; the base model stays the shipped one. report: called with a line per phase.
    Raises UserError for an unknown method.
    """
    for method in methods:
        if method not in METHODS:
            raise UserError(f"There is no method {method!r} to compare; choose from {', '.join(METHODS)}, or all.")
    answers, curves = [], []
    for name in dict.fromkeys(["base", "sft", CONTROL, *methods]):
        adapter = None if name == "base" else run(name, seed, report)
        if adapter:
            curves.append(pd.read_csv(adapter / "curves.csv", keep_default_na=False))
        file = _folder(name, seed) / "answers.csv"
        phase(f"evaluate {name}", report, file.exists(), lambda a=adapter, f=file: write_answers(f, _ask(seed, a)))
        answers.append(whole_answers(file))
    return Study(pd.concat([rates(a) for a in answers]), pd.concat(answers), pd.concat(curves))


def trained(name: str, seed: int = 0, report: Callable[[str], None] = lambda line: None) -> VLM:
    """ "base", or a model of TRAINED: read from an earlier run of the study, or trained now. Raises UserError for another name."""
    from workbench.models.vlm import load

    return load("miniguard", None if name == "base" else run(name, seed, report))


def run(name: str, seed: int = 0, report: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of a model of TRAINED, with its curves and the steps on its way: kept from before, or trained now."""
    if name not in TRAINED:
        raise UserError(f"The study trains no model {name!r}; choose from {', '.join(TRAINED)}.")
    adapter = _folder(name, seed) / name
    settings = {"probe": validation_probe(seed), "probe_every": 30, "keep_steps": True}
    phase(f"train {name}", report, adapter.exists(), lambda: train_method(name, seed, adapter, **settings))
    return adapter


def over_seeds(seeds: Sequence[int], methods: Sequence[str] = ("npo",), report: Callable[[str], None] = lambda line: None) -> pd.DataFrame:
    """`headline`'s results for several seeds, with a column `seed` in front."""
    tables = []
    for seed in seeds:
        tables.append(headline(seed, methods, lambda line, s=seed: report(f"seed {s}: {line}")).results)
        tables[-1].insert(0, "seed", seed)
    return pd.concat(tables, ignore_index=True)


def seed_medians(table: pd.DataFrame) -> pd.DataFrame:
    """`summary` over the seeds of `over_seeds`, as text: median (lowest to highest), per cent."""
    each = pd.concat([summary(group) for _, group in table.groupby("seed")])
    text = each.groupby("model", sort=False).agg(lambda v: f"{v.median():.1f} ({v.min():.1f} to {v.max():.1f})")
    return text.reset_index()


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """The paper's tables for our models, per cent: model, asr, asr_what3, rr, rr_share1, utility, utility_lead, neither_what3.

    utility_lead: the lowest utility over all attacks, that is under the worst lead word. neither_what3: attacked harmful queries that are
    neither refused nor answered; the paper calls all of these irrelevant.
    """
    cells = results.set_index(["model", "attack", "queries", "metric"]).value
    columns = {
        "asr": ("none", "harmful", "asr"),
        "asr_what3": ("what:3", "harmful", "asr"),
        "rr": ("none", "harmless", "rr"),
        "rr_share1": ("share:1", "harmless", "rr"),
        "utility": ("none", "harmless", "utility"),
    }
    models = list(dict.fromkeys(results.model))
    table = pd.DataFrame({"model": models} | {c: [100 * cells[(m, *key)] for m in models] for c, key in columns.items()})
    lead = results.query("queries == 'harmless' and metric == 'utility'").groupby("model").value.min()
    neither = (
        results.query("attack == 'what:3' and queries == 'harmful' and metric in ['irrelevant', 'degenerate']").groupby("model").value.sum()
    )
    return table.assign(utility_lead=100 * table.model.map(lead), neither_what3=100 * table.model.map(neither))


def runs_dir() -> Path:
    """Where finished phases are kept: $WORKBENCH_RUNS, or `runs/` at the root of a checkout, in the working folder elsewhere."""
    if "WORKBENCH_RUNS" in os.environ:
        return Path(os.environ["WORKBENCH_RUNS"])
    root = Path(__file__).parent.parent.parent
    return (root if (root / "pyproject.toml").is_file() else Path.cwd()) / "runs"


def _folder(name: str, seed: int) -> Path:
    return make_folder(runs_dir() / f"{name}-seed{seed}-{fingerprint(name, seed)}")


def phase(label: str, report: Callable[[str], None], kept: bool, make: Callable[[], object]) -> None:
    """Make something, unless it has been kept from before; report says which, and how long it took."""
    if kept:
        report(f"{label}: kept from an earlier run")
        return
    started = time.monotonic()
    make()
    report(f"{label}: {time.monotonic() - started:.0f} s")


@functools.cache
def _sources() -> str:
    """A hash of the code, the base model and the libraries that a phase's outcome depends on."""
    here, digest = Path(__file__).parent.parent, hashlib.sha256()
    base = data_dir() / "miniguard-base"
    for file in [*(here / f"{name}.py" for name in _DEPENDS), data_dir() / "vlguard_first_words.csv", *sorted(base.glob("*.*"))]:
        digest.update(file.read_bytes())
    for package in ("torch", "transformers", "peft", "numpy", "pillow"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()


def fingerprint(name: str, seed: int, settings: Mapping[str, float] | None = None) -> str:
    """A hash of all that a model's outcome depends on; of the objectives only its own, so that a change to one leaves the others kept."""
    code = [f for f in vars(objectives).values() if inspect.isfunction(f) and f.__name__ not in objectives.OBJECTIVES]
    method = TRAINED.get(name)
    if method:
        code.append(objectives.named(method.objective).loss)  # its decorator, and so its recipe, is part of its source
    trained = [*method[:2], {**method.settings, **(settings or {})}] if method else None
    parts = [_sources(), name, seed, [inspect.getsource(f) for f in code], HEADLINE, _PROBE, _PROBE_SIZES, trained]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]


def train_method(name: str, seed: int, out: Path, **settings) -> None:
    """Train one of TRAINED on MiniGuard into the folder `out`, or go on with it. settings: what differs, as of `training.train`."""
    from workbench.models.vlm import load
    from workbench.training.repair import repair
    from workbench.training.train import train

    method = TRAINED[name]
    repaired = method.data == "repaired"
    examples = miniguard_split("train", seed, "vlguard" if repaired else method.data)
    train(
        load("miniguard"),
        method.objective,
        repair(examples, seed) if repaired else examples,
        out=out,
        seed=seed,
        save_every=40,
        resume=True,
        **{**method.settings, **settings},
    )


def validation_probe(seed: int) -> Callable[[VLM], pd.DataFrame]:
    """What `training.train` asks while training on MiniGuard: a fixed slice of validation queries, as asked and attacked."""
    examples = miniguard_split("validation", seed, sizes=_PROBE_SIZES)
    return lambda vlm: rates(ask(vlm, examples, _PROBE, "exact", progress=False))


def _ask(seed: int, adapter: Path | None) -> pd.DataFrame:
    from workbench.models.vlm import load

    return ask(load("miniguard", adapter), miniguard_split("test", seed), HEADLINE, "exact")
