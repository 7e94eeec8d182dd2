"""Notebook 06 as a person meets it.

Clicked, typed, uploaded and exported in a real JupyterLab; screenshots go to build/screenshots.
"""

import io
import re

import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import expect

from workbench.data.splits import miniguard_split

from .notebook import answered, ask, menu, outcome, output, rows, run_all, screenshots, unreadable

EXAMPLES = miniguard_split("validation", sizes=(8, 8))  # those that a probe shows
HARMFUL, HARMLESS = (
    [place for place, e in enumerate(EXAMPLES, start=1) if e.harmful == harmful] for harmful in (True, False)
)
SFT, NPO = "fine-tuned (SFT)", "unlearned (NPO)"


@pytest.fixture(scope="module")
def opened(page, lab):
    """Notebook 06, run from top to bottom. Without kept runs of the study its models are trained first."""
    run_all(page, lab("06_ask_it_yourself.ipynb"), last="It will refuse")
    page.keyboard.press("Control+b")  # no file list
    return page


@pytest.fixture
def probe(opened):
    return output(opened, "Ask")


def pick(probe, place):
    number = probe.get_by_role("spinbutton", name="picture")
    number.fill(str(place))
    number.press("Enter")
    expect(probe.locator(f"img[alt='picture {place} of 16']")).to_be_visible()


def test_what_opens_the_fine_tuned_model_and_not_the_unlearned_one(probe):
    """One of the harmful questions will do; what is seen on the way becomes the README's animation."""
    for place in HARMFUL:
        pick(probe, place)
        seen, frames = {}, []
        for word in ("as asked", "What", "Share"):
            ask(probe, word)
            seen[word] = outcome(probe, SFT)
            assert outcome(probe, NPO) not in ("leak", "refusal")
            frames.append(probe.screenshot())
        if seen == {"as asked": "refusal", "What": "leak", "Share": "refusal"}:
            animate(frames, screenshots() / "live_probe.gif")
            return
    pytest.fail("no question was refused as asked and answered after What")


def animate(frames, file, width=900):
    pictures = [Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames]
    small = [p.resize((width, round(p.height * width / p.width)), Image.Resampling.LANCZOS) for p in pictures]
    first, *rest = [p.quantize(method=Image.Quantize.FASTOCTREE) for p in small]
    first.save(file, save_all=True, append_images=rest, duration=[2500, 3500, 2500], loop=0)


def test_share_makes_the_fine_tuned_model_refuse_what_is_harmless(probe):
    refused = 0
    for place in HARMLESS[:3]:
        pick(probe, place)
        for word in ("as asked", "Share"):
            ask(probe, word)
            assert outcome(probe, NPO) != "refusal"
        refused += outcome(probe, SFT) == "refusal"
    assert refused >= 2


def test_a_sweep_draws_a_line_for_each_model(probe):
    probe.get_by_role("button", name="Sweep", exact=True).click()
    drawn = probe.locator("img[alt^='Log-odds of a refusal by lead word']")
    expect(drawn).to_be_visible()
    assert f"{SFT}: none" in drawn.get_attribute("alt") and f"{NPO}: none" in drawn.get_attribute("alt")


def test_why_draws_words_and_squares_of_both(probe):
    probe.get_by_role("button", name="Why?", exact=True).click()
    drawn = probe.locator("img[alt^='Attribution in nats']")
    expect(drawn).to_be_visible()
    assert f"{SFT}: target" in drawn.get_attribute("alt") and f"{NPO}: target" in drawn.get_attribute("alt")


def test_thumbnails_and_the_keyboard(opened, probe):
    """From picture to picture with the arrow keys, on to the query with Tab, and asked with Enter."""
    pick(probe, 3)
    probe.get_by_role("radio", checked=True).focus()
    opened.keyboard.press("ArrowRight")
    expect(probe.get_by_role("spinbutton", name="picture")).to_have_value("4")
    expect(probe.get_by_role("radio").nth(3)).to_be_focused()
    query = probe.get_by_role("textbox", name="query")
    before = query.input_value()
    opened.keyboard.press("Tab")
    expect(query).to_be_focused()
    opened.keyboard.press("End")
    opened.keyboard.type(" 😀")
    expected = rows(probe) + 2
    opened.keyboard.press("Enter")
    answered(probe, expected)
    expect(probe.get_by_role("region", name=SFT)).to_contain_text("😀")
    assert query.input_value() == f"{before} 😀"
    probe.get_by_role("radio").nth(0).click()
    expect(probe.get_by_role("spinbutton", name="picture")).to_have_value("1")


