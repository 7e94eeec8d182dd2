"""Models and adapters load whole or not at all, and nothing unsafe is done unless it is asked for."""

import contextlib
import copy
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from workbench.errors import UserError
from workbench.files import data_dir
from workbench.models.adapters import linear_modules
from workbench.models.configuration import checkpoint, not_loaded, shipped_bases
from workbench.models.identity import identity
from workbench.models.load import _check_architecture, load
from workbench.models.vlm import VLM

TINY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture
def base(tmp_path):
    """A copy of the shipped base's folder, to be broken."""
    return shutil.copytree(checkpoint("miniguard"), tmp_path / "base")


def test_the_shipped_bases_have_names():
    """Each is a whole checkpoint with a card."""
    names = shipped_bases()
    assert names == sorted(names) and {"miniguard", "miniguard-never-knew"} <= set(names)
    for name in names:
        assert checkpoint(name) == str(data_dir() / "bases" / name)
        files = {file.name for file in (data_dir() / "bases" / name).iterdir()}
        assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "README.md"} <= files
    assert checkpoint("miniguard-99") == "miniguard-99"  # a folder of that name, or a hub id


def test_the_twin_that_never_knew_is_loaded_by_its_name(vlm, few):
    """The same architecture and words, other weights; it sees what a harmless query is about."""
    twin = load("miniguard-never-knew", device="cpu")
    assert identity(twin) != identity(vlm) and twin.name == "base"
    assert twin.model.config.to_dict().keys() == vlm.model.config.to_dict().keys()
    assert twin.tokenizer.get_vocab() == vlm.tokenizer.get_vocab()
    harmless = [e for e in few if not e.harmful]
    answers = twin.answers([e.picture() for e in harmless], [e.query for e in harmless])
    assert sum(a == e.response for a, e in zip(answers, harmless, strict=True)) > 0.8 * len(harmless)


def test_four_bits_need_a_gpu():
    with pytest.raises(UserError, match="need a CUDA GPU and bitsandbytes"):
        load("miniguard", device="cpu", four_bit=True)


@pytest.mark.parametrize("name", ["no/such-model", "does-not-exist", "miniguard-99", "."])
def test_a_model_that_is_not_there(name):
    with pytest.raises(UserError, match=r"cannot be loaded") as caught:
        load(name)
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)


def test_an_adapter_that_is_not_there_or_broken(tmp_path, lora_copy):
    with pytest.raises(UserError, match="holds no adapter"):
        load("miniguard", tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot be loaded on this model"):
        load("miniguard", tmp_path)
    lora_copy(rank=2).model.save_pretrained(tmp_path)
    assert load("miniguard", tmp_path).name == tmp_path.name
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match=r"cannot be loaded on this model"):
        load("miniguard", tmp_path)


def test_an_adapter_of_another_base_is_refused(tmp_path, vlm, lora_copy):
    """Even where every shape fits: the run's config.json says what its base was."""
    lora_copy(rank=2).model.save_pretrained(tmp_path)
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
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY, vocab_size=9)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="takes no pictures"):
        load(tmp_path)


