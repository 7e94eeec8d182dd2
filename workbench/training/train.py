"""One way to train: transformers' Trainer with an objective plugged in, a curve recorded as it goes, and resume.

Forget and retain examples are laid out in one list in the order in which they will be seen, so that every step holds the right
number of each, on one device or several, and a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers

from workbench.data.readers import Example, read_examples
from workbench.errors import UserError, say
from workbench.files import make_folder, same_settings, write_text, written_whole
from workbench.models.vlm import (
    VLM,
    Batch,
    add_lora,
    answer_batch,
    bare,
    depth,
    freeze_copy,
    identity,
    linear_modules,
    load,
    processes,
    quiet,
    unfreeze,
)
from workbench.runs import bar
from workbench.training import objectives

CURVE_COLUMNS = ["model", "step", "seconds", "attack", "queries", "metric", "value", "ci_low", "ci_high", "n"]
LESS_MEMORY = "Lower --forget, --retain or --rank, raise --accumulate, or add --checkpointing or --four-bit; the last checkpoint is kept."
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
        say(f"The learning rate {method.lr:g} was chosen on MiniGuard, and is too high for a model of this size; give another (--lr).")
    method = dataclasses.replace(
        method, lr=lr or method.lr, steps=steps or method.steps, forget=forget or method.forget, retain=retain or method.retain
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
    student = made_ready(vlm, modules, full, layers, rank, lora_alpha, seed)
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
        raise UserError(f"The run {run} holds no adapter of step {step}; train it with keep_steps, which keeps one at each probe.")
    return load(model, folder)


def checked_hyper(objective: str, method: objectives.Objective, given: dict[str, float], layers: int) -> dict[str, float]:
    """The loss's hyper-parameters, whole numbers where the defaults are, checked."""
    unknown = set(given) - set(method.hyper)
    if unknown:
        known = ", ".join(method.hyper) or "none"
        raise UserError(f"The objective {objective} has no hyper-parameter {', '.join(sorted(unknown))}; it has {known}.")
    hyper = {name: type(default)(given.get(name, default)) for name, default in method.hyper.items()}
    if not 1 <= hyper.get("layer", 1) <= layers:
        raise UserError(f"The layer {hyper['layer']} is not in this model, whose language model has layers 1 to {layers}.")
    return hyper


def check_parts(forget: int, retain: int, accumulate: int) -> None:
    """Raises UserError where a step's examples cannot be taken in so many equal parts."""
    if forget % accumulate or retain % accumulate:
        raise UserError(f"{forget} forget and {retain} retain examples do not divide into {accumulate} equal parts.")


def made_ready(vlm: VLM, modules: Sequence[str], full: bool, layers: int | None, rank: int, lora_alpha: int, seed: int) -> VLM:
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
            "forget": _batch(student, [e for e, _ in wanted], [getattr(e, field) for e, field in wanted]),
            "retain": _batch(student, harmless, [e.response for e in harmless]),
        }
        if method.reference:
            batches["forget"]["reference"] = torch.tensor([references[id(e), field] for e, field in wanted])
        return batches

    return collate


def unfinished(out: Path, resume: bool) -> Path:
    """The folder in which a run works before it may call itself `out`. Raises UserError where something is in the way."""
    devices, resolved = processes(), out.absolute()
    partial = resolved.with_name(resolved.name + ".partial")
    if devices.is_main_process:
        if out.exists():
            raise UserError(f"{out} exists already; choose another --out, or remove it.")
        if partial.exists() and not resume:
            raise UserError(f"{partial} holds an unfinished run; add --resume to go on, or remove it.")
        make_folder(partial)
    devices.wait_for_everyone()
    return partial


def finish(partial: Path, out: Path) -> None:
    """The run is complete: drop its checkpoints and give it its name."""
    devices = processes()
    devices.wait_for_everyone()
    if devices.is_main_process:
        shutil.rmtree(partial / "checkpoints", ignore_errors=True)
        partial.replace(out)
    devices.wait_for_everyone()


