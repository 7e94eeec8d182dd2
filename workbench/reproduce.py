"""The paper's tables on a model and data of one's own: plan, train, ask, attack, judge, and set beside the paper's (arXiv 2503.11832).

`prepare` reads the data and predicts the memory, `hours` measures how long it will take, `reproduce` does it, and goes on where an earlier
run stopped. All is kept in one folder: models/NAME, answers/NAME, and the tables.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from . import judges, objectives, plan
from .agreement import judged
from .answers import read_answers, write_answers
from .architectures import ARCHITECTURES
from .attacks import HEADLINE, parse
from .data import SAFE_PICTURE, Example, first_of_each
from .errors import UserError, say
from .evaluate import ask, rates
from .files import make_folder, read_settings, same_settings, write_text
from .forget import with_leaks
from .models import VLM, answer_batch, best_device, best_dtype, load, token_logprobs
from .paper import table_1, table_2
from .study import phase
from .training import train

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from .vqa import Questions

TABLES = {1: ("base", "sft", "sft-posthoc", "npo", "rmu"), 2: ("sft", "npo", "rmu")}
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


# LoRA throughout, for models of true size (see TINY). SFT: learning rate, epochs and batch of VLGuard (arXiv 2402.02207), whose post-hoc
# training adds general data, where ours is on the safety data alone. NPO and RMU: the paper's settings at 7B; RMU's layer is the fifteenth
# of 32, or as deep elsewhere.
RECIPES = {
    "sft": Recipe("sft", True, 2e-4, 3),
    "sft-posthoc": Recipe("sft", False, 2e-4, 3),
    "npo": Recipe("npo", True, 1.1e-5, 1, {"beta": 0.7}),
    "rmu": Recipe("rmu", True, 1.1e-5, 10, {"c": 10.0}),
}
TINY = 512  # hidden size; smaller models learn by the recipes of objectives.py, which were chosen on MiniGuard (128)
LORA = {"rank": 128, "lora_alpha": 256}
RMU_DEPTH = 15 / 32


@dataclasses.dataclass(frozen=True)
class Task:
    """What `reproduce` is to do. examples: the training data of each model; arguments: those of `training.train`.
    plan: model, steps, forget and retain (examples a step), settings, memory (GiB, predicted)."""

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
    def unknown(self) -> list[Example]:
        """The harmful training queries to which no harmful answer is known."""
        lacking = (e for name in ("npo", "rmu") for e in self.examples.get(name, ()) if e.harmful and not e.leak)
        return list({e.id: e for e in lacking}.values())


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
    Raises UserError for what is unknown, and where nothing fits.
    """
    if table not in TABLES:
        raise UserError(f"There is no table {table} to reproduce; choose 1 or 2.")
    if unknown := set(rows) - set(TABLES[table]):
        raise UserError(f"Table {table} has no row {', '.join(sorted(unknown))}; choose from {', '.join(TABLES[table])}.")
    test = [e for e in test if e.request != SAFE_PICTURE]
    test = first_of_each(test, queries) if queries else test
    judges.check(judge, test)
    for examples in (safety, test):
        if {e.harmful for e in examples} != {True, False}:
            raise UserError("The data need harmful and harmless queries, to train with and to test on; give others with --data.")
    names = [name for name in TABLES[table] if name in (rows or TABLES[table])]
    if "sft" in names and not general:
        say("Mixed SFT (sft) is left out: it needs general data, such as LLaVA's conversations (--general FILE).")
        names.remove("sft")
    known = with_leaks(safety, harmful_answers) if harmful_answers else safety
    sets = {name: _training_set(RECIPES[name], safety, known, general) for name in names if name != "base"}
    text = plan.configuration(model, trust).get_text_config()
    arguments = {name: _arguments(RECIPES[name], text, examples, steps) for name, examples in sets.items()}
    found, four_bit = _fitting(model, sets, arguments, memory or _free_memory(), trust)
    for name, (settings, _) in found.items():
        arguments[name] |= {"accumulate": settings.accumulate, "checkpointing": settings.checkpointing}
    planned = _plan(arguments, found)
    return Task(table, names, model, Path(out), judge, test, sets, arguments, planned, four_bit, seed, trust, questions)


def _training_set(recipe: Recipe, safety: Sequence[Example], known: Sequence[Example], general: Sequence[Example]) -> list[Example]:
    """Of the safety data, or of those with harmful answers where these are wanted, and of general data."""
    unlearns = objectives.named(recipe.objective).unlearns
    harmful, harmless = [e for e in (known if unlearns else safety) if e.harmful], [e for e in safety if not e.harmful]
    wanted = GENERAL
    if unlearns:
        harmless = harmless[:RETAIN]
        wanted = RETAIN - len(harmless)
    more = [e for e in general if not e.harmful][: wanted if recipe.general else 0]
    return harmful + harmless + [dataclasses.replace(e, id=f"general-{e.id}") for e in more]


