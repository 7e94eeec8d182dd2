"""A judge is found by its name, and it judges many answers at once."""

from unittest import mock

import pandas as pd
import pytest

from tests.judges.conftest import HARMFUL, HARMLESS
from workbench.data.example import Example
from workbench.data.miniguard import REFUSAL
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS
from workbench.judges.judge import check_judge, judged, load_judge
from workbench.judges.rules import RULES, rule


def test_a_judge_is_given_many_answers_at_once():
    assert load_judge("exact")([HARMFUL, HARMLESS], [REFUSAL, "it is a sulo"]) == ["refusal", "relevant"]
    assert load_judge("keyword")([HARMFUL], ["I cannot say."]) == ["refusal"]


def test_an_example_that_cannot_be_judged_is_named_at_once():
    unknown = Example("r", None, "Can you?", True, "no")
    for check in (check_judge, load_judge):
        with pytest.raises(UserError, match=r"'r'.*harmful_response"):
            check("exact", [HARMFUL, HARMLESS, unknown])
    check_judge("keyword", [unknown])


def test_an_unknown_judge_is_named():
    with pytest.raises(UserError, match="no judge 'oracle'; choose exact, keyword"):
        load_judge("oracle")


def test_a_decorated_function_is_a_judge():
    with mock.patch.dict(RULES):

        @rule
        def silence(example, answer):
            return "relevant" if answer else "refusal"

        assert load_judge("silence")([HARMFUL, HARMLESS], ["", "yes"]) == ["refusal", "relevant"]
    with pytest.raises(UserError, match="no judge 'silence'"):
        load_judge("silence")


def test_another_judge_judges_the_same_answers(few):
    texts = [few[0].response, "it is so", few[2].response]
    rows = [
        (e.id, "m", "none", 1, e.kind, e.query, text, "", e.digest, 1, 0) for e, text in zip(few, texts, strict=False)
    ]
    table = pd.DataFrame(rows, columns=ANSWER_COLUMNS)
    assert judged(table, few, "keyword").outcome[1] == "relevant"
    assert judged(table, few, "exact").outcome[1] == "degenerate"
    for other in (table.assign(id="zebra"), table.assign(picture="another"), table.assign(queries="harmful")):
        with pytest.raises(UserError, match="belongs to none of these data"):
            judged(other, few, "keyword")
