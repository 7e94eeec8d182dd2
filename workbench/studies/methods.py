"""The models that the studies train on MiniGuard, kept once they are trained."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from workbench.attacks.kinds import HEADLINE
from workbench.data.splits import STATISTICS, miniguard_split
from workbench.errors import UserError
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates
from workbench.files import data_dir, make_folder
from workbench.runs import phase, runs_dir
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
    "attacks/grammar",
    "attacks/kinds",
    "attacks/one_word",
    "data/drawing",
    "data/example",
    "data/first_words",
    "data/miniguard",
    "data/readers",
    "data/splits",
    "evaluation/answers",
    "evaluation/ask",
    "evaluation/tables",
    "files",
    "intervals",
    "judges/judge",
    "judges/outcomes",
    "judges/rules",
    "models/adapters",
    "models/architectures",
    "models/load",
    "models/scores",
    "models/vlm",
    "training/loop",
    "training/curve",
    "training/sets",
    "training/settings",
    "training/train",
)


def trained(name: str, seed: int = 0, report: Callable[[str], None] = lambda line: None) -> VLM:
    """ "base", or a model of TRAINED: read from an earlier run of the study, or trained now. Raises UserError for another name."""
    from workbench.models.load import load

    return load("miniguard", None if name == "base" else run(name, seed, report))


def run(name: str, seed: int = 0, report: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of a model of TRAINED, with its curves and the steps on its way: kept from before, or trained now."""
    if name not in TRAINED:
        raise UserError(f"The study trains no model {name!r}; choose from {', '.join(TRAINED)}.")
    adapter = _folder(name, seed) / name
    settings = {"probe": validation_probe(seed), "probe_every": 30, "keep_steps": True}
    phase(f"train {name}", report, adapter.exists(), lambda: train_method(name, seed, adapter, **settings))
    return adapter


def _folder(name: str, seed: int) -> Path:
    return make_folder(runs_dir() / f"{name}-seed{seed}-{fingerprint(name, seed)}")


@functools.cache
def _sources() -> str:
    """A hash of the code, the base model and the libraries that a phase's outcome depends on."""
    here, digest = Path(__file__).parent.parent, hashlib.sha256()
    base = data_dir() / "miniguard-base"
    for file in [
        *(here / f"{name}.py" for name in _DEPENDS),
        data_dir() / "vlguard_first_words.csv",
        *sorted(base.glob("*.*")),
    ]:
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
    from workbench.models.load import load
    from workbench.training.sets import repair
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
