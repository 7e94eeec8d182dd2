"""Write a whole model, its adapter merged into its weights, for tools that know no adapters."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from workbench.errors import UserError, first_line
from workbench.files import atomic_write
from workbench.models.vlm import VLM, bare, prompt_batch, quiet

TOLERANCE, ROUNDED = 0.02, 0.5  # nats, by which log-probabilities may differ once merged: in float32, and in 16 bits


def write_model(vlm: VLM, out: Path) -> None:
    """Write the whole model as a checkpoint for `load`, in the precision of the one that it was loaded from.

    Args:
        vlm: The model, which cannot be used afterwards.
        out: The folder to be made.

    Raises:
        UserError: `out` exists already, or the merged model is not the one with the adapter: its adapter
            changes embeddings that are also the output's weights, or the weights are quantised.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another --out, or remove it.")
    merge_adapter(vlm)
    if vlm.stored_dtype:
        vlm.model.to(vlm.stored_dtype)
    with atomic_write(out) as folder, quiet():
        vlm.model.save_pretrained(folder)
        vlm.processor.save_pretrained(folder)


def merge_adapter(vlm: VLM) -> None:
    """Merge a model's adapter, if it has one, into its weights, in place, and check that it says the same.

    Raises:
        UserError: The merged model is not the one with the adapter.
    """
    if not hasattr(vlm.model, "merge_and_unload"):
        return
    if getattr(bare(vlm.model), "is_quantized", False):
        raise UserError("Quantised weights cannot take up an adapter; load the model without --four-bit.")
    before = _logprobs(vlm)
    try:
        vlm.model = vlm.model.merge_and_unload()
    except RuntimeError as error:
        raise UserError(
            f"This adapter cannot be merged ({first_line(error)}); use the model with its adapter."
        ) from None
    moved = (_logprobs(vlm) - before).abs().max().item()
    if moved > (TOLERANCE if vlm.model.dtype == torch.float32 else ROUNDED):
        raise UserError(
            f"This adapter cannot be merged: log-probabilities would change by up to {moved:.2g} nats. It may change "
            "embeddings that are also the weights of the output. Use the model with its adapter."
        )


def _logprobs(vlm: VLM) -> torch.Tensor:
    """Log-probabilities of each next token of one prompt: (tokens, vocabulary)."""
    batch = prompt_batch(vlm, [Image.new("RGB", (64, 64), "grey")], ["What is it?"])
    with torch.inference_mode():
        return vlm.model(**batch).logits[0].float().log_softmax(dim=-1)
