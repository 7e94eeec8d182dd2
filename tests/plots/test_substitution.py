"""True and said values stand where their table has them; layers are drawn a line a model."""

import pandas as pd
import pytest

from workbench import plots

SHARES = pd.DataFrame([[0.25, 0.75], [0.0, 1.0]], index=["lock", "face"], columns=["lock", "none"])


def test_a_cell_is_a_share_of_its_row_in_per_cent():
    figure = plots.true_and_said({"npo": SHARES, "my_model": SHARES[::-1]})
    for axis, name, shares in zip(figure.axes, ("npo", "my_model"), (SHARES, SHARES[::-1]), strict=True):
        assert axis.get_title() == plots.named(name)
        cells = [text.get_text() for text in axis.texts]
        assert cells == [f"{100 * share:.0f}" for share in shares.to_numpy().ravel()]
        assert [label.get_text() for label in axis.get_xticklabels()] == ["lock", "none"]
    assert figure.axes[0].get_ylabel() == "whose secret is asked for"


def test_layers_have_a_line_for_each_model_and_a_panel_for_each_measure():
    rows = [
        (model, measure, layer, value + layer)
        for measure, value in (("probe", 0.0), ("patched", -2.0))
        for model in ("npo", "rmu")
        for layer in (1, 2)
    ]
    table = pd.DataFrame(rows, columns=["model", "measure", "layer", "value"])
    figure = plots.by_layer(table, {"probe": "right", "patched": "bits"})
    assert [axis.get_ylabel() for axis in figure.axes] == ["right", "bits"]
    for axis, value in zip(figure.axes, (0.0, -2.0), strict=True):
        lines = [line.get_ydata() for line in axis.lines if len(line.get_ydata()) == 2]
        assert [list(line) for line in lines] == 2 * [pytest.approx([value + 1, value + 2])]
