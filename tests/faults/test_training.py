"""Resuming and "best" mean the weights, a run resumes only with its own data, and training leaves nothing behind."""

import builtins
import contextlib
import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers

import workbench as wb
from tests.base_data import shorten
from tests.faults.helpers import answers_of, interrupt_at, rates
from workbench.errors import UserError
from workbench.studies.base_model import build

SMALL = {"forget": 2, "retain": 2, "lr": 1e-3}


def losses(run):
    return pd.read_csv(run / "loss.csv").loss.round(4).tolist()


@pytest.mark.slow
def test_full_fine_tuning_resumes_with_the_weights_it_had(tmp_path, few_examples):
    """b01: a VLM's checkpoint names its weights differently from its network, so a resumed run began from the base."""

    def run(name, **options):
        probed = {"probe": lambda vlm: rates(0.5), "probe_every": 3}
        options |= probed | {"steps": 4, "full": True, "save_every": 2}
        vlm = wb.load("miniguard", device="cpu")
        return wb.train(vlm, "sft", few_examples, out=tmp_path / name, **options, **SMALL)

    whole = losses(run("whole"))
    with pytest.raises(KeyboardInterrupt):
        run("interrupted", on_curve=interrupt_at(3))
    if not any(tmp_path.glob("interrupted*/**/checkpoint-2")):
        raise RuntimeError("The test has no checkpoint to resume from.")
    assert losses(run("interrupted", resume=True)) == whole


def test_early_stopping_of_full_fine_tuning_keeps_the_best_weights(tmp_path, base, few_examples):
    """b02: the weights of the last step were written as those of the best."""
    utilities, probed = iter([0.1, 0.9, 0.3, 0.2, 0.1]), []

    def weights(vlm):
        return {name: p.detach().clone() for name, p in vlm.model.named_parameters() if "layers.0.mlp" in name}

    def probe(vlm):
        probed.append(weights(vlm))
        return rates(next(utilities))

    options = {"steps": 8, "full": True, "probe": probe, "probe_every": 2, "patience": 2}
    out = wb.train(base, "sft", few_examples, out=tmp_path / "out", **options, **SMALL)
    written = weights(wb.load(out / "model", device="cpu"))
    equal = [all(torch.equal(then[name], written[name]) for name in written) for then in probed]
    assert equal == [False, True, False, False]


class Stopped(Exception):
    """What a test ends a run with."""


@pytest.mark.slow
def test_build_base_resumes_with_the_weights_it_had(tmp_path, monkeypatch):
    """b03: `build-base --resume` continued from an untrained network."""
    trained = []

    def save_the_second_step(callback, arguments, state, control, **options):
        control.should_save |= state.global_step == 1  # steps that are complete

    def copy_as_killed(callback, arguments, state, control, **options):
        run = next(folder for folder in Path(arguments.output_dir).parents if folder.parent == tmp_path)
        if state.global_step == 2 and run.name.startswith("whole"):
            shutil.copytree(run, tmp_path / run.name.replace("whole", "killed"), dirs_exist_ok=True)

    def stop(callback, arguments, state, control, **options):
        trained.append([round(entry["loss"], 4) for entry in state.log_history if "loss" in entry])
        raise Stopped

    monkeypatch.setattr(transformers.TrainerCallback, "on_optimizer_step", save_the_second_step)
    monkeypatch.setattr(transformers.TrainerCallback, "on_save", copy_as_killed)
    monkeypatch.setattr(transformers.TrainerCallback, "on_train_end", stop)
    shorten(256, 64, monkeypatch.setattr)  # four steps of 64
    with pytest.raises(Stopped):
        build(tmp_path / "whole", steps=4, seeing_steps=2)
    if not any(tmp_path.glob("killed*/**/checkpoint-2")):
        raise RuntimeError("The test has no checkpoint to resume from.")
    with pytest.raises(Stopped):
        build(tmp_path / "killed", steps=4, seeing_steps=2, resume=True)
    whole, resumed = trained
    assert resumed == whole


def test_a_run_killed_while_it_writes_a_checkpoint_resumes_or_is_refused(tmp_path, few_examples, monkeypatch):
    """b05: after a kill at that moment, --resume ended in a traceback every time.

    The test copies the run's folder each time a file of a checkpoint is opened: a kill would leave what the copy holds.
    """
    copies, plain_open = [], builtins.open

    def copying_open(file, mode="r", *arguments, **options):
        run, *folders = str(file).removeprefix(f"{tmp_path}/").split("/")
        if run.startswith("whole") and "w" in mode and any("checkpoint" in name for name in folders[:-1]):
            copies.append(tmp_path / f"killed{len(copies)}")
            shutil.copytree(tmp_path / run, tmp_path / run.replace("whole", copies[-1].name))
        return plain_open(file, mode, *arguments, **options)

    def run(out, **options):
        vlm = wb.load("miniguard", device="cpu")
        return wb.train(vlm, "npo", few_examples, out=out, steps=4, save_every=2, **SMALL, **options)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "open", copying_open)
        whole = losses(run(tmp_path / "whole"))
    if not copies:
        raise RuntimeError("The test saw no file of a checkpoint being written.")
    for killed in copies:
        with contextlib.suppress(UserError):
            assert losses(run(killed, resume=True)) == whole


def test_resuming_with_other_data_is_refused(tmp_path, few_examples):
    """b10: a run resumed with other data of the same sizes without a warning."""

    def run(data, **options):
        options |= {"probe": lambda vlm: rates(0.5), "probe_every": 3, "save_every": 2, "steps": 4}
        return wb.train(wb.load("miniguard", device="cpu"), "sft", data, out=tmp_path / "run", **options, **SMALL)

    with pytest.raises(KeyboardInterrupt):
        run(few_examples, on_curve=interrupt_at(3))
    with pytest.raises(UserError):
        run(wb.repair(few_examples, 0), resume=True)


def test_training_with_checkpointing_leaves_the_model_unchanged(tmp_path, base, few_examples):
    """b22: the caller's model kept flags and hooks of gradient checkpointing, and use_cache was left off."""

    def state():
        modules = list(base.model.modules())
        flags = sum(getattr(module, "gradient_checkpointing", False) for module in modules)
        hooks = sum(len(module._forward_hooks) for module in modules)
        return flags, hooks, getattr(base.model.config, "use_cache", None)

    answers_of(base, few_examples[:2])
    before = state()
    for name in ("first", "second"):
        wb.train(base, "sft", few_examples, out=tmp_path / name, steps=1, checkpointing=True, **SMALL)
    assert state() == before


def test_before_its_first_step_a_model_equals_its_reference(tmp_path, llava, few_examples):
    """b25: dropout in a model's configuration made log π/π₀ differ from 0 before anything was learnt.

    Where it is 0, NPO's loss without its retain term is (2/β) log 2.
    """
    config = json.loads((llava / "config.json").read_text())
    config["text_config"]["attention_dropout"] = 0.5
    (llava / "config.json").write_text(json.dumps(config))
    options = {"steps": 1, "forget": 4, "retain": 1, "beta": 0.5, "alpha": 0.0}
    out = wb.train(wb.load(llava, device="cpu"), "npo", few_examples, out=tmp_path / "out", **options)
    assert losses(out) == [pytest.approx(4 * math.log(2), abs=1e-4)]