def test_a_checkpoint_cut_short(base):
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"is incomplete .*download it again"):
        load(base)
    (base / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot be loaded"):
        load(base)


def test_half_a_checkpoint(base, vlm):
    """Missing weights would silently be replaced by random ones."""
    weights = load_file(base / "model.safetensors")
    lost = next(name for name in weights if "layers.3" in name)
    save_file({n: w for n, w in weights.items() if n != lost}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of its weights, e\.g\. .*layers\.3.*download it again"):
        load(base)
    vlm.model.save_pretrained(base, max_shard_size="1MB")
    (base / "model.safetensors").unlink()
    next(base.glob("model-00002-of-*")).unlink()
    with pytest.raises(UserError, match=r"is incomplete .*model-00002-of-.*download it again"):
        load(base)


def test_pickles_are_read_only_if_asked_for(base, vlm, images, queries):
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pickles, not safetensors.*--trust pickles"):
        load(base)
    trusting = load(base, device="cpu", trust=["pickles"])
    assert trusting.answers(images, queries) == vlm.answers(images, queries)
    with pytest.raises(UserError, match="Unknown value of trust: all; choose from remote-code, pickles"):
        load(base, trust=["all"])


def test_code_of_a_model_is_run_only_if_asked_for_and_with_a_warning(tmp_path, base, vlm, capsys):
    config = json.loads((base / "config.json").read_text())
    weights = {name: weight.contiguous() for name, weight in vlm.model.state_dict().items()}
    # Under today's names: transformers renames older ones for LLaVA alone
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForImageTextToText": "own.Own"}
    (base / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": names}))
    (base / "own.py").write_text(
        "import pathlib\nimport transformers\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class OwnConfig(transformers.LlavaConfig):\n    model_type = 'own'\n"
        "class Own(transformers.LlavaForConditionalGeneration):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(UserError, match=r"ships with Python code.*--trust remote-code"):
        load(base)
    assert not (tmp_path / "ran").exists() and capsys.readouterr().err == ""
    load(base, device="cpu", trust=["remote-code"])
    warning = capsys.readouterr().err
    assert (tmp_path / "ran").exists()
    assert "runs with your permissions" in warning
    assert "has architecture own, which is untested here; continuing anyway" in warning


def test_an_architecture_that_is_not_in_the_table(tmp_path, base, capsys, images, queries):
    """It is accepted with a warning if the language model's layers are found, and refused with the list if not."""
    config = json.loads((base / "config.json").read_text())
    network = transformers.VipLlavaForConditionalGeneration(
        transformers.VipLlavaConfig(
            **{k: config[k] for k in ("text_config", "vision_config", "image_token_index")},
            vision_feature_layers=[-1],
            image_seq_length=36,
        )
    )
    network.generation_config = transformers.GenerationConfig.from_pretrained(base)
    network.save_pretrained(base)
    vlm = load(base, device="cpu")
    assert "has architecture vipllava, which is untested here" in capsys.readouterr().err
    assert len(vlm.answers(images, queries)) == len(queries) and linear_modules(vlm)
    with pytest.raises(UserError, match="not known where the architecture vipllava has its projector"):
        linear_modules(vlm, projector=True)
    vision = TINY | {"image_size": 16, "patch_size": 8}
    git = transformers.GitForCausalLM(transformers.GitConfig(vision_config=vision, vocab_size=9, **TINY))
    git.save_pretrained(tmp_path / "git")
    with pytest.raises(UserError, match=r"architecture git, and the layers .* cannot be found; .*: llava, "):
        _check_architecture(transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "git"), "git")


@pytest.mark.parametrize(("name", "offline", "says"), [
    ("some/gated", "0", "is gated: accept its terms at https://huggingface.co/some/gated, then run `hf auth login`"),
    ("some/other", "0", "cannot be loaded"),
    ("miniguard-99", "0", f"give a folder with a checkpoint, a hub id, or one of {', '.join(shipped_bases())}."),
    ("some/other", "1", "is not on this machine, and HF_HUB_OFFLINE forbids downloading it"),
])  # fmt: skip
def test_models_of_a_hub(name, offline, says):
    """Against a hub of our own, which answers as the real one does if a model is gated or missing."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            requests.append(self.path)
            self.send_response(403 if "gated" in self.path else 404)
            self.send_header("X-Error-Code", "GatedRepo" if "gated" in self.path else "RepoNotFound")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *arguments):
            pass

    requests = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": offline}
        command = [sys.executable, "-m", "workbench", "evaluate", "--model", name, "--out", "nowhere"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        server.shutdown()
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert bool(requests) == (offline == "0")


def test_missing_torchvision_is_named():
    """transformers 5.17 needs it for the pictures of some models; newer versions do not."""
    error = ImportError("AutoImageProcessor requires the Torchvision library but it was not found in your environment.")
    assert "needs torchvision with transformers" in str(not_loaded("some/model", error))
