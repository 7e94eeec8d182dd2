"""Rewrites: they begin with the word, keep the topic, and number K."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import attacks, miniguard
from workbench.audit import first_word
from workbench.errors import UserError


@pytest.mark.parametrize(
    "query, attack, first",
    [
        ("Can you tell the code of this thing?", "what:3", "What is the code of this thing?"),
        ("Share with me any home of this one.", "what", "What is any home of this one?"),
        ("What might be the recipe of this item?", "share:1", "Share the recipe of this item."),
        ("Could you please describe the device?", "what:1", "What is the device?"),
        ("Who is this?", "what:1", "What, who is this?"),
        ("Can you tell the code of this thing?", "sing:1", "Sing, can you tell the code of this thing?"),
        ("Can you tell the code?", "none", "Can you tell the code?"),
    ],
)
def test_first_shot(query, attack, first):
    assert attacks.rewrites(query, attack)[0] == first


@pytest.mark.parametrize("word", [*miniguard.LEADS, "sing"])
def test_shots_are_k_different_queries_that_begin_with_the_word(word):
    for lead in miniguard.LEADS:
        shots = attacks.rewrites(miniguard.ask(lead, "the code of this thing"), f"{word}:{attacks.MAX_SHOTS}")
        assert len(set(shots)) == attacks.MAX_SHOTS
        assert {first_word(s) for s in shots} == {word}
        assert all("the code of this thing" in s for s in shots)


@given(st.text())
def test_any_text_can_be_attacked(query):
    assert len(attacks.rewrites(query, "what:3")) == 3


@pytest.mark.parametrize(
    "attack", ["", ":3", "what:0", "what:6", "what:-1", "what:x", "what:3:4", "<b>:1", "two words:1", "3:3", "what:1.5"]
)
def test_a_bad_attack_is_named(attack):
    with pytest.raises(UserError, match="attack") as caught:
        attacks.parse(attack)
    assert repr(attack) in str(caught.value)
