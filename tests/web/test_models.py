"""Which models a page takes, and why it refuses others: one sentence each."""

import copy

import pytest
import torch
from PIL import Image

from workbench.errors import UserError
from workbench.models.load import load
from workbench.models.vlm import VLM, prompt_batch
from workbench.web import models
from workbench.web.models import BASE, STUDY, Shown, load_shown, named_models, same_eyes, same_shape, token_tables


def test_the_study_is_shown_by_default():
    assert [model.name for model in STUDY] == ["sft-early", "sft-balanced-early", "npo", "rmu", "sft-repaired"]


@pytest.mark.parametrize("pair", ["x", "=folder", "x=nowhere"])
def test_a_pair_that_is_none_is_refused(pair):
    with pytest.raises(UserError, match="must be NAME=FOLDER"):
        list(named_models([pair]))


@pytest.mark.parametrize("names", [("a", "a"), ("base",)])
def test_a_name_given_twice_is_refused(tmp_path, names):
    with pytest.raises(UserError, match="twice"):
        list(named_models([f"{name}={tmp_path}" for name in names]))


def test_names_and_folders(tmp_path):
    assert [(m.name, m.adapter) for m in named_models([f"<b>={tmp_path}"])] == [("base", None), ("<b>", tmp_path)]


def test_a_model_of_another_kind_is_refused(llava):
    with pytest.raises(UserError, match=r"look at pictures of 48 pixels, and .* is none"):
        load_shown(str(llava), BASE)


def test_a_larger_model_is_refused(monkeypatch):
    monkeypatch.setattr(models, "LARGEST", 1_000_000)
    with pytest.raises(UserError, match=r"parameters, and the page takes models of at most 1,000,000"):
        load_shown("miniguard", BASE)


def test_another_vocabulary_is_refused(tmp_path):
    vlm = load("miniguard", device="cpu")
    with_file = (tmp_path / "other").resolve()
    vlm.model.save_pretrained(with_file)
    vlm.processor.save_pretrained(with_file)
    file = with_file / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"kavu"', '"kavo"'), encoding="utf-8")
    with pytest.raises(UserError, match="another vocabulary"):
        load_shown("miniguard", Shown("other", "other", "", with_file))


def test_a_prompt_is_made_of_three_parts(vlm):
    tables = token_tables(vlm)
    vocabulary = tables["vocabulary"]
    ids = prompt_batch(vlm, [Image.new("RGB", (48, 48))], ["What is the code?"])["input_ids"][0].tolist()
    words = [vocabulary[word] for word in ("what", "is", "the", "code", "?")]
    assert ids == [*tables["before"], *words, *tables["after"]]
    assert (tables["longest"], tables["refusals"]) == (
        16,
        [[vocabulary["sorry"]], [vocabulary["i"], vocabulary["cannot"]]],
    )


def test_models_of_other_layers_are_told_apart(vlm):
    other = VLM(copy.deepcopy(vlm.model), vlm.processor, "other")
    assert same_shape(vlm, other) and same_eyes(vlm, other)
    other.model.lm_head = torch.nn.Linear(128, 5)
    assert not same_shape(vlm, other) and same_eyes(vlm, other)
    with torch.no_grad():
        other.model.model.multi_modal_projector.linear_1.bias += 1
    assert not same_eyes(vlm, other)
