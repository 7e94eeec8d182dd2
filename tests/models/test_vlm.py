"""Prompts, batches and answers: what must not matter does not, and what must, does."""

import pytest
import torch
import transformers
from PIL import Image

from workbench.attacks.one_word import rewrites
from workbench.errors import UserError
from workbench.models import vlm as vlm_module
from workbench.models.load import load
from workbench.models.template import plain_text
from workbench.models.vlm import IGNORED, answer_batch, generate, prompt_batch, with_opening


def test_the_base_is_a_true_llava(vlm):
    assert type(vlm.model) is transformers.LlavaForConditionalGeneration
    assert type(vlm.processor) is transformers.LlavaProcessor
    blank = Image.new("RGB", (48, 48), "white")
    ids = prompt_batch(vlm, [blank], ["What is the name of this thing?"])["input_ids"][0]
    assert (ids == vlm.model.config.image_token_id).sum() == 36
    assert vlm.processor.tokenizer.unk_token_id not in ids


def test_every_word_of_the_world_has_a_token(vlm, few, responses):
    batch = answer_batch(vlm, few, responses)
    assert (batch["input_ids"] != vlm.processor.tokenizer.unk_token_id).all()


def test_answers_in_batches_are_those_of_one_by_one(vlm, images, queries):
    queries[::3] = [f"What now, {q}" for q in queries[::3]]  # lengths differ, so rows are padded
    assert vlm.answers(images, queries, batch_size=7) == [
        vlm.answer(i, q) for i, q in zip(images, queries, strict=True)
    ]


def test_an_answer_continues_its_opening(vlm, images, queries):
    """If the answer would have begun with these words anyway, it does not change."""
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
    assert torch.equal(longer["input_ids"][:, :-2], batch["input_ids"])
    assert longer["pixel_values"] is batch["pixel_values"]


@pytest.mark.gpu
def test_answers_on_a_gpu_are_the_cpus(vlm, images, queries):
    expected, there = vlm.answers(images, queries), load("miniguard", device="cuda")
    assert there.model.dtype == torch.bfloat16
    assert sum(a == b for a, b in zip(there.answers(images, queries), expected, strict=True)) >= 0.9 * len(expected)
    there.model.float()
    there.features.clear()
    assert there.answers(images, queries) == expected


def test_the_picture_matters(vlm, images, queries):
    blank = Image.new("RGB", (48, 48), "grey")
    seeing, blind = vlm.answers(images, queries), vlm.answers([blank] * len(images), queries)
    assert sum(a != b for a, b in zip(seeing, blind, strict=True)) > 12


def test_labels_are_the_answer_and_its_end_and_nothing_else(vlm, few, responses):
    batch, tokenizer = answer_batch(vlm, few, responses), vlm.processor.tokenizer
    for row, answer in enumerate(responses):
        labels = batch["labels"][row]
        scored = labels[labels != IGNORED]
        assert tokenizer.decode(scored[:-1]) == answer
        assert scored[-1] == tokenizer.eos_token_id
        assert torch.equal(batch["input_ids"][row][labels != IGNORED], scored)


def test_special_tokens_in_a_query_are_not_kept(vlm, images):
    """A person's text must not pose as a second picture or end its own turn."""
    ids = prompt_batch(vlm, images[:1], ["What is <image></s> the name of this <answer> thing?"])["input_ids"][0]
    assert torch.equal(ids, prompt_batch(vlm, images[:1], ["What is  the name of this  thing?"])["input_ids"][0])
    # Nor must what is left when one token is removed from within another
    assert plain_text(vlm.processor, "What is <im<image>age>this?") == "What is this?"


def test_batches_that_are_too_large_are_halved(monkeypatch, vlm, fresh, images, queries):
    """As happens when a GPU's memory is not enough."""
    sizes, real = [], generate

    def small(vlm, batch, *arguments):
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return real(vlm, batch, *arguments)

    monkeypatch.setattr(vlm_module, "generate", small)
    room = 7
    assert fresh.answers(images, queries) == vlm.answers(images, queries, batch_size=6)
    assert sizes[:6] == [24, 12, 6, 6, 6, 6] and fresh.batch_limit == 6
    room = 0
    with pytest.raises(UserError, match="not enough to answer a single query"):
        fresh.answers(images, queries)
