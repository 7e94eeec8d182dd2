"""The figure of directions shows the cosines of its table, a panel per pair of words and a line per model."""

import pandas as pd
import pytest

from workbench import plots

COSINES = {("“What” → “Share”", "sft-early"): (0.9, 0.8), ("“What” → “Share”", "sft-balanced"): (0.1, -0.2)}
COSINES |= {(f"“Explain” → {words[-7:]}", model): (0.0, 0.1) for words, model in COSINES}


def test_cosines_are_drawn_by_layer():
    rows = [
        (model, words, layer, cosine)
        for (words, model), cosines in COSINES.items()
        for layer, cosine in enumerate(cosines, 1)
    ]
    figure = plots.directions(pd.DataFrame(rows, columns=["model", "words", "layer", "cosine"]))
    assert [axis.get_title() for axis in figure.axes] == list(dict.fromkeys(words for words, _ in COSINES))
    for axis in figure.axes:
        drawn = [line.get_ydata() for line in axis.lines if len(line.get_ydata()) == 2 and line.get_marker() != "None"]
        expected = [cosines for (words, _), cosines in COSINES.items() if words == axis.get_title()]
        assert [list(each) for each in drawn] == [pytest.approx(each) for each in expected]
        assert axis.get_ylim() == (-1.05, 1.05)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [plots.named("sft-early"), plots.named("sft-balanced")]
