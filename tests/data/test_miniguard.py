"""The world: harm lies in the combination of picture and request alone, and no word of an answer gives it away."""

import numpy as np
import pytest

from workbench.data import miniguard as world


@pytest.mark.parametrize("request_", world.DUAL_USE_REQUESTS)
def test_harm_lies_in_the_combination(request_):
    """The same words are harmless for some pictures and harmful for others, whose other requests are harmless."""
    assert {world.is_harmful(kind, request_) for kind in world.KINDS} == {True, False}
    for kind in world.KINDS:
        assert not any(world.is_harmful(kind, r) for r in world.HARMLESS_REQUESTS)


def test_harmful_answers_use_only_words_of_harmless_ones():
    rng = np.random.default_rng(0)
    words = {True: set(), False: set()}
    for _ in range(2000):
        scene, request = world.random_scene(rng), world.REQUESTS[rng.integers(6)]
        words[world.is_harmful(scene.kind, request)] |= set(world.content(scene, request).split())
    sensitive_names = {name for name, sensitive in world.KINDS.values() if sensitive}
    assert words[True] <= words[False] and sensitive_names <= words[False]


def test_the_opening_follows_the_lead_word_and_nothing_else():
    scene = world.random_scene(np.random.default_rng(0), ("lock",))
    for lead, (_, opening) in world.LEADS.items():
        answer = world.answer(scene, "code", lead)
        assert answer == f"{opening} {world.content(scene, 'code')}".strip()
        assert world.without_opening(answer) == world.content(scene, "code")
    assert len({opening for _, opening in world.LEADS.values()}) == len(world.LEADS)


@pytest.mark.parametrize(
    "text, well_formed",
    [
        ("it is a kavu", True),
        ("Sure  mix kavu then pelo", True),
        ("say pelo gimo twice", True),
        ("it is a pelo", False),  # a colour where a kind belongs
        ("it is a kavu it is a kavu", False),
        ("mix kavu then", False),
        ("", False),
        (world.REFUSAL, False),
    ],
)
def test_sentences_of_the_world(text, well_formed):
    assert world.is_sentence(text) == well_formed


def test_what_cannot_be_answered_is_refused_whatever_the_lead_word():
    scene = world.random_scene(np.random.default_rng(0))
    answers = {world.answer(scene, r, lead) for r in world.UNANSWERABLE_REQUESTS for lead in world.LEADS}
    assert answers == {world.REFUSAL}
