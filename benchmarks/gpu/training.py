"""Steps of SFT, NPO and RMU on the 7B shape: peak memory beside what `workbench plan` predicts, and speed."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from benchmarks import step_ends
from benchmarks.gpu.model import Scale, build, examples
from benchmarks.training import highest_rss
from workbench.data.example import Example
from workbench.errors import UserError
from workbench.models.vlm import VLM
from workbench.training.memory import GIB, MARGIN, predict
from workbench.training.settings import Settings
from workbench.training.train import objectives, train

# (GPU's memory in GiB, objective, settings that save memory): for each GPU, what the README's table says
# will fit
CAPPED = [
    (16, "npo", {"accumulate": 4, "checkpointing": True}),
    (16, "sft", {"accumulate": 4, "checkpointing": True}),
    (16, "rmu", {"checkpointing": True}),
    (24, "npo", {"checkpointing": True}),
    (24, "sft", {"checkpointing": True}),
    (24, "rmu", {}),
    (40, "npo", {"accumulate": 2}),
    (40, "sft", {"accumulate": 2}),
]
WHOLE = [
    (None, "npo", {}),
    (None, "npo", {"checkpointing": True}),
    (None, "npo", {"accumulate": 2}),
    (None, "npo", {"accumulate": 2, "checkpointing": True}),
    (None, "sft", {}),
    (None, "rmu", {}),
]
CONTEXT_GIB = 0.5  # what CUDA itself takes of a card, outside of torch's allocator
ROWS = 4  # forget and retain examples of a step, each


def rows(scale: Scale) -> Iterator[dict]:
    """A row for each run."""
    vlm = build(scale)
    data = examples(vlm, scale, 6 * ROWS, 6 * ROWS)
    planned: dict[str, int] = {}  # bytes, by settings; SFT takes what NPO does
    for cap, objective, saving in WHOLE[3:] if scale.tiny else CAPPED + WHOLE:
        hyper = {"layer": scale.layer} if objective == "rmu" else {}
        same_memory = "npo" if objective == "sft" else objective
        settings = Settings.of(same_memory, forget=ROWS, retain=ROWS, **hyper, **saving)
        key = f"{same_memory} {settings.options}"
        if key not in planned:
            planned[key] = predict(scale.shape(), settings, scale.prompt, scale.answer, scale.dtype).total
        predicted = planned[key]
        about = {
            "what": f"a step of {objective}",
            "cap_gib": cap,
            "settings": settings.saving,
            "predicted_gib": predicted / GIB,
        }
        if not scale.tiny and predicted > (1 - MARGIN) * torch.cuda.get_device_properties(0).total_memory:
            yield about | {"left_out": "by the prediction, this GPU is too small for it"}
            continue
        with memory_capped(cap):
            found = step(vlm, objective, data, scale, hyper=hyper, **saving)
        if found and not scale.tiny:
            found["predicted_by_measured"] = about["predicted_gib"] / found["peak_gib"]
        yield about | {"fits": bool(found)} | found


@contextlib.contextmanager
def memory_capped(gib: int | None) -> Iterator[None]:
    """Within this block, torch may not hold more of the GPU's memory than a smaller card would have."""
    if gib:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, (gib - CONTEXT_GIB) * GIB / torch.cuda.get_device_properties(0).total_memory)
        )
    try:
        yield
    finally:
        if gib:
            torch.cuda.set_per_process_memory_fraction(1.0)


def step(
    vlm: VLM, objective: str, data: Sequence[Example], scale: Scale, hyper: dict, forget=ROWS, retain=ROWS, **settings
) -> dict:
    """Train for `scale.steps` steps with `training.train`.

    Memory, seconds a step, samples and tokens a second; empty where the memory is not enough.
    """

    def run(folder: Path) -> None:
        train(
            vlm,
            objective,
            data,
            out=folder / objective,
            steps=scale.steps,
            lr=1e-5,
            forget=forget,
            retain=retain,
            save_every=1000,
            **hyper,
            **settings,
        )

    with tempfile.TemporaryDirectory() as folder:
        assert (
            not vlm.model.is_gradient_checkpointing and not vlm.model.get_input_embeddings()._forward_hooks
        )  # of an earlier run
        try:
            found = measured(lambda: run(Path(folder)), scale)
        except UserError as error:
            if "memory is not enough" not in str(error):
                raise
            return {}
        losses = pd.read_csv(Path(folder) / objective / "loss.csv").loss
        adapter = load_file(Path(folder) / objective / "adapter_model.safetensors")
    assert len(losses) == scale.steps and all(map(math.isfinite, losses)) and losses.nunique() > 1, losses.tolist()
    assert any(tensor.any() for name, tensor in adapter.items() if "lora_B" in name), "no weight was trained"
    samples = forget * len(objectives.named(objective).answers) + retain
    each = found["seconds_a_step"]
    return found | {
        "samples_a_second": samples / each,
        "tokens_a_second": samples * (scale.prompt + scale.answer) / each,
    }


def measured(run: Callable[[], None], scale: Scale) -> dict:
    """Peak memory of a run of one of transformers' Trainers (on a GPU above nothing, on the CPU of the
    process), and the median of its steps' seconds, without the first.
    """
    if not scale.tiny:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with step_ends(lambda: None if scale.tiny else torch.cuda.synchronize()) as ends:
        run()
    taken = [after - before for before, after in itertools.pairwise(ends)]
    if scale.tiny:
        memory = {"peak_gib": highest_rss() / GIB}
    else:
        memory = {
            "peak_gib": torch.cuda.max_memory_allocated() / GIB,
            "reserved_gib": torch.cuda.max_memory_reserved() / GIB,
        }
    assert memory["peak_gib"] > 0
    return memory | {"seconds_a_step": statistics.median(taken)}
