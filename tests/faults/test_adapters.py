"""An adapter applies wholly, on its own base, or is refused; and it leaves the model under it unchanged."""

import contextlib
import pickle
from pathlib import Path

import pandas as pd
import peft
import pytest
import torch

import workbench as wb
from tests.faults.helpers import ON_ITS_OWN, answers_of, lora_weights, write_adapter
from workbench.errors import UserError
from workbench.studies.relearning import relearn

INCOMPLETE = {"no tensor fits": lora_weights(ON_ITS_OWN), "half of the layers": lora_weights(layers=(2, 3))}
SMALL = {"steps": 1, "forget": 1, "retain": 1}


@pytest.mark.parametrize("which", INCOMPLETE)
def test_an_incomplete_adapter_is_refused_or_answers_as_the_whole_one(tmp_path, two_queries, workbench, which):
    """A21: `evaluate` wrote the base model's answers under the name of an adapter whose tensors fit no layer."""

    def evaluate(name, *adapter):
        out = tmp_path / name
        done = workbench("evaluate", "--data", two_queries, *adapter, "--judge", "keyword", "--out", out)
        return done, list(pd.read_csv(out / "answers.csv").answer) if done.code == 0 else None

    _, of_the_base = evaluate("base")
    _, of_the_whole = evaluate("whole", "--adapter", write_adapter(tmp_path / "lora", lora_weights()))
    if of_the_whole == of_the_base:
        raise RuntimeError("The test's own adapter has no effect.")
    done, answers = evaluate("incomplete", "--adapter", write_adapter(tmp_path / "part", INCOMPLETE[which]))
    assert done.refused or answers == of_the_whole


@pytest.mark.parametrize("which", INCOMPLETE)
def test_loading_an_incomplete_adapter_is_refused(tmp_path, which):
    """b06: an adapter named for the text model alone, or with layers missing, was loaded without a warning."""
    with pytest.raises(UserError):
        wb.load("miniguard", write_adapter(tmp_path / "part", INCOMPLETE[which]), device="cpu")


@pytest.mark.parametrize("case", ["not trusted", "trusted", "not an adapter"])
def test_a_pickled_adapter_is_read_only_if_pickles_are_trusted(tmp_path, one_query, workbench, case):
    """A22: adapter_model.bin was unpickled without --trust pickles."""
    adapter = write_adapter(tmp_path / "pickled")
    if case == "not an adapter":
        (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Path("x")))
    else:
        torch.save(lora_weights(), adapter / "adapter_model.bin")
    trust = ("--trust", "pickles") if case == "trusted" else ()
    options = ("--data", one_query, "--adapter", adapter, "--judge", "keyword", "--out", tmp_path / "out")
    done = workbench(*trust, "evaluate", *options)
    assert done.code == 0 if case == "trusted" else done.refused, done.text


def test_merging_keeps_the_precision_of_the_checkpoint_or_says_so(tmp_path, llava, few_examples, workbench):
    """A33: a bfloat16 checkpoint was merged into a float32 one of twice its size, without a warning."""
    wb.load(llava, device="cpu").model.to(torch.bfloat16).save_pretrained(llava)
    wb.train(wb.load(llava, device="cpu"), "sft", few_examples, out=tmp_path / "lora", rank=2, **SMALL)
    done = workbench("merge", "--model", llava, "--adapter", tmp_path / "lora", "--out", tmp_path / "merged")
    before, after = ((folder / "model.safetensors").stat().st_size for folder in (llava, tmp_path / "merged"))
    mentioned = any(word in done.text.lower() for word in ("float32", "precision", "dtype"))
    assert done.code == 0 and (after < 1.5 * before or mentioned), f"{before} → {after} bytes: {done.text}"


def test_an_adapter_of_a_merged_model_is_refused_on_the_model_before_the_merge(tmp_path, few_examples, workbench):
    """b07: NPO's adapter for a merged SFT model also loaded on the base of SFT, and gave other answers."""
    sft, merged, npo = (tmp_path / name for name in ("sft", "merged", "npo"))
    options = SMALL | {"steps": 4, "lr": 1e-3}  # the first step of a warm-up changes nothing
    wb.train(wb.load("miniguard", device="cpu"), "sft", few_examples, out=sft, **options)
    if workbench("merge", "--adapter", sft, "--out", merged).code:
        raise RuntimeError("The test's own model was not merged.")
    wb.train(wb.load(merged, device="cpu"), "npo", few_examples, out=npo, **SMALL)
    with pytest.raises(UserError):
        wb.load("miniguard", npo, device="cpu")


def test_relearning_leaves_an_adapter_with_embeddings_unchanged(tmp_path, base, few_examples):
    """b08: the adapter's part on embed_tokens was lost, so relearning reported a false finding."""
    torch.manual_seed(0)
    network = peft.get_peft_model(base.model, peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"]))
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    network.save_pretrained(tmp_path / "lora")
    vlm = wb.load("miniguard", tmp_path / "lora", device="cpu")
    test = wb.miniguard_split("test", sizes=(6, 6))
    before = answers_of(vlm, test)
    relearn(vlm, few_examples, test, counts=(0, 2), steps=1, lr=1e-9, batch=2)
    assert answers_of(vlm, test) == before


def test_training_on_an_adapter_works_or_is_refused_and_leaves_the_model_unchanged(tmp_path, few_examples):
    """b12: unlearning a fine-tuned model ended in a traceback and destroyed the caller's model."""
    vlm = wb.load("miniguard", write_adapter(tmp_path / "lora", lora_weights()), device="cpu")
    before = answers_of(vlm, few_examples)
    with contextlib.suppress(UserError):
        wb.train(vlm, "npo", few_examples, out=tmp_path / "npo", **SMALL)
    assert answers_of(vlm, few_examples) == before
