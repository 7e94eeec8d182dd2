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
FLOAT = 1  # ONNX's number for float32, so that onnx is imported only where it is used


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
        """Pixels (1, height, width, 3), 0 to 255 → features (1, image tokens, text width)."""
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


def eyes_graph(vlm: VLM) -> Any:
    """The vision tower and the projector of a model, as `Eyes`: an ONNX model in float32."""
    size = vlm.model.config.vision_config.image_size
    pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    return _exported(Eyes(vlm), (pixels,), input_names=["pixels"], output_names=["features"])


def decoder_graph(vlm: VLM) -> Any:
    """The language model of a model whose adapter is merged, as `Decoder`: an ONNX model in float32."""
    decoder = Decoder(vlm)
    width, tokens = vlm.model.config.text_config.hidden_size, vlm.model.config.image_seq_length
    ids = torch.tensor([[decoder.image_token] * tokens + [0] * 8], dtype=torch.int32)
    features = torch.zeros(1, tokens, width)
    length = torch.export.Dim("length", min=2, max=LONGEST)
    names = {"input_names": ["ids", "features"], "output_names": ["logits"]}
    return _exported(decoder, (ids, features), dynamic_shapes={"ids": {1: length}, "features": None}, **names)


def with_weights_of(graph: Any, first: VLM, other: VLM) -> Any:
    """A model's `decoder_graph` with another model's weights, which takes no export: those take ten seconds.

    The exporter renames and transposes weights, so each is known by its values.

    Args:
        graph: The graph of `first`; it stays as it is.
        first: The model that it was made from.
        other: A model of the same architecture.
    """
    from onnx import numpy_helper

    old, new = ({name: w.numpy() for name, w in vlm.model.state_dict().items()} for vlm in (first, other))
    changed = type(graph)()
    changed.CopyFrom(graph)
    for weight in changed.graph.initializer:
        if _is_large(weight):
            values = numpy_helper.to_array(weight)
            name = next(n for n in old if np.array_equal(old[n], values) or np.array_equal(old[n].T, values))
            replaced = new[name] if np.array_equal(old[name], values) else np.ascontiguousarray(new[name].T)
            weight.CopyFrom(numpy_helper.from_array(replaced, weight.name))
    return changed


def write_graph(graph: Any, file: Path) -> None:
    """Write an ONNX model with its weights in half precision; the model itself is changed, too."""
    import onnx

    _halve_weights(graph)
    for part in (*graph.graph.node, *graph.graph.value_info, *graph.graph.initializer, graph.graph, graph):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")  # names of lines of Python, a sixth of the file
    onnx.checker.check_model(graph)
    file.write_bytes(graph.SerializeToString())


def _exported(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...], **options: Any) -> Any:
    with _without_chatter():
        program: Any = torch.onnx.export(network.eval(), inputs, dynamo=True, verbose=False, **options)
    return program.model_proto


def _is_large(weight: Any) -> bool:
    """Whether an initializer of a graph is a weight, and no constant of a few numbers."""
    return weight.data_type == FLOAT and np.prod(weight.dims) >= 64


def _halve_weights(graph: Any) -> None:
    """Store float32 weights in half precision, in place; a cast at the graph's start undoes it.

    Only storage shrinks: everything is still computed in float32.
    """
    from onnx import helper, numpy_helper

    casts = []
    for weight in graph.graph.initializer:
        if not _is_large(weight):
            continue
        name, half = weight.name, numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=FLOAT))
    nodes = [*casts, *graph.graph.node]
    graph.graph.ClearField("node")
    graph.graph.node.extend(nodes)


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
