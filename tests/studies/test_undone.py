"""Two changes of weights, compared: a change and its undoing point in opposite directions."""

import copy

import pytest
import torch

from tests.tiny_models import write_llava, write_qwen2vl
from workbench.errors import UserError
from workbench.models.adapters import add_lora, linear_modules
from workbench.models.load import load
from workbench.models.vlm import VLM
from workbench.studies.undone import compared


def changed(vlm, seed, by=1.0, merge=True):
    """A copy with a random adapter, `by` times as strong."""
    own = VLM(copy.deepcopy(vlm.model), vlm.processor, "x")
    student = add_lora(own, linear_modules(own), rank=4, alpha=4, seed=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in student.model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (by if "lora_B" in name else 1))
    return VLM(student.model.merge_and_unload(), vlm.processor, "x") if merge else student


def test_a_change_that_is_undone_has_a_cosine_of_minus_one(vlm):
    taught = changed(vlm, 1)
    table = compared(vlm, taught, changed(taught, 1, by=-0.5, merge=False))
    assert len(table) == 4 * 7 and table.cosine.tolist() == pytest.approx([-1] * 28, abs=1e-4)
    assert (table.changed / table.taught).tolist() == pytest.approx([0.5] * 28, rel=1e-4)


def test_changes_that_have_nothing_to_do_with_each_other_are_at_right_angles(vlm):
    taught = changed(vlm, 1)
    table = compared(vlm, taught, changed(taught, 2, merge=False))
    assert table.cosine.abs().mean() < 0.05
    by_hand = compared(vlm, taught, changed(taught, 2, merge=True))
    assert by_hand.cosine.tolist() == pytest.approx(table.cosine.tolist(), abs=1e-4)


def test_by_hand(vlm):
    taught, after = (VLM(copy.deepcopy(vlm.model), vlm.processor, "x") for _ in range(2))
    weights = [v.model.get_decoder().layers[2].mlp.up_proj.weight for v in (vlm, taught, after)]
    with torch.no_grad():
        weights[1][0, 0] += 3.0
        weights[2][0, 0] += 3.0 + 1.0
        weights[2][5, 7] += 1.0
    (row,) = compared(vlm, taught, after).itertuples(index=False)
    assert (row.layer, row.module) == (2, "mlp.up_proj") and row.cosine == pytest.approx(2**-0.5, abs=1e-5)
    assert row.taught == pytest.approx(3 / float(weights[0].norm()), rel=1e-4)


def test_other_architectures_are_refused(vlm, tmp_path):
    other = load(write_llava(tmp_path / "llava"), device="cpu")
    with pytest.raises(UserError, match="not the same architecture"):
        compared(vlm, vlm, other)
    own = load(write_qwen2vl(tmp_path / "qwen"), device="cpu")
    assert compared(own, own, own).empty and len(compared(own, changed(own, 1), changed(own, 2)))
