"""What notebooks show while something runs."""

import io

import IPython.display
import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

import workbench as wb


def test_live_curves_replace_one_image(monkeypatch):
    shown, open_before = [], plt.get_fignums()
    monkeypatch.setattr(IPython.display, "display", shown.append)
    redraw = wb.live_curves()
    (image,) = shown
    rows = [("npo", step, "none", "harmful", "asr", 1 - step / 40, 0.0, 1.0) for step in (0, 20)]
    table = pd.DataFrame(rows, columns=["model", "step", "attack", "queries", "metric", "value", "ci_low", "ci_high"])
    redraw(table[:1])
    first = image.value
    redraw(table)
    assert len(shown) == 1 and image.value != first
    assert Image.open(io.BytesIO(image.value)).format == "PNG"
    assert plt.get_fignums() == open_before  # else the notebook would show the figure a second time
