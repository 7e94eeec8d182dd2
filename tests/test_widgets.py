"""What notebooks show while something runs."""

import base64
import io
import re

import IPython.display
import ipywidgets
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
    assert png(image).format == "PNG"
    assert plt.get_fignums() == open_before  # else the notebook would show the figure a second time


def png(widget) -> Image.Image:
    """The picture in a widget's HTML."""
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", widget.value)[1])))


def every(widget, kind):
    return [w for child in getattr(widget, "children", ()) for w in ([child] if isinstance(child, kind) else every(child, kind))]


def test_the_attribution_explorer_answers(vlm, few):
    explorer = wb.explore_attribution({"one": vlm, "two": vlm}, few)
    (button,), (shown,), (query,) = (every(explorer, kind) for kind in (ipywidgets.Button, ipywidgets.HTML, ipywidgets.Text))
    _, beside, _, target, example, lead = every(explorer, ipywidgets.Dropdown)
    assert png(shown).width > 500 and 'alt="Attribution in nats' in shown.value
    assert query.value == few[0].query
    lead.value = "share"
    assert query.value.startswith("Share")
    before = shown.value
    button.click()
    assert shown.value != before and "“Share”" in shown.value and not button.disabled
    target.value = "its answer"
    button.click()
    told = shown.value
    assert told.startswith(f'<img alt="Attribution in nats. one: {vlm.answer(few[0].picture(), query.value)}: target -0.')
    example.value, beside.value = 3, "one"
    button.click()
    assert png(shown).width < 500  # the same model twice is shown once
    query.value = '<b>"bold"</b> $\\frac <script>alert(1)</script>'
    button.click()
    assert "<script>" not in shown.value and "<b>" not in shown.value and "&lt;b&gt;" in shown.value
    query.value = " "
    button.click()
    assert "no words" in shown.value and "<img" not in shown.value and not button.disabled
