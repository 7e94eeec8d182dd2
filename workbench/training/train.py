"""One way to train: transformers' Trainer with an objective plugged in, a recorded curve, and resume.

Forget and retain examples are laid out in one list in the order in which they will be seen. So every step
holds the right number of each, on one device or several, and a resumed run sees what the uninterrupted one
would have seen.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from workbench.data.example import Example, content
from workbench.data.readers import read_examples
from workbench.errors import UserError, say
from workbench.files import write_text
from workbench.models.adapters import add_lora, depth, freeze_copy, linear_modules, unfreeze
from workbench.models.identity import identity
from workbench.models.load import load
from workbench.models.restore import left_as_it_was
from workbench.models.template import check_answers
from workbench.models.turns import in_turn
from workbench.models.vlm import VLM, WIDE, Batch, answer_batch, bare, processes
from workbench.runs import bar, same_settings
from workbench.training import objectives
from workbench.training.curve import Curve, Probe
from workbench.training.loop import finish, fit, unfinished
from workbench.training.sets import forget_and_retain, schedule
from workbench.training.settings import Settings


def train(
    vlm: VLM,
    objective: str = "npo",
    data: str | Path | Sequence[Example] = "miniguard",
    *,
    out: str | Path,
    seed: int = 0,
    probe: Probe | None = None,
    probe_every: int = 20,
    patience: int = 0,
    until: Callable[[pd.DataFrame], bool] | None = None,
    keep_steps: bool = False,
    on_curve: Callable[[pd.DataFrame], None] | None = None,
    save_every: int = 50,
    resume: bool = False,
    **settings: Any,
) -> Path:
    """Train a VLM and write what it has learnt to a folder: a LoRA adapter, or with `full` the whole model.

    While it runs, everything is in a folder named `out` with ".partial" appended. `vlm` itself is left as it
    was, except with `full`, which trains its weights in place. Other threads that ask it wait until then.

    Args:
        vlm: The model.
        objective: A name in objectives.OBJECTIVES.
        data: "miniguard", a VLGuard folder, a .json or .jsonl file, or examples. The harmful ones are the
            forget set, the others the retain set.
        out: The folder to write.
        seed: Of the adapter's start and of the order of examples.
        probe: A quick evaluation; its rates are written to curves.csv.
        probe_every: Steps from one probe to the next.
        patience: Stop when `curve.score` has not improved for this many probes, and keep the best weights.
        until: Stop once this is true of a probe's rates.
        keep_steps: Keep the adapter of each probe, in `out`/steps/STEP (`at_step`).
        on_curve: Called after each probe with the table so far.
        save_every: Steps from one checkpoint to the next.
        resume: Continue from the last checkpoint of an interrupted run.
        settings: Fields of `Settings` (lr, steps, forget, retain, accumulate, checkpointing, rank,
            lora_alpha, targets, projector, full), and hyper-parameters of the loss (beta, alpha …).

    Returns:
        `out`, with the adapter (safetensors) or model/, config.json, loss.csv and curves.csv. Load it with
        `load(model, adapter=out)` or `load(out / "model")`.

    Raises:
        UserError: An unknown objective or option, data that it cannot use, a loss that became NaN or
            infinite, or too little memory.
    """
    step, out = _checked(vlm, objective, settings, probe, patience, until, keep_steps), Path(out)
    examples = read_examples(data, "train") if isinstance(data, str | Path) else data
    sides = forget_and_retain(examples, objectives.named(objective))
    modules = linear_modules(vlm, step.targets, step.layer, step.projector)
    partial = unfinished(out, resume)
    rows = _rows(vlm, sides, step, seed)
    _note_run(partial, vlm, step, modules, sides, rows, seed, patience, until)
    with in_turn(bare(vlm.model)), left_as_it_was(bare(vlm.model)):
        references = reference_logprobs(vlm, rows, step)
        student = prepare_student(vlm, modules, step, seed)
        student.name = out.name
        curve = Curve(student, probe, probe_every, partial, on_curve, keep_steps, until)
        try:
            losses = fit(
                student,
                functools.partial(_loss, step),
                rows,
                functools.partial(_collate, student, step, references),
                partial,
                batch=(step.forget + step.retain) // step.accumulate,
                lr=step.lr,
                seed=seed,
                save_every=probe_every if patience else save_every,
                curve=curve,
                patience=patience,
                gradient_accumulation_steps=step.accumulate,
                gradient_checkpointing=step.checkpointing,
            )
            _write(student, step, losses, partial)
        finally:
            _restore(vlm, student, step)
    finish(partial, out)
    return out


def _checked(
    vlm: VLM,
    objective: str,
    given: dict[str, Any],
    probe: Probe | None,
    patience: int,
    until: Callable[[pd.DataFrame], bool] | None,
    keep_steps: bool,
) -> Settings:
    """The settings of a run, checked against each other and the model."""
    if hasattr(vlm.model, "peft_config"):
        raise UserError(
            f"The model has the adapter {vlm.name!r}; write both as one model (`workbench merge`), and train that."
        )
    step = Settings.of(objective, **given)
    step.check_depth(depth(vlm))
    if given.get("lr") is None and bare(vlm.model).config.get_text_config().hidden_size >= WIDE:
        say(
            f"The learning rate {step.lr:g} was chosen on MiniGuard, and is too high for a model of this size; "
            "choose another (--lr)."
        )
    if getattr(bare(vlm.model), "is_quantized", False) and not step.four_bit:
        raise UserError("Quantised weights are not trained; give the model as it was before, or add --four-bit to it.")
    if step.four_bit and not getattr(bare(vlm.model), "is_quantized", False):
        raise UserError("four_bit needs a model in 4 bits; load it with load(…, four_bit=True).")
    if (patience or until) and not probe:
        raise UserError("Early stopping (patience, until) needs a probe.")
    if patience and until:
        raise UserError("patience keeps the best weights and until the last ones; choose one of them.")
    if keep_steps and (step.full or not probe):
        raise UserError("keep_steps keeps adapters at probes: it needs a probe, and cannot be combined with full.")
    return step


def _rows(vlm: VLM, sides: tuple[list[Example], list[Example]], step: Settings, seed: int) -> list[Example]:
    """The examples of all steps, in order; their answers can be taught."""
    rows = list(schedule(*sides, step, seed, processes().num_processes))
    check_answers(vlm.processor, [text for e in rows for text in (e.response, e.leak)])
    return rows


def _note_run(
    folder: Path,
    vlm: VLM,
    step: Settings,
    modules: Sequence[str],
    sides: Sequence[Sequence[Example]],
    rows: Sequence[Example],
    seed: int,
    patience: int,
    until: Callable[[pd.DataFrame], bool] | None,
) -> None:
    """Write what config.json says of a run; when it is resumed, insist on the same."""
    config = {
        "objective": step.objective,
        "base": vlm.name,
        "base_identity": identity(vlm),
        "seed": seed,
        **{name: getattr(step, name) for name in ("lr", "steps", "forget", "retain")},
        "answers": objectives.named(step.objective).answers,
        "trained": "full" if step.full else {"rank": step.rank, "lora_alpha": step.lora_alpha},
        "modules": modules,
        "hyper": step.hyper,
        "examples": {"forget": len(sides[0]), "retain": len(sides[1])},
        "data": content(rows),
        "accumulate": step.accumulate,
        "checkpointing": step.checkpointing,
        "patience": patience,
        "until": getattr(until, "__name__", None),
        "device": f"{processes().num_processes} × {vlm.device.type}",
        "dtype": str(vlm.model.dtype).removeprefix("torch."),
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft")},
    }
    same_settings(folder / "config.json", config, processes().is_main_process)


def _loss(step: Settings, model: Any, sides: dict[str, Batch]) -> torch.Tensor:
    """The objective's loss (scalar) of a forget and a retain batch."""
    return objectives.named(step.objective).loss(model, sides["forget"], sides["retain"], **step.hyper)


