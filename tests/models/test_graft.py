"""A language model with MiniGuard's eyes: its own words, its own template, and the tower's own features."""

import json
import zipfile

import gguf
import pytest
import torch
import transformers
from PIL import Image

from tests.tiny_models import bpe_tokenizer
from workbench.errors import UserError
from workbench.models.graft import graft
from workbench.models.load import load
from workbench.models.vlm import answer_batch, prompt, prompt_batch

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Like SmolLM2-Instruct's: contents are texts, and there is a system prompt unless one is given
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(template=TEMPLATE):
    names = {"unk_token": SPECIAL[0], "bos_token": SPECIAL[1], "eos_token": SPECIAL[2]}
    made = bpe_tokenizer(SPECIAL, **names)
    made.chat_template = template
    return made


def write_language(folder, template=TEMPLATE):
    words = tokenizer(template)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    torch.manual_seed(0)
    network = transformers.LlamaForCausalLM(config)
    network.save_pretrained(folder)
    words.save_pretrained(folder)
    return network, words


def write_gguf(file, network, words, left_out=()):
    """The same language model as llama.cpp keeps it, not quantised."""
    config, writer = network.config, gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words))
    vocabulary = sorted(words.get_vocab(), key=words.get_vocab().get)
    merges = words.backend_tokenizer.to_str()
    pairs = [" ".join(pair) for pair in json.loads(merges)["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in vocabulary])
    writer.add_token_merges(pairs)
    writer.add_bos_token_id(words.bos_token_id)
    writer.add_eos_token_id(words.eos_token_id)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in network.state_dict().items():
        if name in ("lm_head.weight", *left_out):  # the output's weights are those of the embeddings
            continue
        plain = tensor.clone()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for part, count in heads.items():
            if f"{part}.weight" in name:  # llama.cpp interleaves the halves of each head
                plain = plain.reshape(count, 2, -1, plain.shape[1]).swapaxes(1, 2).reshape(plain.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), plain.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A folder with a language model, and the same as GGUF."""
    folder = tmp_path_factory.mktemp("language") / "tiny-lm"
    write_gguf(folder.with_suffix(".gguf"), *write_language(folder))
    return folder


@pytest.fixture(scope="module")
def grafted(language, tmp_path_factory):
    out = tmp_path_factory.mktemp("grafted") / "llava"
    graft(str(language), out)
    return out


def test_it_has_the_language_models_words_and_the_towers_eyes(grafted, language, vlm):
    own = load(grafted, device="cpu")
    alone = transformers.LlamaForCausalLM.from_pretrained(language)
    size = alone.config.vocab_size
    for name, weight in alone.model.state_dict().items():
        ours = own.model.model.language_model.state_dict()[name]
        assert torch.equal(ours[:size] if "embed_tokens" in name else ours, weight)
    for name, weight in vlm.model.model.vision_tower.state_dict().items():
        assert torch.equal(own.model.model.vision_tower.state_dict()[name], weight)
    text = "Describe the colour of this thing."
    ids = own.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = alone(input_ids=ids).logits
        torch.testing.assert_close(own.model(input_ids=ids).logits[..., :size], expected)


def test_prompts_are_the_language_models_own_with_a_picture_in_them(grafted):
    own = load(grafted, device="cpu")
    assert prompt(own, "What is it?") == (
        "<|im_start|>system\nYou are helpful<|im_end|>\n<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    batch = prompt_batch(own, [Image.new("RGB", (48, 48))], ["What is it?"])
    assert (batch["input_ids"] == own.model.config.image_token_id).sum() == 36  # six by six patches
    assert own.tokenizer.decode(own.form.ending) == "<|im_end|>"


def test_answers_are_scored_to_the_end_of_the_turn(grafted, few):
    own = load(grafted, device="cpu")
    batch = answer_batch(own, few[:2], ["it is a kavu", "done"])
    texts = [own.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert texts == ["it is a kavu<|im_end|>", "done<|im_end|>"]


def test_the_projector_follows_the_seed(grafted, language, tmp_path):
    graft(str(language), tmp_path / "other", seed=1)
    one, other = (load(path, device="cpu").model for path in (grafted, tmp_path / "other"))
    assert not torch.equal(*(m.model.multi_modal_projector.linear_1.weight for m in (one, other)))
    assert torch.equal(*(m.model.language_model.embed_tokens.weight[:10] for m in (one, other)))


@pytest.mark.parametrize("packed", [False, True])
def test_a_gguf_gives_the_same_model(language, grafted, tmp_path, packed):
    """Alone, or in a wheel as PyPI has some."""
    file = language.with_suffix(".gguf")
    if packed:
        with zipfile.ZipFile(tmp_path / "lm.whl", "w") as wheel:
            wheel.write(file, "lm/tiny-lm.gguf")
            wheel.writestr("lm/__init__.py", "")
        file = tmp_path / "lm.whl"
    graft(str(file), tmp_path / "out")
    one, other = load(grafted, device="cpu"), load(tmp_path / "out", device="cpu")
    for name, weight in one.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], weight)
    assert prompt(one, "What?") == prompt(other, "What?") and "quantization_config" not in vars(other.model.config)


def test_a_mistake_is_one_sentence_and_nothing_is_written(language, grafted, tmp_path):
    whole = language.with_suffix(".gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(whole.read_bytes()[:-1000])
    text = tmp_path / "text.gguf"
    text.write_text("no")
    text.with_suffix(".whl").write_text("no")
    empty = tmp_path / "empty.whl"
    with zipfile.ZipFile(empty, "w") as wheel:
        wheel.writestr("a.py", "")
    write_gguf(tmp_path / "lacks.gguf", *write_language(tmp_path / "lacks"), left_out=["model.norm.weight"])
    write_language(tmp_path / "plain", template=None)
    write_language(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    damaged = tmp_path / "damaged.whl"
    with zipfile.ZipFile(damaged, "w") as wheel:
        wheel.writestr("a.gguf", b"GGUF" * 1000)
    damaged.write_bytes(damaged.read_bytes().replace(b"GGUFGGUF", b"GGUFgguf", 1))
    for given, message in [
        (broken, "no whole GGUF"),
        (text, "no whole GGUF"),
        (tmp_path / "none.gguf", "There is no file"),
        (tmp_path / "lacks.gguf", "lacks 1 of its weights, e.g. model.norm.weight"),
        (empty, "holds 0 .gguf files"),
        (text.with_suffix(".whl"), "no whole wheel"),
        (damaged, "no whole wheel"),
        (tmp_path / "cut", "is incomplete"),
        (tmp_path / "plain", "no chat template"),
        (grafted, "has eyes already"),
        ("no/such-model", "cannot be loaded"),
    ]:
        with pytest.raises(UserError, match=message):
            graft(str(given), tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        graft(str(language), tmp_path / "out")
