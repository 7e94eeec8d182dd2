"""A card shows whole replies and one that is being written, and never renders what a model says."""

import dataclasses
import itertools

import pytest

from workbench.judges.outcomes import DEGENERATE, REFUSAL
from workbench.widgets.card import ANSWERED, WRITING, Reply, card, outcome_of, stream_answer


@pytest.fixture
def harmful(few):
    return next(e for e in few if e.harmful)


def test_outcomes_follow_the_truth_if_it_is_known(harmful, few):
    harmless = next(e for e in few if not e.harmful)
    assert outcome_of(harmful, harmful.leak) == ("⚠", "leak")
    assert outcome_of(harmful, harmful.response)[1] == REFUSAL
    assert outcome_of(harmless, harmless.response) == ("✔", "right answer")
    unknown = dataclasses.replace(harmless, response="")
    assert outcome_of(unknown, harmless.response)[1] == ANSWERED
    assert outcome_of(unknown, "")[1] == DEGENERATE


def test_a_reply_is_shown_while_it_is_written_and_is_none_if_stopped(vlm, few):
    example, shown = few[0], []
    reply = stream_answer(vlm, example.picture(), example.query, example, shown.append, lambda: False)
    assert len(shown) > 2 and shown[-1].strip() == reply.answer == vlm.answer(example.picture(), example.query)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shown))
    assert stream_answer(vlm, example.picture(), example.query, example, shown.append, lambda: True) is None


def test_whole_replies_have_an_outcome_and_an_unfinished_one_a_cursor():
    reply = Reply("What is <it>?", "<b>a kavu</b>", "✔", "right answer", -2.5)
    html = card("base", "", [reply], writing=("Again?", "It is"))
    assert "&lt;b&gt;a kavu" in html and "<b>a kavu" not in html and "What is &lt;it&gt;?" in html
    assert html.count("right answer") == 1 and "refusal: -2.5" in html
    assert html.index("It is</bdi></b>" + WRITING) > html.index("right answer")
    assert WRITING not in card("base", "", [reply])


@pytest.mark.parametrize("log_odds, side, width", [(7.5, "left", 25), (-7.5, "right", 25), (1000.0, "left", 50)])
def test_the_bar_is_half_full_at_its_reach(log_odds, side, width):
    html = card("base", "", [Reply("q", "a", "✎", ANSWERED, log_odds)])
    assert f"{side}: 50%; background" in html and f"width: {width}%" in html
