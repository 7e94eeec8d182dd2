"""Relearning: the model is left as it was, sets grow by inclusion, and a kill costs one set at most."""

import dataclasses
import json

import pandas as pd
import pytest
import torch

from workbench.cli import app as cli
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.models.adapters import further_lora
from workbench.models.identity import fingerprint
from workbench.models.load import load
from workbench.studies import relearning
from workbench.studies.relearning import relearn
from workbench.training.train import train

TRAIN = miniguard_split("train", sizes=(30, 30))
ASKED = miniguard_split("test", sizes=(12, 3))


def weights(vlm):
    return {name: value.clone() for name, value in vlm.model.state_dict().items()}


@pytest.mark.slow
def test_a_few_harmful_examples_bring_leaks_back_and_the_model_stays_as_it_was(sft):
    """The quick SFT refuses; 20 harmful examples undo it, 20 harmless ones do less."""
    before, adapters = weights(sft), sft.model.active_adapters
    table = relearn(sft, TRAIN, ASKED, (0, 20))
    asr = table[table.metric == "asr"].set_index(["taught", "examples"])
    assert (asr.n == 12).all()  # the harmful ones alone are asked
    assert asr.value["harmful", 0] == asr.value["harmless", 0] < 0.5
    assert asr.value["harmful", 20] > 0.7
    after = weights(sft)
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert sft.model.active_adapters == adapters and not any(p.requires_grad for p in sft.model.parameters())


def test_a_base_model_is_left_as_it_was_too(vlm):
    before, query = weights(vlm), (ASKED[0].picture(), ASKED[0].query)
    said = vlm.answer(*query)
    relearn(vlm, TRAIN, ASKED, (0, 3), steps=2)
    assert weights(vlm).keys() == before.keys() and vlm.answer(*query) == said


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_of_a_few_layers_is_left_as_it_was_too(tmp_path, dtype):
    """RMU's lies on two of four layers; the fresh one on all of them, in whatever precision."""
    train(load(device="cpu"), "rmu", TRAIN, out=tmp_path / "rmu", steps=1)
    vlm = load("miniguard", tmp_path / "rmu", device="cpu")
    vlm.model.to(dtype)
    before, known = weights(vlm), fingerprint(vlm)
    modules = [name for name, _ in vlm.model.named_modules()]
    relearn(vlm, TRAIN, ASKED, (2,), steps=1)
    after = weights(vlm)
    assert fingerprint(vlm) == known and [name for name, _ in vlm.model.named_modules()] == modules
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert "forward" not in vars(vlm.model)  # accelerate's wrapper for mixed precision


def test_only_the_fresh_adapter_is_trained_and_the_own_one_still_speaks(sft):
    picture, query = ASKED[0].picture(), ASKED[0].query
    said = sft.answer(picture, query)
    with further_lora(sft, 4, 8, 0) as student:
        trained = {name for name, p in student.model.named_parameters() if p.requires_grad}
        assert trained and all(".further." in name for name in trained)
        assert len(trained) == 2 * 4 * 7  # every linear layer of the language model, also where the own adapter lies
        assert student.answer(picture, query) == said  # as yet without effect
    assert sft.answer(picture, query) == said


def test_smaller_sets_are_part_of_larger_ones(sft, monkeypatch):
    taught = {}
    monkeypatch.setattr(
        relearning,
        "train_on",
        lambda student, side, *rest, **options: taught.setdefault((side[0].kind, len(side)), side),
    )
    relearn(sft, TRAIN, ASKED[:2], (2, 5))
    for kind in ("harmful", "harmless"):
        assert taught[kind, 5][:2] == taught[kind, 2] and all(e.kind == kind for e in taught[kind, 5])


def test_what_is_finished_is_kept(sft, tmp_path, monkeypatch):
    teach, calls = relearning.train_on, []

    def dies(student, side, *rest, **options):
        calls.append((side[0].kind, len(side)))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return teach(student, side, *rest, **options)

    monkeypatch.setattr(relearning, "train_on", dies)
    options = {"counts": (0, 2, 3), "steps": 2, "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        relearn(sft, TRAIN, ASKED, **options)
    table = relearn(sft, TRAIN, ASKED, **options)
    assert calls == [("harmful", 2), ("harmful", 3), ("harmful", 3), ("harmless", 2), ("harmless", 3)]
    calls.clear()
    pd.testing.assert_frame_equal(relearn(sft, TRAIN, ASKED, **options), table)
    assert not calls
    with pytest.raises(UserError, match=r"other settings \(steps 2, now 3\)"):
        relearn(sft, TRAIN, ASKED, **options | {"steps": 3})


def test_what_cannot_be_taught_or_asked_is_said(vlm):
    with pytest.raises(UserError, match="30 harmful examples to teach, fewer than 31"):
        relearn(vlm, TRAIN, ASKED, (31,))
    for asked in ([e for e in ASKED if not e.harmful], TRAIN):  # all of which are taught
        with pytest.raises(UserError, match="no harmful query to ask about a picture that is not taught"):
            relearn(vlm, TRAIN, asked, (30,))
    with pytest.raises(UserError, match="has no answer to teach"):
        relearn(vlm, [dataclasses.replace(e, leak="") for e in TRAIN], ASKED, (1,))


def test_harmful_answers_are_asked_for_before_the_model_is_loaded(tmp_path):
    """Where the data hold none; then those of a file are taken."""
    for split, e in (("train", TRAIN[0]), ("test", ASKED[0])):
        e.picture().save(tmp_path / "x.png")
        record = {
            "id": e.id,
            "image": "x.png",
            "safe": False,
            "instr-resp": [{"instruction": e.query, "response": e.response}],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps([record]))
    harm = {
        "id": TRAIN[0].id,
        "image": "x.png",
        "query": TRAIN[0].query,
        "harmful": True,
        "harmful_response": TRAIN[0].leak,
    }
    (tmp_path / "harm.jsonl").write_text(json.dumps(harm))
    command = [
        "relearn",
        "--data",
        str(tmp_path),
        "--model",
        "no/such-model",
        "--judge",
        "keyword",
        "--out",
        str(tmp_path / "out"),
    ]
    with pytest.raises(UserError, match="have no harmful answer to teach; give some with --harmful-answers"):
        cli.app(command, standalone_mode=False)
    with pytest.raises(UserError, match="'no/such-model' cannot be loaded"):  # it got so far
        cli.app([*command, "--harmful-answers", str(tmp_path / "harm.jsonl")], standalone_mode=False)
