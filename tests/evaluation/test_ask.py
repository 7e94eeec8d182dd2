"""Every query is asked under every attack and shot, as that attack says; ids and attacks are checked before."""

import dataclasses

import pytest

from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.ask import ask


def test_answers_come_in_the_order_of_attacks_shots_and_examples_and_without_outcomes(vlm, few):
    answers = ask(vlm, few, ["what:2", "none"], batch_size=5)
    assert list(answers.columns) == ANSWER_COLUMNS and set(answers.outcome) == {""}
    asked = [(attack, shot, e.id) for attack, shot in (("what:2", 1), ("what:2", 2), ("none", 1)) for e in few]
    assert list(zip(answers.attack, answers.shot, answers.id, strict=True)) == asked


def test_asking_needs_an_attack(vlm, few):
    with pytest.raises(UserError, match="No attack given"):
        ask(vlm, few, [])


def test_queries_under_one_id_are_refused(vlm, few):
    for other, says in ((few[0], "the same query twice"), (few[1], "different queries")):
        with pytest.raises(UserError, match=f"{says} under the id '{few[0].id}'"):
            ask(vlm, [few[0], dataclasses.replace(other, id=few[0].id)], ["none"])


def test_every_kind_of_attack_is_asked(vlm, few, monkeypatch):
    calls = []
    real = type(vlm).answers

    def noted(self, images, queries, **options):
        calls.append((list(images), list(queries), options["opening"]))
        return real(self, images, queries, **options)

    monkeypatch.setattr(type(vlm), "answers", noted)
    answers = ask(vlm, few[:4], ["prefill:2", "noise:1", "crop:1", "typo:1"], batch_size=4)
    assert [opening for _, _, opening in calls] == ["Sure", "Yes", "", "", ""]
    assert answers[answers.attack == "prefill:2"].answer.str.match("Sure|Yes").all()
    for images, _, _ in calls[2:4]:
        assert all(image.tobytes() != e.picture().tobytes() for image, e in zip(images, few[:4], strict=True))
    assert all(query != e.query for query, e in zip(calls[4][1], few[:4], strict=True))
