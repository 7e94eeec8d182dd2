"""What a network sees in pictures, cached: the same pictures go through its vision tower once."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from PIL import Image
from torch.utils._pytree import tree_leaves
from transformers.utils import ModelOutput

from workbench.data.example import digest
from workbench.models.turns import in_turn

# From the hashes of a batch's pictures to their features, the least recently used first.
FeatureCache = OrderedDict[tuple[str, ...], ModelOutput]
FEATURE_BYTES = 2**29  # the largest size of one cache
# The features of the pictures that are being asked about
_CURRENT: ContextVar[ModelOutput | None] = ContextVar("features", default=None)


@contextlib.contextmanager
def cached_features(
    network: Any, batch: Mapping[str, torch.Tensor], images: Sequence[Image.Image], cache: FeatureCache
) -> Iterator[None]:
    """Within this block, the network does not look again at pictures that it has seen before.

    The features come from `get_image_features`, the public method with which every VLM of transformers looks
    at pictures: vision tower and projector. Within the block, that method returns the cached features. While
    the vision tower or the projector is being trained, nothing is cached. Other threads wait for the network.

    Args:
        network: The network without wrappers, as `bare` returns it.
        batch: A `prompt_batch` of these pictures.
        images: The pictures, in the order of the batch. Features are cached for the batch as a whole.
        cache: Where features are kept. Beyond FEATURE_BYTES, the least recently used are dropped.
    """
    with in_turn(network):
        viewers = [module for module in network.modules() if hasattr(module, "get_image_features")]
        if not viewers or any(parameter.requires_grad for parameter in _vision_parameters(network)):
            yield
            return
        key = tuple(map(digest, images))
        if key not in cache:
            cache[key] = _features(network, batch)
            while len(cache) > 1 and sum(map(_size, cache.values())) > FEATURE_BYTES:
                cache.popitem(last=False)
        cache.move_to_end(key)
        token = _CURRENT.set(cache[key])
        for module in viewers:
            module.get_image_features = _cached(module.get_image_features)
        try:
            yield
        finally:
            for module in viewers:
                del module.get_image_features
            _CURRENT.reset(token)


def _features(network: Any, batch: Mapping[str, torch.Tensor]) -> ModelOutput:
    """What the network sees in the pictures of a batch."""
    parameters = inspect.signature(network.get_image_features).parameters
    inputs = {name: tensor for name, tensor in batch.items() if name in parameters}
    with torch.no_grad():
        return _trimmed(network.get_image_features(**inputs, return_dict=True))


def _cached(look: Callable[..., ModelOutput]) -> Callable[..., ModelOutput]:
    """The same method, except that it returns the current features if there are any."""

    @functools.wraps(look)  # `generate` reads its signature
    def get_image_features(*args: Any, **kwargs: Any) -> ModelOutput:
        features = _CURRENT.get()
        return look(*args, **kwargs) if features is None else features

    return get_image_features


def _trimmed(features: ModelOutput) -> ModelOutput:
    """The same without the vision tower's hidden states and attentions, which no language model reads."""
    parts = {name: part for name, part in vars(features).items() if name not in ("hidden_states", "attentions")}
    trimmed = type(features)(**{name: part for name, part in parts.items() if name in features})
    vars(trimmed).update(parts)  # pooler_output may be an attribute without being a field
    return trimmed


def _vision_parameters(network: Any) -> Iterator[torch.nn.Parameter]:
    """The parameters of vision tower and projector."""
    language_modules = (network.get_decoder(), network.get_output_embeddings())
    language = {id(parameter) for module in language_modules for parameter in module.parameters()}
    return (parameter for parameter in network.parameters() if id(parameter) not in language)


def _size(features: ModelOutput) -> int:
    """The bytes of all tensors in features, however nested."""
    return sum(part.nbytes for part in tree_leaves(vars(features)) if isinstance(part, torch.Tensor))
