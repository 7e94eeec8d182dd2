"""What a model computes for given answers: log-probabilities of their tokens, and hidden states."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from workbench.models.vlm import IGNORED, Batch, bare


def token_logprobs(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute log π of every answer token.

    Logits are computed only for the A columns from the first answer token of any row on, and so never for
    pictures and queries.

    Args:
        model: The network, with or without wrappers.
        batch: An `answer_batch`, with labels (B, T).

    Returns:
        Log-probabilities (B, A) in nats, and a mask (B, A) of the columns that are answer tokens.
    """
    inputs, targets = _answer_columns(batch)
    logits = model(**inputs, use_cache=False, logits_to_keep=targets.shape[1] + 1).logits[:, :-1]  # (B, A, vocabulary)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.device)  # a network spread over devices has its logits on the last one
    nll = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return -nll, targets != IGNORED


def hidden_states(model: Any, batch: Batch, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of one decoder layer at each position whose next token is an answer token.

    Args:
        model: The network, with or without wrappers.
        batch: An `answer_batch`, with labels (B, T).
        layer: The number of the layer, counted from 1.

    Returns:
        Hidden states (B, A, H), and a mask (B, A) of the columns that are answer tokens; A is as in
        `token_logprobs`.
    """
    inputs, targets = _answer_columns(batch)
    hidden = _up_to(model, inputs, layer)
    return hidden[:, -targets.shape[1] - 1 : -1], (targets != IGNORED).to(hidden.device)


def all_hidden_states(model: Any, batch: Batch, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of one decoder layer at all positions: picture, query and answer.

    Args:
        model: The network, with or without wrappers.
        batch: An `answer_batch`, with labels (B, T).
        layer: The number of the layer, counted from 1.

    Returns:
        Hidden states (B, T, H), and a mask (B, T) of the columns that are no padding.
    """
    inputs, _ = _answer_columns(batch)
    mask = batch["attention_mask"]
    hidden = _up_to(model, inputs, layer)
    return hidden, (mask if mask.dim() == 2 else mask[:, 0, -1]).bool().to(
        hidden.device
    )  # memory plans give (B, 1, T, T)


def _up_to(model: Any, inputs: Batch, layer: int) -> torch.Tensor:
    """The output (B, T, H) of a decoder layer; later layers are not run."""
    decoder = bare(model).get_decoder()
    layers, outputs = decoder.layers, []
    hook = layers[layer - 1].register_forward_hook(lambda module, args, output: outputs.append(output))
    decoder.layers = layers[:layer]
    try:
        model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        decoder.layers = layers
        hook.remove()
    return outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]


def _answer_columns(batch: Batch) -> tuple[Batch, torch.Tensor]:
    """Separate a batch's inputs from its answers.

    Returns:
        The batch without labels and reference, and the labels (B, A) from the first answer token of any row
        on.
    """
    labels = batch["labels"]  # (B, T)
    start = int((labels != IGNORED).any(dim=0).nonzero()[0])
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "reference")}
    return inputs, labels[:, start:]


@contextlib.contextmanager
def reference(model: Any) -> Iterator[Any]:
    """Within this block, the reference model π₀, against which unlearning objectives compare.

    It is the same network with its adapter switched off, or the frozen copy that `freeze_copy` made.
    """
    model = getattr(model, "module", model)
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield model
    else:
        yield model.frozen_copy[0]
