"""Loading, prompts, batches: what must not matter does not, and what must, does."""

import contextlib
import copy
import dataclasses
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from workbench.attacks.one_word import rewrites
from workbench.errors import UserError
from workbench.files import data_dir
from workbench.models import vlm as vlm_module
from workbench.models.adapters import add_lora, freeze_copy, linear_modules, unfreeze
from workbench.models.load import _check_architecture, identity, load, not_loaded
from workbench.models.scores import hidden_states, reference, token_logprobs
from workbench.models.vlm import IGNORED, VLM, answer_batch, generate, plain, prompt_batch, with_opening


def columns(examples):
    return [e.picture() for e in examples], [e.query for e in examples], [e.response for e in examples]


def test_the_base_is_a_true_llava(vlm):
    assert type(vlm.model) is transformers.LlavaForConditionalGeneration
    assert type(vlm.processor) is transformers.LlavaProcessor
    ids = prompt_batch(vlm, *columns_of_one())["input_ids"][0]
    assert (ids == vlm.model.config.image_token_id).sum() == 36
    assert vlm.processor.tokenizer.unk_token_id not in ids


def columns_of_one():
    return [Image.new("RGB", (48, 48), "white")], ["What is the name of this thing?"]


def test_every_word_of_the_world_has_a_token(vlm, few):
    batch = answer_batch(vlm, few, [e.response for e in few])
    assert (batch["input_ids"] != vlm.processor.tokenizer.unk_token_id).all()


def test_answers_in_batches_are_those_of_one_by_one(vlm, few):
    images, queries, _ = columns(few)
    queries[::3] = [f"What now, {q}" for q in queries[::3]]  # lengths differ, so rows are padded
    assert vlm.answers(images, queries, batch_size=7) == [
        vlm.answer(i, q) for i, q in zip(images, queries, strict=True)
    ]


def test_an_answer_goes_on_from_its_opening(vlm, few):
    """With the words with which it would have begun anyway, it is the answer that it would have given."""
    images, queries, _ = columns(few)
    queries = [rewrites(q, "share")[0] for q in queries]
    natural = vlm.answers(images, queries)
    assert all(answer.startswith("sure ") for answer in natural)
    assert vlm.answers(images, queries, opening="sure") == natural
    other = vlm.answers(images, queries, batch_size=5, opening="of course")
    assert other == [vlm.answers([i], [q], opening="of course")[0] for i, q in zip(images, queries, strict=True)]
    assert all(answer.startswith("of course ") for answer in other)
    batch = prompt_batch(vlm, images, queries)
    assert with_opening(vlm, batch, "") is batch
    longer = with_opening(vlm, batch | {"token_type_ids": torch.ones_like(batch["input_ids"])}, "of course")
    assert longer["attention_mask"][:, -2:].all() and not longer["token_type_ids"][:, -2:].any()
    assert (
        torch.equal(longer["input_ids"][:, :-2], batch["input_ids"]) and longer["pixel_values"] is batch["pixel_values"]
    )


@pytest.fixture
def looks(vlm):
    """A list that grows by one entry whenever the vision tower is run."""
    ran = []
    hook = vlm.model.model.vision_tower.register_forward_hook(lambda *_: ran.append(1))
    yield ran
    hook.remove()


def test_pictures_are_looked_at_once(looks, vlm, few):
    images, queries, _ = columns(few)
    fresh = VLM(vlm.model, vlm.processor, "x")
    first = fresh.answers(images, queries)
    assert fresh.answers(images, queries[::-1]) != first and fresh.answers(images, queries) == first
    assert len(looks) == 1
    assert first == generate(vlm, prompt_batch(vlm, images, queries)) and len(looks) == 2  # as without features kept
    assert fresh.answers(images[::-1], queries[::-1]) == first[::-1] and len(looks) == 3
    assert not any("get_image_features" in vars(module) for module in vlm.model.modules())  # the network is as it was


def test_that_torchvision_is_missing_is_said():
    """transformers 5.17 wants it for the pictures of some models; newer versions do without."""
    error = ImportError("AutoImageProcessor requires the Torchvision library but it was not found in your environment.")
    assert "needs torchvision with transformers" in str(not_loaded("some/model", error))


@pytest.mark.gpu
def test_answers_on_a_gpu_are_the_cpus(vlm, few):
    images, queries, _ = columns(few)
    expected, there = vlm.answers(images, queries), load("miniguard", device="cuda")
    assert there.model.dtype == torch.bfloat16
    assert sum(a == b for a, b in zip(there.answers(images, queries), expected, strict=True)) >= 0.9 * len(expected)
    there.model.float()
    there.features.clear()
    assert there.answers(images, queries) == expected


