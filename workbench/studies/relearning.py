"""Relearning: is knowledge gone, or only out of sight? Fine-tune a little, on harmful examples or on harmless ones alone, and ask again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.data.example import Example
from workbench.errors import UserError
from workbench.evaluation.answers import whole_answers, write_answers
from workbench.evaluation.ask import ask
from workbench.evaluation.tables import RESULT_COLUMNS, rates
from workbench.files import make_folder
from workbench.models.adapters import further_lora
from workbench.models.load import fingerprint
from workbench.models.vlm import VLM, Batch, answer_batch, processes
from workbench.runs import same_settings
from workbench.training.curve import Curve
from workbench.training.loop import fit
from workbench.training.objectives import cross_entropy

COUNTS = (0, 5, 10, 20, 50)
ANSWERED = {
    "harmful": lambda example: example.leak,
    "harmless": lambda example: example.response,
}  # what is taught on each kind


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
    """Teach a model n of the harmful `examples` with their harmful answers, or n of the harmless ones, and ask it the harmful queries of
    `asked` about other pictures: RESULT_COLUMNS, with taught (harmful, harmless) and examples (n) in front.

    Each time a fresh LoRA adapter is trained on top of the model for as many steps, whatever n; smaller sets are part of larger ones; 0 is
    the model as it is, which it also is afterwards. What comes back after a handful of examples was never gone (arXiv 2409.18025 attacks
    unlearning so). batch: examples a step, on each device. checkpointing: keep no activations, for less memory.
    out: a folder that keeps the answers of what is finished, so that the same call goes on from there.
    Raises UserError where there are too few examples, or one lacks the answer to be taught.
    """
    sides = {kind: _drawn([e for e in examples if e.kind == kind], max(counts), kind, seed) for kind in ANSWERED}
    taught = {e.digest for side in sides.values() for e in side}
    queries = [e for e in asked if e.harmful and e.digest not in taught]
    if not queries:
        raise UserError("There is no harmful query to ask about a picture that is not taught; give more examples.")
    if out:
        settings = {
            "model": vlm.name,
            "weights": fingerprint(vlm),
            "asked": [e.id for e in queries],
            "judge": judge,
            "seed": seed,
        }
        settings |= {"steps": steps, "lr": lr, "batch": batch, "rank": rank, "lora_alpha": lora_alpha}
        settings |= {kind: [e.id for e in side] for kind, side in sides.items()}
        same_settings(make_folder(Path(out)) / "config.json", settings, processes().is_main_process)

    def answers(kind: str, count: int) -> pd.DataFrame:
        if not count:
            return ask(vlm, queries, ["none"], judge)
        with further_lora(vlm, rank, lora_alpha, seed) as student:
            _teach(
                student,
                sides[kind][:count],
                ANSWERED[kind],
                steps,
                lr=lr,
                batch=batch,
                seed=seed,
                gradient_checkpointing=checkpointing,
            )
            return ask(student, queries, ["none"], judge)

    tables, found = [], {}
    for kind in sides:
        for count in sorted(set(counts)):
            name = f"{kind}-{count}" if count else "as-it-is"
            file = Path(out) / f"{name}.csv" if out else None
            if file and file.exists():
                found[name] = whole_answers(file)
            elif name not in found:
                found[name] = answers(kind, count)
                if file and processes().is_main_process:
                    write_answers(file, found[name])
            tables.append(rates(found[name]).assign(taught=kind, examples=count))
    return pd.concat(tables, ignore_index=True)[["taught", "examples", *RESULT_COLUMNS]]


def _drawn(side: list[Example], count: int, kind: str, seed: int) -> list[Example]:
    if len(side) < count:
        raise UserError(
            f"There are {len(side)} {kind} examples to teach, fewer than {count}; give more, or ask for fewer."
        )
    drawn = [side[i] for i in np.random.default_rng(seed).permutation(len(side))[:count]]
    for example in drawn:
        if not ANSWERED[kind](example):
            raise UserError(
                f"The {kind} example {example.id!r} has no answer to teach (harmful_response or response); add it."
            )
    return drawn


def _teach(student: VLM, examples: list[Example], answer: Callable[[Example], str], steps: int, **options) -> None:
    """`steps` steps of cross-entropy, going through the examples again and again in random order. options: of `fit`."""
    rng, rows, wanted = np.random.default_rng(options["seed"]), [], steps * options["batch"] * processes().num_processes
    while len(rows) < wanted:
        rows += [examples[i] for i in rng.permutation(len(examples))]

    def collate(chunk: Sequence[Example]) -> Batch:
        return answer_batch(student, chunk, [answer(e) for e in chunk])

    with tempfile.TemporaryDirectory() as folder:
        fit(
            student,
            cross_entropy,
            rows[:wanted],
            collate,
            Path(folder),
            save_every=steps,
            save_strategy="no",
            curve=Curve(student),
            less_memory="Lower --batch, or add --checkpointing; what is finished is kept.",
            **options,
        )
    student.model.eval()
