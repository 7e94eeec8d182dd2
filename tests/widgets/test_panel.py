"""What every panel does: work on the latest request, stop, and say in one sentence what went wrong."""

import threading

import ipywidgets as w
import pytest

from workbench.errors import UserError
from workbench.widgets.panel import Panel, examples_or_default


@pytest.fixture
def panel():
    return Panel()


def test_work_gets_the_request_of_its_moment(panel):
    done, value = [], 1
    panel.start(lambda: value, lambda request, stopped: done.append(request) or "done it")
    value = 2
    panel.wait()
    assert done == [1] and "done it" in panel.spoken.value and panel.message.value == "" and panel.stop.disabled


def test_stop_is_seen_by_the_work(panel):
    begun, proceed = threading.Event(), threading.Event()

    def work(request, stopped):
        begun.set()
        proceed.wait(20)
        return f"stopped: {stopped()}"

    panel.start(lambda: None, work)
    assert begun.wait(20) and not panel.stop.disabled
    panel.stop.click()
    proceed.set()
    panel.wait()
    assert "stopped: True" in panel.spoken.value and ">stopped<" in panel.message.value and panel.stop.disabled


def test_errors_are_one_sentence(panel):
    def mistake():
        raise UserError("Pick <one>.")

    panel.start(mistake, lambda request, stopped: "")
    assert "Pick &lt;one&gt;." in panel.message.value and panel.stop.disabled

    def fail(request, stopped):
        raise RuntimeError("out of memory\nand more")

    panel.start(lambda: None, fail)
    panel.wait()
    assert "Something went wrong (out of memory); check that the model still loads." in panel.message.value


def test_results_stand_in_for_the_widget(panel):
    panel.results = [w.HTML("<p>one</p>"), w.HTML("<p>two</p>")]
    bundle = panel._repr_mimebundle_()
    assert bundle["text/html"].endswith("<p>one</p><p>two</p>")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_examples_come_from_miniguard_by_default():
    examples = examples_or_default(None, "Panel", each=2)
    assert examples[0].picture().size == (48, 48)
    assert [e.harmful for e in examples].count(True) == 2 and len(examples) == 4
    with pytest.raises(UserError, match="Panel needs examples"):
        examples_or_default([], "Panel")
