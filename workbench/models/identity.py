"""Telling models apart by their weights."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from workbench.models.vlm import VLM, bare

SAMPLED = 1024  # values of each parameter that enter a hash, evenly spaced


def identity(vlm: VLM) -> str:
    """Hash that identifies a pretrained model regardless of precision.

    Returns:
        Two hashes, joined by a hyphen: of the embeddings and the decoder's last norm, which quantisation
        leaves as they are, and of all weights; a quantised model has the first alone.
    """
    network = bare(vlm.model)
    unquantised = [network.get_input_embeddings().weight[:256], network.get_decoder().norm.weight]
    hashes = [_hash(part for part in unquantised)]
    if not getattr(network, "is_quantized", False):
        hashes.append(_hash(_sample(parameter) for parameter in network.parameters()))
    return "-".join(hashes)


def same_model(one: str, other: str) -> bool:
    """Whether two results of `identity` belong to the same model, as far as both say."""
    return all(a == b for a, b in zip(one.split("-"), other.split("-"), strict=False))


def fingerprint(vlm: VLM) -> str:
    """Hash that identifies a trained model, from some values of every parameter, adapters included."""
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in vlm.model.named_parameters():
        digest.update(name.encode() + _sample(parameter).detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _sample(parameter: torch.Tensor) -> torch.Tensor:
    """Evenly spaced values of a parameter of any shape, at most about SAMPLED of them."""
    return parameter.flatten()[:: max(1, parameter.numel() // SAMPLED)]


def _hash(tensors: Any) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(tensor.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
