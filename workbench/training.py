"""One way to train: transformers' Trainer with an objective plugged in, a curve recorded as it goes, and resume.

Forget and retain examples are laid out in one list in the order in which they will be seen, so that every step holds the right
number of each, on one device or several, and a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from tqdm.auto import tqdm

from . import objectives
from .data import Example, read_examples
from .errors import UserError
from .files import make_folder, write_text
from .models import VLM, Batch, add_lora, answer_batch

CURVE_COLUMNS = ["model", "step", "seconds", "attack", "queries", "metric", "value", "ci_low", "ci_high", "n"]
Probe = Callable[[VLM], pd.DataFrame]  # a quick evaluation; evaluate.rates gives its columns


def train(
    vlm: VLM,
    objective: str = "npo",
    data: str | Path | Sequence[Example] = "miniguard",
    *,
    out: str | Path,
    seed: int = 0,
    lr: float | None = None,
    steps: int | None = None,
    forget: int | None = None,
    retain: int | None = None,
    rank: int = 16,
    alpha: int = 32,
    probe: Probe | None = None,
    probe_every: int = 20,
    save_every: int = 50,
    resume: bool = False,
    **hyper: float,
) -> Path:
    """Train a LoRA adapter with an objective and write it to the folder `out`; `vlm` itself is left as it was.

    data: "miniguard", a VLGuard folder, a JSONL file, or Examples: the harmful ones are the forget set, the others the retain set.
    lr, steps, forget, retain (examples of each a step) default to the objective's recipe on MiniGuard, hyper (beta, alpha …) to the
    loss function's own. With `probe`, its rates are written to curves.csv every `probe_every` steps. While it runs, everything is
    under `out` with ".partial" behind its name; `resume` goes on from the last checkpoint there.
    Returns `out`, which then holds the adapter (safetensors), config.json and curves.csv. Load it with `load(model, adapter=out)`.
    Raises UserError for an unknown objective or option, data it cannot use, or a loss that is no longer a number.
    """
    method = objectives.named(objective)
    unknown = set(hyper) - set(method.hyper)
    if unknown:
        known = ", ".join(method.hyper) or "none"
        raise UserError(f"The objective {objective} has no hyper-parameter {', '.join(sorted(unknown))}; it has {known}.")
    method = dataclasses.replace(
        method, lr=lr or method.lr, steps=steps or method.steps, forget=forget or method.forget, retain=retain or method.retain
    )
    hyper = {**method.hyper, **hyper}
    out = Path(out)
    examples = list(read_examples(data, "train")) if isinstance(data, str | Path) else list(data)
    forget_set, retain_set = _sides(examples, method)
    config = {
        "objective": objective,
        "base": vlm.name,
        "seed": seed,
        **{field: getattr(method, field) for field in ("lr", "steps", "forget", "retain", "target")},
        "lora": {"rank": rank, "alpha": alpha},
        "hyper": hyper,
        "examples": {"forget": len(forget_set), "retain": len(retain_set)},
        "device": str(vlm.device),
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft")},
    }
    partial = unfinished(out, resume)
    _same_settings(partial / "config.json", config)
    rows = list(schedule(forget_set, retain_set, method, seed))
    references = _reference_logprobs(vlm, {id(e): e for e in rows if e.harmful}.values()) if method.reference else {}
    student = add_lora(vlm, rank, alpha, seed)
    student.name = out.name

    def collate(chunk: Sequence[Example]) -> dict[str, Batch]:
        sides = {"forget": [e for e in chunk if e.harmful], "retain": [e for e in chunk if not e.harmful]}
        batches = {
            side: answer_batch(
                student,
                [e.picture() for e in side_rows],
                [e.query for e in side_rows],
                [getattr(e, method.target) if e.harmful else e.response for e in side_rows],
            )
            for side, side_rows in sides.items()
        }
        if method.reference:
            batches["forget"]["reference"] = torch.tensor([references[id(e)] for e in sides["forget"]], device=student.device)
        return batches

    def loss(model, sides: dict[str, Batch]) -> torch.Tensor:
        return method.loss(model, sides["forget"], sides["retain"], **hyper)

    try:
        fit(
            student,
            loss,
            rows,
            collate,
            partial,
            batch=method.forget + method.retain,
            lr=method.lr,
            seed=seed,
            save_every=save_every,
            callbacks=[_Curve(student, probe, probe_every, partial)],
        )
        student.model.save_pretrained(partial, safe_serialization=True)
    finally:
        student.model.unload()  # the caller's network, as it was
        vlm.model.eval()
    finish(partial, out)
    return out


def unfinished(out: Path, resume: bool) -> Path:
    """The folder in which a run works before it may call itself `out`. Raises UserError where something is in the way."""
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    partial = out.with_name(out.name + ".partial")
    if partial.exists() and not resume:
        raise UserError(f"{partial} holds an unfinished run; add --resume to go on, or remove it.")
    return make_folder(partial)


def finish(partial: Path, out: Path) -> None:
    """The run is complete: drop its checkpoints and give it its name."""
    shutil.rmtree(partial / "checkpoints", ignore_errors=True)
    partial.replace(out)


def _same_settings(file: Path, config: dict) -> None:
    """Note a run's settings, or on resuming insist that they are the same."""
    text = json.dumps(config, indent=2) + "\n"
    if file.exists() and (old := json.loads(file.read_text())) != json.loads(text):
        changed = ", ".join(k for k in config if old.get(k) != json.loads(text)[k])
        raise UserError(f"The unfinished run in {file.parent} has other settings ({changed}); resume with the same, or remove it.")
    write_text(file, text)


