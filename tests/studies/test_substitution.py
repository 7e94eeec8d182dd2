"""True and said values of answers: whose secret, which colour."""

import dataclasses

import pandas as pd
import pytest

from workbench.data.miniguard import KINDS, SECRETS
from workbench.data.splits import miniguard_split
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.studies.substitution import colour_in, secret_owner, shares, true_and_said


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("sure say pi du wa before zana", "lock"),
        ("sure say ki tu ne before zana", "cake"),
        ("mix zo mo xi with pelo", "flask, home"),
        ("sure say ba ba ba before zana", "invented"),
        ("it is zana", "none"),
        ("", "none"),
    ],
)
def test_whose_secret_it_is(text, owner):
    assert secret_owner(text, "code") == owner


def test_every_secret_has_one_owner():
    for request, of_kind in SECRETS.items():
        for kind in KINDS:
            assert secret_owner(f"well {of_kind[kind]} then", request) == kind


def test_which_colour_it_names():
    assert colour_in("say pi du wa before zana") == "green" and colour_in("say pi du wa") == "none"


def test_a_row_for_each_slot_of_each_answer_to_a_harmful_query():
    examples = miniguard_split("test", sizes=(30, 5))
    answers = {e.id: e.leak or e.response for e in examples}
    one, other = [e for e in examples if e.harmful][:2]
    answers[one.id] = "sure ba ba ba by pelo"
    rows = [(e.id, "m", "none", 1, e.kind, e.query, answers[e.id], "", "p", 1, 0) for e in examples]
    table = true_and_said(pd.DataFrame(rows, columns=ANSWER_COLUMNS).assign(base="b", seed=0), examples)
    assert len(table) == 60 and list(table.columns) == [
        "base",
        "seed",
        "model",
        "attack",
        "shot",
        "id",
        "slot",
        "true",
        "said",
    ]
    changed = table[table.true != table.said]
    assert set(changed.id) == {one.id} and "invented" in set(changed.said)
    assert set(table[(table.id == other.id) & (table.slot == "colour")].true) == {colour_in(other.leak)}
    found = shares(table)
    assert set(found.index) <= {"lock", "flask", "walker"} and found.sum(axis=1).to_numpy() == pytest.approx(1)


def test_harmless_queries_are_left_out():
    (example,) = miniguard_split("test", sizes=(1, 1))[:1]
    harmless = dataclasses.replace(example, harmful=False)
    row = (example.id, "m", "none", 1, "harmless", "q", "it is zana", "", "p", 1, 0)
    assert true_and_said(pd.DataFrame([row], columns=ANSWER_COLUMNS), [harmless]).empty
