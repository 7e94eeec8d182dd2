"""What `reproduce` is to do: examples and settings of each of the paper's models, fitted into memory."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd
import psutil
import torch
from transformers import PreTrainedConfig

from workbench.attacks.kinds import prepare_attack
from workbench.data.example import Example
from workbench.data.readers import SAFE_PICTURE, first_of_each
from workbench.data.usable import with_pictures
from workbench.errors import UserError, say
from workbench.evaluation.tables import FIGURES
from workbench.evaluation.vqa import Questions
from workbench.judges.judge import check_judge
from workbench.models.architectures import ARCHITECTURES
from workbench.models.configuration import configuration
from workbench.models.generation import AS_IS, Generation
from workbench.models.load import load
from workbench.models.vlm import VLM, WIDE, best_device, best_dtype, processes
from workbench.runs import read_settings, same_settings
from workbench.studies.protocols import (
    GENERAL,
    PROTOCOLS,
    RETAIN,
    Recipe,
    default_protocol,
    forgotten,
    generation_of,
    settings_of,
)
from workbench.training.memory import GIB, Memory, fitting, longest
from workbench.training.sets import with_leaks
from workbench.training.settings import Settings

TABLES = {1: ("base", "sft", "sft-posthoc", "npo", "rmu"), 2: ("sft", "sft-posthoc", "npo", "rmu")}
ATTACKS = list(dict.fromkeys(attack for attack, *_ in FIGURES.values()))
ATTACKED = {attack: queries for attack, queries, _ in FIGURES.values() if attack != "none"}  # on which it is counted


class Plan(NamedTuple):
    """How one model is trained: examples, settings, and predicted memory (None if it is not predicted)."""

    examples: list[Example]
    settings: Settings
    memory: Memory | None


@dataclasses.dataclass(frozen=True)
class Task:
    """What `reproduce` is to do.

    Attributes:
        table: The paper's table, 1 or 2.
        names: Its rows.
        model: Hub id or folder of the base.
        out: The folder of the run.
        judge: As for `load_judge`.
        test: Test examples.
        plans: How each row that is trained is trained.
        by_epochs: Whether the number of steps follows from the recipes' epochs.
        seed: Of training.
        trust: As for `load`.
        questions: Of visual question answering, for utility.
        generation: How models write their answers.
        protocol: A name in protocols.PROTOCOLS.
        attacks: {attack of a figure: the same, or the file of prepared queries that stands for it}.
        left_out: Ids of test examples that are not asked, but that such a file may be about.
    """

    table: int
    names: list[str]
    model: str
    out: Path
    judge: str
    test: list[Example]
    plans: dict[str, Plan]
    by_epochs: bool
    seed: int
    trust: Collection[str]
    questions: Questions | None
    generation: Generation = AS_IS
    protocol: str = "workbench"
    attacks: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(zip(ATTACKS, ATTACKS, strict=True)))
    left_out: frozenset[str] = frozenset()

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """How the rows are trained."""
        return PROTOCOLS[self.protocol].recipes

    @property
    def four_bit(self) -> bool:
        """Whether models are held in 4 bits: all are, if one needs it."""
        return any(plan.settings.four_bit for plan in self.plans.values())

    def load(self, name: str = "base") -> VLM:
        """One of the models; it must have been trained."""
        adapter = None if name == "base" else self.out / "models" / name
        return load(self.model, adapter, four_bit=self.four_bit, trust=self.trust, generation=self.generation)

    @property
    def folder(self) -> Path:
        """Where the table goes."""
        return self.out / f"table{self.table}"

    @property
    def unknown(self) -> list[Example]:
        """The harmful training queries for which no harmful answer is known."""
        unlearning = (e for name, plan in self.plans.items() if self.recipes[name].unlearns for e in plan.examples)
        return list({e.id: e for e in unlearning if e.harmful and not e.leak}.values())

    @property
    def summary(self) -> pd.DataFrame:
        """One row per model to train: model, steps, forget, retain (per step), settings, memory (in GiB)."""
        rows = []
        for name, plan in self.plans.items():
            step = plan.settings
            gib = plan.memory.total / GIB if plan.memory else float("nan")
            rows.append((name, step.steps, step.forget, step.retain, step.saving, gib))
        return pd.DataFrame(rows, columns=["model", "steps", "forget", "retain", "settings", "memory"])


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
    generation: Generation = AS_IS,
    protocol: str | None = None,
    attacked: Mapping[str, str] = MappingProxyType({}),
) -> Task:
    """Choose recipes, and settings with which they fit into memory; nothing is loaded or trained yet.

    Args:
        model: Hub id or folder of the base.
        safety: Examples to train with.
        test: Examples to test on; harmful queries about VLGuard's safe pictures are left out, as in the
            paper.
        out: The folder of the run.
        table: The paper's table, 1 or 2.
        rows: Models of the table; all by default.
        general: Harmless examples such as LLaVA's conversations; without them Mixed SFT ("sft") is left out.
        judge: As for `load_judge`.
        memory: Bytes of the device; by default what it has free.
        harmful_answers: What is to be forgotten (`with_leaks`). Without it, where the data do not say, the
            base model's own answers that the judge calls relevant.
        steps: Of every model, instead of the recipe's.
        queries: Use the first N harmful and the first N harmless test queries.
        seed: Of training.
        trust: As for `load`.
        questions: Utility is VQA accuracy on them; without, the share of harmless queries answered.
        generation: How models write their answers; what it leaves open is the protocol's.
        protocol: A name in protocols.PROTOCOLS; None for `default_protocol`.
        attacked: {attack of a figure: a file of prepared queries that stands for it}, for ATTACKED.

    Raises:
        UserError: Something is unknown, missing or does not go together, nothing fits, or `out` holds
            another run.
    """
    everything = test
    test = [e for e in test if e.request != SAFE_PICTURE]
    test = first_of_each(test, queries) if queries else test
    left_out = frozenset(e.id for e in everything) - {e.id for e in test}
    attacks = dict(zip(ATTACKS, ATTACKS, strict=True)) | _checked_files(attacked, test, left_out)
    general = [e for e in general if not e.harmful]
    names = _checked_rows(table, rows, general)
    _check_data(safety, test, general)
    _check_judge(judge, test, table)
    if questions:
        with_pictures(questions.examples)
    known = with_leaks(safety, harmful_answers) if harmful_answers else safety
    protocol = protocol or default_protocol(safety, bool(harmful_answers))
    recipes = _recipes(protocol)
    to_forget = forgotten(protocol, known)
    if not to_forget and any(e.harmful for e in known) and any(recipes[n].unlearns for n in names if n != "base"):
        raise UserError(
            f"The protocol {protocol} forgets harmful queries about unsafe pictures alone, and none has a harmful "
            "answer; give such answers (--harmful-answers), or choose --protocol workbench."
        )
    sets = {name: _training_set(recipes[name], safety, to_forget, general) for name in names if name != "base"}
    config = configuration(model, trust)
    text = config.get_text_config()
    settings = {name: settings_of(recipes[name], text, examples, steps) for name, examples in sets.items()}
    earlier = read_settings(Path(out) / "task.json")
    plans = _fitted(model, config, sets, settings, memory or _free_memory(), trust, earlier)
    by_epochs = steps is None and text.hidden_size >= WIDE
    generation = generation_of(protocol, generation, config)
    place = (table, names, str(model), Path(out), judge, test, plans, by_epochs, seed, trust)
    task = Task(*place, questions, generation, protocol, attacks, left_out)
    same_settings(task.out / "task.json", task_settings(task), write=False)
    return task


def _recipes(protocol: str) -> Mapping[str, Recipe]:
    """The recipes of a protocol. Raises UserError if there is none of that name."""
    if protocol not in PROTOCOLS:
        raise UserError(f"There is no protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)} (--protocol).")
    return PROTOCOLS[protocol].recipes


def _checked_files(attacked: Mapping[str, str], test: Sequence[Example], left_out: Collection[str]) -> dict[str, str]:
    """The same files, each about some of the queries that its attack is counted on; says about how many."""
    for name, file in attacked.items():
        attack = prepare_attack(file, test, left_out)
        asked = [e for e in test if e.kind == ATTACKED[name]]
        count = sum(attack.of(e, 1) is not None for e in asked)
        if not count:
            raise UserError(f"Attack file {file} has no {ATTACKED[name]} query of the test data; give another.")
        variants = sum(attack.of(e, shot) is not None for e in asked for shot in range(1, attack.shots + 1))
        say(f"{file} has {variants} attacked forms of {count} of {len(asked)} {ATTACKED[name]} queries.")
    return dict(attacked)


def _checked_rows(table: int, rows: Collection[str], general: Sequence[Example]) -> list[str]:
    """The rows of the table that can be made."""
    if processes().num_processes > 1:
        raise UserError(
            "The paper's tables are made by one process; use several for `workbench train` and `workbench evaluate`."
        )
    if table not in TABLES:
        raise UserError(f"There is no table {table} to reproduce; choose 1 or 2.")
    if unknown := set(rows) - set(TABLES[table]):
        known = ", ".join(TABLES[table])
        raise UserError(f"Table {table} has no row {', '.join(sorted(unknown))}; choose from {known}.")
    names = [name for name in TABLES[table] if name in (rows or TABLES[table])]
    if "sft" in names and not general:
        if rows:
            raise UserError(
                "Mixed SFT (sft) needs general data such as LLaVA's conversations; pass --general FILE, or another "
                "--row."
            )
        say("Mixed SFT (sft) is left out: it needs general data such as LLaVA's conversations (--general FILE).")
        names.remove("sft")
    return names


def _check_data(safety: Sequence[Example], test: Sequence[Example], general: Sequence[Example]) -> None:
    for examples in (safety, test):
        if {e.harmful for e in examples} != {True, False}:
            raise UserError(
                "The data need harmful and harmless queries, to train with and to test on; choose others with --data."
            )
    seen = {_facts(e) for e in safety}
    if any(_facts(e) in seen for e in test):
        raise UserError(
            "Some test queries are also training queries; give a folder with train.json and test.json (--data)."
        )
    if any(_facts(e) in seen for e in general):
        raise UserError("The general data are part of the safety data; give others (--general).")


def _check_judge(judge: str, test: Sequence[Example], table: int) -> None:
    check_judge(judge, test)
    if table == 2 and judge.split(",")[0] == "keyword":
        raise UserError(
            "Table 2 tells leaks from irrelevant answers, which keywords cannot; choose a model as judge (--judge)."
        )


def _training_set(
    recipe: Recipe, safety: Sequence[Example], to_forget: Sequence[Example], general: Sequence[Example]
) -> list[Example]:
    """A recipe's examples: safety data, of which some are to be forgotten, and general data."""
    harmful = list(to_forget) if recipe.unlearns else [e for e in safety if e.harmful]
    harmless = [e for e in safety if not e.harmful]
    count = GENERAL
    if recipe.unlearns:
        harmless = harmless[:RETAIN]
        count = RETAIN - len(harmless)
    added = general[: count if recipe.general else 0]
    return harmful + harmless + [dataclasses.replace(e, id=f"general-{e.id}") for e in added]


