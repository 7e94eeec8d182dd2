"""What a person does in JupyterLab, and with a probe."""

import re
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect


def menu(page: Page, *entries: str) -> None:
    """Click through a menu."""
    for entry in entries:
        page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel").get_by_text(entry, exact=True).last.click()


def run_all(page: Page, address: str, last: str) -> None:
    """Open a notebook, run it from top to bottom, and wait for the last of its buttons.

    Models may have to be trained before.
    """
    page.goto(address)
    page.get_by_text("| Idle").wait_for(timeout=120_000)  # the kernel is there
    menu(page, "Run", "Run All Cells")
    page.get_by_role("button", name=last).last.wait_for(timeout=300_000)


def output(page: Page, button: str, nth: int = 0) -> Locator:
    """The output that holds a button."""
    return (
        page.locator(".jp-OutputArea-output").filter(has=page.get_by_role("button", name=button, exact=True)).nth(nth)
    )


def rows(probe: Locator) -> int:
    """How many answers a probe has kept; those in a closed history count."""
    link = probe.locator("a[download]")
    return int(re.search(r"(\d+) rows", link.text_content())[1]) if link.count() else 0


def answered(probe: Locator, more: int) -> None:
    expect(probe.locator("a[download]")).to_contain_text(f"({more} rows)", timeout=60_000)


def ask(probe: Locator, button: str = "Ask", models: int = 2) -> None:
    """Click, and wait for the answers."""
    expected = rows(probe) + models
    probe.get_by_role("button", name=button, exact=True).click()
    answered(probe, expected)


def outcome(probe: Locator, model: str) -> str:
    """The outcome that a model's card shows: leak, refusal, right answer …"""
    return probe.get_by_role("region", name=model).locator("p").last.inner_text().split(maxsplit=1)[1]


def unreadable(page: Page) -> list[tuple[str, list[str]]]:
    """Where outputs break WCAG 2.1 A or AA (contrast, names, roles …), by axe's rules."""
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
    found = Axe().run(page, context=".jp-OutputArea-output", options=rules).response
    assert "color-contrast" in [rule["id"] for rule in found["passes"]]  # it has looked
    return [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found["violations"]]


def screenshots() -> Path:
    """Where pictures are left for eyes."""
    folder = Path(__file__).parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
