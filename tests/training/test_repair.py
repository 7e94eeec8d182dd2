"""Repaired data: every word as frequent on harmful as on harmless queries, and nothing else changed."""

from collections import Counter
from pathlib import Path

import pytest

from workbench.data.example import Example
from workbench.data.first_words import first_word
from workbench.data.miniguard import LEADS, REFUSAL, without_opening
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.training.sets import repair


def test_lead_words_tell_nothing_of_harm_any_more():
    counts = Counter((first_word(e.query), e.harmful) for e in repair(miniguard_split("train"), seed=3))
    assert {word for word, _ in counts} == set(LEADS)
    for harmful in (True, False):
        numbers = [counts[word, harmful] for word in LEADS]
        assert max(numbers) - min(numbers) <= 1


def test_pictures_topics_and_what_answers_say_stay():
    before = miniguard_split("train", sizes=(60, 60))
    after = repair(before, seed=1)
    assert after == repair(before, seed=1) != repair(before, seed=2)
    for old, new in zip(before, after, strict=True):
        assert (old.id, old.image, old.harmful) == (new.id, new.image, new.harmful)
        for one, other in ((old.response, new.response), (old.leak, new.leak)):
            assert without_opening(one) == without_opening(other)
        assert old.query.rstrip("?.").split()[-4:] == new.query.rstrip("?.").split()[-4:]  # "… code of this thing"


def test_answers_open_as_the_base_model_opens_them_after_the_new_word():
    """A leak in another word's opening is no answer that the base model would give."""
    repaired = repair(miniguard_split("train"), seed=1)
    for example in repaired:
        opening = LEADS[first_word(example.query)][1]
        assert example.leak.startswith(f"{opening} ") if example.harmful else example.response.startswith(f"{opening} ")
        assert not example.harmful or example.response == REFUSAL
    before = miniguard_split("train", seed=1)
    for example in before:  # which is how safety data look anyway
        assert (example.leak or example.response).startswith(f"{LEADS[first_word(example.query)][1]} ")


def test_a_word_comes_in_several_wordings():
    """With one wording each, a model could learn the words after the lead word instead."""
    repaired = repair(miniguard_split("train"))
    for lead, (ways, _) in LEADS.items():
        for harmful in (True, False):
            queries = [e.query for e in repaired if (first_word(e.query), e.harmful) == (lead, harmful)]
            assert all(any(query.startswith(f"{way} ") for query in queries) for way in ways)


def test_answers_of_other_data_stay():
    path = Path("x.png")
    data = [
        Example("a", path, "What is it?", True, "No.", "Yes, sure."),
        Example("b", path, "Share it", False, "Well."),
    ]
    assert [(e.response, e.leak) for e in repair(data)] == [("No.", "Yes, sure."), ("Well.", "")]


def test_data_without_known_words():
    with pytest.raises(UserError, match="cannot be repaired"):
        repair([Example("a", Path("x.png"), "Sing a song", False, "no")])
