"""Tables for spreadsheets: no cell is a formula, and every text comes back as it was."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.spreadsheets import as_csv, as_text, from_text

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


@given(st.one_of(st.text(), st.text("'=+-@\t\r a", max_size=6)))
def test_a_text_comes_back(text):
    assert from_text(as_text(text)) == text


@given(st.text("'=+-@\t\r a", max_size=6))
def test_nothing_that_is_written_begins_like_a_formula(text):
    assert not as_text(text).startswith(tuple("=+-@\t\r"))


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_become_texts_and_numbers_stay(formula):
    table = pd.DataFrame({"word": [formula, "what", ""], "log_odds": [-1.5, 2.0, 0.0]})
    rows = list(csv.reader(io.StringIO(as_csv(table), newline="")))
    assert [row[0] for row in rows] == ["word", f"'{formula}", "what", ""]
    assert [row[1] for row in rows[1:]] == ["-1.5", "2.0", "0.0"]
