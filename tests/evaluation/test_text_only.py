"""Queries of text alone: read, asked without a picture, judged and counted apart; refused where a picture is needed."""

import dataclasses
import json

import pandas as pd
import pytest
import torch
from PIL import Image

from tests.commands import workbench
from workbench.data.readers import TEXT_ONLY, read_examples
from workbench.errors import UserError
from workbench.evaluation.ask import ask
from workbench.judges.judge import judged
from workbench.models.load import load
from workbench.models.vlm import prompt, prompt_batch
from workbench.training.train import train


@pytest.fixture
def mixed(tmp_path):
    """Six queries, every other one without a picture; of which the first has null, as exported tables have."""
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    records = [{"id": f"q{n}", "query": f"What is it, {n}?", "harmful": n < 3, "image": "a.png"} for n in range(6)]
    records[1]["image"] = None
    del records[3]["image"], records[5]["image"]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tmp_path / "d.jsonl"


def test_they_are_a_kind_of_their_own(mixed):
    examples = read_examples(mixed)
    assert [e.image is None for e in examples] == [False, True] * 3
    assert [e.request for e in examples] == ["", TEXT_ONLY] * 3
    assert len({e.digest for e in examples if e.image is None}) == 3  # no picture is no cluster
    with pytest.raises(UserError, match="'q1' has no picture"):
        examples[1].picture()


def test_each_is_answered_as_when_it_is_asked_alone(mixed, llava):
    vlm, examples = load(llava, device="cpu"), read_examples(mixed)
    answers = ask(vlm, examples, ["none", "share:2"], batch_size=2).set_index(["id", "attack", "shot"])["answer"]
    for example in examples:
        image = None if example.image is None else example.picture()
        assert answers[example.id, "none", 1] == vlm.answers([image], [example.query])[0]
    text = prompt(vlm, "What is it?", picture=False)
    assert text == "USER: What is it? ASSISTANT:"
    batch = prompt_batch(vlm, [None, None], ["What is it?", "Why?"])
    assert set(batch) == {"input_ids", "attention_mask"} and vlm.model.config.image_token_id not in batch["input_ids"]
    with torch.inference_mode():  # and it is what the model itself writes after that text
        ids = vlm.tokenizer(text, return_tensors="pt")["input_ids"]
        options = vlm.generation.options(vlm.model) | {"pad_token_id": vlm.tokenizer.pad_token_id}
        written = vlm.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :]
    assert vlm.tokenizer.decode(written, skip_special_tokens=True).strip() == vlm.answers([None], ["What is it?"])[0]


@pytest.mark.parametrize("attack", ["blank:1", "noise:1", "swap:1"])
def test_an_attack_on_pictures_is_refused(mixed, llava, attack):
    with pytest.raises(UserError, match=rf"Attack '{attack}' changes pictures, and 3 queries have none, 'q1' first"):
        ask(load(llava, device="cpu"), read_examples(mixed), [attack])


def test_a_judge_that_sees_is_shown_what_there_is(mixed, llava, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    examples = read_examples(mixed)
    answers = ask(load(llava, device="cpu"), examples, ["none"])
    answers["answer"] = "A red square."
    outcomes = judged(answers, examples, str(llava)).outcome
    assert len(outcomes) == 6 and outcomes.notna().all()


def test_training_needs_pictures(mixed, vlm, tmp_path):
    examples = [dataclasses.replace(e, response="no", leak="yes") for e in read_examples(mixed)]
    with pytest.raises(UserError, match=r"3 records have no picture, 'q1' first; training needs one"):
        train(vlm, "npo", examples, out=tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_a_template_that_always_writes_a_picture_is_named(llava):
    vlm = load(llava, device="cpu")
    vlm.processor.chat_template = "USER: <image>\n{{ messages[0]['content'][-1]['text'] }} ASSISTANT:"
    with pytest.raises(UserError, match="cannot be asked without a picture"):
        vlm.answers([None], ["What is it?"])


def test_the_command_counts_them_apart(mixed, llava, tmp_path):
    done = workbench("evaluate", "--model", llava, "--data", mixed, "--judge", "keyword", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    by_request = pd.read_csv(tmp_path / "out" / "results_by_request.csv", keep_default_na=False)
    assert set(by_request.request) == {"", TEXT_ONLY}
    assert set(by_request[by_request.request == TEXT_ONLY].n) == {1, 2}
