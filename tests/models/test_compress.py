"""Compression changes the language model's weights as its docstrings say, and nothing else."""

import copy

import pytest
import torch

from workbench.models.adapters import linear_modules
from workbench.models.compress import pruned, rounded


@pytest.fixture
def twin(vlm):
    """A copy of the base that may be changed."""
    return type(vlm)(copy.deepcopy(vlm.model), vlm.processor, vlm.name)


def changed(vlm, other):
    before, after = vlm.model.state_dict(), other.model.state_dict()
    return {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_weights_are_rounded_to_so_many_values_and_by_half_a_step_at_most(vlm, twin, bits):
    rounded(twin, bits)
    assert changed(vlm, twin) == set(linear_modules(vlm))
    for name in linear_modules(vlm)[:3]:
        before, after = (m.model.get_submodule(name).weight for m in (vlm, twin))
        for old, new in zip(before, after, strict=True):
            assert len(new.unique()) <= 2**bits - 1
            step = old.abs().max() / (2 ** (bits - 1) - 1)
            assert (old - new).abs().max() <= step / 2 * 1.001


def test_the_smallest_weights_are_pruned(vlm, twin):
    pruned(twin, 0.5)
    assert changed(vlm, twin) == set(linear_modules(vlm))
    name = linear_modules(vlm)[0]
    before, after = (m.model.get_submodule(name).weight for m in (vlm, twin))
    assert (after == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()
    assert torch.equal(before[after != 0], after[after != 0])


def test_weights_that_are_all_zero_stay_zero(twin):
    weight = twin.model.get_submodule(linear_modules(twin)[0]).weight
    weight.data.zero_()
    rounded(twin, 4)
    assert not weight.any()
