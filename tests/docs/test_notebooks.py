"""What saved notebooks hold: stand-ins of widgets, which exporters and GitHub show without a kernel."""

import importlib.util
import json
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_no_live_view_hides_a_stand_in(file):
    notebook = json.loads(file.read_text(encoding="utf-8"))
    bundles = [output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert not [bundle["text/plain"] for bundle in bundles if VIEW in bundle]
    assert "widgets" not in notebook["metadata"]


def test_views_without_a_stand_in_stay():
    spec = importlib.util.spec_from_file_location("stand_ins", ROOT / "notebooks" / "stand_ins.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outputs = [
        nbformat.v4.new_output("display_data", {VIEW: {}, "text/html": "<p>", "text/plain": "Panel()"}),
        nbformat.v4.new_output("display_data", {VIEW: {}, "text/plain": "IntSlider()"}),
    ]
    for kept, state in ((outputs, True), (outputs[:1], False)):
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell("x", outputs=kept)], metadata={"widgets": {"state": {}}}
        )
        module.keep_stand_ins(notebook)
        assert [VIEW in output.data for output in notebook.cells[0].outputs] == [False, True][: len(kept)]
        assert ("widgets" in notebook.metadata) == state
