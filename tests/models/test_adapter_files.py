"""An adapter applies wholly, whatever made it, or is refused."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import write_gemma3
from workbench.errors import UserError
from workbench.models.load import load
from workbench.models.merge import write_model
from workbench.models.vlm import VLM

TARGETS = r".*language_model.*\.(q_proj|down_proj)"


def saved(folder, config, model="miniguard"):
    """Write an adapter of this kind with random weights; returns the model as it was written."""
    base = load(model, device="cpu")
    torch.manual_seed(0)
    network = peft.get_peft_model(base.model, config)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    network.eval().save_pretrained(folder)
    return VLM(network, base.processor, folder.name)


def answers(vlm, few):
    return vlm.answers([e.picture() for e in few], [e.query for e in few])


KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "with biases": {"lora_bias": True},
    "on embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "with whole modules": {"modules_to_save": ["multi_modal_projector"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_lora_is_loaded_as_it_was_and_merged_alike_or_refused(tmp_path, vlm, few, kind):
    options = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS} | KINDS[kind]
    made = answers(saved(tmp_path / "adapter", peft.LoraConfig(**options)), few)
    assert made != answers(vlm, few)
    loaded = load("miniguard", tmp_path / "adapter", device="cpu")
    assert answers(loaded, few) == made
    try:
        write_model(loaded, tmp_path / "merged")
    except UserError as error:
        assert kind in ("on embeddings", "with biases") and "cannot be merged" in str(error)
        assert not (tmp_path / "merged").exists()
    else:
        assert answers(load(tmp_path / "merged", device="cpu"), few) == made


def test_embeddings_that_are_also_the_outputs_weights_are_not_merged(tmp_path, few):
    """Merged, the adapter would change what the model reads and what it says; only the first is right."""
    gemma = write_gemma3(tmp_path / "gemma")
    made = saved(tmp_path / "adapter", peft.LoraConfig(r=4, target_modules=["embed_tokens"]), gemma)
    loaded = load(gemma, tmp_path / "adapter", device="cpu")
    assert answers(loaded, few[:4]) == answers(made, few[:4])
    with pytest.raises(UserError, match=r"cannot be merged: log-probabilities would change by up to"):
        write_model(loaded, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_other_kinds_than_lora_are_refused(tmp_path):
    saved(tmp_path / "ia3", peft.IA3Config(target_modules=TARGETS, feedforward_modules=r".*down_proj"))
    with pytest.raises(UserError, match="is of kind IA3; only LoRA"):
        load("miniguard", tmp_path / "ia3", device="cpu")


@pytest.mark.parametrize("which", ["one is missing", "one is too many", "one has another shape"])
def test_an_adapter_with_a_wrong_weight_is_refused_and_says_which(tmp_path, which):
    saved(tmp_path / "lora", peft.LoraConfig(r=4, target_modules=TARGETS))
    file = tmp_path / "lora" / "adapter_model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[3]
    says = name.split(".lora_")[0].split("layers.")[1]
    if which == "one is missing":
        del weights[name]
    elif which == "one is too many":
        weights["base_model.model.model.layers.9.q_proj.lora_A.weight"] = weights[name].clone()
        says = r"fit nothing in it, e\.g\. .*layers\.9"
    else:
        weights[name] = weights[name][:1].clone()
        says = "cannot be loaded on this model"
    save_file(weights, file)
    with pytest.raises(UserError, match=says):
        load("miniguard", tmp_path / "lora", device="cpu")


def test_an_adapter_is_no_model(tmp_path):
    saved(tmp_path / "lora", peft.LoraConfig(r=4, target_modules=TARGETS))
    with pytest.raises(UserError, match="is an adapter; give it as --adapter"):
        load(tmp_path / "lora", device="cpu")


def test_a_refused_adapter_leaves_its_configuration_alone(tmp_path):
    saved(tmp_path / "lora", peft.LoraConfig(r=4, target_modules=TARGETS))
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "NEW"}))
    with pytest.raises(UserError, match="kind NEW"):
        load("miniguard", tmp_path / "lora", device="cpu")
