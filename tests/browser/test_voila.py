"""A notebook with probes as a Voilà page: no code, no JupyterLab."""

from playwright.sync_api import expect

from tests.browser.conftest import served

from .notebook import ask


def test_it_works_in_voila(chromium, folder):
    """Its page wants an icon font from elsewhere, which may fail; the probe must not."""
    page, wrong = chromium.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    with served(folder, "voila", "own.ipynb", path="/") as address:
        page.goto(address, timeout=120_000)
        probe = page.locator(".widget-vbox").filter(has=page.get_by_role("button", name="Ask")).first
        ask(probe)
        probe.get_by_role("radio").nth(2).click()
        expect(probe.get_by_alt_text("picture 3 of 16")).to_be_visible()
        ask(probe, "What")
    page.close()
    assert wrong == []
