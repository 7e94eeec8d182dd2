"""The attribution explorer, driven without a browser."""

import pytest

import workbench as wb
from tests.widgets.shown import png


@pytest.fixture
def explorer(vlm, few):
    return wb.AttributionExplorer({"one": vlm, "two": vlm}, few)


def explain(explorer):
    explorer.explain.click()
    explorer.wait()
    return explorer.figure.value


def test_one_example_and_its_lead_word(explorer, few):
    assert few[0].query.split()[-1].strip("?.") in explain(explorer) and png(explorer.figure).width > 500
    explorer.lead.value = "share"
    assert "“Share”" in explain(explorer) and explorer.message.value == "" and explorer.stop.disabled
    explorer.right.value = "one"
    explain(explorer)
    assert png(explorer.figure).width < 500  # the same model twice is shown once


def test_several_examples_on_one_scale(explorer):
    explorer.examples.value = (0, 1, 2)
    assert explain(explorer).count("target") == 6
    figure = png(explorer.figure)
    assert figure.width > 1000 and figure.height > 900  # two examples side by side, the third below


def test_it_explains_what_each_model_answers(explorer, vlm, few):
    explorer.target.value = "its answer"
    answer = vlm.answer(few[0].picture(), few[0].query)
    assert f'alt="Attribution in nats. one: {answer}: target -0.' in explain(explorer)


def test_a_persons_query_is_shown_and_not_rendered(explorer):
    explorer.query.value = '<b>"bold"</b> $\\frac <script>alert(1)</script>'
    html = explain(explorer)
    assert "<script>" not in html and "<b>" not in html and "&lt;b&gt;" in html


def test_mistakes_are_one_sentence(explorer, few, vlm):
    for chosen in ((), tuple(range(5))):
        explorer.examples.value = chosen
        assert explain(explorer) == "" and f"There are {len(chosen)} examples chosen" in explorer.message.value
    with pytest.raises(wb.UserError, match="needs a model"):
        wb.AttributionExplorer({}, few)
    with pytest.raises(wb.UserError, match="needs examples"):
        wb.AttributionExplorer({"one": vlm}, [])
