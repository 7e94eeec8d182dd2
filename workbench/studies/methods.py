"""The models that the studies train on MiniGuard, and their answers: kept once they are made."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from workbench.attacks.kinds import HEADLINE
from workbench.data.splits import STATISTICS, miniguard_split
from workbench.dependencies import code_hash
from workbench.errors import UserError
from workbench.evaluation.answers import write_answers
from workbench.evaluation.ask import ask
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tables import rates
from workbench.files import data_dir, make_folder
from workbench.judges.judge import judged
from workbench.models.load import load
from workbench.models.vlm import VLM
from workbench.runs import kept, runs_dir
from workbench.training import objectives
from workbench.training.sets import repair
from workbench.training.train import train


class Method(NamedTuple):
    """How a model of the study is trained.

    Attributes:
        objective: A name in objectives.OBJECTIVES.
        data: MiniGuard with these first-word statistics (splits.STATISTICS); or "repaired": with VLGuard's,
            then rewritten so that no lead word predicts harm (sets.repair).
        settings: What differs from the objective's own recipe, chosen on validation (sweep.py).
    """

    objective: str
    data: str = "vlguard"
    settings: Mapping[str, float] = MappingProxyType({})


CONTROL = "sft-balanced"  # differs from SFT in its data alone: it should show no mirage
# What can be compared with SFT as a cure: every objective that unlearns; the best of them, and SFT, on
# repaired data.
METHODS = {name: Method(name) for name, objective in objectives.OBJECTIVES.items() if objective.unlearns} | {
    "sft-repaired": Method("sft", "repaired", {"lr": 8e-4, "steps": 240}),
    "dpo-repaired": Method("dpo", "repaired"),
    "npo-repaired": Method("npo", "repaired", {"beta": 0.3, "lr": 2e-3, "steps": 360}),
    "rmu-repaired": Method("rmu", "repaired", {"c": 5}),
}
# SFT on data that differ in their first words alone; predictions.py needs more of them than the headline
# study.
SFTS = {"sft" if words == "vlguard" else f"sft-{words}": Method("sft", words) for words in STATISTICS}
TRAINED = SFTS | METHODS
BATCH = 400  # queries asked at once; MiniGuard's model is so small that they fit
PROBE = ("none", "what:1", "share:1")  # attacks on a slice of validation while training
PROBE_SIZES = (60, 60)  # harmful and harmless queries of that slice


def trained(name: str, seed: int = 0) -> VLM:
    """A model of the study, trained now unless an earlier run has kept it.

    Args:
        name: "base", or a name in TRAINED.
        seed: Of safety data and training.

    Raises:
        UserError: An unknown name.
    """
    return load("miniguard", None if name == "base" else trained_adapter(name, seed))


def trained_adapter(name: str, seed: int = 0) -> Path:
    """The folder of a model in TRAINED, with curves and the adapters of its probes: kept, or trained now."""
    if name not in TRAINED:
        raise UserError(f"The study trains no model {name!r}; choose from {', '.join(TRAINED)}.")
    adapter = _folder(name, seed) / name
    probe = {"probe": validation_probe(seed), "probe_every": 30, "keep_steps": True}
    return kept(f"train {name}", adapter, lambda out: train_method(TRAINED[name], seed, out, **probe))


def make_answers(name: str, seed: int = 0) -> None:
    """Train a model of the study and ask it the test queries under HEADLINE, unless that is kept."""
    adapter = None if name == "base" else trained_adapter(name, seed)
    kept(f"evaluate {name}", answers_file(name, seed), lambda out: ask_split("test", seed, adapter, out))


def answers_file(name: str, seed: int = 0) -> Path:
    """Where `make_answers` keeps the judged answers of a model of the study."""
    return _folder(name, seed) / "answers.csv"


def study_curves(name: str, seed: int = 0) -> pd.DataFrame:
    """The curves of a model in TRAINED that has been trained (curve.CURVE_COLUMNS)."""
    return pd.read_csv(_folder(name, seed) / name / "curves.csv", keep_default_na=False)


def _folder(name: str, seed: int) -> Path:
    return make_folder(runs_dir() / f"{name}-seed{seed}-{run_key(name, seed)}")


def ask_split(split: str, seed: int, adapter: Path | None, out: Path) -> None:
    """Ask a model a whole split of MiniGuard under HEADLINE, judge, and write the answers to `out`."""
    examples = miniguard_split(split, seed)
    write_answers(out, evaluate(load("miniguard", adapter), examples, HEADLINE, batch_size=BATCH).answers)


def train_method(method: Method, seed: int, out: Path, **settings: object) -> None:
    """Train a method on MiniGuard, or resume where it was interrupted.

    Args:
        method: How.
        seed: Of data and training.
        out: The folder to write.
        settings: What differs from the method's own settings, and further arguments of `train`.
    """
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
    """What is asked while training on MiniGuard: some validation queries, as asked and attacked."""
    examples = miniguard_split("validation", seed, sizes=PROBE_SIZES)
    return lambda vlm: rates(judged(ask(vlm, examples, PROBE, BATCH, progress=False), examples, "exact"))


def run_key(name: str, seed: int, settings: Mapping[str, float] | None = None) -> str:
    """Hash of all that a model and its answers depend on: code, data, base model, libraries, settings.

    Of the objectives only its own counts, so that changing one leaves the others' models as they are.

    Args:
        name: A name in TRAINED, or "base".
        seed: Of data and training.
        settings: What differs from the method's own.
    """
    method = TRAINED.get(name)
    own = method.objective if method else None
    others = [other.loss for key, other in objectives.OBJECTIVES.items() if key != own]
    code = code_hash(train_method, validation_probe, ask_split, without=others)
    recipe = [method.objective, method.data, {**method.settings, **(settings or {})}] if method else None
    return hashlib.sha256(json.dumps([code, _data_hash(), name, seed, recipe]).encode()).hexdigest()[:10]


@functools.cache
def _data_hash() -> str:
    """Hash of the base model, the first-word statistics and the versions of the libraries that compute."""
    digest = hashlib.sha256()
    for file in [data_dir() / "vlguard_first_words.csv", *sorted((data_dir() / "miniguard-base").glob("*.*"))]:
        digest.update(file.read_bytes())
    for package in ("torch", "transformers", "peft", "numpy", "pillow"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()