def _write(student: VLM, step: Settings, losses: pd.DataFrame, folder: Path) -> None:
    """Write what was learnt; one of several processes does it."""
    if not processes().is_main_process:
        return
    write_text(folder / "loss.csv", losses.to_csv(index=False))
    student.model.save_pretrained(folder / "model" if step.full else folder)
    if step.full:
        student.processor.save_pretrained(folder / "model")


def _restore(vlm: VLM, student: VLM, step: Settings) -> None:
    """Leave the caller's network as it was, except for weights that are trained in place."""
    if step.full:
        vars(vlm.model).pop("frozen_copy", None)
        vlm.model.requires_grad_(False)
        vlm.features.clear()  # the projector may have changed
    else:
        student.model.unload()
    vlm.model.eval()


def at_step(run: str | Path, step: int, model: str | Path = "miniguard") -> VLM:
    """The model as it was at a step of a run with `keep_steps`.

    Args:
        run: The run's folder.
        step: One at which it was probed.
        model: The model that was trained, as for `load`.

    Raises:
        UserError: That step was not kept, or cannot be loaded.
    """
    folder = Path(run) / "steps" / str(step)
    if not folder.is_dir():
        raise UserError(
            f"The run {run} holds no adapter of step {step}; train it with keep_steps, which keeps one at each probe."
        )
    return load(model, folder)


