"""What a model thinks of given answers: log-probabilities of their tokens, hidden states, and the same of the reference model."""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F

from workbench.models.vlm import IGNORED, Batch, bare


def _answer_columns(batch: Batch) -> tuple[dict, torch.Tensor]:
    """A batch's inputs without its labels, and the labels from the column on in which the first answer begins: (B, A)."""
    labels = batch["labels"]
    start = int((labels != IGNORED).any(dim=0).nonzero()[0])
    return {name: value for name, value in batch.items() if name not in ("labels", "reference")}, labels[:, start:]


def token_logprobs(model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """log π of every answer token: (B, A) log-probabilities, and a (B, A) mask of which columns are answer tokens.

    Only columns from the first label on are scored: the vocabulary's logits over image and prompt are never made.
    """
    inputs, targets = _answer_columns(batch)
    logits = model(**inputs, use_cache=False, logits_to_keep=targets.shape[1] + 1).logits[:, :-1]  # (B, A, vocabulary)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.to(logits.device)  # of a network spread over devices, the last one's
    nll = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return -nll, targets != IGNORED


def hidden_states(model, batch: Batch, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the decoder's layer `layer` (from 1) puts out where an answer token is about to be said: (B, A, H), and the (B, A) mask.

    Later layers are not run.
    """
    inputs, targets = _answer_columns(batch)
    decoder = bare(model).get_decoder()
    layers, seen = decoder.layers, []
    hook = layers[layer - 1].register_forward_hook(lambda module, args, output: seen.append(output))
    decoder.layers = layers[:layer]
    try:
        model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        decoder.layers = layers
        hook.remove()
    hidden = seen[0][0] if isinstance(seen[0], tuple) else seen[0]  # (B, T, H)
    return hidden[:, -targets.shape[1] - 1 : -1], (targets != IGNORED).to(hidden.device)


@contextlib.contextmanager
def reference(model):
    """π₀: within this block, the same network with its adapter switched off, or the frozen copy that `freeze_copy` made."""
    model = getattr(model, "module", model)
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield model
    else:
        yield model.frozen_copy[0]