def _sides(examples: Sequence[Example], method: objectives.Objective) -> tuple[list[Example], list[Example]]:
    """Forget and retain set, with what the objective needs."""
    forget_set, retain_set = [e for e in examples if e.harmful], [e for e in examples if not e.harmful]
    for side, found, kind in (("forget", forget_set, "harmful"), ("retain", retain_set, "harmless")):
        if not found:
            raise UserError(f"The {side} set is empty: the training data hold no {kind} query; they need harmful and harmless ones.")
    for field in method.answers:
        lacking = [e.id for e in forget_set if not getattr(e, field)]
        if lacking:
            name = "harmful_response" if field == "leak" else field
            others = f" and {len(lacking) - 1} others have" if len(lacking) > 1 else " has"
            raise UserError(f"The record {lacking[0]!r}{others} no {name}, which this objective trains on; add it.")
    return forget_set, retain_set


def schedule(
    forget_set: Sequence[Example], retain_set: Sequence[Example], method: objectives.Objective, seed: int, devices: int = 1
) -> Iterator[Example]:
    """The examples of all steps in order: each step holds method.forget and method.retain of them a device, evenly mixed.

    Both streams are shuffled anew and cycled whenever they run out, so that the shorter one never ends a run.
    """
    rng = np.random.default_rng(seed)

    def stream(examples: Sequence[Example]) -> Iterator[Example]:
        while True:
            yield from (examples[i] for i in rng.permutation(len(examples)))

    streams = {"forget": stream(forget_set), "retain": stream(retain_set)}
    size = method.forget + method.retain
    for _ in range(method.steps * devices):
        for i in range(size):  # a forget example wherever their due number rises
            due = (i + 1) * method.forget // size > i * method.forget // size
            yield next(streams["forget" if due else "retain"])


def _batch(vlm: VLM, examples: Sequence[Example], answers: Sequence[str]) -> Batch:
    return answer_batch(vlm, [e.picture() for e in examples], [e.query for e in examples], answers)


def _reference_logprobs(vlm: VLM, rows: Sequence[Example], fields: Sequence[str], size: int) -> dict[tuple[int, str], float]:
    """log π₀(y | x) by (identity of the example, field of its answer): computed once, `size` at a time, while nothing is trained yet."""
    wanted = [(e, field) for e in {id(e): e for e in rows if e.harmful}.values() for field in fields]
    found: dict[tuple[int, str], float] = {}
    for start in bar(range(0, len(wanted), size), "reference"):
        chunk = wanted[start : start + size]
        with torch.inference_mode():
            batch = _batch(vlm, [e for e, _ in chunk], [getattr(e, field) for e, field in chunk])
            values = objectives.sequence_logprobs(vlm.model, batch).tolist()
        found |= {(id(e), field): value for (e, field), value in zip(chunk, values, strict=True)}
    return found


class _Trainer(transformers.Trainer):
    """Trainer with a loss of our own over whatever the collator makes, and a probe in place of its evaluation."""

    loss: Callable[..., torch.Tensor]
    curve: Curve

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = self.loss(model, inputs)
        if not math.isfinite(loss.item()):
            raise UserError(
                f"The loss is no longer a number at step {self.state.global_step + 1}; lower --lr. The last good checkpoint is kept."
            )
        return loss

    def evaluate(self, *args, **kwargs):
        metrics = {"eval_score": self.curve.record(self.state.global_step)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


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
    curve: Curve,
    patience: int = 0,
    less_memory: str = LESS_MEMORY,
    **further,
) -> pd.DataFrame:
    """Run transformers' Trainer once over `rows`, in order, `batch` at a time; go on from a checkpoint in `folder` if there is one.

    loss: (network, what `collate` made of a batch of rows) → scalar. further: of TrainingArguments. less_memory:
    what is to be done where the memory is not enough.
    Returns the loss of every step: step, loss.
    """
    checkpoints = folder / "checkpoints"
    settings = {"lr_scheduler_type": "cosine", "warmup_steps": 5, "weight_decay": 0.0, **further}
    each_step = batch * settings.get("gradient_accumulation_steps", 1) * processes().num_processes
    probes = curve.probe is not None
    with quiet():  # newer versions call gradient_checkpointing activation_checkpointing, older ones do not know that name
        arguments = transformers.TrainingArguments(
            output_dir=str(checkpoints),
            per_device_train_batch_size=batch,
            max_steps=len(rows) // each_step,
            train_sampling_strategy="sequential",  # `rows` are in order already
            learning_rate=lr,
            bf16=vlm.model.dtype == torch.bfloat16,
            use_cpu=vlm.device.type == "cpu",
            seed=seed,
            save_steps=save_every,
            save_total_limit=2,
            eval_strategy="steps" if probes else "no",
            eval_steps=curve.every,
            eval_on_start=probes,
            metric_for_best_model="score",
            load_best_model_at_end=patience > 0,
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            ddp_find_unused_parameters=False,  # all that is trained is used, in both of a step's forward passes
            gradient_checkpointing_kwargs={"use_reentrant": False},
            **settings,
        )
    trainer = _Trainer(
        model=vlm.model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows[:1],  # Trainer wants one; the probe brings its own
        data_collator=collate,
        callbacks=[curve, *([transformers.EarlyStoppingCallback(patience)] if patience else [])],
    )
    trainer.loss, trainer.curve = loss, curve
    trainer.remove_callback(transformers.PrinterCallback)
    try:
        with _memory_named(less_memory), _without_cudnn_attention():
            trainer.train(resume_from_checkpoint=any(checkpoints.glob("checkpoint-*")))
    finally:
        if arguments.gradient_checkpointing:  # Trainer switches it on in the network, and leaves it on
            network = bare(vlm.model)
            with quiet():
                network.gradient_checkpointing_disable()
                network.disable_input_require_grads()
    history = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return pd.DataFrame(history, columns=["step", "loss"])


