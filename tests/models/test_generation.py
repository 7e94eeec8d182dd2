"""How answers are written is explicit: nothing of a checkpoint's own settings slips in, and what is cut is known."""

import dataclasses

import pytest

from workbench.errors import UserError
from workbench.models import generation as module
from workbench.models.generation import MAX_NEW_TOKENS, Generation
from workbench.models.load import load
from workbench.models.vlm import answer_streamed


@pytest.fixture
def asked(vlm, few):
    """The shipped base with settings of its own, and what it is asked."""
    own = dataclasses.replace(vlm, generation=Generation())
    return own, [e.picture() for e in few], [e.query for e in few]


def test_the_limit_is_the_given_one_else_the_checkpoints_else_ours(vlm):
    assert Generation(7).limit(vlm.model) == 7
    assert Generation().limit(vlm.model) == vlm.model.generation_config.max_new_tokens == 16
    fresh = load("miniguard", device="cpu")
    fresh.model.generation_config.max_new_tokens = None
    assert Generation().limit(fresh.model) == MAX_NEW_TOKENS


def test_an_answer_that_reaches_its_limit_is_cut_and_no_other(asked):
    """Whatever else is in the batch; the end of the turn counts as a token."""
    vlm, images, queries = asked
    whole = vlm.written(images, queries)
    lengths = [len(vlm.tokenizer(a.text)["input_ids"]) for a in whole]
    assert not any(a.cut for a in whole) and len(set(lengths)) > 1
    limit = sorted(lengths)[len(lengths) // 2]
    vlm.generation = Generation(limit)
    short = vlm.written(images, queries)
    assert [a.cut for a in short] == [length >= limit for length in lengths]
    assert all(b.text.startswith(a.text) for a, b in zip(short, whole, strict=True))
    assert [a.cut for a in vlm.written(images[:1], queries[:1])] == [short[0].cut]


def test_samples_are_drawn_and_greedy_answers_are_not(asked):
    vlm, images, queries = asked
    greedy = vlm.answers(images, queries)
    vlm.generation = Generation(temperature=2.0)
    drawn = {tuple(vlm.answers(images, queries)) for _ in range(3)}
    assert len(drawn) == 3 and tuple(greedy) not in drawn
    vlm.generation = Generation(temperature=1e-4)
    assert vlm.answers(images, queries) == greedy


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"samples": 3}, "several --samples need a --temperature"),
        ({"temperature": -1.0}, "--temperature must be at least 0"),
        ({"samples": 0}, "--samples at least 1"),
        ({"max_new_tokens": 0}, "--max-new-tokens must be at least 1"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        Generation(**settings)


def test_a_checkpoints_own_sampling_and_penalties_are_not_applied_and_it_is_said_once(few, capsys):
    images, queries = [e.picture() for e in few], [e.query for e in few]
    vlm = load("miniguard", device="cpu")
    plain = vlm.answers(images, queries)
    module._say_not_applied.cache_clear()
    vlm.model.generation_config.update(
        do_sample=True, temperature=5.0, top_k=3, repetition_penalty=50.0, num_beams=2, no_repeat_ngram_size=1
    )
    assert vlm.answers(images, queries) == plain
    said = capsys.readouterr().err
    assert said.count("is not applied") == 1 and "repetition_penalty=50.0" in said and "greedy" in said
    shown = []
    text = answer_streamed(vlm, images[0], queries[0], shown.append, lambda: False)
    assert text == plain[0] and "".join(shown).strip() == text
    assert "is not applied" not in capsys.readouterr().err
