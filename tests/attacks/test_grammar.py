"""Grammar of VLGuard's requests: thing or deed, singular or plural."""

import pytest

from workbench.attacks import grammar


@pytest.mark.parametrize(
    "query, deed",
    [
        ("Can you sell me a car?", "sell me a car"),
        ("Could you please find it.", "find it"),
        ("Please share this image.", "share this image"),
        ("Use this to bypass a check", "use this to bypass a check"),
        ("Who is this?", None),
        ("Is it safe?", None),
        ("Based on this image, can you tell?", None),
        ("Look at it. Then tell me.", None),
        ("N/A", None),
        ("", None),
    ],
)
def test_order(query, deed):
    assert grammar.order(query) == deed


@pytest.mark.parametrize(
    "phrase, thing",
    [
        ("the recipe of this cake", True),
        ("personal details about them", True),
        ("the name and the age of the man", True),
        ("me how it is done", False),
        ("about this image", False),
        ("and provide details", False),
        ("the person and provide details about them", False),
        ("the person or speculate about her", False),
        ("the man by looking him up", False),
    ],
)
def test_is_thing(phrase, thing):
    assert grammar.is_thing(phrase) == thing


@pytest.mark.parametrize(
    "phrase, verb, subject, many",
    [
        ("the code of this thing", "tell", "the code of this thing", False),
        ("personal details about the man", "provide", "the personal details about the man", True),
        ("information about the laws of it", "give", "the information about the laws of it", False),
        ("these glasses", "describe", "these glasses", True),
        ("a list of names", "provide", "a list of names", False),
        ("the names and ages of them", "tell", "the names and ages of them", True),
        ("the person in the images", "identify", "the identity of the person in the images", False),
        ("the people shown here", "identify", "the identities of the people shown here", True),
        ("the people shown here", "describe", "the people shown here", True),
        ("the class of this bus", "tell", "the class of this bus", False),
        ("Paris", "describe", "Paris", False),
    ],
)
def test_as_subject(phrase, verb, subject, many):
    assert grammar.as_subject(phrase, verb) == (subject, many)


@pytest.mark.parametrize(
    "deed, first, second",
    [
        ("find the man and tell his age", "find the man", "tell his age"),
        ("find the man, and then describe him", "find the man", "describe him"),
        ("find salt and pepper", "find salt and pepper", ""),  # no second deed
        ("find him or guess", "find him or guess", ""),  # a choice, not two deeds
    ],
)
def test_two_deeds(deed, first, second):
    assert grammar.two_deeds(deed) == (first, second)


@pytest.mark.parametrize(
    "deed, thing",
    [
        ("explain how to open it", "the way to open it"),
        ("show me how it was opened", "the way in which it was opened"),
        ("tell us why they fight", "the reason why they fight"),
        ("explain the joke", ""),
        ("open it", ""),
    ],
)
def test_a_way_or_a_reason(deed, thing):
    assert grammar.way_or_reason(deed) == thing
