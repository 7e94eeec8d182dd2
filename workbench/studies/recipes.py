"""Recipes of the paper's models at their true size, and how to fit them into memory."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from workbench.data.example import Example
from workbench.data.readers import SAFE_PICTURE, first_of_each, with_pictures
from workbench.errors import UserError, say
from workbench.judges.judge import JUDGES, check_judge
from workbench.models.architectures import ARCHITECTURES
from workbench.models.load import load
from workbench.models.vlm import VLM, best_device, best_dtype, processes
from workbench.runs import read_settings, same_settings
from workbench.studies.paper import FIGURES
from workbench.training import objectives
from workbench.training.memory import GIB, Memory, configuration, fitting, longest
from workbench.training.sets import with_leaks
from workbench.training.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from workbench.evaluation.vqa import Questions


TABLES = {1: ("base", "sft", "sft-posthoc", "npo", "rmu"), 2: ("sft", "npo", "rmu")}
ATTACKS = list(dict.fromkeys(attack for attack, *_ in FIGURES.values()))
RETAIN = 2000  # harmless examples to unlearn with; where the safety data have fewer, general ones are added
GENERAL = 5000  # general examples in Mixed SFT
BATCH = 128  # examples a step of SFT


class Recipe(NamedTuple):
    """How one of the paper's models is trained. general: whether general data are added; epochs: over the forget set."""

    objective: str
    general: bool
    lr: float
    epochs: int
    hyper: Mapping[str, float] = MappingProxyType({})

    @property
    def unlearns(self) -> bool:
        return objectives.named(self.objective).unlearns


# LoRA throughout, for models of true size (see objectives.TINY). SFT: learning rate, epochs and batch of VLGuard (arXiv 2402.02207), whose
# post-hoc training adds general data, where ours is on the safety data alone. NPO and RMU: the paper's settings at 7B; RMU's layer is the
# fifteenth of 32, or as deep elsewhere.
RECIPES = {
    "sft": Recipe("sft", True, 2e-4, 3),
    "sft-posthoc": Recipe("sft", False, 2e-4, 3),
    "npo": Recipe("npo", True, 1.1e-5, 1, {"beta": 0.7}),
    "rmu": Recipe("rmu", True, 1.1e-5, 10, {"c": 10.0}),
}
LORA = {"rank": 128, "lora_alpha": 256}
RMU_DEPTH = 15 / 32


@dataclasses.dataclass(frozen=True)
class Task:
    """What `reproduce` is to do. examples: the training data of each model; arguments: those of `training.train`, without `steps` where
    these are the recipe's epochs. plan: model, steps, forget and retain (examples a step), settings, memory (GiB, predicted)."""

    table: int
    names: list[str]
    model: str
    out: Path
    judge: str
    test: list[Example]
    examples: dict[str, list[Example]]
    arguments: dict[str, dict]
    plan: pd.DataFrame
    four_bit: bool
    seed: int
    trust: Collection[str]
    questions: Questions | None

    def load(self, name: str = "base") -> VLM:
        adapter = None if name == "base" else self.out / "models" / name
        return load(self.model, adapter, four_bit=self.four_bit, trust=self.trust)

    @property
    def folder(self) -> Path:
        """Where the table goes."""
        return self.out / f"table{self.table}"

    @property
    def unknown(self) -> list[Example]:
        """The harmful training queries to which no harmful answer is known."""
        unlearning = (e for name, examples in self.examples.items() if RECIPES[name].unlearns for e in examples)
        return list({e.id: e for e in unlearning if e.harmful and not e.leak}.values())


