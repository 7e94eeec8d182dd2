"""Checkpoints of a training run: what is trained, under the network's own names, and whole or not at all.

transformers writes a network's weights under the names of its checkpoints on the hub, which for VLMs are not
those of the network's own parameters, and reads them back by the latter (github.com/huggingface/transformers
issue 43701). So weights are written and read here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from workbench.errors import UserError
from workbench.files import write_text

WEIGHTS = "trained.safetensors"
SEAL = "complete.json"  # written last: the name and size in bytes of every other file


def trained_weights(network: Any) -> dict[str, torch.Tensor]:
    """The parameters that are trained, of any shape, by the names that the network gives them."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def save_weights(network: Any, checkpoint: Path) -> None:
    """Write the parameters that are trained."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    weights = {name: parameter.detach().cpu().contiguous() for name, parameter in trained_weights(network).items()}
    safetensors.torch.save_file(weights, checkpoint / WEIGHTS)


def load_weights(network: Any, checkpoint: Path) -> None:
    """Give the parameters that are trained the values that `save_weights` wrote.

    Raises:
        UserError: The checkpoint was written by a run that trains other parameters.
    """
    stored = safetensors.torch.load_file(checkpoint / WEIGHTS)
    trained = trained_weights(network)
    if {name: tensor.shape for name, tensor in stored.items()} != {name: p.shape for name, p in trained.items()}:
        raise UserError(f"The checkpoint {checkpoint} holds other weights than this run trains; remove the run.")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(stored[name])


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as complete."""
    write_text(checkpoint / SEAL, json.dumps(_sizes(checkpoint)))


def steps_at(checkpoint: Path) -> int:
    """After how many steps a checkpoint was written, from its name."""
    return int(checkpoint.name.split("-")[1])


def last_complete(folder: Path) -> Path | None:
    """The last complete checkpoint in a folder, None if there is none. Later ones are removed.

    A process that is killed while it writes or removes a checkpoint leaves a part of it behind.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=steps_at, reverse=True):
        sealed = checkpoint / SEAL
        if sealed.is_file() and json.loads(sealed.read_text(encoding="utf-8")) == _sizes(checkpoint):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(checkpoint.iterdir()) if path.name != SEAL}
