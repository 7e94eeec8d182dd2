"""Checkpoints as people keep them: they give the same answers as the tidy one, or are refused in one sentence."""

import importlib.util
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.tiny_models import write_gemma3, write_llava, write_paligemma
from workbench.errors import UserError
from workbench.models.load import load
from workbench.training.memory import picture_tokens, predict
from workbench.training.settings import Settings
from workbench.training.train import train


def answers(vlm, few):
    return vlm.answers([e.picture() for e in few], [e.query for e in few])


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def move_template(llava, where):
    """Keep the chat template where other versions and tools have it."""
    template = (llava / "chat_template.jinja").read_text()
    (llava / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": template}, {"name": "tool_use", "template": "tools"}]
    if where == "chat_template.json":
        (llava / where).write_text(json.dumps({"chat_template": template}))
    elif where == "additional_chat_templates":
        (llava / "chat_template.jinja").write_text(template)
        (llava / where).mkdir()
        (llava / where / "tool_use.jinja").write_text("tools")
    else:
        file, value = {
            "processor": ("processor_config.json", template),
            "tokenizer": ("tokenizer_config.json", template),
            "tokenizer, as a list": ("tokenizer_config.json", named),
        }[where]
        edit(llava / file, chat_template=value)


@pytest.mark.parametrize(
    "where",
    ["chat_template.json", "additional_chat_templates", "processor", "tokenizer", "tokenizer, as a list"],
)
def test_the_chat_template_is_found_wherever_it_lies(llava, tidy_llava, few, where):
    expected = answers(load(tidy_llava, device="cpu"), few[:4])
    move_template(llava, where)
    assert answers(load(llava, device="cpu"), few[:4]) == expected


def test_without_a_template_that_is_said(llava, few):
    (llava / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template; put a chat_template"):
        answers(load(llava, device="cpu"), few[:1])


def test_templates_of_which_none_is_the_default_are_refused(llava, few):
    template = (llava / "chat_template.jinja").read_text()
    (llava / "chat_template.jinja").unlink()
    edit(llava / "tokenizer_config.json", chat_template=[{"name": n, "template": template} for n in ("one", "two")])
    with pytest.raises(UserError, match="chat template"):
        answers(load(llava, device="cpu"), few[:1])


def test_a_template_that_fails_is_one_sentence(llava, few):
    (llava / "chat_template.jinja").write_text("{{ raise_exception('only text, please') }}")
    with pytest.raises(UserError, match=r"The chat template of the model 'base' fails: only text, please"):
        answers(load(llava, device="cpu"), few[:1])


def test_weights_in_shards_are_those_in_one_file(llava, tidy_llava, few):
    vlm = load(tidy_llava, device="cpu")
    (llava / "model.safetensors").unlink()
    vlm.model.save_pretrained(llava, max_shard_size="200KB")
    assert len(list(llava.glob("model-*.safetensors"))) > 1
    assert answers(load(llava, device="cpu"), few[:4]) == answers(vlm, few[:4])


@pytest.mark.parametrize("write", [write_gemma3, write_llava])
def test_tied_and_untied_heads_are_as_they_were_written(tmp_path, few, write):
    vlm = load(write(tmp_path / "model"), device="cpu")
    tied = vlm.model.get_output_embeddings().weight is vlm.model.get_input_embeddings().weight
    assert tied == (write is write_gemma3)
    again = load(tmp_path / "model", device="cpu")
    assert torch.equal(again.model.get_output_embeddings().weight, vlm.model.get_output_embeddings().weight)
    out = train(again, "sft", few, out=tmp_path / "out", steps=2, forget=1, retain=1, lr=1e-3)
    assert answers(load(tmp_path / "model", out, device="cpu"), few[:2])


def test_a_checkpoint_without_its_vision_tower_is_refused(llava):
    weights = load_file(llava / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "vision_tower" not in name}
    assert len(kept) < len(weights)
    save_file(kept, llava / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks \d+ of its weights, e\.g\. .*vision_tower"):
        load(llava, device="cpu")


def test_what_ends_an_answer_if_the_tokenizer_names_nothing(llava, few):
    """The generation_config's end serves; without it the model is refused."""
    edit(llava / "tokenizer_config.json", eos_token=None)
    vlm = load(llava, device="cpu")
    assert vlm.form.ending == [json.loads((llava / "generation_config.json").read_text())["eos_token_id"]]
    vlm = load(llava, device="cpu")
    vlm.model.generation_config.eos_token_id = None
    with pytest.raises(UserError, match="Nothing ends an answer"):
        answers(vlm, few[:1])


def test_quantised_weights_are_not_trained(llava, few, tmp_path):
    vlm = load(llava, device="cpu")
    vlm.model.is_quantized = True
    with pytest.raises(UserError, match="Quantised weights are not trained"):
        train(vlm, "sft", few, out=tmp_path / "out", steps=1)


@pytest.mark.parametrize("method", ["awq", "gptq", "fp8"])
def test_a_quantised_checkpoint_is_loaded_or_refused_in_one_sentence(llava, tidy_llava, few, method):
    """The weights here are not quantised: where the library's method loads them, answers are those of the weights."""
    config = {
        "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
        "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
        "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]},
    }[method]
    edit(llava / "config.json", quantization_config=config)
    try:
        found = answers(load(llava, device="cpu"), few[:4])
    except UserError as refused:
        assert "\n" not in str(refused) and str(llava) in str(refused)
    else:
        assert found == answers(load(tidy_llava, device="cpu"), few[:4])


def test_a_gguf_file_alone_is_refused_in_one_sentence(llava):
    (llava / "model.safetensors").rename(llava / "model-Q4_K_M.gguf")
    with pytest.raises(UserError, match=r"cannot be loaded") as refused:
        load(llava, device="cpu")
    assert "\n" not in str(refused.value)


def test_a_model_without_a_template_on_the_hub_has_the_tables(tmp_path, few):
    vlm = load(write_paligemma(tmp_path / "paligemma"), device="cpu")
    assert vlm.processor.chat_template and len(answers(vlm, few[:2])) == 2


@pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_a_tokenizer_in_sentencepieces_format_alone_says_what_reads_it(llava):
    (llava / "tokenizer.json").rename(llava / "tokenizer.model")
    edit(llava / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    with pytest.raises(UserError, match=r"pip install sentencepiece protobuf"):
        load(llava, device="cpu")


def test_a_checkpoint_without_a_tokenizer_says_so(llava):
    (llava / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer \(tokenizer.json\); download it again"):
        load(llava, device="cpu")


def test_two_towers_that_do_not_write_are_refused(tmp_path):
    """CLIP looks at pictures and reads texts, and writes nothing; `plan` must not invent a VLM either."""
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {**size, "image_size": 28, "patch_size": 14}
    config = transformers.CLIPConfig(text_config=size | special, vision_config=vision)
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    with pytest.raises(UserError, match="takes no pictures"):
        load(tmp_path / "clip", device="cpu")
    with pytest.raises(UserError, match="takes no pictures, or does not write"):
        picture_tokens(transformers.AutoConfig.from_pretrained(tmp_path / "clip"))
    with pytest.raises(UserError, match="cannot be planned"):
        predict(config, Settings.of("npo"))