def _arguments(recipe: Recipe, text: PreTrainedConfig, examples: Sequence[Example], steps: int | None) -> dict:
    """What `training.train` is called with: the recipe for as many examples, and a language model of this configuration."""
    method, harmful = objectives.named(recipe.objective), sum(e.harmful for e in examples)
    if text.hidden_size < TINY:
        return {"lr": method.lr, "steps": steps or method.steps, "forget": method.forget, "retain": method.retain, "rank": 16}
    forget, retain = 4, 4
    if not method.unlearns:  # each step holds as much of either kind as the data do, to the nearest sixteen
        forget = min(max(round(BATCH / 16 * harmful / len(examples)), 1), BATCH // 16 - 1) * 16
        retain = BATCH - forget
    hyper = dict(recipe.hyper)
    if "layer" in method.hyper:
        hyper["layer"] = max(1, round(RMU_DEPTH * text.num_hidden_layers))
    return {
        "lr": recipe.lr,
        "steps": steps or max(1, round(recipe.epochs * harmful / forget)),
        "forget": forget,
        "retain": retain,
        **LORA,
        **hyper,
    }


def _fitting(
    model: str, sets: Mapping[str, Sequence[Example]], arguments: Mapping[str, dict], memory: int, trust: Collection[str]
) -> tuple[dict[str, tuple[plan.Settings, plan.Memory]], bool]:
    """Settings with which each training fits and what memory they take, and whether in 4 bits: all are, where one needs it."""
    config = plan.configuration(model, trust)
    if config.model_type not in ARCHITECTURES:
        say(f"The memory that a {config.model_type} takes has not been predicted: it is not in architectures.py.")
        return {}, False
    for four_bit in (False, True):
        found = {}
        for name, given in arguments.items():
            method = objectives.named(RECIPES[name].objective)
            prompt, answer = plan.longest(model, sets[name], trust)
            settings = plan.Settings(
                RECIPES[name].objective,
                given["forget"],
                given["retain"],
                four_bit=four_bit,
                rank=given["rank"],
                prompt=prompt,
                answer=answer,
                hyper=tuple((key, value) for key, value in given.items() if key in method.hyper),
            )
            *_, (settings, predicted, fits) = plan.fitting(config, settings, memory, best_dtype(best_device()))
            if not fits:
                gib = f"{predicted.total / plan.GIB:.1f} of {memory / plan.GIB:.1f} GiB"
                raise UserError(f"Training {name} does not fit: it would take {gib}; take a smaller model, or fewer rows (--row).")
            found[name] = (settings, predicted)
        if four_bit or not any(settings.four_bit for settings, _ in found.values()):
            break
    return found, four_bit


def _plan(arguments: Mapping[str, dict], found: Mapping[str, tuple[plan.Settings, plan.Memory]]) -> pd.DataFrame:
    rows = []
    for name, given in arguments.items():
        settings, memory = found.get(name, (None, None))
        saving, gib = (settings.saving, memory.total / plan.GIB) if settings else ("as they are", float("nan"))
        rows.append((name, given["steps"], given["forget"], given["retain"], saving, gib))
    return pd.DataFrame(rows, columns=["model", "steps", "forget", "retain", "settings", "memory"])


def _free_memory() -> int:
    """Bytes."""
    import psutil
    import torch

    device = best_device()
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def hours(task: Task) -> float:
    """How long it will take from where it stands, but for a judge that is a model. For this the base model is asked a few queries.

    A training step is taken for three passes over its examples, four with checkpointing.
    """
    import torch

    vlm, some = task.load(), task.test[:16]
    images, queries = [e.picture() for e in some], [e.query for e in some]
    answer = max((e.response or e.query for e in task.test), key=len)

    def seconds(run: Callable[[], object]) -> float:
        run()  # the first time takes longer
        started = time.monotonic()
        run()
        return time.monotonic() - started

    def one_pass() -> None:
        with torch.inference_mode():
            token_logprobs(vlm.model, answer_batch(vlm, images[:4], queries[:4], [answer] * 4))[0].sum().item()

    asked, passed = seconds(lambda: vlm.answers(images, queries)) / len(some), seconds(one_pass) / len(some[:4])
    shots, questions = sum(parse(name)[1] for name in HEADLINE), len(task.questions.examples) if task.questions else 0
    left = [name for name in task.names if not _finished(task.out / "answers" / name)]
    own = 0 if _finished(task.out / "own") else len(task.unknown)
    total = asked * (len(left) * (shots * len(task.test) + questions) + own)
    for row in task.plan.itertuples(index=False):
        if not (task.out / "models" / row.model).exists():
            total += row.steps * (row.forget + row.retain) * passed * (4 if "checkpointing" in row.settings else 3)
    return total / 3600


class Reproduction(NamedTuple):
    """table: paper.COLUMNS. results, answers: as of `evaluate`."""

    table: pd.DataFrame
    results: pd.DataFrame
    answers: pd.DataFrame


def reproduce(task: Task, report: Callable[[str], None] = lambda line: None) -> Reproduction:
    """Train and evaluate the table's models, as far as `task.out` does not hold them yet; writes tableN.csv and results.csv there.

    report: called with a line per phase. Raises UserError where the folder holds a run with other settings.
    """
    make_folder(task.out)
    common = {"model": task.model, "seed": task.seed, "judge": task.judge, "four_bit": task.four_bit, "queries": len(task.test)}
    same_settings(task.out / "task.json", common)
    for name, arguments in task.arguments.items():
        same_settings(task.out / "models" / f"{name}.json", {"examples": len(task.examples[name]), **arguments})
    own = _own_answers(task, report)
    for name in task.arguments:
        phase(f"train {name}", report, (task.out / "models" / name).exists(), lambda n=name: _train(task, n, own))
    parts = [_judged(task, name, task.test, HEADLINE, task.out / "answers" / name, report) for name in task.names]
    answers = pd.concat(parts, ignore_index=True)
    results = rates(answers)
    if task.table == 1:
        table = table_1(results, pd.concat([_vqa(task, name, report) for name in task.names]) if task.questions else None)
    else:
        table = table_2(answers)
    write_text(task.out / f"table{task.table}.csv", table.to_csv(index=False))
    write_text(task.out / "results.csv", results.to_csv(index=False))
    return Reproduction(table, results, answers)


def _own_answers(task: Task, report: Callable[[str], None]) -> Path | None:
    """The folder of the base model's own answers, where it takes them to know what is to be forgotten."""
    if not task.unknown:
        return None
    folder = task.out / "own"
    found = _judged(task, "base", task.unknown, ["none"], folder, report)
    report(f"To forget: {int((found.outcome == judges.RELEVANT).sum())} of the base model's {len(found)} answers to harmful queries")
    return folder if task.judge in judges.JUDGES else folder / "judged"


def _train(task: Task, name: str, own: Path | None) -> None:
    recipe, examples = RECIPES[name], task.examples[name]
    if own and objectives.named(recipe.objective).unlearns:
        examples = with_leaks(examples, own)
    folder = task.out / "models" / name
    train(task.load(), recipe.objective, examples, out=folder, seed=task.seed, resume=True, **task.arguments[name])
    _release()


def _judged(
    task: Task, name: str, examples: Sequence[Example], attacks: Sequence[str], folder: Path, report: Callable[[str], None]
) -> pd.DataFrame:
    """A model's answers, judged. A judge that is a model is loaded once the first is gone, and its verdicts lie in folder/judged."""
    apart = task.judge not in judges.JUDGES
    _ask(task, name, examples, attacks, "keyword" if apart else task.judge, folder, report)
    if not apart:
        return read_answers(folder)[0]

    def judge() -> None:
        write_answers(folder / "judged" / "answers.csv", judged(read_answers(folder)[0], examples, task.judge))
        write_text(folder / "judged" / "answers.json", json.dumps({"judge": task.judge}) + "\n")

    phase(f"judge {name}", report, _finished(folder / "judged"), judge)
    return read_answers(folder / "judged")[0]


def _ask(
    task: Task, name: str, examples: Sequence[Example], attacks: Sequence[str], judge: str, folder: Path, report: Callable[[str], None]
) -> None:
    label = f"ask {name}, {folder.relative_to(task.out)}"
    phase(label, report, _finished(folder), lambda: ask(task.load(name), examples, attacks, judge, file=folder / "answers.csv"))
    _release()


def _vqa(task: Task, name: str, report: Callable[[str], None]) -> pd.DataFrame:
    from .vqa import vqa_table

    folder = task.out / "vqa" / name
    _ask(task, name, task.questions.examples, ["none"], "keyword", folder, report)
    return vqa_table(read_answers(folder)[0], task.questions)


def _finished(folder: Path) -> bool:
    return (folder / "answers.csv").is_file() and "judge" in read_settings(folder / "answers.json")


def _release() -> None:
    """Give back the memory of a model that is gone, before the next comes."""
    from accelerate.utils.memory import clear_device_cache

    gc.collect()
    clear_device_cache()
