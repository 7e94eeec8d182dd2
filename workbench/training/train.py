"""One way to train: transformers' Trainer with an objective plugged in, a curve recorded as it goes, and resume.

Forget and retain examples are laid out in one list in the order in which they will be seen, so that every step holds the right
number of each, on one device or several, and a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch

from workbench.data.example import Example
from workbench.data.readers import read_examples
from workbench.errors import UserError, say
from workbench.files import write_text
from workbench.models.adapters import add_lora, depth, freeze_copy, linear_modules, unfreeze
from workbench.models.load import identity, load
from workbench.models.vlm import VLM, Batch, answer_batch, bare, processes
from workbench.runs import bar, same_settings
from workbench.training import objectives
from workbench.training.curve import Curve, Probe
from workbench.training.loop import finish, fit, unfinished
from workbench.training.sets import _sides, schedule
from workbench.training.settings import check_parts, checked_hyper


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
    accumulate: int = 1,
    checkpointing: bool = False,
    rank: int = 16,
    lora_alpha: int = 32,
    targets: Sequence[str] = (),
    projector: bool = False,
    full: bool = False,
    probe: Probe | None = None,
    probe_every: int = 20,
    patience: int = 0,
    keep_steps: bool = False,
    on_curve: Callable[[pd.DataFrame], None] | None = None,
    save_every: int = 50,
    resume: bool = False,
    **hyper: float,
) -> Path:
    """Train a VLM with an objective and write what was learnt to the folder `out`.

    data: "miniguard", a VLGuard folder, a JSONL file, or Examples: the harmful ones are the forget set, the others the retain set.
    lr, steps, forget, retain (examples of each a step, on each device) default to the objective's recipe on MiniGuard, hyper (beta,
    alpha …) to the loss function's own. accumulate: take each step in so many parts; checkpointing: keep no activations of layers; both
    save memory and leave the result as it is.
    A LoRA adapter of `rank` is trained on every linear layer of the language model, or on those named in `targets`, and with `projector`
    on the projector too; `vlm` itself is left as it was. With `full` these layers' own weights are trained instead, in place.
    probe: its rates are written to curves.csv every `probe_every` steps, and `on_curve` is called with the table so far. With `patience`,
    training stops when `score` has not risen for so many probes, and the best weights are kept. With `keep_steps`, the adapter as it was
    at each probe is kept too, in `out`/steps/STEP (`at_step`).
    While it runs, everything is under `out` with ".partial" behind its name; `resume` goes on from the last checkpoint there.

    Returns `out`, which then holds the adapter (safetensors), or with `full` the whole model in `out`/model, config.json, curves.csv and
    loss.csv. Load it with `load(model, adapter=out)` or `load(out / "model")`.
    Raises UserError for an unknown objective or option, data it cannot use, a loss that is no longer a number, or too little memory.
    """
    method = objectives.named(objective)
    if lr is None and bare(vlm.model).config.get_text_config().hidden_size >= objectives.TINY:
        say(
            f"The learning rate {method.lr:g} was chosen on MiniGuard, and is too high for a model of this size; give another (--lr)."
        )
    method = dataclasses.replace(
        method,
        lr=lr or method.lr,
        steps=steps or method.steps,
        forget=forget or method.forget,
        retain=retain or method.retain,
    )
    hyper = checked_hyper(objective, method, hyper, depth(vlm))
    check_parts(method.forget, method.retain, accumulate)
    if patience and not probe:
        raise UserError("Early stopping (patience) needs a probe to go by.")
    if keep_steps and (full or not probe):
        raise UserError("Steps can be kept (keep_steps) where an adapter is trained and probed.")
    out = Path(out)
    examples = list(read_examples(data, "train")) if isinstance(data, str | Path) else list(data)
    forget_set, retain_set = _sides(examples, method)
    layers = hyper.get("layer")  # an objective that looks no further than a layer trains no further
    modules = linear_modules(vlm, targets, layers, projector)
    devices = processes()
    config = {
        "objective": objective,
        "base": vlm.name,
        "base_identity": identity(vlm),
        "seed": seed,
        **{field: getattr(method, field) for field in ("lr", "steps", "forget", "retain", "answers")},
        "trained": "full" if full else {"rank": rank, "lora_alpha": lora_alpha},
        "modules": modules,
        "hyper": hyper,
        "examples": {"forget": len(forget_set), "retain": len(retain_set)},
        "accumulate": accumulate,
        "checkpointing": checkpointing,
        "patience": patience,
        "device": f"{devices.num_processes} × {vlm.device.type}",
        "dtype": str(vlm.model.dtype).removeprefix("torch."),
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft")},
    }
    partial = unfinished(out, resume)
    same_settings(partial / "config.json", config, devices.is_main_process)
    rows = list(schedule(forget_set, retain_set, method, seed, devices.num_processes))
    references = _reference_logprobs(vlm, rows, method.answers, method.forget) if method.reference else {}
    student = prepare_student(vlm, modules, full, layers, rank, lora_alpha, seed)
    student.name = out.name

    def loss(model, sides: dict[str, Batch]) -> torch.Tensor:
        return method.loss(model, sides["forget"], sides["retain"], **hyper)

    try:
        losses = fit(
            student,
            loss,
            rows,
            _collator(student, method, references),
            partial,
            batch=(method.forget + method.retain) // accumulate,
            lr=method.lr,
            seed=seed,
            save_every=probe_every if patience else save_every,
            curve=Curve(student, probe, probe_every, partial, on_curve, keep_steps),
            patience=patience,
            gradient_accumulation_steps=accumulate,
            gradient_checkpointing=checkpointing,
        )
        if devices.is_main_process:
            write_text(partial / "loss.csv", losses.to_csv(index=False))
            student.model.save_pretrained(partial / "model" if full else partial)
            if full:
                student.processor.save_pretrained(partial / "model")
    finally:
        if full:
            vars(vlm.model).pop("frozen_copy", None)
        else:
            student.model.unload()  # the caller's network, as it was
        vlm.model.eval()
    finish(partial, out)
    return out


def at_step(run: str | Path, step: int, model: str | Path = "miniguard") -> VLM:
    """The model as it was at a step of a run that kept its steps. model: which was trained, as of `load`.

    Raises UserError where that step was not kept, or cannot be loaded.
    """
    folder = Path(run) / "steps" / str(step)
    if not folder.is_dir():
        raise UserError(
            f"The run {run} holds no adapter of step {step}; train it with keep_steps, which keeps one at each probe."
        )
    return load(model, folder)


def prepare_student(
    vlm: VLM, modules: Sequence[str], full: bool, layers: int | None, rank: int, lora_alpha: int, seed: int
) -> VLM:
    """The VLM made ready to be trained, and its reference: an adapter to switch off, or a frozen copy if its hidden states are needed."""
    if not full:
        return add_lora(vlm, modules, rank, lora_alpha, seed)
    student = unfreeze(vlm, modules)
    if layers:
        freeze_copy(student, layers)
    return student


def _collator(student: VLM, method: objectives.Objective, references: dict[tuple[int, str], float]) -> Callable:
    """What makes a forget and a retain batch of a step's examples."""

    def collate(chunk: Sequence[Example]) -> dict[str, Batch]:
        harmful, harmless = [e for e in chunk if e.harmful], [e for e in chunk if not e.harmful]
        wanted = [(e, field) for field in method.answers for e in harmful]  # one block of rows for each kind of answer
        batches = {
            "forget": answer_batch(student, [e for e, _ in wanted], [getattr(e, field) for e, field in wanted]),
            "retain": answer_batch(student, harmless, [e.response for e in harmless]),
        }
        if method.reference:
            batches["forget"]["reference"] = torch.tensor([references[id(e), field] for e, field in wanted])
        return batches

    return collate


def _reference_logprobs(
    vlm: VLM, rows: Sequence[Example], fields: Sequence[str], size: int
) -> dict[tuple[int, str], float]:
    """log π₀(y | x) by (identity of the example, field of its answer): computed once, `size` at a time, while nothing is trained yet."""
    wanted = [(e, field) for e in {id(e): e for e in rows if e.harmful}.values() for field in fields]
    found: dict[tuple[int, str], float] = {}
    for start in bar(range(0, len(wanted), size), "reference"):
        chunk = wanted[start : start + size]
        with torch.inference_mode():
            batch = answer_batch(vlm, [e for e, _ in chunk], [getattr(e, field) for e, field in chunk])
            values = objectives.sequence_logprobs(vlm.model, batch).tolist()
        found |= {(id(e), field): value for (e, field), value in zip(chunk, values, strict=True)}
    return found