def prepare(
    model: str,
    safety: Sequence[Example],
    test: Sequence[Example],
    out: str | Path,
    *,
    table: int = 1,
    rows: Collection[str] = (),
    general: Sequence[Example] = (),
    judge: str = "keyword",
    memory: int | None = None,
    harmful_answers: str | Path | None = None,
    steps: int | None = None,
    queries: int | None = None,
    seed: int = 0,
    trust: Collection[str] = (),
    questions: Questions | None = None,
) -> Task:
    """Choose recipes, and settings with which they fit into memory; nothing is loaded or trained yet.

    safety, test: examples to train with and to test on; of harmful test queries those about VLGuard's safe pictures are left out, as in
    the paper. rows: models of the table, all by default. general: harmless examples, such as LLaVA's conversations; Mixed SFT ("sft") is
    left out without. judge: of judges.py. memory: bytes of the device; what it has free by default.
    harmful_answers: what is to be forgotten (`forget.with_leaks`); without, and where the data do not say, those of the base model's own
    answers will be that the judge calls relevant. steps: of every model, in place of the recipes'. queries: the first so many harmful and
    harmless ones of the test. questions: utility is VQA accuracy on them; without, harmless queries answered.
    Raises UserError for what is unknown, missing or does not go together, where nothing fits, and where `out` holds another run.
    """
    if processes().num_processes > 1:
        raise UserError(
            "The paper's tables are made by one process; share `workbench train` and `workbench evaluate` among several."
        )
    if table not in TABLES:
        raise UserError(f"There is no table {table} to reproduce; choose 1 or 2.")
    if unknown := set(rows) - set(TABLES[table]):
        raise UserError(
            f"Table {table} has no row {', '.join(sorted(unknown))}; choose from {', '.join(TABLES[table])}."
        )
    test = [e for e in test if e.request != SAFE_PICTURE]
    test = first_of_each(test, queries) if queries else test
    general = [e for e in general if not e.harmful]
    _check_data(safety, test, general)
    _check_judge(judge, test, table)
    if questions:
        with_pictures(questions.examples)
    names = [name for name in TABLES[table] if name in (rows or TABLES[table])]
    if "sft" in names and not general:
        if rows:
            raise UserError(
                "Mixed SFT (sft) needs general data, such as LLaVA's conversations: give --general FILE, or another --row."
            )
        say("Mixed SFT (sft) is left out: it needs general data, such as LLaVA's conversations (--general FILE).")
        names.remove("sft")
    known = with_leaks(safety, harmful_answers) if harmful_answers else safety
    sets = {name: _training_set(RECIPES[name], safety, known, general) for name in names if name != "base"}
    text = configuration(model, trust).get_text_config()
    arguments = {
        name: _arguments(RECIPES[name], text, steps) | _batch(RECIPES[name], text, examples)
        for name, examples in sets.items()
    }
    kept = read_settings(Path(out) / "task.json")
    found, four_bit = _fitting(model, sets, arguments, memory or _free_memory(), trust, kept.get("four bits"))
    for name, (settings, _) in found.items():
        arguments[name] |= {"accumulate": settings.accumulate, "checkpointing": settings.checkpointing} | kept.get(
            f"parts of {name}", {}
        )
    planned = _plan(sets, arguments, found)
    task = Task(
        table, names, str(model), Path(out), judge, test, sets, arguments, planned, four_bit, seed, trust, questions
    )
    same_settings(task.out / "task.json", _noted(task), write=False)
    return task


def _check_data(safety: Sequence[Example], test: Sequence[Example], general: Sequence[Example]) -> None:
    for examples in (safety, test):
        if {e.harmful for e in examples} != {True, False}:
            raise UserError(
                "The data need harmful and harmless queries, to train with and to test on; give others with --data."
            )
    seen = {_told(e) for e in safety}
    if any(_told(e) in seen for e in test):
        raise UserError(
            "The test's queries are among those to train with; give a folder with train.json and test.json (--data)."
        )
    if any(_told(e) in seen for e in general):
        raise UserError("The general data are among the safety data; give others (--general).")


def _check_judge(judge: str, test: Sequence[Example], table: int) -> None:
    check_judge(judge, test)
    if judge not in JUDGES:
        configuration(judge)  # there, at least
    if table == 2 and judge == "keyword":
        raise UserError(
            "Table 2 tells leaks from irrelevant answers, which keywords cannot; give a model that judges (--judge)."
        )


def _training_set(
    recipe: Recipe, safety: Sequence[Example], known: Sequence[Example], general: Sequence[Example]
) -> list[Example]:
    """Of the safety data, or of those with harmful answers where these are wanted, and of general data."""
    harmful, harmless = (
        [e for e in (known if recipe.unlearns else safety) if e.harmful],
        [e for e in safety if not e.harmful],
    )
    wanted = GENERAL
    if recipe.unlearns:
        harmless = harmless[:RETAIN]
        wanted = RETAIN - len(harmless)
    more = general[: wanted if recipe.general else 0]
    return harmful + harmless + [dataclasses.replace(e, id=f"general-{e.id}") for e in more]


def _arguments(recipe: Recipe, text: PreTrainedConfig, steps: int | None) -> dict:
    """What `training.train` is called with for a language model of this configuration, whatever the data."""
    method = objectives.named(recipe.objective)
    if text.hidden_size < objectives.TINY:
        return {"lr": method.lr, "steps": steps or method.steps, "rank": 16}
    hyper = dict(recipe.hyper)
    if "layer" in method.hyper:
        hyper["layer"] = max(1, round(RMU_DEPTH * text.num_hidden_layers))
    return {"lr": recipe.lr, **({"steps": steps} if steps else {}), **LORA, **hyper}


