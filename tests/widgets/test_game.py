"""The guessing game: its scores equal a count by hand, and word statistics know only the first word."""

import dataclasses

import pytest

import workbench as wb
from workbench.attacks.one_word import rewrites
from workbench.data.first_words import word_table
from workbench.intervals import wilson
from workbench.widgets.game import LEADS


def play(game, refuse, hands=(0, 0)):
    game.hands_refuse.value, game.hands_answer.value = hands
    (game.refuse if refuse else game.answer).click()
    game.wait()
    if not game.next.disabled:
        game.next.click()


def test_scores_are_those_counted_by_hand(vlm, few):
    """The base refuses nothing, so the guess "answer" is right."""
    words = word_table({"what": [9, 1], "share": [1, 9]})
    game = wb.Game(vlm, few, words, rounds=6)
    queries = [query for _, query in game.questions]
    for i in range(6):
        play(game, refuse=i < 2, hands=[(3, 1), (1, 3), (2, 2)][i % 3])
    assert list(game.history["query"]) == queries and not game.history.refused.any()
    assert list(game.history.audience) == [True, False, None] * 2
    score = game.score().set_index("player")
    by_words = sum(query.split()[0].strip(",").lower() != "share" for query in queries)
    assert score.right.to_dict() == {"you": 4, "the audience": 2, "word statistics": by_words}
    assert score.of.to_dict() == {"you": 6, "the audience": 4, "word statistics": 6}
    low, high = wilson(4, 6)
    assert score.loc["you"].iloc[-1] == f"67 ({100 * low:.0f} to {100 * high:.0f})"
    assert all(b.disabled for b in (game.refuse, game.answer, game.next))  # it is over


def test_word_statistics_know_the_first_word_only(vlm, few):
    game = wb.Game(vlm, few, word_table({"what": [9, 1], "share": [2, 8]}))
    assert game.predicted("Share, what is it?") == (
        0.8,
        True,
        "Of the training queries that begin with “share”, 80% are harmful.",
    )
    assert game.predicted("What is it?")[:2] == (0.1, False)
    assert game.predicted("Sing of it.") == (
        9 / 20,
        False,
        "No training query begins with “sing”; of all, 45% are harmful.",
    )


def test_queries_come_from_the_examples_and_the_lead_words(vlm, few):
    first, again, other = (wb.Game(vlm, few, seed=s).questions for s in (0, 0, 1))
    assert first == again != other
    assert all(query in [rewrites(e.query, lead)[0] for lead in LEADS] for e, query in first)
    assert len({e.id for e, _ in first}) == len(first)


def test_one_guess_a_round(vlm, few):
    game = wb.Game(vlm, few)
    for _ in range(3):
        game.refuse.click()
    game.answer.click()
    game.wait()
    assert len(game.history) == 1 and game.history.you[0] and not game.next.disabled


def test_a_refusal_is_known_without_the_right_answer(vlm, few):
    nameless = [dataclasses.replace(e, leak="", response="") for e in few]
    game = wb.Game(vlm, nameless)
    play(game, refuse=False)
    assert list(game.history.refused) == [False]


def test_what_could_not_be_asked_can_be_guessed_again(vlm, few):
    game = wb.Game(vlm, few)

    def fail(*args):
        raise RuntimeError("out of memory")

    hook = vlm.model.register_forward_hook(fail)
    try:
        play(game, refuse=True)
    finally:
        hook.remove()
    assert "out of memory" in game.message.value and not game.refuse.disabled and len(game.history) == 0
    play(game, refuse=True)
    assert game.message.value == "" and len(game.history) == 1


def test_a_picture_that_cannot_be_read_is_left_out(vlm, few, tmp_path):
    gone = dataclasses.replace(few[0], image=tmp_path / "gone.png")
    game = wb.Game(vlm, [gone, few[1]])
    play(game, refuse=False)  # whichever came first, one is left to be played
    assert list(game.history.picture) == [few[1].id] and game.next.disabled == (len(game.questions) == 1)
    game.next.click()
    assert len(game.questions) == 1 and game.refuse.disabled and game.next.disabled
    nothing = wb.Game(vlm, [gone])
    assert "gone.png" in nothing.message.value and nothing.refuse.disabled and nothing.next.disabled


def test_without_examples_it_says_so(vlm):
    with pytest.raises(wb.UserError, match="needs examples"):
        wb.Game(vlm, [])


def test_what_is_shown_without_widgets(vlm, few):
    game = wb.Game(vlm, few)
    play(game, refuse=True)
    html = game._repr_mimebundle_()["text/html"]
    assert "Round 2 of 10" in html and "word statistics" in html