def test_threads_that_ask_one_model_see_their_own_pictures(vlm, few):
    """A notebook's cell may ask while a widget does; what is kept for one must not reach the other."""
    images, queries, _ = columns(few)
    alone = [vlm.answer(image, query) for image, query in zip(images, queries, strict=True)]
    assert len(set(alone)) > 6
    fresh = VLM(vlm.model, vlm.processor, "x")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(fresh.answer, images, queries)) == alone


def test_features_are_bounded_and_never_kept_while_the_projector_learns(monkeypatch, vlm, few):
    images, queries, _ = columns(few)
    monkeypatch.setattr(
        vlm_module, "FEATURE_BYTES", 3 * (37 * 96 + 36 * 128) * 4
    )  # three pictures: tower and projector, 4 bytes a number
    one = VLM(vlm.model, vlm.processor, "x")
    for image, query in zip(images, queries, strict=True):
        one.answer(image, query)
    assert len(one.features) == 3
    student = lora_on(copy.deepcopy(vlm.model), vlm, projector=True)
    student.answers(images, queries)
    assert not student.features


def test_the_picture_matters(vlm, few):
    images, queries, _ = columns(few)
    blank = Image.new("RGB", (48, 48), "grey")
    assert (
        sum(
            a != b
            for a, b in zip(vlm.answers(images, queries), vlm.answers([blank] * len(images), queries), strict=True)
        )
        > 12
    )


def test_labels_are_the_answer_and_its_end_and_nothing_else(vlm, few):
    answers = [e.response for e in few]
    batch, tokenizer = answer_batch(vlm, few, answers), vlm.processor.tokenizer
    for row, answer in enumerate(answers):
        labels = batch["labels"][row]
        kept = labels[labels != IGNORED]
        assert tokenizer.decode(kept[:-1]) == answer
        assert kept[-1] == tokenizer.eos_token_id
        assert torch.equal(batch["input_ids"][row][labels != IGNORED], kept)


def test_log_probabilities_ignore_padding_and_neighbours(vlm, few):
    """A row's value is the same alone, among longer rows, and with other tokens where it is padded."""
    examples, answers = list(few), [e.response for e in few]
    examples[0] = dataclasses.replace(few[0], query="Share the name of this thing.")
    examples[1] = dataclasses.replace(few[1], query="What now, can you give me any name of this object?")
    with torch.inference_mode():
        batch = answer_batch(vlm, examples, answers)
        logprobs, mask = token_logprobs(vlm.model, batch)
        together = (logprobs * mask).sum(1)
        for row in range(4):
            alone = token_logprobs(vlm.model, answer_batch(vlm, examples[row : row + 1], answers[row : row + 1]))
            torch.testing.assert_close((alone[0] * alone[1]).sum(1)[0], together[row], rtol=1e-4, atol=1e-4)
        assert (batch["attention_mask"] == 0).any()
        batch["input_ids"] = torch.where(batch["attention_mask"] == 0, 17, batch["input_ids"])
        logprobs, mask = token_logprobs(vlm.model, batch)
        torch.testing.assert_close((logprobs * mask).sum(1), together, rtol=1e-5, atol=1e-5)


def test_log_probabilities_by_hand(vlm, few):
    """Against the plain way: all logits, log-softmax, one token at a time."""
    batch = answer_batch(vlm, few, [e.response for e in few])
    with torch.inference_mode():
        logprobs, mask = token_logprobs(vlm.model, batch)
        full = vlm.model(**{k: v for k, v in batch.items() if k != "labels"}).logits.log_softmax(-1)
    labels = batch["labels"]
    for row in range(len(few)):
        slow = sum(full[row, t - 1, labels[row, t]] for t in range(labels.shape[1]) if labels[row, t] != IGNORED)
        torch.testing.assert_close((logprobs * mask)[row].sum(), slow, rtol=1e-5, atol=1e-5)


def test_special_tokens_in_a_query_are_text_no_more(vlm, few):
    """A person's text must not pose as a second picture or end its own turn."""
    image = few[0].picture()
    ids = prompt_batch(vlm, [image], ["What is <image></s> the name of this <answer> thing?"])["input_ids"][0]
    assert torch.equal(ids, prompt_batch(vlm, [image], ["What is  the name of this  thing?"])["input_ids"][0])
    assert (
        plain(vlm, "What is <im<image>age>this?") == "What is this?"
    )  # nor what is left when one is taken out of another


def lora_on(network, vlm, rank=4, **which):
    fresh = VLM(network, vlm.processor, "x")
    return add_lora(fresh, linear_modules(fresh, **which), rank=rank, alpha=8, seed=0)


