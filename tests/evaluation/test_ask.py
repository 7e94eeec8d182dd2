"""Every query is asked under every attack and shot, as that attack says; ids and attacks are checked before."""

import copy
import dataclasses
import json

import pandas as pd
import pytest

from workbench.attacks.kinds import HEADLINE, HELD_OUT, LEAD_WORDS, prepare_attack
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.evaluation.ask import ask
from workbench.models.generation import Generation


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
    real = type(vlm).written

    def noted(self, images, queries, **options):
        calls.append((list(images), list(queries), options["opening"]))
        return real(self, images, queries, **options)

    monkeypatch.setattr(type(vlm), "written", noted)
    answers = ask(vlm, few[:4], ["prefill:2", "noise:1", "crop:1", "paraphrase:1"], batch_size=4)
    assert [opening for _, _, opening in calls] == ["Sure", "Yes", "", "", ""]
    assert answers[answers.attack == "prefill:2"].answer.str.match("Sure|Yes").all()
    for images, _, _ in calls[2:4]:
        assert all(image.tobytes() != e.picture().tobytes() for image, e in zip(images, few[:4], strict=True))
    assert all(query != e.query for query, e in zip(calls[4][1], few[:4], strict=True))


def test_an_example_without_a_shot_is_not_asked(vlm, few):
    """A query that is bare already has no bare wording, and none has a second mark."""
    examples = [*few[:2], dataclasses.replace(few[2], query="The code of this thing.")]
    answers = ask(vlm, examples, ["bare:1", "mark:2"])
    asked = list(zip(answers.attack, answers.shot, answers.id, strict=True))
    assert asked == [("bare:1", 1, e.id) for e in examples[:2]] + [("mark:2", 1, e.id) for e in examples]
    assert answers["query"].tolist()[-1] == "The code of this thing?"


def test_what_the_studies_ask_can_be_read(vlm):
    """The model has a token for every word of every wording, whether or not safety data have it."""
    examples = miniguard_split("test", seed=3, sizes=(40, 40)) + miniguard_split("unanswerable", sizes=(0, 20))
    for name in (*HEADLINE, *LEAD_WORDS, *HELD_OUT, *(f"{kind}:5" for kind in ("paraphrase", "bare", "prefix"))):
        prepared = prepare_attack(name)
        shots = [prepared.of(e, shot) for e in examples for shot in range(1, prepared.shots + 1)]
        ids = vlm.tokenizer([shot.query for shot in shots if shot])["input_ids"]
        assert len(ids) >= len(examples) and all(vlm.tokenizer.unk_token_id not in row for row in ids), name


def test_words_that_the_model_cannot_read_are_refused_before_anything_is_asked(vlm, few, tmp_path):
    """It reads all of them as one token, so its answers would tell nothing of the attack."""
    for name in ("typo:1", "sing:2"):
        with pytest.raises(UserError, match=rf"Attack '{name}' asks in words that the model 'base' does not know \("):
            ask(vlm, few, ["none", name], file=tmp_path / "answers.csv")
    assert not list(tmp_path.iterdir())
    unread = dataclasses.replace(few[0], query="Kindly sing the zebra's song?")  # nor can the query itself be read
    assert len(ask(vlm, [unread], ["none", "typo:1"])) == 2


def settings_of(file):
    return json.loads(file.with_suffix(".json").read_text())


def test_answers_say_how_they_were_written_and_other_settings_are_refused(vlm, few, tmp_path):
    """By the settings, by the system prompt, and by the prompt as rendered, for a changed template."""
    own = dataclasses.replace(vlm, generation=Generation(max_new_tokens=9))
    file = tmp_path / "answers.csv"
    ask(own, few[:4], ["none"], progress=False, file=file)
    notes = settings_of(file)
    assert notes["max_new_tokens"] == 9 and notes["temperature"] == 0 and notes["samples"] == 1
    assert "What is it?" in notes["prompt"] and "<image>" in notes["prompt"]
    own.generation = Generation(max_new_tokens=8)
    with pytest.raises(UserError, match="max_new_tokens 9, now 8"):
        ask(own, few[:4], ["none"], progress=False, file=file)
    own.generation = Generation(max_new_tokens=9)
    own.processor = copy.copy(vlm.processor)
    own.processor.chat_template = vlm.processor.chat_template + " "
    with pytest.raises(UserError, match=r"other settings \(prompt"):
        ask(own, few[:4], ["none"], progress=False, file=file)


def test_every_sample_is_an_answer_of_its_own_and_a_resumed_run_draws_the_same(vlm, few, tmp_path):
    own = dataclasses.replace(vlm, generation=Generation(temperature=2.5, samples=3, seed=5))
    options = {"batch_size": 4, "progress": False}
    whole = ask(own, few[:8], ["none", "what:2"], file=tmp_path / "whole.csv", **options)
    assert len(whole) == 8 * 3 * 3 and set(whole["sample"]) == {1, 2, 3}
    texts = whole[whole.attack == "none"].pivot(index="id", columns="sample", values="answer")
    assert (texts[1] != texts[2]).any() and (texts[2] != texts[3]).any()
    lines = (tmp_path / "whole.csv").read_text().splitlines(keepends=True)
    part = tmp_path / "part.csv"
    part.write_text("".join(lines[: 1 + 4 * 5]))
    kept = settings_of(tmp_path / "whole.csv") | {"complete": False}
    part.with_suffix(".json").write_text(json.dumps(kept))
    pd.testing.assert_frame_equal(ask(own, few[:8], ["none", "what:2"], file=part, **options), whole)


def test_an_answer_that_is_cut_says_so(vlm, few):
    own = dataclasses.replace(vlm, generation=Generation(max_new_tokens=2))
    assert ask(own, few, ["none"], progress=False).cut.mean() > 0.5
    assert not ask(vlm, few, ["none"], progress=False).cut.any()
