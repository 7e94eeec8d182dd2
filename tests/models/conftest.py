"""What tests of models share."""

import copy

import pytest

from workbench.models.adapters import add_lora, linear_modules
from workbench.models.vlm import VLM


@pytest.fixture
def images(few):
    return [example.picture() for example in few]


@pytest.fixture
def queries(few):
    return [example.query for example in few]


@pytest.fixture
def responses(few):
    return [example.response for example in few]


@pytest.fixture
def fresh(vlm):
    """The shipped base, with its cache of features empty."""
    return VLM(vlm.model, vlm.processor, "x")


@pytest.fixture
def lora_copy(vlm):
    """Make a copy of the base with a fresh LoRA adapter, on the modules that `linear_modules` is asked for."""

    def make(rank=4, **which):
        own = VLM(copy.deepcopy(vlm.model), vlm.processor, "x")
        return add_lora(own, linear_modules(own, **which), rank=rank, alpha=8, seed=0)

    return make
