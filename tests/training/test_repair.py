"""Repaired data: every word as frequent on harmful as on harmless queries, and nothing else changed."""

from collections import Counter
from pathlib import Path

import pytest

from workbench.data.example import Example
from workbench.data.first_words import first_word
from workbench.data.miniguard import LEADS
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.training.sets import repair


def test_lead_words_tell_nothing_of_harm_any_more():
    counts = Counter((first_word(e.query), e.harmful) for e in repair(miniguard_split("train"), seed=3))
    assert {word for word, _ in counts} == set(LEADS)
    for harmful in (True, False):
        numbers = [counts[word, harmful] for word in LEADS]
        assert max(numbers) - min(numbers) <= 1


def test_pictures_topics_and_answers_stay():
    before = miniguard_split("train", sizes=(60, 60))
    after = repair(before, seed=1)
    assert after == repair(before, seed=1) != repair(before, seed=2)
    for old, new in zip(before, after, strict=True):
        assert (old.id, old.image, old.harmful, old.response, old.leak) == (
            new.id,
            new.image,
            new.harmful,
            new.response,
            new.leak,
        )
        assert old.query.rstrip("?.").split()[-4:] == new.query.rstrip("?.").split()[-4:]  # "… code of this thing"


def test_data_without_known_words():
    with pytest.raises(UserError, match="cannot be repaired"):
        repair([Example("a", Path("x.png"), "Sing a song", False, "no")])