def prepare_student(vlm: VLM, modules: Sequence[str], step: Settings, seed: int) -> VLM:
    """The VLM that is trained. Its reference is itself without adapter, or a frozen copy if one is needed."""
    if not step.full:
        return add_lora(vlm, modules, step.rank, step.lora_alpha, seed)
    student = unfreeze(vlm, modules)
    if step.compares:
        freeze_copy(student, step.layer)
    return student


def _collate(
    student: VLM, step: Settings, references: dict[tuple[int, str], float], chunk: Sequence[Example]
) -> dict[str, Batch]:
    """The forget batch, with one block of rows per kind of answer, and the retain batch of a step."""
    method = objectives.named(step.objective)
    pairs = [(e, field) for field in method.answers for e in chunk if e.harmful]
    harmless = [e for e in chunk if not e.harmful]
    batches = {
        "forget": answer_batch(student, [_asked(e, method) for e, _ in pairs], [getattr(*pair) for pair in pairs]),
        "retain": answer_batch(student, harmless, [e.response for e in harmless]),
    }
    if method.reference:
        batches["forget"]["reference"] = torch.tensor([references[id(e), field] for e, field in pairs])
    return batches


def _asked(example: Example, method: objectives.Objective) -> Example:
    """A harmful example as it is asked: for some objectives, the harmful answer follows the query."""
    return dataclasses.replace(example, query=f"{example.query}\n{example.leak}") if method.appended else example


def reference_logprobs(vlm: VLM, rows: Sequence[Example], step: Settings) -> dict[tuple[int, str], float]:
    """Log π₀(y | x) in nats, if the objective needs it, computed once before anything is trained.

    Returns:
        {(identity of the example, field of its answer): value}.
    """
    method = objectives.named(step.objective)
    if not method.reference:
        return {}
    harmful = {id(e): e for e in rows if e.harmful}
    pairs = [(e, field) for e in harmful.values() for field in method.answers]
    values: dict[tuple[int, str], float] = {}
    for start in bar(range(0, len(pairs), step.forget), "reference"):
        chunk = pairs[start : start + step.forget]
        with torch.inference_mode():
            batch = answer_batch(vlm, [_asked(e, method) for e, _ in chunk], [getattr(*pair) for pair in chunk])
            logprobs = objectives.sequence_logprobs(vlm.model, batch).tolist()
        values |= {(id(e), field): value for (e, field), value in zip(chunk, logprobs, strict=True)}
    return values
