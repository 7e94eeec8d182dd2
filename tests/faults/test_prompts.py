"""Prompts are the model's own, token for token, and so are the answers that it is trained on."""

import contextlib
import dataclasses
import json

import torch

import workbench as wb
from tests.faults.helpers import picture, tokens_read
from tests.tiny_models import write_idefics3
from workbench.errors import UserError


def test_a_picture_marker_in_the_data_is_not_part_of_the_query(tmp_path, base):
    r"""A09: the "<image>\n" before each query in the data of LLaVA, LLaMA-Factory and ms-swift was its first word."""
    picture("red").save(tmp_path / "red.png")
    record = {"image": "red.png", "response": "it is red"}
    records = [
        {**record, "id": "h", "query": "<image>\nShare the code number 0.", "harmful": True},
        {**record, "id": "b", "query": "<image>\nWhat is the colour, number 0?", "harmful": False},
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in records))
    assert set(wb.audit(data).word) == {"share", "what"}
    answers = wb.evaluate(base, wb.read_examples(data), "what:1", judge="keyword").answers
    assert not answers["query"].str.contains("<image>").any()


def test_a_prompt_has_the_tokens_of_transformers_own_chat_template(llava):
    """A16: LLaVA's chat template leaves <s> to the tokenizer, and every prompt went without it."""
    tokenizer = json.loads((llava / "tokenizer.json").read_text())
    bos = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == "<s>")
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokenizer["post_processor"] = {  # like Llama's tokenizer.json
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}},
    }
    (llava / "tokenizer.json").write_text(json.dumps(tokenizer))
    vlm, image, query = wb.load(llava, device="cpu"), picture("red", 32), "What is it?"
    with tokens_read(vlm) as sequences:
        vlm.answer(image, query)
    chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": query}]}]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    prompt = vlm.processor.apply_chat_template([chat], **options)["input_ids"][0].tolist()
    assert sequences[0] == prompt


def rendered(vlm, example, answered):
    """The batch that the model's own chat template makes of a query, with its answer or up to where one begins."""
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": example.query}]}]
    if answered:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": example.response}]})
    text = vlm.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=not answered)
    options = {"return_tensors": "pt", "add_special_tokens": False}
    return dict(vlm.processor(text=[text], images=[[example.picture()]], **options))


def fine_tune(vlm, example, steps, lr):
    """Teach the model one answer by plain PyTorch, on what its own chat template renders."""
    batch = rendered(vlm, example, answered=True)
    labels = batch["input_ids"].clone()
    labels[:, : rendered(vlm, example, answered=False)["input_ids"].shape[1]] = -100
    network = vlm.model.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr)
    for _ in range(steps):
        network(**batch, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    network.eval().requires_grad_(False)


def test_a_models_own_answer_is_trained_on_as_the_tokens_that_it_wrote(tmp_path, few_examples):
    """b04: models with byte-level tokens write " it is red" and were trained on "it is red", which they never say."""
    harmful, example = (next(e for e in few_examples if e.harmful is kind) for kind in (True, False))
    vlm = wb.load(write_idefics3(tmp_path / "idefics3"), device="cpu")
    fine_tune(vlm, example, steps=40, lr=3e-3)
    batch = rendered(vlm, example, answered=False)
    prompt = batch["input_ids"][0].tolist()
    written = vlm.model.generate(**batch, do_sample=False, max_new_tokens=40)[0].tolist()[len(prompt) :]
    own = dataclasses.replace(example, response=vlm.answer(example.picture(), example.query))
    if own.response != example.response:
        raise RuntimeError(f"The test's own fine-tuning did not work: the answer is {own.response!r}.")
    with tokens_read(vlm) as sequences:
        wb.train(vlm, "sft", [harmful, own], out=tmp_path / "out", steps=1, forget=1, retain=1, lr=1e-4)
    trained_on = next(after for each in sequences if (after := after_prompt(each, prompt)))
    assert trained_on[: len(written)] == written


def after_prompt(sequence, prompt):
    """The tokens after a prompt in a sequence that holds it, else none."""
    starts = (i for i in range(len(sequence)) if sequence[i : i + len(prompt)] == prompt)
    start = next(starts, None)
    return [] if start is None else sequence[start + len(prompt) :]


def test_a_picture_marker_in_an_answer_is_trained_on_as_text_or_refused(tmp_path, base, few_examples):
    """b21: an answer with "<image>" in it ended training with a traceback about the number of picture tokens."""
    data = [
        dataclasses.replace(e, response=f"<image> {e.response}", leak=e.leak and f"<image> {e.leak}")
        for e in few_examples
    ]
    with contextlib.suppress(UserError):
        wb.train(base, "sft", data, out=tmp_path / "out", steps=1, forget=1, retain=1)
