"""A picture is read once for many queries, and the answers stay the same, token for token."""

import copy

import pytest
import torch

from tests.tiny_models import ARCHITECTURES, architecture_params
from workbench.attacks.kinds import prepare_attack
from workbench.models import pictures
from workbench.models.load import load
from workbench.models.pictures import ReadPictures
from workbench.models.vlm import VLM, prompt, prompt_batch

WAYS = ("none", "what:1", "share:1", "prefix", "bare")


@pytest.fixture
def asked(few):
    """{attack: a query for each of `few`}: of different lengths, so that rows are padded."""
    return {name: [prepare_attack(name, few).of(e, 1).query for e in few] for name in WAYS}


@pytest.fixture
def columns_read(fresh):
    """A list that grows by (rows, columns) whenever the language model reads."""
    sizes = []

    def hook(module, args, kwargs):
        sizes.append(tuple(kwargs["inputs_embeds"].shape[:2]))

    handle = fresh.model.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
    yield sizes
    handle.remove()


@pytest.mark.parametrize("opening", ["", "sure"])
def test_answers_are_those_without_it(fresh, images, asked, opening):
    read = ReadPictures(fresh)
    for queries in asked.values():
        whole = fresh.written(images, queries, opening=opening)
        assert fresh.written(images, queries, opening=opening, write=read.written) == whole
        assert len({answer.text for answer in whole}) > 6
    (known,) = read.known.values()
    assert known.before is not None  # the text alone gives the tokens around a picture


@pytest.mark.parametrize("architecture", architecture_params())
def test_answers_of_every_architecture_are_those_without_it(tmp_path, few, architecture):
    """Also where prompts are padded, and where they cannot be read in pieces."""
    vlm = load(ARCHITECTURES[architecture](tmp_path / architecture), device="cpu")
    for weight in vlm.model.parameters():
        weight.mul_(4 if weight.dim() > 1 else 1)
    few, read = few[:4], ReadPictures(vlm)
    shown = [e.picture().resize((64, 64)) for e in few]
    for attack in ("none", "prefix", "bare"):
        queries = [prepare_attack(attack, few).of(e, 1).query for e in few]
        assert vlm.written(shown, queries, write=read.written) == vlm.written(shown, queries)


def test_a_prompt_whose_columns_are_marked_by_other_tensors_is_read_whole(fresh, images, asked):
    """As cross-attention to pictures and attention within them are: what they mean for later columns is not known."""
    batch = prompt_batch(fresh, images, asked["none"])
    assert pictures._parted(fresh, batch)
    marks = torch.zeros_like(batch["input_ids"])
    assert not pictures._parted(fresh, batch | {"mm_token_type_ids": marks})
    assert not pictures._parted(fresh, batch | {"cross_attention_mask": marks[..., None, None]})


def test_how_a_checkpoint_wants_to_generate_does_not_matter(fresh, images, asked):
    expected = ReadPictures(fresh).next_logits(images, asked["none"], [()])
    answers = fresh.written(images, asked["none"], write=ReadPictures(fresh).written)
    fresh.model.generation_config.update(num_beams=3, repetition_penalty=2.0, cache_implementation="static")
    assert torch.equal(ReadPictures(fresh).next_logits(images, asked["none"], [()]), expected)
    assert fresh.written(images, asked["none"], write=ReadPictures(fresh).written) == answers


def test_logits_are_those_of_whole_prompts(fresh, few, images, asked):
    """Not only the likeliest token: padding lies between picture and query, and must not be seen or counted."""
    read = ReadPictures(fresh)
    fresh.written(images, asked["none"], write=read.written)
    (known,) = read.known.values()
    queries = asked["prefix"]
    whole = prompt_batch(fresh, images, queries)
    with torch.inference_mode():
        expected = fresh.model(**whole, logits_to_keep=1).logits
    (logits,) = read.next_logits(images, queries, [()])
    assert read.known == {tuple(e.digest for e in few): known}
    torch.testing.assert_close(logits, expected[:, 0], rtol=1e-4, atol=1e-4)


def test_a_picture_is_read_once(fresh, images, asked, columns_read):
    read = ReadPictures(fresh)
    for queries in asked.values():
        fresh.written(images, queries, write=read.written)
    long = [size for size in columns_read if size[1] > 36]  # a picture's patches and more
    assert long == [(len(images), 37)]


def test_other_pictures_are_read_anew(fresh, images, asked):
    read = ReadPictures(fresh)
    for shown in (images, images[::-1], images[:5]):
        queries = asked["share:1"][: len(shown)]
        assert fresh.written(shown, queries, write=read.written) == fresh.written(shown, queries)
        assert len(read.known) == 1  # the latest


def test_what_is_read_takes_no_memory_once_there_is_too_little(fresh, images, asked, monkeypatch):
    read = ReadPictures(fresh)
    fresh.written(images, asked["none"], write=read.written)
    assert read.known

    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr(pictures, "generate", fail)
    with pytest.raises(MemoryError):
        read.written(images, asked["none"])
    assert not read.known


def test_where_the_query_comes_before_the_picture_it_is_not_taken_for_another(fresh, images, asked):
    """Then what comes after the picture is the same for every query, and tells nothing of it."""
    processor = copy.deepcopy(fresh.processor)
    first = "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    assert first in processor.chat_template
    processor.chat_template = (
        "{% for message in messages %}<s>{% for part in message['content'] | reverse %}"
        + first
        + "{% endfor %}<answer>"
        "{% endfor %}"
    )
    own = VLM(fresh.model, processor, "x")
    assert prompt(own, "What is it?").endswith("<image><answer>")
    read = ReadPictures(own)
    for queries in asked.values():
        assert own.written(images, queries, write=read.written) == own.written(images, queries)