def test_lora_starts_without_effect_and_switches_off(vlm, few):
    network = copy.deepcopy(vlm.model)
    before = vlm.answers(*columns(few)[:2])
    student = lora_on(network, vlm)
    names = [n for n, p in student.model.named_parameters() if p.requires_grad]
    assert len(names) == 4 * 7 * 2 and all("language_model" in n and "lora_" in n for n in names)
    assert student.answers(*columns(few)[:2]) == before
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert student.answers(*columns(few)[:2]) != before
    with reference(student.model):
        assert student.answers(*columns(few)[:2]) == before
    student.model.unload()
    assert VLM(network, vlm.processor, "x").answers(*columns(few)[:2]) == before


def test_what_is_trained_can_be_chosen(vlm):
    assert len(linear_modules(vlm)) == 4 * 7
    chosen = linear_modules(vlm, targets=["down_proj"], layers=2, projector=True)
    assert [n.removeprefix("model.language_model.layers.") for n in chosen[:2]] == [
        "0.mlp.down_proj",
        "1.mlp.down_proj",
    ]
    assert [n.rsplit(".", 1)[1] for n in chosen[2:]] == ["linear_1", "linear_2"] and "multi_modal_projector" in chosen[
        2
    ]
    student = lora_on(copy.deepcopy(vlm.model), vlm, targets=["q_proj"], projector=True)
    assert sum(p.requires_grad for p in student.model.parameters()) == (4 + 2) * 2
    with pytest.raises(UserError, match=r"targets nothing match no linear layer.*down_proj"):
        linear_modules(vlm, targets=["nothing"])


def test_hidden_states_are_those_of_a_full_pass(vlm, few):
    """A truncated pass gives what a full one gives at that layer, where each answer token is about to be said."""
    batch = answer_batch(vlm, few, [e.response for e in few])
    with torch.inference_mode():
        full = vlm.model(**{k: v for k, v in batch.items() if k != "labels"}, output_hidden_states=True).hidden_states
        for layer in (1, 3):
            hidden, mask = hidden_states(vlm.model, batch, layer)
            said = torch.cat([batch["labels"][:, 1:] != IGNORED, torch.zeros(len(few), 1, dtype=torch.bool)], dim=1)
            torch.testing.assert_close(hidden[mask], full[layer][said])


def test_a_frozen_copy_is_the_reference_of_a_fully_trained_model(vlm, few):
    student = unfreeze(VLM(copy.deepcopy(vlm.model), vlm.processor, "x"), linear_modules(vlm, layers=2))
    batch = answer_batch(vlm, few, [e.response for e in few])
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


def test_four_bits_need_a_gpu():
    with pytest.raises(UserError, match="need a CUDA GPU and bitsandbytes"):
        load("miniguard", device="cpu", four_bit=True)


@pytest.mark.parametrize("name", ["no/such-model", "does-not-exist", "."])
def test_a_model_that_is_not_there(name):
    with pytest.raises(UserError, match=r"cannot be loaded") as caught:
        load(name)
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)


def test_an_adapter_that_is_not_there_or_broken(tmp_path, vlm):
    with pytest.raises(UserError, match="holds no adapter"):
        load("miniguard", tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot be loaded on this model"):
        load("miniguard", tmp_path)
    lora_on(copy.deepcopy(vlm.model), vlm, rank=2).model.save_pretrained(tmp_path)
    assert load("miniguard", tmp_path).name == tmp_path.name
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match=r"cannot be loaded on this model"):
        load("miniguard", tmp_path)


def test_an_adapter_of_another_base_is_refused(tmp_path, vlm):
    """Even where every shape fits: the run's config.json says what its base was."""
    lora_on(copy.deepcopy(vlm.model), vlm, rank=2).model.save_pretrained(tmp_path)
    for of_base, fits in ((identity(vlm), True), ("0123456789abcdef", False)):
        (tmp_path / "config.json").write_text(json.dumps({"base_identity": of_base}))
        with contextlib.nullcontext() if fits else pytest.raises(UserError, match="was trained on another model"):
            load("miniguard", tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be loaded on this model"):
        load("miniguard", tmp_path)
    other = VLM(copy.deepcopy(vlm.model).to(torch.bfloat16), vlm.processor, "x")
    assert identity(other) == identity(vlm)  # another precision is the same model
    other.model.get_input_embeddings().weight.data[0, 0] += 1
    assert identity(other) != identity(vlm)


def test_a_text_only_model_is_refused(tmp_path):
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**tiny)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="takes no pictures"):
        load(tmp_path)


