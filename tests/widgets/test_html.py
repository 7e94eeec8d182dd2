"""HTML of pictures, tables and words: sizes, exports, and nothing that a person writes is rendered."""

import base64
import io

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from workbench.widgets.html import csv_html, figure_html, picture_html, picture_url, spoken_html, table_html, text_html

MARKUP = "<script>\"'&"


@pytest.mark.parametrize("size, side", [((30, 20), "width"), ((20, 30), "height")])
def test_the_longer_side_of_a_picture_has_the_size(size, side):
    assert f"{side}: 64px" in picture_html(Image.new("RGB", size), "a picture", 64)


def test_a_large_picture_is_scaled_down_for_the_page():
    url = picture_url(Image.new("RGB", (1000, 500)), 100)
    assert Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))).size == (100, 50)


def test_a_figure_is_closed():
    before = plt.get_fignums()
    assert 'alt="a &lt;figure&gt;"' in figure_html(plt.figure(), "a <figure>")
    assert plt.get_fignums() == before


def test_words_are_escaped():
    table = pd.DataFrame({"words": [MARKUP]})
    for html in (
        text_html(MARKUP),
        table_html(table),
        spoken_html(MARKUP),
        picture_html(Image.new("L", (1, 1)), MARKUP),
    ):
        assert "<script>" not in html and "&lt;script&gt;" in html
    assert spoken_html("") == ""


def test_an_export_holds_the_table():
    table = pd.DataFrame({"words": [MARKUP, "b"]})
    html = csv_html(table, "words.csv")
    data = base64.b64decode(html.partition("base64,")[2].partition('"')[0])
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(data)), table)
    assert 'download="words.csv"' in html and "(2 rows)" in html
