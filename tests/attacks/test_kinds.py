"""Attacks by name: each kind gives K reproducible shots, a file is matched to its data, one table lists them all."""

import dataclasses
import json

import pytest
from PIL import Image

from workbench.attacks.kinds import KINDS, Shot, attack, attack_help, prepare_attack
from workbench.attacks.one_word import rewrites
from workbench.data.example import Example
from workbench.data.first_words import first_word
from workbench.errors import UserError

LONG = Example("a", Image.new("RGB", (40, 30), "red"), "Can you describe the colour of this thing?", False, "it is red")


def all_shots(name, example):
    prepared = prepare_attack(name)
    return [prepared.of(example, shot) for shot in range(1, prepared.shots + 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_k_shots_that_differ_and_are_the_same_again(kind):
    shots, again = (all_shots(f"{kind}:3", LONG) for _ in range(2))
    assert len(shots) == 3

    def comparable(shot):
        return shot.query, shot.picture and shot.picture(LONG.picture()).tobytes(), shot.opening

    assert list(map(comparable, shots)) == list(map(comparable, again))
    assert kind == "crop" or len(set(map(comparable, shots))) == 3  # all crops of a single colour are equal
    assert all(shot.picture is None or shot.picture(LONG.picture()).size == (40, 30) for shot in shots)


def test_any_other_word_is_the_one_word_attack_and_none_leaves_the_query():
    for name in ("what:3", "sing:2", "none"):
        assert all_shots(name, LONG) == [Shot(query) for query in rewrites(LONG.query, name)]


def test_one_decorated_function_adds_an_attack(monkeypatch):
    def shout(example, shot):
        """The query in capitals.

        With as many exclamation marks as the shot's number.
        """
        return Shot(example.query.upper() + "!" * shot)

    monkeypatch.setitem(KINDS, "shout", None)  # removed after the test
    assert attack(shout) is shout
    assert all_shots("shout:2", LONG)[1].query == "CAN YOU DESCRIBE THE COLOUR OF THIS THING?!!"
    assert attack_help()["shout:K"] == "The query in capitals."


def test_every_attack_has_help_in_one_sentence():
    assert set(attack_help()) == {"none", "WORD:K", "FILE.json"} | {f"{kind}:K" for kind in KINDS}
    assert all(text and text.endswith(".") for text in attack_help().values())


def test_a_typo_swaps_two_letters_of_one_word():
    for shot in all_shots("typo:5", LONG):
        pairs = [(a, b) for a, b in zip(LONG.query.split(), shot.query.split(), strict=True) if a != b]
        ((before, after),) = pairs
        assert sorted(before) == sorted(after) and before[0] == after[0]
        assert sum(x != y for x, y in zip(before, after, strict=True)) == 2
    short = dataclasses.replace(LONG, query="Is it so?")
    assert prepare_attack("typo:1").of(short, 1).query == "Is it so?"


def test_a_paraphrase_keeps_the_lead_word():
    for query in ("Can you tell the code of this thing?", "Who is this?"):
        shots = all_shots("paraphrase:5", dataclasses.replace(LONG, query=query))
        assert {first_word(s.query) for s in shots} == {first_word(query)} and query not in {s.query for s in shots}


def test_a_file_of_prepared_variants(tmp_path):
    """Variants share an id; of a record with two queries, each is attacked by its own variants."""
    data = [
        Example("1", None, "How?", True, "no"),
        Example("2-safe", None, "What is it?", False, "it"),
        Example("2-unsafe", None, "Sell it?", True, "no"),
        Example("3", None, "Why?", True, "no"),
    ]
    variants = [
        {"id": "1", "image": "a.png", "safe": False, "instr-resp": [{"instruction": f"What {i}?", "response": ""}]}
        for i in range(3)
    ]
    variants.append(
        {
            "id": "2",
            "image": "b.png",
            "safe": True,
            "instr-resp": [{"unsafe_instruction": "What sells it?", "response": ""}],
        }
    )
    file = tmp_path / "attack.json"
    file.write_text(json.dumps(variants))
    prepared = prepare_attack(str(file), data)
    assert prepared.shots == 3
    queries = [[s and s.query for s in (prepared.of(e, shot) for shot in (1, 2, 3))] for e in data]
    assert queries == [["What 0?", "What 1?", "What 2?"], [None] * 3, ["What sells it?", None, None], [None] * 3]
    with pytest.raises(UserError, match=r"attack.json has a harmful record '1' that is not in the data"):
        prepare_attack(str(file), data[1:])


@pytest.mark.parametrize("name", ["", ":3", "what:0", "what:x", "<b>:1", "typo:99", "3:3"])
def test_what_is_no_attack_is_named(name):
    with pytest.raises(UserError, match="Attack") as caught:
        prepare_attack(name)
    assert repr(name) in str(caught.value)