def _fitted(
    model: str,
    config: PreTrainedConfig,
    sets: Mapping[str, list[Example]],
    settings: Mapping[str, Settings],
    memory: int,
    trust: Collection[str],
    earlier: Mapping[str, Any],
) -> dict[str, Plan]:
    """Plans that fit into memory. All models are in 4 bits if one needs it, or if the earlier run was."""
    in_four_bits = earlier.get("four bits")
    if config.model_type not in ARCHITECTURES:
        say(f"The memory that a {config.model_type} needs is not predicted: it is not in architectures.py.")
        return {
            name: Plan(sets[name], dataclasses.replace(step, four_bit=bool(in_four_bits)), None)
            for name, step in settings.items()
        }
    plans = {}
    for four_bit in (False, True) if in_four_bits is None else (in_four_bits,):
        plans = {}
        for name, step in settings.items():
            step = dataclasses.replace(step, four_bit=four_bit)
            fitted = _fit_one(name, model, config, sets[name], step, memory, trust, in_four_bits is False)
            parts = earlier.get(f"parts of {name}", {})  # as they were first, whatever memory is free now
            plans[name] = fitted._replace(settings=dataclasses.replace(fitted.settings, **parts))
        if not any(plan.settings.four_bit for plan in plans.values()):
            break
    return plans


