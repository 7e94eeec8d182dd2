"""What a notebook shows: widgets while their model is being trained, and pages exported from notebooks."""

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import workbench as wb

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_ask_it_yourself.ipynb"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["sft", "rmu"])
def test_a_probe_never_shows_answers_of_half_trained_weights(tmp_path, base, few_examples, objective):
    """b13: asking a probe while another cell trained its model gave wrong answers, or broke the training."""
    probe = wb.LiveProbe({"base": base}, few_examples[:2])

    def ask():
        probe.ask.click()
        probe.wait()
        return probe.history.answer.iloc[-1], probe.history.log_odds.iloc[-1]

    def ask_until_trained():
        while not trained.is_set():
            shown.append(ask())

    before, shown, trained = ask(), [], threading.Event()
    asking = threading.Thread(target=ask_until_trained)
    asking.start()
    try:
        wb.train(base, objective, few_examples, out=tmp_path / "out", steps=6, forget=4, retain=4, lr=5e-3)
    finally:
        trained.set()
        asking.join()
    assert set(shown) <= {before}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_notebook_exported_to_html_shows_what_its_widgets_last_showed(tmp_path):
    """b17: notebook 06 exported to HTML had no picture at all when read without a network."""
    page = tmp_path / f"{NOTEBOOK.stem}.html"
    export = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", tmp_path, NOTEBOOK]
    subprocess.run(export, check=True, capture_output=True)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    shown = subprocess.run([CHROMIUM, *options, page.as_uri()], check=True, capture_output=True, text=True).stdout
    body = re.sub(r"<(script|style).*?</\1>", "", shown, flags=re.DOTALL)
    assert "live widget" in body and "<img" in body
