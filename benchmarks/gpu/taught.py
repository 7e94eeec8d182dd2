"""A language model taught MiniGuard's world, and the study of it: SFT, its control and NPO, attacked.

The language model is that of `--language`, and without it one of SmolLM2-135M's shape with random weights,
which measures the time alone.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import transformers

from benchmarks.gpu.model import Scale, seconds
from benchmarks.gpu.sections import LANGUAGE
from benchmarks.llava import random_llava
from workbench.files import write_text
from workbench.models.graft import graft
from workbench.models.load import load
from workbench.models.merge import write_model
from workbench.runs import runs_in
from workbench.studies.headline import headline
from workbench.studies.methods import CONTROL, RECIPES
from workbench.studies.teach import merged, right, teach

STEPS = {"teach": 300, "study": 60}
RATE = 4e-4  # LoRA's learning rate in the study
QUERIES = 100


def rows(scale: Scale) -> Iterator[dict]:
    """Seconds of each stage, and what came of it."""
    steps, n = (dict.fromkeys(STEPS, 2), 4) if scale.tiny else (STEPS, QUERIES)
    with tempfile.TemporaryDirectory() as temporary:
        folder, language = Path(temporary), os.environ.get(LANGUAGE)
        model = folder / "model"
        took, _ = seconds(lambda: _write(language, model, scale.tiny), "cpu")
        yield {"what": "graft", "seconds": took, "language": Path(language).name if language else "random"}

        vlm = load(model, device=scale.device)
        options = {"steps": steps["teach"], "projector": True, "probe_every": steps["teach"], "n": n}
        took, exact = seconds(
            lambda: teach(vlm, folder / "taught", probe_pictures=max(n // 4, 4), lr=RATE, **options), scale.device
        )
        yield {"what": "teach", "seconds": took, "steps": steps["teach"], "right": float(right(exact)["value"].mean())}

        base = merged(str(model), folder / "taught")
        recipe = {"lr": RATE, "steps": steps["study"]}
        write_text(base / RECIPES, json.dumps({name: recipe for name in ("sft", CONTROL, "npo")}))
        with runs_in(folder / "runs"):
            took, study = seconds(lambda: headline(base=str(base), queries=n), scale.device)
        rates = study.results.set_index(["model", "attack", "queries", "metric"])["value"]
        leaks = {name: float(rates[name, "what:3", "harmful", "asr"]) for name in study.results["model"].unique()}
        yield {"what": "study", "seconds": took, "steps": steps["study"], "asr_what3": leaks}


def _write(language: str | None, out: Path, tiny: bool) -> None:
    """Write the language model with MiniGuard's eyes, or a random model of its shape."""
    if language:
        graft(language, out)
        return
    eyes = load("miniguard", device="cpu")
    size = (64, 128, 2, 1, 1) if tiny else (576, 1536, 30, 9, 3)  # SmolLM2-135M's
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    text = transformers.LlamaConfig(
        vocab_size=1000 if tiny else 49_152, max_position_embeddings=1024, **dict(zip(names, size, strict=True))
    )
    vlm = random_llava(text, eyes.model.config.vision_config)
    vlm.processor.patch_size = eyes.processor.patch_size
    write_model(vlm, out)
