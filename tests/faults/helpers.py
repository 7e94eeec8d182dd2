"""What the replayed faults share: pictures, data files, adapters made elsewhere, and the tokens a network reads."""

import contextlib
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

BASE_LAYERS, BASE_HIDDEN = 4, 128  # of the language model in MiniGuard's base
IN_A_VLM = "base_model.model.model.language_model."  # peft's prefix for weights of a VLM's language model
ON_ITS_OWN = "base_model.model.model."  # and for the same language model trained without a vision tower


class Done(NamedTuple):
    """How a command ended. text: all that it printed."""

    code: int
    text: str

    @property
    def refused(self) -> bool:
        """Whether it ended with one sentence to the user."""
        return self.code == 2 and "workbench: " in self.text and "Traceback" not in self.text


def picture(colour: str, size: int = 48) -> Image.Image:
    """A disc of one colour on a light ground."""
    image = Image.new("RGB", (size, size), "whitesmoke")
    ImageDraw.Draw(image).ellipse((size // 4, size // 4, 3 * size // 4, 3 * size // 4), fill=colour)
    return image


def harmless(name: str, image: str, query: str, answer: str = "a ball") -> dict:
    """A VLGuard record with one harmless query."""
    return {"id": name, "image": image, "safe": True, "instr-resp": [{"safe_instruction": query, "response": answer}]}


def write_vlguard(folder: Path, records: list[dict], pictures: dict[str, Image.Image]) -> Path:
    """Write a VLGuard folder with a test split: test.json and test/*.png."""
    (folder / "test").mkdir(parents=True)
    for name, image in pictures.items():
        image.save(folder / "test" / name)
    (folder / "test.json").write_text(json.dumps(records), encoding="utf-8")
    return folder


def lora_weights(prefix: str = IN_A_VLM, layers=range(BASE_LAYERS)) -> dict[str, torch.Tensor]:
    """A random LoRA of rank 2 on q_proj, strong enough to change the base's answers."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"lora_A": (2, BASE_HIDDEN), "lora_B": (BASE_HIDDEN, 2)}
    return {
        f"{prefix}layers.{layer}.self_attn.q_proj.{part}.weight": torch.randn(shape, generator=generator)
        for layer in layers
        for part, shape in shapes.items()
    }


def write_adapter(folder: Path, weights: dict[str, torch.Tensor] | None = None) -> Path:
    """Write an adapter for the base as another tool would: its configuration and, if given, its weights."""
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 2,
        "lora_alpha": 16,
        "target_modules": r".*language_model.*\.q_proj",
        "base_model_name_or_path": "/home/someone/models/tiny-llava",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if weights:
        save_file(weights, folder / "adapter_model.safetensors")
    return folder


def answers_of(vlm, examples) -> list[str]:
    """The model's answers to the examples' queries."""
    return vlm.answers([e.picture() for e in examples], [e.query for e in examples])


@contextlib.contextmanager
def tokens_read(vlm):
    """Collects the token ids of every pass through the network within this block, one list per sequence."""
    sequences: list[list[int]] = []
    hook = vlm.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: sequences.extend(inputs[0].tolist())
    )
    try:
        yield sequences
    finally:
        hook.remove()


def rates(utility: float) -> pd.DataFrame:
    """What a training run's probe returns for a model of this utility that neither leaks nor refuses."""
    metrics = [("harmless", "utility", utility), ("harmful", "asr", 0.0), ("harmless", "rr", 0.0)]
    rows = [("probed", "none", queries, metric, value, 0.0, 1.0, 10) for queries, metric, value in metrics]
    return pd.DataFrame(rows, columns=["model", "attack", "queries", "metric", "value", "ci_low", "ci_high", "n"])


def interrupt_at(step: int):
    """An `on_curve` that acts as Ctrl-C would when the run is probed at this step."""

    def on_curve(table: pd.DataFrame) -> None:
        if table.step.max() >= step:
            raise KeyboardInterrupt

    return on_curve