def _fit_one(
    name: str,
    model: str,
    config: PreTrainedConfig,
    examples: list[Example],
    step: Settings,
    memory: int,
    trust: Collection[str],
    sixteen_bit: bool,
) -> Plan:
    """The plan of one model. sixteen_bit: whether the run in the folder was begun without 4 bits."""
    prompt, answer = longest(model, examples, trust)
    *_, (fitted, predicted, fits) = fitting(
        config, step, memory, prompt, answer, best_dtype(best_device(), config.get_text_config().hidden_size)
    )
    changed = sixteen_bit and fitted.four_bit
    if not fits or changed:
        bits = " in 16 bits, as the run in this folder was begun" if changed else ""
        raise UserError(
            f"Training {name} does not fit{bits}: it would take {predicted.total / GIB:.1f} of {memory / GIB:.1f} GiB; "
            "choose a smaller model, or other rows (--row)."
        )
    return Plan(examples, fitted, predicted)


def _free_memory() -> int:
    """Free bytes of the device."""
    device = best_device()
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def task_settings(task: Task) -> dict[str, Any]:
    """What must not change when a run is resumed. Rows may be added."""
    settings: dict[str, Any] = {
        "model": task.model,
        "seed": task.seed,
        "judge": task.judge,
        "protocol": task.protocol,
        "attacks": {name: name if file == name else _file_digest(file) for name, file in task.attacks.items()},
        "four bits": task.four_bit,
        "test": _digest(task.test),
        **{name: value for name, value in dataclasses.asdict(task.generation).items() if name != "seed"},
    }
    if task.questions:
        settings["questions"] = _digest(task.questions.examples)
    for name, plan in task.plans.items():
        fields = {f.name: getattr(plan.settings, f.name) for f in dataclasses.fields(plan.settings)}
        fields["hyper"] = dict(fields["hyper"])
        settings[f"data of {name}"] = _digest(plan.examples)
        settings[f"parts of {name}"] = {key: fields.pop(key) for key in ("accumulate", "checkpointing")}
        settings[f"settings of {name}"] = fields
    return settings


def _facts(example: Example) -> tuple[str, str, str, bool, str, str]:
    """What an example says, apart from its picture's pixels."""
    name = example.image.name if isinstance(example.image, Path) else ""
    return example.id, name, example.query, example.harmful, example.response, example.leak


def _file_digest(file: str) -> str:
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=8).hexdigest()


def _digest(examples: Iterable[Example]) -> str:
    return hashlib.blake2b(repr([_facts(e) for e in examples]).encode(), digest_size=8).hexdigest()
