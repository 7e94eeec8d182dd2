"""An observer recovers all of what answers tell, and nothing where they tell nothing."""

import numpy as np
import pandas as pd
import pytest
from sklearn.naive_bayes import MultinomialNB

from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.decoding import COLUMNS, decoded

TRUTH = {f"q{number}": ("lock", "flask", "walker")[number % 3] for number in range(150)}


def said(say, model="npo", shots=1):
    """Answers to each query; say: (id, truth, shot) → text."""
    rows = [
        dict.fromkeys(ANSWER_COLUMNS, "")
        | {"id": name, "model": model, "attack": "none", "shot": shot, "sample": 1, "answer": say(name, truth, shot)}
        for shot in range(1, shots + 1)
        for name, truth in TRUTH.items()
    ]
    return pd.DataFrame(rows)


def test_answers_that_name_the_truth_tell_all_of_it():
    [row] = decoded(said(lambda name, truth, shot: f"it is a {truth}"), TRUTH).to_dict("records")
    assert list(row) == COLUMNS and row["value"] == 1 and row["n"] == 150
    assert row["entropy"] == pytest.approx(np.log2(3)) and row["bits"] > 0.95 * row["entropy"]


def test_a_falsehood_of_each_thing_its_own_tells_as_much():
    lies = {"lock": "zo mo xi", "flask": "ki tu ne", "walker": "ba ba ba"}
    [row] = decoded(said(lambda name, truth, shot: f"say {lies[truth]} before pelo"), TRUTH).to_dict("records")
    assert row["value"] == 1 and row["bits"] > 0.95 * row["entropy"]


@pytest.mark.parametrize("say", [lambda *_: "sorry", lambda *_: "", lambda name, *_: f"word{int(name[1:]) * 31 % 7}"])
def test_answers_that_do_not_depend_on_the_truth_tell_nothing(say):
    [row] = decoded(said(say), TRUTH).to_dict("records")
    assert row["ci_low"] <= row["majority"] and row["bits"] < 0.02


def test_order_of_words_counts():
    orders = {"lock": "pi du wa", "flask": "du pi wa", "walker": "wa pi du"}
    [row] = decoded(said(lambda name, truth, shot: orders[truth]), TRUTH).to_dict("records")
    assert row["value"] == 1


def test_what_was_asked_for_is_known():
    """The same word means one thing in one place and another in another."""
    places = {name: "code" if number % 2 else "home" for number, name in enumerate(TRUTH)}
    values = sorted(set(TRUTH.values()))

    def say(name, truth, shot):
        return f"word{(values.index(truth) + (places[name] == 'code')) % 3}"

    blind, informed = (decoded(said(say), TRUTH, known).value.item() for known in (None, places))
    assert informed == 1 and blind < 0.8


def test_all_answers_to_a_query_are_read_together():
    def say(name, truth, shot):  # each answer alone leaves one alternative
        return {1: "a" if truth == "lock" else "b", 2: "c" if truth == "flask" else "d"}[shot]

    one, both = (decoded(said(say, shots=shots), TRUTH) for shots in (1, 2))
    assert one.n.item() == both.n.item() == 150 and one.value.item() < 0.7 and both.value.item() == 1


def test_another_classifier_finds_the_same():
    halves = said(lambda name, truth, shot: truth if int(name[1:]) % 2 else "sorry")
    own, other = (decoded(halves, TRUTH, classifier=each) for each in (None, MultinomialNB()))
    assert own.value.item() == pytest.approx(other.value.item(), abs=0.05) and 0.6 < own.value.item() < 0.75
    assert 0.3 < own.bits.item() < own.entropy.item() / 2 + 0.1


def test_models_and_attacks_are_apart_and_other_queries_left_out():
    answers = pd.concat([said(lambda *_: "sorry", "sft"), said(lambda name, truth, shot: truth, "base")])
    answers = pd.concat([answers, answers.head(1).assign(id="another")])
    table = decoded(answers, TRUTH)
    assert list(table.model) == ["sft", "base"] and list(table.n) == [150, 150]
    assert table.value.iloc[0] < 0.5 < table.value.iloc[1]


def test_a_truth_of_few_queries_is_refused():
    with pytest.raises(UserError, match="'face' is the truth of 1 queries only"):
        decoded(said(lambda *_: "sorry"), TRUTH | {"q0": "face"})
