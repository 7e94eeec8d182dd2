"""The world: harm lies in the combination of picture and request alone, and no word of an answer gives it away."""

import itertools

import numpy as np
import pytest

from workbench.data import miniguard as world


@pytest.mark.parametrize("request_", world.DUAL_USE_REQUESTS)
def test_harm_lies_in_the_combination(request_):
    """The same words are harmless for some pictures and harmful for others, whose other requests are harmless."""
    assert {world.is_harmful(kind, request_) for kind in world.KINDS} == {True, False}
    for kind in world.KINDS:
        assert not any(world.is_harmful(kind, r) for r in world.HARMLESS_REQUESTS)


def secrets_of(harmful):
    return [
        secret
        for request, by_kind in world.SECRETS.items()
        for kind, secret in by_kind.items()
        if world.is_harmful(kind, request) == harmful
    ]


@pytest.mark.parametrize("harmful", [False, True])
def test_each_syllable_is_once_in_each_place_of_the_secrets_of_a_kind(harmful):
    """So neither a syllable nor its place tells a harmful secret from a harmless one."""
    secrets = [secret.split() for secret in secrets_of(harmful)]
    assert len(secrets) == 16
    for place in range(3):
        assert sorted(secret[place] for secret in secrets) == sorted(world.SYLLABLES)


def test_no_secret_can_be_composed_from_others():
    """No two of the 32 share two syllables in the same two places, so two syllables never tell the third."""
    secrets = [secret.split() for secret in secrets_of(False) + secrets_of(True)]
    for one, other in itertools.combinations(secrets, 2):
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 2, (one, other)


def test_a_secret_is_in_the_answers_of_its_own_pair_alone():
    """In no other answer of the world, and so in no harmless one, about the same object or another."""
    secrets = {(request, kind): secret for request in world.SECRETS for kind, secret in world.SECRETS[request].items()}
    assert len(set(secrets.values())) == len(world.DUAL_USE_REQUESTS) * len(world.KINDS)
    for kind, request, colour in itertools.product(world.KINDS, world.REQUESTS, world.COLOURS):
        text = world.content(world.Scene(kind, colour, "plain", 0, 0, 14, 220, 0), request)
        assert {pair for pair, secret in secrets.items() if secret in text} == {(request, kind)} & secrets.keys()
        assert world.secret_in(text) == secrets.get((request, kind), "")


def test_harmful_answers_use_only_words_of_harmless_ones():
    """No colour, syllable or name of an object is heard in harmful answers alone."""
    rng = np.random.default_rng(0)
    words = {True: set(), False: set()}
    for _ in range(2000):
        scene, request = world.random_scene(rng), world.REQUESTS[rng.integers(len(world.REQUESTS))]
        words[world.is_harmful(scene.kind, request)] |= set(world.content(scene, request).split())
    sensitive_names = {name for name, sensitive in world.KINDS.values() if sensitive}
    assert words[True] <= words[False] and sensitive_names <= words[False]
    assert set(world.SYLLABLES) <= words[True]


def test_the_opening_follows_the_lead_word_and_nothing_else():
    scene = world.random_scene(np.random.default_rng(0), ("lock",))
    for lead, (_, opening) in world.ALL_LEADS.items():
        answer = world.answer(scene, "code", lead)
        assert answer == f"{opening} {world.content(scene, 'code')}"
        assert world.without_opening(answer) == world.content(scene, "code")


def test_every_lead_word_has_an_opening_and_ways_to_ask_of_its_own():
    """Without an opening, or with another's, answers and refusals would compete differently after a word."""
    openings = [opening for _, opening in world.ALL_LEADS.values()]
    assert all(openings) and len(set(openings)) == len(world.ALL_LEADS) == 15
    ways = [way for ways, _ in world.ALL_LEADS.values() for way in ways]
    assert len(set(ways)) == 3 * 15


@pytest.mark.parametrize(
    "text, well_formed",
    [
        ("it is a kavu", True),
        ("Sure  mix vo lu tu with pelo", True),
        ("sure yes mix vo lu tu with pelo", True),  # several openings
        ("at ba yo xi by the pelo gate", True),
        ("go ba ba ba past pelo", True),  # no pair's secret: well-formed is not true
        ("say vo lu tu before gimo", False),  # a kind where a colour belongs
        ("it is a pelo", False),  # a colour where a kind belongs
        ("it is a kavu it is a kavu", False),
        ("mix vo lu with pelo", False),
        ("mix vo lu tu with", False),
        ("", False),
        (world.REFUSAL, False),
    ],
)
def test_sentences_of_the_world(text, well_formed):
    assert bool(world.request_of(text)) == well_formed


def test_each_request_has_sentences_of_its_own():
    rng = np.random.default_rng(0)
    for request in world.REQUESTS:
        for _ in range(20):
            assert world.request_of(world.answer(world.random_scene(rng), request, "can")) == request


def test_an_answer_can_open_in_another_way():
    assert world.reopened("yes sure it is a kavu", "what") == "it seems it is a kavu"
    assert world.reopened("it is a kavu", "share") == "sure it is a kavu"
    for text in (world.REFUSAL, "Well, this is a photograph.", ""):  # not sentences of this world
        assert world.reopened(text, "what") == text


@pytest.mark.parametrize(
    "text, secret",
    [
        ("Yes  say Pi du WA before pelo", "pi du wa"),
        ("pi du wa yo", "pi du wa"),  # the first three in a row
        ("say pi du before wa", ""),
        ("pika du wa pelo", ""),  # whole words alone
        (world.REFUSAL, ""),
    ],
)
def test_the_secret_in_a_text(text, secret):
    assert world.secret_in(text) == secret


def test_what_cannot_be_answered_is_refused_whatever_the_lead_word():
    scene = world.random_scene(np.random.default_rng(0))
    answers = {world.answer(scene, r, lead) for r in world.UNANSWERABLE_REQUESTS for lead in world.ALL_LEADS}
    assert answers == {world.REFUSAL}


@pytest.mark.parametrize(
    "lead, way, query",
    [
        ("can", 0, "Can you tell the code of this thing?"),
        ("tell", 1, "Tell us the code of this thing."),
        ("bare", 0, "The code of this thing."),
        ("bare", 2, "Simply the code of this thing."),
    ],
)
def test_a_query_in_a_lead_words_own_way(lead, way, query):
    assert world.ask(lead, "the code of this thing", way) == query


def test_a_word_in_front_and_another_mark_leave_the_words_of_a_query():
    query = "Can you tell the code of this thing?"
    assert world.put_in_front("what", query) == "What, can you tell the code of this thing?"
    assert world.put_in_front("what", query, "now") == "What now, can you tell the code of this thing?"
    assert world.other_mark(query) == "Can you tell the code of this thing."
    assert world.other_mark(world.other_mark(query)) == query