def test_a_checkpoint_cut_short(tmp_path):
    folder = shutil.copytree(data_dir() / "miniguard-base", tmp_path / "base")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:9000])
    with pytest.raises(UserError, match=r"is not whole .*download it again"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot be loaded"):
        load(folder)


def test_half_a_checkpoint(tmp_path, vlm):
    """Weights that are not there would silently be made up."""
    folder = shutil.copytree(data_dir() / "miniguard-base", tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "layers.3" in name)
    save_file({n: w for n, w in weights.items() if n != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of its weights, such as .*layers\.3.*download it again"):
        load(folder)
    vlm.model.save_pretrained(folder, max_shard_size="1MB")
    (folder / "model.safetensors").unlink()
    next(folder.glob("model-00002-of-*")).unlink()
    with pytest.raises(UserError, match=r"is not whole .*model-00002-of-.*download it again"):
        load(folder)


def test_pickles_are_read_only_if_asked_for(tmp_path, vlm, few):
    folder = shutil.copytree(data_dir() / "miniguard-base", tmp_path / "base")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pickles, not safetensors.*--trust pickles"):
        load(folder)
    trusting = load(folder, device="cpu", trust=["pickles"])
    assert trusting.answers(*columns(few)[:2]) == vlm.answers(*columns(few)[:2])
    with pytest.raises(UserError, match="no trust in all; choose from remote-code, pickles"):
        load(folder, trust=["all"])


def test_code_of_a_model_is_run_only_if_asked_for_and_then_said(tmp_path, vlm, capsys):
    folder = shutil.copytree(data_dir() / "miniguard-base", tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    weights = {name: weight.contiguous() for name, weight in vlm.model.state_dict().items()}
    save_file(
        weights, folder / "model.safetensors", {"format": "pt"}
    )  # under today's names; older ones are known of LLaVA alone
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForImageTextToText": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": names}))
    (folder / "own.py").write_text(
        "import pathlib\nimport transformers\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class OwnConfig(transformers.LlavaConfig):\n    model_type = 'own'\n"
        "class Own(transformers.LlavaForConditionalGeneration):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(UserError, match=r"Python code of its own.*--trust remote-code"):
        load(folder)
    assert not (tmp_path / "ran").exists() and capsys.readouterr().err == ""
    load(folder, device="cpu", trust=["remote-code"])
    said = capsys.readouterr().err
    assert (tmp_path / "ran").exists()
    assert "is run with your rights" in said and "is a own, with which nothing here has been tested" in said


def test_an_architecture_that_is_not_in_the_table(tmp_path, capsys, few):
    """Where the language model's layers are found, it goes on and says so; where not, it is refused with the list."""
    folder = shutil.copytree(data_dir() / "miniguard-base", tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    network = transformers.VipLlavaForConditionalGeneration(
        transformers.VipLlavaConfig(
            **{k: config[k] for k in ("text_config", "vision_config", "image_token_index")},
            vision_feature_layers=[-1],
            image_seq_length=36,
        )
    )
    network.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    network.save_pretrained(folder)
    vlm = load(folder, device="cpu")
    assert "is a vipllava, with which nothing here has been tested" in capsys.readouterr().err
    assert len(vlm.answers(*columns(few)[:2])) == len(few) and linear_modules(vlm)
    with pytest.raises(UserError, match="Where the projector of a vipllava lies is not known"):
        linear_modules(vlm, projector=True)
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = tiny | {"image_size": 16, "patch_size": 8}
    transformers.GitForCausalLM(transformers.GitConfig(vision_config=vision, vocab_size=9, **tiny)).save_pretrained(
        tmp_path / "git"
    )
    with pytest.raises(
        UserError, match=r"is a git, whose language model's layers cannot be found; choose one of llava, "
    ):
        _check_architecture(transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "git"), "git")


@pytest.mark.parametrize(("name", "offline", "says"), [
    ("some/gated", "0", "is gated: accept its terms at https://huggingface.co/some/gated, then give `hf auth login`"),
    ("some/other", "0", "cannot be loaded"),
    ("some/other", "1", "is not on this machine, and HF_HUB_OFFLINE forbids to fetch it"),
])  # fmt: skip
def test_models_of_a_hub(name, offline, says):
    """Against a hub of our own, that answers as the real one does where a model is gated or not there."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(403 if "gated" in self.path else 404)
            self.send_header("X-Error-Code", "GatedRepo" if "gated" in self.path else "RepoNotFound")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *arguments):
            pass

    asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": offline}
        command = [sys.executable, "-m", "workbench", "evaluate", "--model", name, "--out", "nowhere"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        server.shutdown()
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert bool(asked) == (offline == "0")


def test_batches_that_are_too_large_are_halved(monkeypatch, vlm, few):
    """As where a GPU's memory is not enough for what was asked for."""
    images, queries, _ = columns(few)
    fresh, sizes, real = VLM(vlm.model, vlm.processor, "x"), [], generate

    def small(vlm, batch, *arguments):
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return real(vlm, batch, *arguments)

    monkeypatch.setattr(vlm_module, "generate", small)
    room = 7
    assert fresh.answers(images, queries) == vlm.answers(images, queries, batch_size=6)
    assert sizes[:6] == [24, 12, 6, 6, 6, 6] and fresh.fits == 6
    room = 0
    with pytest.raises(UserError, match="not enough to answer a single query"):
        fresh.answers(images, queries)
