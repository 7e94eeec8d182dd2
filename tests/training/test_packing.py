"""Rows in which several queries are packed have the loss and gradients of rows of their own."""

import copy

import pytest
import torch

from tests.tiny_models import ARCHITECTURES, architecture_params
from workbench.data.splits import base_split
from workbench.models.load import load
from workbench.models.vlm import IGNORED, VLM, answer_batch
from workbench.training import packing
from workbench.training.objectives import cross_entropy
from workbench.training.packing import about_one_picture, can_pack, packed, packed_cross_entropy


@pytest.fixture(scope="module")
def examples():
    return about_one_picture(base_split(5, pictures=6)[:60], 4)[:12]


def test_examples_about_a_picture_follow_one_another():
    world = base_split(5, pictures=6)[:60]
    ordered = about_one_picture(world, 4)
    groups = [ordered[start : start + 4] for start in range(0, len(ordered), 4)]
    assert all(len({id(e.image) for e in group}) == 1 for group in groups)
    assert len({id(group[0].image) for group in groups[:6]}) == 6  # all pictures before any comes again
    assert len({e.id for e in ordered}) == len(ordered) == 48
    assert about_one_picture(world[:5], 4) == []


def test_the_loss_and_its_gradients_are_the_same(vlm, examples):
    """In float64, but for norms; queries and answers differ in length, so both kinds of padding occur."""
    student = VLM(copy.deepcopy(vlm.model).double().requires_grad_(True), vlm.processor, "twin")
    alone = answer_batch(student, examples, [e.response for e in examples])
    together = packed(student, examples, 4)
    lengths = alone["attention_mask"].sum(dim=1), (alone["labels"] != IGNORED).sum(dim=1)
    assert all(len(each.unique()) > 1 for each in lengths)
    losses, gradients = [], []
    for loss in (cross_entropy(student.model, alone), packed_cross_entropy(student.model, together)):
        student.model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad.clone() for n, p in student.model.named_parameters() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and losses[0] > 0
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-2, atol=1e-6)
    assert together["input_ids"].numel() < 0.7 * alone["input_ids"].numel()


def test_only_a_model_that_reads_packed_rows_alike_is_taught_so(vlm, examples, monkeypatch):
    """An answer that sees the others' is told from one that does not."""
    assert can_pack(vlm, examples, 4)
    monkeypatch.setattr(packing, "_visible", lambda start, real, size: sees_all(start, real))
    assert not can_pack(vlm, examples, 4)


@pytest.mark.parametrize("architecture", architecture_params())
def test_where_rows_are_packed_they_are_read_alike(tmp_path, examples, architecture):
    model = load(ARCHITECTURES[architecture](tmp_path / "model"), device="cpu")
    for weight in model.model.parameters():  # random weights so large that inputs matter
        weight.mul_(4 if weight.dim() > 1 else 1)
    packs = can_pack(model, examples, 4)
    if packs:
        with torch.no_grad():
            alone = cross_entropy(model.model, answer_batch(model, examples, [e.response for e in examples]))
            together = packed_cross_entropy(model.model, packed(model, examples, 4))
        assert together.item() == pytest.approx(alone.item(), rel=1e-3)
    assert packs == (architecture in ("llava", "internvl"))


def sees_all(start, real):
    columns = start + real.shape[1]
    return torch.ones(len(real), 1, columns, columns, dtype=torch.bool).tril()
