"""What is trained is what was chosen, and the model without it is still there as the reference."""

import copy

import pytest
import torch

from workbench.errors import UserError
from workbench.models.adapters import freeze_copy, linear_modules, unfreeze
from workbench.models.scores import hidden_states, reference
from workbench.models.vlm import VLM, answer_batch, bare


def test_lora_starts_without_effect_and_switches_off(vlm, lora_copy, images, queries):
    before, student = vlm.answers(images, queries), lora_copy()
    network = bare(student.model)
    names = [n for n, p in student.model.named_parameters() if p.requires_grad]
    assert len(names) == 4 * 7 * 2 and all("language_model" in n and "lora_" in n for n in names)
    assert student.answers(images, queries) == before
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert student.answers(images, queries) != before
    with reference(student.model):
        assert student.answers(images, queries) == before
    student.model.unload()
    assert VLM(network, vlm.processor, "x").answers(images, queries) == before


def test_what_is_trained_can_be_chosen(vlm, lora_copy):
    assert len(linear_modules(vlm)) == 4 * 7
    chosen = linear_modules(vlm, targets=["down_proj"], layers=2, projector=True)
    language, projector = chosen[:2], chosen[2:]
    assert [n.removeprefix("model.language_model.layers.") for n in language] == ["0.mlp.down_proj", "1.mlp.down_proj"]
    assert [n.rsplit(".", 1)[1] for n in projector] == ["linear_1", "linear_2"]
    assert "multi_modal_projector" in projector[0]
    student = lora_copy(targets=["q_proj"], projector=True)
    assert sum(p.requires_grad for p in student.model.parameters()) == (4 + 2) * 2
    with pytest.raises(UserError, match=r"targets nothing match no linear layer.*down_proj"):
        linear_modules(vlm, targets=["nothing"])


def test_a_frozen_copy_is_the_reference_of_a_fully_trained_model(vlm, few, responses):
    student = unfreeze(VLM(copy.deepcopy(vlm.model), vlm.processor, "x"), linear_modules(vlm, layers=2))
    batch = answer_batch(vlm, few, responses)
    freeze_copy(student, layers=2)
    trained = [n for n, p in student.model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7 and not any("frozen" in n for n in student.model.state_dict())
    with torch.no_grad():
        before, _ = hidden_states(student.model, batch, 2)
        for parameter in student.model.parameters():
            parameter.add_(0.01)
        with reference(student.model) as frozen:
            torch.testing.assert_close(hidden_states(frozen, batch, 2)[0], before)
        assert not torch.allclose(hidden_states(student.model, batch, 2)[0], before)
