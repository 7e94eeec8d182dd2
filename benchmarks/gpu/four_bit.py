"""NPO by QLoRA: the 7B shape written to disk, loaded in 4 bits, trained."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.model import Scale, build, examples
from benchmarks.gpu.training import ROWS, step
from workbench.models.load import load
from workbench.models.merge import write_model
from workbench.training.memory import GIB, predict
from workbench.training.settings import Settings


def rows(scale: Scale) -> Iterator[dict]:
    """A row with checkpointing; "not run" where there is no GPU or no bitsandbytes."""
    if scale.tiny or importlib.util.find_spec("bitsandbytes") is None:
        yield {
            "what": "NPO in 4 bits",
            "not_run": "on the CPU there are no 4 bits" if scale.tiny else "bitsandbytes is missing",
        }
        return
    with tempfile.TemporaryDirectory() as folder:
        write_model(build(scale), Path(folder) / "model")
        vlm = load(Path(folder) / "model", four_bit=True)
        data = examples(vlm, scale, 6 * ROWS, 6 * ROWS)
        settings = Settings.of("npo", forget=ROWS, retain=ROWS, checkpointing=True, four_bit=True)
        predicted = predict(scale.shape(), settings, scale.prompt, scale.answer).total / GIB
        found = step(vlm, "npo", data, scale, hyper={}, checkpointing=True, four_bit=True)
        yield {
            "what": "NPO in 4 bits",
            "settings": settings.saving,
            "predicted_gib": predicted,
            "fits": bool(found),
        } | found
