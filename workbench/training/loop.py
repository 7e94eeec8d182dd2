"""The training loop: transformers' Trainer with a loss of our own, a curve, early stopping and checkpoints to resume from."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
import transformers

from workbench.data.example import Example
from workbench.errors import UserError
from workbench.files import make_folder
from workbench.models.vlm import VLM, bare, processes, quiet
from workbench.training.curve import Curve

LESS_MEMORY = "Lower --forget, --retain or --rank, raise --accumulate, or add --checkpointing or --four-bit; the last checkpoint is kept."


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
    with (
        quiet()
    ):  # newer versions call gradient_checkpointing activation_checkpointing, older ones do not know that name
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
