"""The training loop: transformers' Trainer with a loss of our own, a curve, early stopping, and resume."""

from __future__ import annotations

import contextlib
import math
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.trainer_callback import TrainerState

from workbench.data.example import Example
from workbench.errors import UserError
from workbench.files import make_folder
from workbench.models.vlm import VLM, bare, processes, quiet
from workbench.training.checkpoints import last_complete, load_weights, save_weights, seal, steps_at
from workbench.training.curve import Curve

# All of torch's kernels but cuDNN's, the default from torch 2.11 on: on H100 and H200 its backward pass gives
# NaN gradients for padded batches of some lengths (github.com/pytorch/pytorch/issues/196678).
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH, SDPBackend.OVERRIDEABLE]
_DROPOUT = torch.nn.modules.dropout._DropoutNd
LESS_MEMORY = (
    "Lower --forget, --retain or --rank, raise --accumulate, or add --checkpointing or --four-bit; the last "
    "checkpoint is kept."
)


def unfinished(out: Path, resume: bool) -> Path:
    """The folder in which a run works until it is complete.

    Args:
        out: The folder that it will be.
        resume: Whether an unfinished run may be there.

    Raises:
        UserError: `out` exists, or an unfinished run is there and `resume` is not set.
    """
    devices, resolved = processes(), out.absolute()
    partial = resolved.with_name(resolved.name + ".partial")
    if devices.is_main_process:
        if out.exists():
            raise UserError(f"{out} exists already; choose another --out, or remove it.")
        if partial.exists() and not resume:
            raise UserError(f"{partial} holds an unfinished run; add --resume to continue it, or remove it.")
        make_folder(partial)
    devices.wait_for_everyone()
    return partial


def finish(partial: Path, out: Path) -> None:
    """Drop the checkpoints of a complete run and give its folder its name."""
    devices = processes()
    devices.wait_for_everyone()
    if devices.is_main_process:
        shutil.rmtree(partial / "checkpoints", ignore_errors=True)
        partial.replace(out)
    devices.wait_for_everyone()


class _Trainer(transformers.Trainer):
    """Trainer with a loss of our own over whatever the collator makes, and a probe as its evaluation."""

    loss: Callable[..., torch.Tensor]
    curve: Curve

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The loss of a batch (scalar). Raises UserError if it is not finite."""
        loss = self.loss(model, inputs)
        if not math.isfinite(loss.item()):
            raise UserError(
                f"The loss became NaN or infinite at step {self.state.global_step + 1}; lower --lr. The last good "
                "checkpoint is kept."
            )
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Probe the model."""
        metrics = {"eval_score": self.curve.record(self.state.global_step)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the weights of a checkpoint."""
        if self.args.should_save:
            save_weights(self.model, Path(str(output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read the weights of a checkpoint."""
        load_weights(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        """Read the weights of the best checkpoint; its folder may have been moved since it was written."""
        load_weights(self.model, self._checkpoint(self.state.best_global_step or 0))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint, and say when it is complete."""
        super()._save_checkpoint(model, trial)
        processes().wait_for_everyone()
        if self.args.should_save:
            seal(self._checkpoint(self.state.global_step))

    def _checkpoint(self, step: int) -> Path:
        return Path(str(self.args.output_dir)) / f"checkpoint-{step}"


def fit(
    vlm: VLM,
    loss: Callable[..., torch.Tensor],
    rows: Sequence[Example],
    collate: Callable[[Sequence[Example]], Any],
    folder: Path,
    *,
    batch: int,
    lr: float,
    seed: int,
    save_every: int,
    curve: Curve,
    patience: int = 0,
    faster: Mapping[str, float] = MappingProxyType({}),
    less_memory: str = LESS_MEMORY,
    **options: Any,
) -> pd.DataFrame:
    """Run transformers' Trainer once over `rows`, in order; resume from a checkpoint in `folder`.

    Args:
        vlm: What is trained: all its parameters that require a gradient.
        loss: (network, what `collate` made of a batch of rows) → scalar.
        rows: The examples of all steps.
        collate: Makes a batch of examples.
        folder: Where checkpoints are kept.
        batch: Examples per forward pass, on each device.
        lr: Learning rate after warm-up.
        seed: Of the Trainer.
        save_every: Steps from one checkpoint to the next.
        curve: Progress bar and probe.
        patience: Stop when the curve's score has not improved for this many probes; 0 for never.
        faster: How much faster parameters learn in whose name a text occurs: {text: factor}.
        less_memory: What the user can do if the memory is not enough.
        options: Further TrainingArguments.

    Returns:
        The loss of every step: step, loss.
    """
    arguments = _arguments(vlm, folder, len(rows), batch, curve, patience, options)
    arguments.learning_rate, arguments.seed, arguments.save_steps = lr, seed, save_every
    network = bare(vlm.model)
    callbacks: list[transformers.TrainerCallback] = [curve]
    if patience:
        callbacks.append(transformers.EarlyStoppingCallback(patience))
    dataset: Any = rows  # a sequence is all that Trainer needs
    trainer = _Trainer(
        model=vlm.model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=dataset[:1],  # Trainer needs one; the probe brings its own
        data_collator=collate,
        callbacks=callbacks,
        optimizers=(_optimizer(vlm.model, lr, faster) if faster else None, None),
    )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise UserError("FSDP and DeepSpeed are not supported; use torchrun, which copies the model to each device.")
    trainer.loss, trainer.curve = loss, curve
    trainer.remove_callback(transformers.PrinterCallback)
    try:
        with _memory_named(less_memory), sdpa_kernel(_ATTENTION), _without_dropout(network):
            with processes().main_process_first():  # it removes what a kill left
                checkpoint = last_complete(folder / "checkpoints")
            arguments.eval_on_start &= checkpoint is None  # a resumed run would probe a step twice, or one too many
            _run(trainer, checkpoint)
    finally:
        if arguments.gradient_checkpointing:
            with quiet():
                network.gradient_checkpointing_disable()
                network.disable_input_require_grads()
    history = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return pd.DataFrame(history, columns=["step", "loss"])


def _optimizer(network: Any, lr: float, faster: Mapping[str, float]) -> torch.optim.Optimizer:
    """What Trainer would use, with learning rates of their own for some parameters."""
    groups: dict[float, list[torch.nn.Parameter]] = {1.0: []}
    for name, parameter in network.named_parameters():
        factor = next((factor for text, factor in faster.items() if text in name), 1.0)
        if parameter.requires_grad:
            groups.setdefault(factor, []).append(parameter)
    parts = [{"params": parameters, "lr": lr * factor} for factor, parameters in groups.items()]
    return torch.optim.AdamW(parts, lr=lr, weight_decay=0.0)


def _run(trainer: _Trainer, checkpoint: Path | None) -> None:
    """Train, from a checkpoint on if there is one; a run that was killed after its last step is only read."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")) if checkpoint else None
    if checkpoint and state and (trainer.curve.ended(steps_at(checkpoint)) or _out_of_patience(state)):
        trainer.state = state
        load_weights(trainer.model, checkpoint)
        if trainer.args.load_best_model_at_end:
            trainer._load_best_model()
    else:
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except pickle.UnpicklingError:  # torch reads tensors and numbers alone, and runs nothing
            raise UserError(
                f"The checkpoint {checkpoint} holds more than tensors and numbers, or is broken; remove that folder, "
                "and the run resumes from an earlier one."
            ) from None