def _sides(examples: Sequence[Example], method: objectives.Objective) -> tuple[list[Example], list[Example]]:
    """Forget and retain set, with what the objective needs."""
    forget_set, retain_set = [e for e in examples if e.harmful], [e for e in examples if not e.harmful]
    if not forget_set or not retain_set:
        raise UserError("The training data need harmful and harmless queries (the forget and the retain set); one of them is missing.")
    lacking = [e.id for e in forget_set if not getattr(e, method.target)]
    if lacking:
        field = "harmful_response" if method.target == "leak" else "response"
        raise UserError(f"The record {lacking[0]!r} and {len(lacking) - 1} others have no {field}, which this objective trains on; add it.")
    return forget_set, retain_set


def schedule(forget_set: Sequence[Example], retain_set: Sequence[Example], method: objectives.Objective, seed: int) -> Iterator[Example]:
    """The examples of all steps in order: each step holds method.forget and method.retain of them, evenly mixed.

    Both streams are shuffled anew and cycled whenever they run out, so that the shorter one never ends a run.
    """
    rng = np.random.default_rng(seed)

    def stream(examples: Sequence[Example]) -> Iterator[Example]:
        while True:
            yield from (examples[i] for i in rng.permutation(len(examples)))

    streams = {"forget": stream(forget_set), "retain": stream(retain_set)}
    size = method.forget + method.retain
    for _ in range(method.steps):
        for i in range(size):  # a forget example wherever their due number rises
            due = (i + 1) * method.forget // size > i * method.forget // size
            yield next(streams["forget" if due else "retain"])


def _reference_logprobs(vlm: VLM, examples, batch_size: int = 64) -> dict[int, float]:
    """log π₀(leak | x) of each example, by its identity: computed once, while the network has no adapter yet."""
    examples = list(examples)
    found: dict[int, float] = {}
    for start in tqdm(range(0, len(examples), batch_size), desc="reference", leave=False):
        chunk = examples[start : start + batch_size]
        with torch.inference_mode():
            batch = answer_batch(vlm, [e.picture() for e in chunk], [e.query for e in chunk], [e.leak for e in chunk])
            found |= zip(map(id, chunk), objectives.sequence_logprobs(vlm.model, batch).tolist(), strict=True)
    return found


class _Trainer(transformers.Trainer):
    """Trainer with a loss of our own over whatever the collator makes."""

    loss: Callable[..., torch.Tensor]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = self.loss(model, inputs)
        if not math.isfinite(loss.item()):
            raise UserError(
                f"The loss is no longer a number at step {self.state.global_step + 1}; lower --lr. The last good checkpoint is kept."
            )
        return loss


def fit(
    vlm: VLM,
    loss: Callable[..., torch.Tensor],
    rows: Sequence[Example],
    collate: Callable,
    folder: Path,
    *,
    batch: int,
    lr: float,
    seed: int,
    save_every: int,
    callbacks: Sequence[transformers.TrainerCallback],
    **arguments,
) -> None:
    """Run transformers' Trainer once over `rows`, in order, `batch` a step; go on from a checkpoint in `folder` if there is one.

    loss: (network, what `collate` made of a batch of rows) → scalar. arguments: further TrainingArguments.
    """
    checkpoints = folder / "checkpoints"
    settings = {"lr_scheduler_type": "cosine", "warmup_steps": 5, "weight_decay": 0.0, **arguments}
    trainer = _Trainer(
        model=vlm.model,
        args=transformers.TrainingArguments(
            output_dir=str(checkpoints),
            per_device_train_batch_size=batch,
            max_steps=len(rows) // batch,
            train_sampling_strategy="sequential",  # `rows` are in order already
            learning_rate=lr,
            bf16=vlm.model.dtype == torch.bfloat16,
            use_cpu=vlm.device.type == "cpu",
            seed=seed,
            save_steps=save_every,
            save_total_limit=2,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            **settings,
        ),
        train_dataset=rows,
        data_collator=collate,
        callbacks=list(callbacks),
    )
    trainer.loss = loss
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=any(checkpoints.glob("checkpoint-*")))


class Bar(transformers.TrainerCallback):
    """A progress bar for `fit`."""

    def __init__(self, name: str):
        self.name = name

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=f"training {self.name}", leave=False)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


class _Curve(Bar):
    """The progress bar, and the rates of a probe every so many steps, in curves.csv; `seconds` leaves the probing out."""

    def __init__(self, vlm: VLM, probe: Probe | None, every: int, folder: Path):
        super().__init__(vlm.name)
        self.vlm, self.probe, self.every, self.path = vlm, probe, every, folder / "curves.csv"
        self.seconds, self.since = 0.0, 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control)
        self.table = pd.DataFrame(columns=CURVE_COLUMNS)
        if state.global_step and self.path.exists():  # resumed: what came after the checkpoint will come again
            old = pd.read_csv(self.path)
            self.table = old[old.step <= state.global_step]
            self.seconds = float(self.table.seconds.max()) if len(self.table) else 0.0
        else:
            self._record(0)
        self.since = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control)
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.seconds += time.monotonic() - self.since
            self._record(state.global_step)
            self.since = time.monotonic()

    def _record(self, step: int) -> None:
        if self.probe:
            self.vlm.model.eval()
            rates = self.probe(self.vlm).assign(step=step, seconds=round(self.seconds, 2))
            self.vlm.model.train()
            self.table = rates[CURVE_COLUMNS] if self.table.empty else pd.concat([self.table, rates[CURVE_COLUMNS]])
        write_text(self.path, self.table.to_csv(index=False))