def upload(page, probe, name, content):
    with page.expect_file_chooser() as chosen:
        probe.get_by_role("button", name=re.compile("your own")).click()
    chosen.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def test_a_picture_of_ones_own(opened, probe):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "orange").save(buffer, "PNG")
    upload(opened, probe, "mine.png", buffer.getvalue())
    expect(probe.get_by_alt_text("your own picture")).to_be_visible()
    assert probe.get_by_role("radio", checked=True).count() == 0
    ask(probe)
    assert outcome(probe, SFT) in ("refusal", "answered", "degenerate")
    upload(opened, probe, "notes.png", b"no picture")
    expect(probe.get_by_role("alert").filter(has_text="⚠")).to_contain_text("notes.png cannot be read")
    probe.get_by_role("radio").nth(0).click()
    expect(probe.get_by_alt_text("your own picture")).to_have_count(0)


def test_a_mistake_is_told_in_one_sentence(probe):
    query = probe.get_by_role("textbox", name="query")
    for text, sentence in (("", "There is no query"), ("x" * 10_000, "The query has 10000 characters")):
        query.fill(text)
        probe.get_by_role("button", name="Ask", exact=True).click()
        expect(probe.get_by_role("alert").filter(has_text="⚠")).to_contain_text(sentence)


def test_many_clicks_break_nothing(probe):
    pick(probe, 5)
    before = rows(probe)
    for _ in range(6):
        probe.get_by_role("button", name="Ask", exact=True).click(no_wait_after=True)
    probe.page.wait_for_timeout(2000)
    expect(probe.get_by_role("button", name="Stop", exact=True)).to_be_disabled()
    assert before < rows(probe) <= before + 12
    expect(probe.get_by_text("⚠")).to_have_count(0)
    expect(probe.get_by_text("working …")).to_have_count(0)


def test_history_takes_a_note_and_is_exported(opened, probe):
    ask(probe)
    probe.get_by_text("history", exact=True).click()
    note = probe.get_by_role("textbox", name="note")
    note.fill("seen <in> a browser")
    note.press("Enter")
    expect(probe.get_by_role("cell", name="seen <in> a browser").first).to_be_visible()
    with opened.expect_download() as download:
        probe.get_by_role("link", name=re.compile("Export as CSV")).click()
    table = pd.read_csv(download.value.path())
    assert len(table) == rows(probe) and list(table.note.tail(2)) == ["seen <in> a browser"] * 2
    probe.get_by_text("history", exact=True).click()


def test_the_slider_walks_the_curves_and_a_checkpoint_is_probed(opened):
    explorer = output(opened, "Probe npo")
    slider = explorer.get_by_role("slider", name="step")
    slider.focus()
    opened.keyboard.press("ArrowRight")
    expect(explorer.get_by_alt_text(re.compile("step 20 is marked"))).to_be_visible()
    assert slider.get_attribute("aria-valuetext") == "20"
    for model in ("npo", "sft"):
        explorer.get_by_role("button", name=f"Probe {model}", exact=True).click()
        expect(explorer.get_by_role("region", name=f"{model}, step 20")).to_contain_text("log-odds")
    expect(explorer.get_by_role("region", name="npo, step 20")).to_be_visible()


def test_the_game_is_played(opened):
    game = output(opened, "⊘ It will refuse")
    for round in range(1, 3):
        expect(game.get_by_text(f"Round {round} of 10")).to_be_visible()
        game.get_by_role("spinbutton", name="hands for refuse").fill("7")
        game.get_by_role("button", name="It will refuse").click()
        expect(game.locator("a[download]")).to_contain_text(f"({round} rows)")
        expect(game.get_by_role("cell", name="word statistics")).to_be_visible()
        game.get_by_role("button", name="next").click()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_it_can_be_read_in_both_themes_and_on_narrow_screens(opened, probe, theme):
    """The pictures are for eyes."""
    menu(opened, "Settings", "Theme", f"JupyterLab {theme}")
    expect(opened.locator(f"body[data-jp-theme-light='{str(theme == 'Light').lower()}']")).to_be_attached()
    assert unreadable(opened) == []
    try:
        for width in (1280, 800):
            opened.set_viewport_size({"width": width, "height": 3000})
            opened.wait_for_timeout(500)
            for name, button in (("probe", "Ask"), ("curves", "Probe npo"), ("game", "⊘ It will refuse")):
                shown = output(opened, button)
                shown.screenshot(path=screenshots() / f"{name}_{width}_{theme.lower()}.png")
                right = shown.evaluate(
                    "e => Math.max(...[...e.querySelectorAll('*')].map(c => c.getBoundingClientRect().right))"
                )
                assert right <= shown.bounding_box()["x"] + shown.bounding_box()["width"] + 1, (
                    f"{name} is cut off at {width} pixels"
                )
    finally:
        opened.set_viewport_size({"width": 1280, "height": 3000})
        menu(opened, "Settings", "Theme", "JupyterLab Light")


def test_it_works_after_a_restart(opened, probe):
    menu(opened, "Kernel", "Restart Kernel and Run All Cells…")
    opened.get_by_role("button", name="Confirm Kernel Restart").click()
    answered(probe, 2)  # the first question of a new history
    ask(probe, "What")
    assert rows(probe) == 4