def _out_of_patience(state: TrainerState) -> bool:
    """Whether a run had stopped early when its checkpoint was written; Trainer itself would go on."""
    states: Any = state.stateful_callbacks  # as read from a file, {class: its state}
    stopping = states.get(transformers.EarlyStoppingCallback.__name__)
    if not isinstance(stopping, dict):
        return False
    return stopping["attributes"]["early_stopping_patience_counter"] >= stopping["args"]["early_stopping_patience"]


def _arguments(
    vlm: VLM, folder: Path, rows: int, batch: int, curve: Curve, patience: int, options: dict[str, Any]
) -> transformers.TrainingArguments:
    probes = curve.probe is not None
    settings = {"lr_scheduler_type": "cosine", "warmup_steps": 5, "weight_decay": 0.0, "eval_on_start": probes}
    settings |= options
    rows_per_step = batch * settings.get("gradient_accumulation_steps", 1) * processes().num_processes
    # newer versions call gradient_checkpointing activation_checkpointing; older ones do not know that name
    with quiet():
        return transformers.TrainingArguments(
            output_dir=str(folder / "checkpoints"),
            per_device_train_batch_size=batch,
            max_steps=rows // rows_per_step,
            train_sampling_strategy="sequential",  # `rows` are in order already
            bf16=vlm.model.dtype == torch.bfloat16,
            use_cpu=vlm.device.type == "cpu",
            save_total_limit=2,
            eval_strategy="steps" if probes else "no",
            eval_steps=curve.every,
            metric_for_best_model="score",
            load_best_model_at_end=patience > 0,
            restore_callback_states_from_checkpoint=patience > 0,  # how many probes brought no improvement
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            ddp_find_unused_parameters=False,  # all that is trained is used, in both of a step's forward passes
            gradient_checkpointing_kwargs={"use_reentrant": False},
            **settings,
        )


@contextlib.contextmanager
def _without_dropout(network: Any) -> Iterator[None]:
    """Within this block nothing is dropped at random, so that a model before its first step is its reference.

    Layers hold the probability under names such as p, dropout and attention_dropout.
    """
    changed = []
    for module in network.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and value > 0 and (isinstance(module, _DROPOUT) or "dropout" in name):
                changed.append((module, name, value))
    try:
        for module, name, _ in changed:
            setattr(module, name, 0.0)
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


@contextlib.contextmanager
def _memory_named(less_memory: str) -> Iterator[None]:
    """Running out of memory as a sentence that names what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise UserError(f"The memory is not enough. {less_memory}") from None
