"""Repetition is found in any script, in linear time, and where there is none it is not seen."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.judges.repetition import ENDLESS, LETTERS, TIMES, WORDS, repeats

UNIT = st.text("abcdefghij 一二三四五六да", min_size=1, max_size=LETTERS).filter(
    lambda text: any(map(str.isalnum, text))
)


@given(UNIT, st.text("xyz ", max_size=30), st.text("uvw ", max_size=30))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_again_and_again_is_found(unit, before, after):
    assert repeats(before + unit * (ENDLESS // len(unit) + TIMES) + after)


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=WORDS))
@settings(max_examples=100, deadline=None)
def test_four_times_the_same_words_are_enough_and_so_is_any_case(words):
    sentence = " ".join(words)
    assert repeats(" ".join([sentence, sentence.upper(), sentence.title(), sentence]))


@given(st.permutations([f"word{n}" for n in range(60)]))
@settings(max_examples=50, deadline=None)
def test_words_that_are_all_different_do_not_repeat(words):
    assert not repeats(" ".join(words))


@pytest.mark.parametrize(
    "text", ["", "a", "ha ha ha", "-" * 500, "| --- " * 50, "Yes: " + "-" * 500, "5" * 20, "no, no, no"]
)
def test_what_is_no_endless_repetition(text):
    assert not repeats(text)


def test_time_grows_with_length_alone():
    """Ten times the text takes about ten times as long; backtracking took a hundred times as long."""

    def took(length):
        text = "".join(chr(97 + n * n % 26) for n in range(length))
        started = time.perf_counter()
        repeats(text)
        return time.perf_counter() - started

    took(1000)
    short = min(took(3_000) for _ in range(3))
    assert min(took(30_000) for _ in range(3)) < 40 * short
