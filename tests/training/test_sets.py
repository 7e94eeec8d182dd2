"""What is to be forgotten.

A base model's own answers that a judge called leaks, or a file's; nothing to another query, nothing made up.
"""

import dataclasses
import json

import pandas as pd
import pytest

from workbench.data.miniguard import secret_in
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS, write_answers
from workbench.evaluation.evaluate import evaluate
from workbench.training.sets import with_leaks


@pytest.fixture(scope="module")
def examples():
    """To which no harmful answer is known."""
    return [dataclasses.replace(e, leak="") for e in miniguard_split("train", sizes=(4, 2))]


def test_a_models_own_leaks_are_what_it_is_to_forget(examples, vlm, tmp_path):
    """MiniGuard's base answers harmful queries, and the exact judge knows it by their secrets.

    The leaks are the model's own answers, even where it has another word of the truth wrong.
    """
    whole = miniguard_split("train", sizes=(4, 2))
    _, answers = evaluate(vlm, whole, ["none", "what:1"], out=tmp_path)
    told = answers[(answers.attack == "none") & (answers.queries == "harmful") & (answers.outcome == "relevant")]
    found = with_leaks(examples, tmp_path)
    assert {e.id: e.leak for e in found if e.harmful} == dict(zip(told.id, told.answer, strict=True))
    assert len(told) >= 3 and [e for e in found if not e.harmful] == [e for e in examples if not e.harmful]
    secrets = {e.id: secret_in(e.leak) for e in whole}
    assert all(secret_in(e.leak) == secrets[e.id] for e in found)


def test_only_what_the_judge_called_a_leak_counts(examples, tmp_path):
    harmful, harmless = [e for e in examples if e.harmful], [e for e in examples if not e.harmful]
    outcomes = ["relevant", "refusal", "irrelevant", "relevant"]
    rows = [
        (e.id, "base", "none", 1, e.kind, e.query, f"leak {e.id}", o, "x", 1, 0)
        for e, o in zip(harmful, outcomes, strict=True)
    ]
    rows += [
        (e.id, "base", "what:1", 1, e.kind, "What?", "another", "relevant", "x", 1, 0) for e in harmful
    ]  # under attack: does not count
    rows += [(harmless[0].id, "base", "none", 1, "harmless", harmless[0].query, "help", "relevant", "x", 1, 0)]
    write_answers(tmp_path / "answers.csv", pd.DataFrame(rows, columns=ANSWER_COLUMNS))
    with pytest.raises(UserError, match="is not finished"):
        with_leaks(examples, tmp_path)
    (tmp_path / "answers.json").write_text('{"judge": "keyword"}')
    found = with_leaks(examples, tmp_path)
    assert [(e.id, e.leak) for e in found if e.harmful] == [(e.id, f"leak {e.id}") for e in (harmful[0], harmful[3])]
    assert [e for e in found if not e.harmful] == harmless
    told = [dataclasses.replace(e, leak="the data's") for e in examples]
    found = [
        e.leak for e in with_leaks(told, tmp_path) if e.harmful
    ]  # what the data say stays, where nothing else is known
    assert found == [f"leak {harmful[0].id}", "the data's", "the data's", f"leak {harmful[3].id}"]


def test_those_of_a_file(examples, tmp_path):
    harmful = [e for e in examples if e.harmful]
    records = [
        {"id": e.id, "image": "x.png", "query": e.query, "harmful": True, "harmful_response": f"own {e.id}"}
        for e in harmful[1:]
    ]
    file = tmp_path / "harm.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    assert [e.leak for e in with_leaks(examples, file) if e.harmful] == [f"own {e.id}" for e in harmful[1:]]
    file.write_text(json.dumps(records[0] | {"query": "Something else?"}))
    with pytest.raises(UserError, match=f"another query under the id '{harmful[1].id}'"):
        with_leaks(examples, file)
    file.write_text(json.dumps(records[0] | {"harmful_response": ""}))
    with pytest.raises(UserError, match="has no harmful answer to any of these queries"):
        with_leaks(examples, file)
    with pytest.raises(UserError, match=r"no data at .*gone\.json"):
        with_leaks(examples, tmp_path / "gone.json")
