"""The same steps as a user of trl and peft would take them.

DPO by trl's DPOTrainer, SFT by transformers' Trainer, beside ours.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import datasets
import peft
import torch
import transformers
import trl

from benchmarks.gpu.model import Scale, build, examples, seconds
from benchmarks.gpu.training import measured, step
from workbench.models.adapters import linear_modules
from workbench.models.vlm import VLM, answer_batch, quiet
from workbench.training.settings import Settings
from workbench.training.train import reference_logprobs

PAIRS = 4  # of a DPO step, in trl: chosen and rejected answers, and no retain set
FORGET, RETAIN = 3, 2  # of ours: as many sequences
LORA = {"r": 16, "lora_alpha": 32, "task_type": "CAUSAL_LM"}
NOT_REENTRANT = {"use_reentrant": False}


def rows(scale: Scale) -> Iterator[dict]:
    """Theirs, ours and the ratio, for DPO and SFT, with and without checkpointing."""
    vlm = build(scale)
    data = examples(vlm, scale, 8 * PAIRS, 8 * PAIRS)
    harmful, harmless = data[: 8 * PAIRS], data[8 * PAIRS :]
    dpo = Settings.of("dpo", forget=FORGET, retain=RETAIN)
    reference_logprobs(vlm, harmful[:FORGET], dpo)  # warms up
    each, _ = seconds(lambda: reference_logprobs(vlm, harmful[:FORGET], dpo), scale.device)
    for checkpointing in (True,) if scale.tiny else (False, True):
        for objective, theirs in (
            ("dpo", lambda c: trl_dpo(vlm, harmful, scale, c)),
            ("sft", lambda c: plain_sft(vlm, harmless, scale, c)),
        ):
            forget, retain = (FORGET, RETAIN) if objective == "dpo" else (PAIRS, PAIRS)
            try:
                peer = theirs(checkpointing)
            except torch.OutOfMemoryError:
                peer = {}
            ours = step(
                vlm, objective, data, scale, hyper={}, forget=forget, retain=retain, checkpointing=checkpointing
            )
            if not (ours and peer):
                lacking = " and ".join(["ours"] * (not ours) + ["theirs"] * (not peer))
                yield {
                    "what": objective,
                    "checkpointing": checkpointing,
                    "left_out": f"the memory is not enough for {lacking}",
                }
                continue
            about = {
                "what": f"{objective}: ours / {'trl' if objective == 'dpo' else 'peft and Trainer'}",
                "checkpointing": checkpointing,
            }
            about |= {
                f"{side}_{name}": found[name] for side, found in (("ours", ours), ("theirs", peer)) for name in peer
            }
            about |= {f"ratio_{name}": ours[name] / peer[name] for name in ("peak_gib", "seconds_a_step")}
            if (
                objective == "dpo"
            ):  # ours asks the reference once an example, before the first step; theirs in every step
                once = (ours["seconds_a_step"] + each) / peer["seconds_a_step"]
                about |= {"ours_seconds_reference": each, "ratio_seconds_a_step_if_each_example_is_seen_once": once}
            yield about


def trl_dpo(vlm: VLM, harmful: list, scale: Scale, checkpointing: bool) -> dict:
    """trl's DPOTrainer with a fresh adapter; the reference is the adapter switched off."""
    pairs = [
        {
            "images": [e.picture()],
            "prompt": [{"role": "user", "content": e.query}],
            "chosen": [{"role": "assistant", "content": e.response}],
            "rejected": [{"role": "assistant", "content": e.leak}],
        }
        for e in harmful
    ]
    with tempfile.TemporaryDirectory() as folder, quiet():
        arguments = trl.DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=PAIRS,
            max_length=None,
            gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs=NOT_REENTRANT,
            **_common(scale),
        )
        trainer = trl.DPOTrainer(
            vlm.model,
            args=arguments,
            train_dataset=datasets.Dataset.from_list(pairs),
            processing_class=vlm.processor,
            peft_config=peft.LoraConfig(target_modules=linear_modules(vlm), **LORA),
        )
        batch = trainer.data_collator([trainer.train_dataset[0]])
        assert batch["input_ids"].shape == (2, scale.prompt + scale.answer), batch[
            "input_ids"
        ].shape  # the same length as ours
        return _theirs(trainer, vlm, scale)


def plain_sft(vlm: VLM, examples: list, scale: Scale, checkpointing: bool) -> dict:
    """transformers' Trainer with a peft adapter and the model's own loss."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=2 * PAIRS,
            gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs=NOT_REENTRANT,
            remove_unused_columns=False,
            **_common(scale),
        )
        network = peft.get_peft_model(vlm.model, peft.LoraConfig(target_modules=linear_modules(vlm), **LORA))
        if checkpointing:
            network.enable_input_require_grads()

        def collate(chunk: list) -> dict[str, torch.Tensor]:
            return answer_batch(vlm, chunk, [e.response for e in chunk])

        trainer = transformers.Trainer(network, arguments, data_collator=collate, train_dataset=examples)
        return _theirs(trainer, vlm, scale)


def _common(scale: Scale) -> dict:
    return {
        "max_steps": scale.steps,
        "learning_rate": 1e-5,
        "bf16": scale.dtype == torch.bfloat16,
        "use_cpu": scale.tiny,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "dataloader_pin_memory": False,
    }


def _theirs(trainer: transformers.Trainer, vlm: VLM, scale: Scale) -> dict:
    """Run a trainer, and leave the network as it was."""
    trainer.remove_callback(transformers.PrinterCallback)
    try:
        found = measured(trainer.train, scale)
    finally:
        trainer.model.unload()
        vars(vlm.model).pop("forward", None)  # trl puts its own in its place
        vlm.model.gradient_checkpointing_disable()
        vlm.model.get_input_embeddings()._forward_hooks.clear()  # of checkpointing; trl and Trainer each leave one
        vlm.model.requires_grad_(False).eval()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == scale.steps and len(set(losses)) > 1, losses
    return found