@contextlib.contextmanager
def _memory_named(less_memory: str):
    """Running out of memory as a sentence that names what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise UserError(f"The memory is not enough. {less_memory}") from None


@contextlib.contextmanager
def _without_cudnn_attention():
    """On H100 and H200 the backward pass of cuDNN's attention, the default from torch 2.11 on, gives gradients that are no numbers for
    padded batches of some lengths (github.com/pytorch/pytorch/issues/196678). torch has other kernels."""
    enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(enabled)


class Curve(transformers.TrainerCallback):
    """A run's progress bar and, if it has a probe, its rates every so many steps, in curves.csv; `seconds` leaves the probing out."""

    def __init__(
        self,
        vlm: VLM,
        probe: Probe | None = None,
        every: int = 20,
        folder: Path | None = None,
        on_curve: Callable[[pd.DataFrame], None] | None = None,
        keep_steps: bool = False,
    ):
        self.vlm, self.probe, self.every, self.folder = vlm, probe, every, folder
        self.on_curve, self.keep_steps = on_curve, keep_steps
        self.table = pd.DataFrame(columns=CURVE_COLUMNS)

    def on_train_begin(self, args, state, control, **kwargs):
        self.main = state.is_world_process_zero
        self.bar = bar(desc=f"training {self.vlm.name}", show=self.main, total=state.max_steps, initial=state.global_step)
        self.seconds = 0.0
        if self.probe and state.global_step and (self.folder / "curves.csv").exists():  # what came after the checkpoint will come again
            old = pd.read_csv(self.folder / "curves.csv", keep_default_na=False)
            self.table = old[old.step <= state.global_step]
            self.seconds = float(self.table.seconds.max()) if len(self.table) else 0.0
        self.since = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()

    def record(self, step: int) -> float:
        """Probe the model as it is now; its `score`."""
        if step in set(self.table.step):  # a resumed run starts where it has been probed already
            return score(self.table[self.table.step == step])
        self.seconds += time.monotonic() - self.since
        self.vlm.model.eval()
        rates = self.probe(self.vlm).assign(model=self.vlm.name, step=step, seconds=round(self.seconds, 2))[CURVE_COLUMNS]
        self.vlm.model.train()
        self.table = rates if self.table.empty else pd.concat([self.table, rates], ignore_index=True)
        if self.main:
            if self.keep_steps:
                self._keep(step)
            write_text(self.folder / "curves.csv", self.table.to_csv(index=False))
            if self.on_curve:
                self.on_curve(self.table)
        self.since = time.monotonic()
        return score(rates)

    def _keep(self, step: int) -> None:
        """The adapter as it is now, with its run's settings, by which `load` knows the base."""
        with written_whole(self.folder / "steps" / str(step)) as folder:
            self.vlm.model.save_pretrained(folder)
            shutil.copy(self.folder / "config.json", folder)


def score(rates: pd.DataFrame) -> float:
    """One number to stop by, from 1 down to −2: lowest utility − highest ASR − highest RR on harmless queries, over all attacks."""
    worst = rates.groupby(["queries", "metric"]).value.agg(["min", "max"])
    return worst.at[("harmless", "utility"), "min"] - worst.at[("harmful", "asr"), "max"] - worst.at[("harmless", "rr"), "max"]
