"""A MiniGuard-sized model as two ONNX graphs: what it sees, and the next token.

The vision tower and the projector are one graph, which models that were trained on the same base share. The
language model is the other. It keeps nothing from one token to the next: at this size, reading 50 tokens
again takes a few milliseconds, and a graph without a cache is much simpler.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.models.vlm import VLM, quiet

LONGEST = 512  # tokens that a decoder's graph can read


class Eyes(torch.nn.Module):
    """From pixels to what the language model reads in their place.

    Args:
        vlm: A LLaVA whose processor neither crops nor resizes pictures of its own size.
    """

    def __init__(self, vlm: VLM) -> None:
        super().__init__()
        self.network = vlm.model
        image = vlm.processor.image_processor
        self.scale = image.rescale_factor
        self.mean = torch.tensor(image.image_mean).view(1, 3, 1, 1)
        self.std = torch.tensor(image.image_std).view(1, 3, 1, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (1, height, width, 3), 0 to 255 → features (1, image tokens, width of the language model)."""
        values = (pixels.permute(0, 3, 1, 2).float() * self.scale - self.mean) / self.std
        return torch.stack(list(self.network.model.get_image_features(pixel_values=values).pooler_output))


class Decoder(torch.nn.Module):
    """From a prompt, and what was seen, to the next token.

    Args:
        vlm: The same LLaVA.
    """

    def __init__(self, vlm: VLM) -> None:
        super().__init__()
        self.network = vlm.model
        self.image_token: int = vlm.model.config.image_token_id

    def forward(self, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Tokens (1, T) and features (1, image tokens, width) → logits of the token after them (1, V)."""
        ids = ids.long()
        embedded = self.network.get_input_embeddings()(ids)  # (1, T, width)
        seen = (ids == self.image_token).unsqueeze(-1).expand_as(embedded)
        embedded = embedded.masked_scatter(seen, features)
        states = self.network.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return self.network.lm_head(states[:, -1])


def write_eyes(vlm: VLM, file: Path) -> None:
    """Write the vision tower and the projector of a model, whose adapter is merged, as `Eyes`."""
    size = vlm.model.config.vision_config.image_size
    pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    _write(Eyes(vlm), (pixels,), file, input_names=["pixels"], output_names=["features"])


def write_decoder(vlm: VLM, file: Path) -> None:
    """Write the language model of a model, whose adapter is merged, as `Decoder`."""
    decoder = Decoder(vlm)
    width, tokens = vlm.model.config.text_config.hidden_size, vlm.model.config.image_seq_length
    ids = torch.tensor([[decoder.image_token] * tokens + [0] * 8], dtype=torch.int32)
    features = torch.zeros(1, tokens, width)
    length = torch.export.Dim("length", min=2, max=LONGEST)
    names = {"input_names": ["ids", "features"], "output_names": ["logits"]}
    _write(decoder, (ids, features), file, dynamic_shapes={"ids": {1: length}, "features": None}, **names)


def _write(graph: torch.nn.Module, inputs: tuple[torch.Tensor, ...], file: Path, **options: Any) -> None:
    """Export a graph and write it with its weights in half precision."""
    import onnx

    with _without_chatter():
        program: Any = torch.onnx.export(graph.eval(), inputs, dynamo=True, verbose=False, **options)
    model = program.model_proto
    _halve_weights(model)
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, model.graph, model):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")  # names of lines of Python, a sixth of the file
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


def _halve_weights(model: Any) -> None:
    """Store float32 weights in half precision, in place; a cast in front of the graph makes them float32 again.

    Only storage shrinks: everything is still computed in float32.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 64:
            continue
        name, half = weight.name, numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Within this block, torch.onnx says nothing of packages that are not needed here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
