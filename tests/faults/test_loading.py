"""Checkpoints from the wild: each is loaded, or refused in one sentence and in little memory."""

import contextlib
import json
import os
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from tests.faults.helpers import Done, answers_of
from tests.tiny_models import write_qwen25vl, write_smolvlm
from workbench.errors import UserError

MOST_MEMORY = 3 * 10**9  # bytes in which a checkpoint of 130 kB must be refused


def edit_json(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((), id="no file"),
        pytest.param(("processor_class", "image_token"), id="no patch_size"),
        pytest.param(
            ("processor_class", "image_token", "patch_size", "vision_feature_select_strategy"),
            id="no num_additional_image_tokens",
        ),
    ],
)
def test_an_old_llava_processor_is_completed_or_the_missing_field_is_named(
    tmp_path, llava, one_query, workbench, fields
):
    """A17: processors saved by earlier versions lack fields that config.json has; using them ended in a traceback."""
    processor = json.loads((llava / "processor_config.json").read_text())
    (llava / "preprocessor_config.json").write_text(json.dumps(processor["image_processor"]))
    (llava / "processor_config.json").unlink()
    if fields:
        (llava / "processor_config.json").write_text(json.dumps({name: processor[name] for name in fields}))
    options = ("--data", one_query, "--judge", "keyword", "--out", tmp_path / "out")
    done = workbench("evaluate", "--model", llava, *options)
    named = "patch_size" in done.text or "num_additional_image_tokens" in done.text
    assert done.code == 0 or (done.refused and named), done.text


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "llava"])
def test_a_chat_template_saved_with_the_tokenizer_is_used(tmp_path, llava, one_query, workbench, architecture):
    """A18: a fine-tune with its template in tokenizer_config.json was said to have none."""
    model = llava if architecture == "llava" else write_qwen25vl(tmp_path / architecture)
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").unlink()
    edit_json(model / "tokenizer_config.json", lambda config: config.update(chat_template=template))
    options = ("--data", one_query, "--judge", "keyword", "--out", tmp_path / "out")
    done = workbench("evaluate", "--model", model, *options)
    assert done.code == 0, done.text


@pytest.mark.parametrize("use", ["asked", "trained"])
def test_a_model_without_a_pad_token_works_or_is_refused(tmp_path, llava, few_examples, use):
    """A19: a LLaVA on Llama 3, whose tokenizer names no pad token, ended in a traceback."""
    edit_json(llava / "tokenizer_config.json", lambda config: config.pop("pad_token"))
    with contextlib.suppress(UserError):
        vlm = wb.load(llava, device="cpu")
        if use == "asked":
            answers_of(vlm, few_examples[:2])
        else:
            wb.train(vlm, "sft", few_examples, out=tmp_path / "out", steps=1, forget=1, retain=1)


@pytest.fixture
def original_llava(tmp_path):
    """A checkpoint of two layers and 130 kB in the format of LLaVA's own repository."""
    folder = tmp_path / "original"
    folder.mkdir()
    config = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 120,
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": 32,
        "mm_vision_select_layer": -2,
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens": (120, 64), "lm_head": (120, 64), "model.norm": (64,)}
    shapes |= {"model.mm_projector.0": (64, 32)}
    shapes |= {f"model.layers.{n}.self_attn.{part}_proj": (64, 64) for n in range(2) for part in "qkvo"}
    weights = {f"{name}.weight": torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _limit_memory():
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))


def evaluate_in_little_memory(workbench, model, *options):
    command = [sys.executable, "-m", "workbench", "evaluate", "--model", model, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    limited = {"preexec_fn": _limit_memory, "env": environment, "timeout": 300}
    ended = subprocess.run(command, capture_output=True, text=True, **limited)
    return Done(ended.returncode, ended.stderr)


def plan(workbench, model, *options):
    one_layer = ("--method", "rmu", "--hyper", "layer=1", "--forget", 1, "--retain", 1, "--gpu-memory", "1000GiB")
    return workbench("plan", "--model", model, *one_layer)


@pytest.mark.parametrize("command", [pytest.param(evaluate_in_little_memory, marks=pytest.mark.slow), plan])
def test_a_llava_in_its_original_format_is_refused(tmp_path, original_llava, one_query, workbench, command):
    """A24: `evaluate` allocated 28 GB for a folder of 130 kB, and `plan` predicted the memory of a 7B model."""
    options = ("--data", one_query, "--judge", "keyword", "--out", tmp_path / "out")
    done = command(workbench, original_llava, *options)
    unhelpful = [word for word in ("alloc", "memory", "ignore_mismatched_sizes") if word in done.text]
    assert done.refused and not unhelpful, done.text


@pytest.fixture
def smolvlm2(tmp_path):
    return write_smolvlm(tmp_path / "smolvlm2")


def test_smolvlm2_answers_or_says_what_to_install(tmp_path, smolvlm2, one_query, workbench):
    """A25: an architecture listed as tested ended in a traceback without torchvision and num2words."""
    options = ("--data", one_query, "--judge", "keyword", "--out", tmp_path / "out")
    done = workbench("evaluate", "--model", smolvlm2, *options)
    named = "torchvision" in done.text or "num2words" in done.text
    assert done.code == 0 or (done.refused and named), done.text
