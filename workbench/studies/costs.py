"""What a method costs: steps, examples, time and memory."""

from __future__ import annotations

import functools

import pandas as pd
import torch

from workbench.data.splits import miniguard_split
from workbench.models.configuration import checkpoint, configuration
from workbench.studies.methods import method_of
from workbench.training.memory import longest, predict
from workbench.training.settings import Settings

COLUMNS = ["model", "runs", "steps", "harmful", "harmless", "seconds", "memory"]


def costs(runs: pd.DataFrame) -> pd.DataFrame:
    """What it takes to train each model of the study.

    Args:
        runs: `shipped.shipped("runs")`.

    Returns:
        COLUMNS: steps and seconds (of training alone, without probes), means over the runs; how many harmful
        and harmless examples they see; memory, MiB that a step takes at its peak (`memory.predict`).
    """
    rows = []
    for model, own in runs[runs["model"] != "base"].groupby("model", sort=False):
        method = method_of(str(model), own["base"].iloc[0])
        settings = Settings.of(method.objective, **method.settings)
        prompt, answer = _lengths(own["base"].iloc[0])
        memory = predict(configuration(own["base"].iloc[0]), settings, prompt, answer, torch.float32)
        steps = own["steps"].mean()
        seen = (steps * settings.forget, steps * settings.retain)
        rows.append((model, len(own), steps, *seen, own["seconds"].mean(), sum(memory) / 2**20))
    return pd.DataFrame(rows, columns=COLUMNS)


@functools.cache
def _lengths(base: str) -> tuple[int, int]:
    """The longest prompt and answer of the safety data, in tokens of a base model."""
    return longest(checkpoint(base), miniguard_split("train"))
