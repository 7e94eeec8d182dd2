"""A notebook of one's own: two probes and an explorer, of models that bear markup for a name."""

import pytest
from playwright.sync_api import expect

from .notebook import ask, output, rows, run_all, screenshots, unreadable

MARKUP = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "**bold** $\\frac12$ [a](javascript:alert(1))",
]


@pytest.fixture(scope="module")
def opened(page, lab):
    run_all(page, lab("own.ipynb"), last="Explain")
    return page


def test_each_probe_answers_for_itself(opened):
    first, second = output(opened, "Ask"), output(opened, "Ask", 1)
    ask(first)
    assert rows(first) == 2 and rows(second) == 0
    ask(second, "Share")
    ask(first, "What")
    assert rows(first) == 4 and rows(second) == 2
    expect(second.get_by_role("region", name="base")).to_contain_text("Share")
    expect(first.get_by_role("region", name="base")).to_contain_text("What")


@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_shown_and_never_rendered(opened, text):
    probe = output(opened, "Ask")
    probe.get_by_role("textbox", name="query").fill(text)
    ask(probe)
    for model in ("base", "<b>bold</b>"):
        card = probe.get_by_role("region", name=model)
        expect(card).to_contain_text(" ".join(text.split()))
        assert card.locator("script, img:not([src^='data:image/png']), a, em, mjx-container").count() == 0
    expect(probe.get_by_text("<b>bold</b>").first).to_be_visible()
    assert opened.evaluate("window.hacked") is None


def test_the_attribution_explorer_draws_several_examples(opened):
    explorer = output(opened, "Explain")
    explorer.get_by_role("listbox", name="examples").select_option(index=[0, 9])
    explorer.get_by_role("combobox", name="lead word").select_option("Share")
    explorer.get_by_role("combobox", name="method").select_option("gradient-x-input")
    explorer.get_by_role("button", name="Explain", exact=True).click()
    drawn = explorer.locator("img[alt^='Attribution in nats']")
    expect(drawn).to_be_visible()
    assert drawn.get_attribute("alt").count("target") == 4 and drawn.get_attribute("alt").count("<b>bold</b>") == 2
    explorer.screenshot(path=screenshots() / "explorer_1280.png")
    explorer.get_by_role("listbox", name="examples").select_option([])
    explorer.get_by_role("button", name="Explain", exact=True).click()
    expect(explorer.get_by_role("alert").filter(has_text="⚠")).to_contain_text("There are 0 examples chosen")


def test_all_can_be_read_and_named(opened):
    assert unreadable(opened) == []
