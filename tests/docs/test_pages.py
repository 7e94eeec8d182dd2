"""README stays short, links lead somewhere, and commands and names in the documentation exist."""

import re

import pytest
import typer

from tests.docs.pages import PAGES, README, ROOT

MOST_LINES = 150  # of README


def test_readme_is_short():
    assert len(README.splitlines()) <= MOST_LINES


def prose(text):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text):
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(PAGES[page])):
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_ours_that_is_named_exists(page):
    for file in re.findall(r"`((?:workbench|tests|data|benchmarks|notebooks)/[\w./-]+)`", PAGES[page]):
        assert (ROOT / file).exists() or (ROOT / "workbench" / file).exists(), file


def command_lines(text):
    """What follows `workbench` in code, inline or in blocks without a language, as words."""
    blocks = re.findall(r"^ *```\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(text))]
    found = [re.search(r"(?:^|/|-m )workbench ([a-z].*)", line) for line in lines]
    return [match[1].split(" # ")[0].split() for match in found if match]


def test_command_lines_are_found():
    text = "`workbench a --b` or\n```\n.venv/bin/workbench c \\\n  --d 1  # e\npython -m workbench f\n```\n`workbench`"
    assert command_lines(text) == [["c", "--d", "1"], ["f"], ["a", "--b"]]
    assert len(command_lines(README)) > 20


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_its_options_exist(page):
    from workbench.cli.app import app

    for first, *words in command_lines(PAGES[page]):
        command = typer.main.get_command(app).commands.get(first)
        if first == "data" and words:
            command, words = command.commands.get(words[0]), words[1:]
        assert command, first
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.strip("[]") for word in words if word.strip("[]").startswith("--")}
        assert used <= options | {"--help"}, (first, used - options)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_shown_is_what_the_package_offers(page):
    import workbench

    for name in set(re.findall(r"\bwb\.(\w+)", PAGES[page])):
        assert callable(getattr(workbench, name)) or name == "plots", name