def _batch(recipe: Recipe, text: PreTrainedConfig, examples: Sequence[Example]) -> dict[str, int]:
    """Harmful and harmless examples a step."""
    method = objectives.named(recipe.objective)
    if text.hidden_size < objectives.TINY:
        return {"forget": method.forget, "retain": method.retain}
    if recipe.unlearns:
        return {"forget": 4, "retain": 4}
    sixteens = round(
        BATCH / 16 * sum(e.harmful for e in examples) / len(examples)
    )  # as in the data, and easily taken in parts
    forget = 16 * min(max(sixteens, 1), BATCH // 16 - 1)
    return {"forget": forget, "retain": BATCH - forget}


def _steps(name: str, arguments: Mapping, examples: Sequence[Example]) -> int:
    return arguments.get("steps") or max(
        1, round(RECIPES[name].epochs * sum(e.harmful for e in examples) / arguments["forget"])
    )


def _fitting(
    model: str,
    sets: Mapping[str, Sequence[Example]],
    arguments: Mapping[str, dict],
    memory: int,
    trust: Collection[str],
    kept: bool | None,
) -> tuple[dict[str, tuple[Settings, Memory]], bool]:
    """Settings with which each training fits and what memory they take, and whether in 4 bits: all are, where one needs it.

    kept: whether an earlier run was in 4 bits.
    """
    config = configuration(model, trust)
    if config.model_type not in ARCHITECTURES:
        say(f"The memory that a {config.model_type} takes is not predicted: it is not in architectures.py.")
        return {}, bool(kept)
    for four_bit in (False, True) if kept is None else (kept,):
        found = {}
        for name, given in arguments.items():
            method = objectives.named(RECIPES[name].objective)
            prompt, answer = longest(model, sets[name], trust)
            settings = Settings(
                RECIPES[name].objective,
                given["forget"],
                given["retain"],
                four_bit=four_bit,
                rank=given["rank"],
                prompt=prompt,
                answer=answer,
                hyper=tuple((key, value) for key, value in given.items() if key in method.hyper),
            )
            *_, (settings, predicted, fits) = fitting(config, settings, memory, best_dtype(best_device()))
            if not fits or (kept is False and settings.four_bit):
                bits = " in 16 bits, as the run in this folder was begun" if kept is False and settings.four_bit else ""
                gib = f"{predicted.total / GIB:.1f} of {memory / GIB:.1f} GiB"
                raise UserError(
                    f"Training {name} does not fit{bits}: it would take {gib}; take a smaller model, or other rows (--row)."
                )
            found[name] = (settings, predicted)
        if not any(settings.four_bit for settings, _ in found.values()):
            break
    return found, four_bit


def _plan(
    sets: Mapping[str, Sequence[Example]], arguments: Mapping[str, dict], found: Mapping[str, tuple[Settings, Memory]]
) -> pd.DataFrame:
    rows = []
    for name, given in arguments.items():
        settings, memory = found.get(name, (None, None))
        saving, gib = (settings.saving, memory.total / GIB) if settings else ("as they are", float("nan"))
        rows.append((name, _steps(name, given, sets[name]), given["forget"], given["retain"], saving, gib))
    return pd.DataFrame(rows, columns=["model", "steps", "forget", "retain", "settings", "memory"])


def _free_memory() -> int:
    """Bytes."""
    import psutil
    import torch

    device = best_device()
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _noted(task: Task) -> dict:
    """By what a run is known that goes on. Rows may be added, and `parts` are those of the first time, whatever memory is free later."""
    noted = {
        "model": task.model,
        "seed": task.seed,
        "judge": task.judge,
        "four bits": task.four_bit,
        "test": _digest(task.test),
    }
    if task.questions:
        noted["questions"] = _digest(task.questions.examples)
    for name, given in task.arguments.items():
        parts = {key: given[key] for key in ("accumulate", "checkpointing") if key in given}
        noted[f"data of {name}"] = _digest(task.examples[name])
        noted[f"parts of {name}"] = parts
        noted[f"settings of {name}"] = {key: value for key, value in given.items() if key not in parts}
    return noted


def _told(example: Example) -> tuple:
    """What an example says, but for its picture's pixels."""
    name = example.image.name if isinstance(example.image, Path) else ""
    return example.id, name, example.query, example.harmful, example.response, example.leak


def _digest(examples: Iterable[Example]) -> str:
    return hashlib.blake2b(repr([_told(e) for e in examples]).encode(), digest_size=8).hexdigest()
