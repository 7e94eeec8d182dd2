"""The paper's tables on a model and data of one's own: plan, train, ask, attack, judge, and set beside the paper's (arXiv 2503.11832).

`prepare` reads the data and predicts the memory, `hours` measures how long it will take, `reproduce` does it, and goes on where an earlier
run stopped. All is kept in one folder: models/NAME, answers/NAME, table1/ and table2/.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from accelerate.utils.memory import clear_device_cache

from workbench.attacks.one_word import parse
from workbench.data.example import Example
from workbench.evaluation.answers import read_answers, write_answers
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import rates
from workbench.files import make_folder, write_text
from workbench.judges.judge import JUDGES, judged
from workbench.judges.outcomes import RELEVANT
from workbench.models.scores import token_logprobs
from workbench.models.vlm import answer_batch
from workbench.runs import phase, read_settings, same_settings
from workbench.studies.paper import table_1, table_2
from workbench.studies.recipes import ATTACKS, RECIPES, TABLES, Task, _noted, _steps
from workbench.training.sets import with_leaks
from workbench.training.train import train

if TYPE_CHECKING:
    pass


def hours(task: Task) -> float:
    """How long it will take from where it stands, but for a judge that is a model. For this the base model is asked a few queries.

    A training step is taken for three passes over its examples, four with checkpointing.
    """
    import torch

    shots = sum(parse(attack)[1] for attack in ATTACKS)
    answers = shots * len(task.test) * sum(not _finished(task.out / "answers" / name) for name in task.names)
    answers += 0 if _finished(task.out / "own") else len(task.unknown)
    if task.questions:
        answers += len(task.questions.examples) * sum(not _finished(task.out / "vqa" / name) for name in task.names)
    passes = sum(
        row.steps * (row.forget + row.retain) * (4 if "checkpointing" in row.settings else 3)
        for row in task.plan.itertuples(index=False)
        if not (task.out / "models" / row.model).exists()
    )
    if not answers and not passes:
        return 0.0
    vlm, some = task.load(), task.test[:16]
    images, queries = [e.picture() for e in some], [e.query for e in some]
    longest = max((e.response or e.query for e in task.test), key=len)

    def seconds(run: Callable[[], object]) -> float:
        run()  # the first time takes longer
        started = time.monotonic()
        run()
        return time.monotonic() - started

    def one_pass() -> None:
        with torch.inference_mode():
            logprobs, _ = token_logprobs(vlm.model, answer_batch(vlm, some[:4], [longest] * len(some[:4])))
            logprobs.sum().item()  # waits for the device

    return (
        answers * seconds(lambda: vlm.answers(images, queries)) / len(some) + passes * seconds(one_pass) / len(some[:4])
    ) / 3600


class Reproduction(NamedTuple):
    """table: paper.COLUMNS. results, answers: as of `evaluate`."""

    table: pd.DataFrame
    results: pd.DataFrame
    answers: pd.DataFrame


def reproduce(task: Task, report: Callable[[str], None] = lambda line: None) -> Reproduction:
    """Train and evaluate the table's models, as far as `task.out` does not hold them; writes table.csv and results.csv to `task.folder`.

    Rows of an earlier run in `task.out` stay in the table. report: called with a line per phase.
    Raises UserError where the folder holds a run with other settings.
    """
    make_folder(task.out)
    file = task.out / "task.json"
    same_settings(file, read_settings(file) | _noted(task))
    own = _own_answers(task, report)
    for name in task.arguments:
        phase(f"train {name}", report, (task.out / "models" / name).exists(), lambda n=name: _train(task, n, own))
    shown = [
        name
        for name in TABLES[task.table]
        if name in task.names or _finished(_verdicts(task, task.out / "answers" / name))
    ]
    answers = pd.concat(
        [_judged(task, n, task.test, ATTACKS, task.out / "answers" / n, report) for n in shown], ignore_index=True
    )
    results = rates(answers)
    if task.table == 1:
        table = table_1(results, pd.concat([_vqa(task, name, report) for name in shown]) if task.questions else None)
    else:
        table = table_2(answers)
    write_text(task.folder / "table.csv", table.to_csv(index=False))
    write_text(task.folder / "results.csv", results.to_csv(index=False))
    return Reproduction(table, results, answers)


def _own_answers(task: Task, report: Callable[[str], None]) -> Path | None:
    """The folder of the base model's own answers, where it takes them to know what is to be forgotten."""
    if not task.unknown:
        return None
    folder = task.out / "own"
    found = _judged(task, "base", task.unknown, ["none"], folder, report)
    report(
        f"To forget: {int((found.outcome == RELEVANT).sum())} of the base model's {len(found)} answers to harmful queries"
    )
    return _verdicts(task, folder)


def _train(task: Task, name: str, own: Path | None) -> None:
    examples, arguments = task.examples[name], task.arguments[name]
    if own and RECIPES[name].unlearns:
        examples = with_leaks(examples, own)
    for kind in ("answers", "vqa"):  # of an adapter that was removed
        shutil.rmtree(task.out / kind / name, ignore_errors=True)
    arguments = arguments | {"steps": _steps(name, arguments, examples)}
    train(
        task.load(),
        RECIPES[name].objective,
        examples,
        out=task.out / "models" / name,
        seed=task.seed,
        resume=True,
        **arguments,
    )
    clear_device_cache(garbage_collection=True)  # before the next model is loaded


def _judged(
    task: Task,
    name: str,
    examples: Sequence[Example],
    attacks: Sequence[str],
    folder: Path,
    report: Callable[[str], None],
) -> pd.DataFrame:
    """A model's answers, judged. A judge that is a model is loaded once the first is gone, and its verdicts lie in folder/judged."""
    verdicts = _verdicts(task, folder)
    _ask(task, name, examples, attacks, task.judge if verdicts == folder else "keyword", folder, report)

    def judge() -> None:
        from workbench.judges.model import unload

        write_answers(verdicts / "answers.csv", judged(read_answers(folder)[0], examples, task.judge))
        write_text(verdicts / "answers.json", json.dumps({"judge": task.judge}) + "\n")
        unload()
        clear_device_cache(garbage_collection=True)

    if verdicts != folder:
        phase(f"judge {name}, {folder.relative_to(task.out)}", report, _finished(verdicts), judge)
    return read_answers(verdicts)[0]


def _verdicts(task: Task, folder: Path) -> Path:
    """Where the verdicts on the answers in a folder are."""
    return folder if task.judge in JUDGES else folder / "judged"


def _ask(
    task: Task,
    name: str,
    examples: Sequence[Example],
    attacks: Sequence[str],
    judge: str,
    folder: Path,
    report: Callable[[str], None],
) -> None:
    label = f"ask {name}, {folder.relative_to(task.out)}"
    phase(
        label,
        report,
        _finished(folder),
        lambda: ask(task.load(name), examples, attacks, judge, file=folder / "answers.csv"),
    )
    clear_device_cache(garbage_collection=True)


def _vqa(task: Task, name: str, report: Callable[[str], None]) -> pd.DataFrame:
    from workbench.evaluation.vqa import vqa_table

    folder = task.out / "vqa" / name
    _ask(task, name, task.questions.examples, ["none"], "keyword", folder, report)
    return vqa_table(read_answers(folder)[0], task.questions)


def _finished(folder: Path) -> bool:
    return (folder / "answers.csv").is_file() and "judge" in read_settings(folder / "answers.json")
