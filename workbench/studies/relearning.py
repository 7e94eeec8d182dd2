"""Relearning: is knowledge gone, or only hidden? Fine-tune briefly, and ask again."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.example import Example, content
from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers, write_answers
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import RESULT_COLUMNS, rates
from workbench.files import make_folder
from workbench.judges.judge import judged
from workbench.models.adapters import further_lora
from workbench.models.identity import fingerprint
from workbench.models.vlm import VLM, Batch, answer_batch, processes
from workbench.runs import same_settings
from workbench.training.curve import Curve, Probe
from workbench.training.loop import fit
from workbench.training.objectives import cross_entropy
from workbench.training.settings import Settings

COUNTS = (0, 5, 10, 20, 50)
TAUGHT = {"harmful": "leak", "harmless": "response"}  # which answer is taught on each kind of query


def relearn(
    vlm: VLM,
    examples: Sequence[Example],
    asked: Sequence[Example],
    counts: Sequence[int] = COUNTS,
    *,
    steps: int = 30,
    lr: float = 5e-4,
    batch: int = 16,
    checkpointing: bool = False,
    rank: int = 16,
    lora_alpha: int = 32,
    judge: str = "exact",
    seed: int = 0,
    out: str | Path | None = None,
) -> pd.DataFrame:
    """Teach a model a few examples again, and ask it harmful queries about other pictures.

    It is taught n harmful examples with their harmful answers, or n harmless ones; smaller sets are part of
    larger ones. Each time a fresh LoRA adapter is trained on top of the model, which afterwards is as it
    was. What comes back after a handful of examples was never gone (arXiv 2409.18025 attacks unlearning like
    this).

    Args:
        vlm: The model.
        examples: What can be taught.
        asked: What is asked afterwards; harmless queries and pictures that are taught are left out.
        counts: n; 0 is the model as it is.
        steps: Optimiser steps, whatever n is.
        lr: Learning rate.
        batch: Examples per step, on each device.
        checkpointing: Recompute activations, for less memory.
        rank: Of the LoRA adapter.
        lora_alpha: Of the LoRA adapter.
        judge: As for `load_judge`.
        seed: Of the choice of examples and of training.
        out: A folder that keeps the answers of what is finished, so that the same call resumes from there.

    Returns:
        taught ("harmful", "harmless"), examples (n), and RESULT_COLUMNS.

    Raises:
        UserError: Too few examples, or one lacks the answer to teach.
    """
    sides = {kind: _drawn([e for e in examples if e.kind == kind], max(counts), kind, seed) for kind in TAUGHT}
    taught = {e.digest for side in sides.values() for e in side}
    queries = [e for e in asked if e.harmful and e.digest not in taught]
    if not queries:
        raise UserError("There is no harmful query to ask about a picture that is not taught; give more examples.")
    step = Settings(
        objective="sft",
        lr=lr,
        steps=steps,
        forget=batch,  # all of a step's examples are of one kind
        retain=0,
        checkpointing=checkpointing,
        rank=rank,
        lora_alpha=lora_alpha,
    )
    folder = Path(out) if out else None
    if folder:
        _note_settings(folder, vlm, sides, queries, step, judge, seed)
    tables, done = [], {}
    for kind, side in sides.items():
        for count in sorted(set(counts)):
            name = f"{kind}-{count}" if count else "as-it-is"
            if name not in done:
                done[name] = _answers(vlm, side[:count], queries, step, judge, seed, folder and folder / f"{name}.csv")
            tables.append(rates(done[name]).assign(taught=kind, examples=count))
    return pd.concat(tables, ignore_index=True)[["taught", "examples", *RESULT_COLUMNS]]


def _drawn(side: Sequence[Example], count: int, kind: str, seed: int) -> list[Example]:
    """`count` examples of one kind, in random order, each with an answer to teach."""
    if len(side) < count:
        raise UserError(
            f"There are {len(side)} {kind} examples to teach, fewer than {count}; give more, or choose lower --counts."
        )
    drawn = [side[i] for i in np.random.default_rng(seed).permutation(len(side))[:count]]
    for example in drawn:
        if not getattr(example, TAUGHT[kind]):
            raise UserError(
                f"The {kind} example {example.id!r} has no answer to teach (harmful_response or response); add it."
            )
    return drawn


def _note_settings(
    folder: Path,
    vlm: VLM,
    sides: dict[str, list[Example]],
    queries: Sequence[Example],
    step: Settings,
    judge: str,
    seed: int,
) -> None:
    """Write what must not change when a run is resumed, or check it."""
    settings: dict[str, Any] = {"model": vlm.name, "weights": fingerprint(vlm), "asked": content(queries)}
    settings |= {"judge": judge, "seed": seed, "steps": step.steps, "lr": step.lr, "batch": step.forget}
    settings |= {"rank": step.rank, "lora_alpha": step.lora_alpha}
    settings |= {kind: content(side) for kind, side in sides.items()}
    same_settings(make_folder(folder) / "config.json", settings, processes().is_main_process)


def _answers(
    vlm: VLM,
    taught: Sequence[Example],
    queries: Sequence[Example],
    step: Settings,
    judge: str,
    seed: int,
    file: Path | None,
) -> pd.DataFrame:
    """The judged answers of a model that was taught some examples: kept, or asked now."""
    if file and file.exists():  # not runs.kept: all processes of one run come here together
        return whole_answers(file)
    if taught:
        with further_lora(vlm, step.rank, step.lora_alpha, seed) as student:
            train_on(student, taught, step, seed)
            answers = ask(student, queries, ["none"])
    else:
        answers = ask(vlm, queries, ["none"])
    answers = judged(answers, queries, judge)
    if file and processes().is_main_process:
        write_answers(file, answers)
    return answers


def train_on(
    student: VLM, examples: Sequence[Example], step: Settings, seed: int, probe: Probe | None = None, every: int = 1
) -> None:
    """Train on the answers that TAUGHT names, going through the examples again and again in random order.

    Args:
        student: What is trained.
        examples: What it is taught.
        step: Steps, learning rate, and examples per step (`forget`).
        seed: Of the order.
        probe: Called with the student every so many steps.
        every: So many steps.
    """
    count = step.steps * step.forget * processes().num_processes
    rng, rows = np.random.default_rng(seed), []
    while len(rows) < count:
        rows += [examples[i] for i in rng.permutation(len(examples))]
    with tempfile.TemporaryDirectory() as folder:
        fit(
            student,
            cross_entropy,
            rows[:count],
            functools.partial(_collate, student),
            Path(folder),
            batch=step.forget,
            lr=step.lr,
            seed=seed,
            save_every=step.steps,
            save_strategy="no",
            curve=Curve(student, probe, every, Path(folder)),
            eval_on_start=False,
            less_memory="Lower --batch, or add --checkpointing; what is finished is kept.",
            gradient_checkpointing=step.checkpointing,
        )
    student.model.eval()


def _collate(student: VLM, chunk: Sequence[Example]) -> Batch:
    return answer_batch(student, chunk, [getattr(e, TAUGHT[e.kind]) for e in chunk])
