"""The live probe without a browser: what is asked, shown, stopped and remembered; text is never rendered."""

import base64
import dataclasses
import datetime
import html.parser
import io
import shutil
import threading

import pandas as pd
import pytest
from PIL import Image
from traitlets.utils.bunch import Bunch

import workbench as wb
from workbench.attacks.one_word import rewrites
from workbench.files import data_dir
from workbench.models import vlm as vlm_module
from workbench.models.load import load
from workbench.models.vlm import answer_streamed
from workbench.widgets.html import picture_html


@pytest.fixture
def probe(vlm, few):
    return wb.LiveProbe({"one": vlm, "two": vlm}, few)


def ask(probe, button="ask"):
    getattr(probe, button).click()
    probe.wait()


def test_it_answers_as_the_model_does(probe, vlm, few):
    ask(probe)
    assert list(probe.history.model) == ["one", "two"] and probe.message.value == "" and probe.stop.disabled
    expected = vlm.answer(few[0].picture(), few[0].query)
    assert (probe.history.answer == expected).all() and expected in probe.cards["one"].value
    assert (probe.history.outcome == ("leak" if few[0].harmful else "right answer")).all()
    assert "log-odds of a refusal" in probe.cards["two"].value


def test_lead_words_and_shots(probe, few):
    """A lead word asks at once."""
    probe.shots.value, probe.lead.value = 2, "share"
    probe.wait()
    assert list(probe.history["query"][:2]) == rewrites(few[0].query, "share:2")
    probe.lead.value, probe.shots.value = "other", 1
    probe.wait()
    assert set(probe.history.lead) == {"share:2"}  # there is no other word yet
    probe.word.value = "Explain"
    probe.wait()
    assert probe.history["query"].iloc[-1].startswith("Explain") and list(dict.fromkeys(probe.history.lead)) == [
        "share:2",
        "Explain:1",
    ]


def test_enter_asks(probe):
    probe.query._handle_custom_msg({"event": "submit"}, [])  # as the browser sends it
    probe.wait()
    assert len(probe.history) == 2
    probe.query._handle_custom_msg({"event": "submit"}, [])
    probe.query.value = "What is it?"  # a browser may send the last of what was typed after Enter
    probe.wait()
    assert set(probe.history["query"].tail(2)) == {"What is it?"}
    probe.query._handle_custom_msg({"event": "submit"}, [])
    probe.next.click()  # the next picture's query is not one that was typed
    probe.wait()
    assert set(probe.history["query"].tail(2)) == {"What is it?"}


def test_the_next_picture_brings_its_query(probe, few):
    before = probe.picture.value
    probe.next.click()
    assert probe.query.value == few[1].query and probe.picture.value != before
    probe.previous.click()
    probe.previous.click()
    assert probe.place.value == len(few)


def test_thumbnails_pick_a_picture_and_follow(probe, few):
    probe.thumbnails.place = 3
    assert probe.place.value == 4 and probe.query.value == few[3].query
    probe.next.click()
    assert probe.thumbnails.place == 4
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    upload(probe, "mine.png", buffer.getvalue())
    assert probe.thumbnails.place == -1 and "your own picture" in probe.picture.value
    probe.thumbnails.place = 4  # back to the one that was left
    assert "picture 5 of" in probe.picture.value


def test_answers_are_written_piece_by_piece_and_can_be_stopped(vlm, few):
    pieces = []
    whole = answer_streamed(vlm, few[0].picture(), few[0].query, pieces.append, lambda: False)
    assert len(pieces) > 2 and "".join(pieces).strip() == whole == vlm.answer(few[0].picture(), few[0].query)
    short = answer_streamed(vlm, few[0].picture(), few[0].query, lambda piece: None, lambda: True)
    assert len(short.split()) <= 1


@pytest.fixture
def held(vlm):
    """The model waits at its first word: (event: it is there, event: let it continue)."""
    reached, proceed = threading.Event(), threading.Event()
    hook = vlm.model.register_forward_hook(lambda *args: (reached.set(), proceed.wait(20))[0])
    yield reached, proceed
    proceed.set()
    hook.remove()


def test_a_person_may_turn_to_the_next_picture_meanwhile(probe, few, held):
    """The history holds what was asked, and the cards show the picture that it was asked about."""
    reached, proceed = held
    probe.ask.click()
    assert reached.wait(20)
    probe.next.click()
    proceed.set()
    probe.wait()
    assert picture_html(few[0].picture(), "about", 32) in probe.cards["one"].value
    assert set(probe.history.picture) == {few[0].id} and set(probe.history["query"]) == {few[0].query}
    assert (probe.history.outcome == ("leak" if few[0].harmful else "right answer")).all()


def test_a_second_click_takes_the_place_of_the_first(probe, few, held):
    reached, proceed = held
    probe.ask.click()
    assert reached.wait(20)
    for _ in range(5):
        probe.ask.click()
    probe.next.click()
    probe.ask.click()
    proceed.set()
    probe.wait()
    assert probe.stop.disabled and probe.message.value == ""
    assert list(probe.history["query"]) == [few[1].query] * 2


def test_a_mistake_while_an_answer_is_written_is_not_lost(probe, held):
    reached, proceed = held
    probe.ask.click()
    assert reached.wait(20)
    probe.query.value = ""
    probe.ask.click()
    proceed.set()
    probe.wait()
    assert "There is no query" in probe.message.value and probe.stop.disabled and len(probe.history) == 0


def test_stop_leaves_nothing_half_kept(probe, held):
    reached, proceed = held
    probe.ask.click()
    assert reached.wait(20) and not probe.stop.disabled
    probe.stop.click()
    proceed.set()
    probe.wait()
    assert len(probe.history) == 0 and ">stopped<" in probe.message.value and probe.stop.disabled
    assert "▌" not in probe.cards["one"].value


def test_sweep_and_why_draw_and_tell(probe):
    ask(probe, "sweep")
    assert "Log-odds of a refusal by lead word. one: none" in probe.figure.value and "share" in probe.figure.value
    ask(probe, "why")
    assert "Attribution in nats" in probe.figure.value


def test_history_notes_export_and_code(probe, vlm, few):
    ask(probe)
    probe.note.value = "<i>odd</i>"
    assert set(probe.history.note) == {"<i>odd</i>"} and "<i>odd" not in probe.table.value
    ask(probe)
    probe.note.value = "again"
    assert list(probe.history.note) == ["<i>odd</i>"] * 2 + ["again"] * 2
    data = probe.export.value.partition("base64,")[2].partition('"')[0]
    exported = pd.read_csv(io.BytesIO(base64.b64decode(data)))
    assert list(exported.answer) == list(probe.history.answer)
    printed = []
    exec(probe.code.value, {"models": {"one": vlm}, "examples": few, "print": lambda *a: printed.append(a)})
    assert printed == [("one", probe.history["query"][0], probe.history.answer[0])]


def test_a_note_can_be_taken_back_and_is_not_for_what_comes(probe):
    ask(probe)
    probe.note.value = "odd"
    ask(probe)
    assert list(probe.history.note) == ["odd", "odd", "", ""] and probe.note.value == ""
    probe.note.value = "again"
    probe.note.value = ""
    assert list(probe.history.note) == ["odd", "odd", "", ""]


def test_answers_of_another_world_are_judged_by_words(vlm, few, monkeypatch):
    """If the right answer is not a sentence of MiniGuard's, the model's need not follow its grammar."""
    real = dataclasses.replace(few[0], harmful=False, response="The picture shows a dog.", query="What  is it?")
    for answer, outcome in (("I’m sorry, I can’t help.", "refusal"), ("It is a dog.", "answered"), ("", "degenerate")):
        monkeypatch.setattr(
            vlm_module, "answer_streamed", lambda vlm, image, query, written, stopped, answer=answer: answer
        )
        probe = wb.LiveProbe({"one": vlm}, [real])
        ask(probe)
        assert list(probe.history.outcome) == [outcome]


def test_a_truth_is_known_however_its_query_is_spaced(vlm, few):
    spaced = dataclasses.replace(few[0], query=f" {few[0].query.replace(' ', '  ')}")
    probe = wb.LiveProbe({"one": vlm}, [spaced])
    ask(probe)
    assert list(probe.history.outcome) == ["leak" if few[0].harmful else "right answer"]


def test_a_word_is_no_question_while_another_lead_is_chosen(probe):
    probe.word.value = "sing"
    probe.wait()
    assert len(probe.history) == 0


def test_names_of_models_are_no_formulas(vlm, few):
    probe = wb.LiveProbe({"$\\frac$": vlm, "_x": vlm}, few)
    for button in ("sweep", "why"):
        ask(probe, button)
        assert probe.message.value == "" and "<img" in probe.figure.value


def test_code_is_a_cell_of_its_own_where_the_examples_are_miniguards(vlm):
    probe = wb.LiveProbe({"one": vlm})
    ask(probe)
    printed = []
    exec(probe.code.value, {"models": {"one": vlm}, "print": lambda *a: printed.append(a)})
    assert printed == [("one", probe.history["query"][0], probe.history.answer[0])]


class Rendered(html.parser.HTMLParser):
    """HTML as a browser reads it: its elements, their attributes, and its text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        if tag == "img" and dict(attrs)["src"].startswith("data:image/png;base64,"):
            return  # the picture that was asked about
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "**bold** $x$ [a](javascript:alert(1))",
    "مرحبا 👋 <b>",
]


@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_shown_and_not_rendered(vlm, few, text):
    probe = wb.LiveProbe({text: vlm}, few)
    probe.query.value = text
    ask(probe)
    probe.lead.value, probe.word.value = "other", text
    ask(probe)
    for shown, where in (
        (probe.cards[text].value, text),
        (probe.table.value, text),
        (probe.message.value, repr(text)[1:-1]),
    ):
        rendered = Rendered(shown)
        assert not rendered.tags & {"script", "img", "a", "i"} and not {
            n for n in rendered.attributes if n.startswith("on")
        }
        assert where in rendered.text


def test_what_a_model_says_is_not_rendered(vlm, few, monkeypatch):
    monkeypatch.setattr(
        vlm_module, "answer_streamed", lambda vlm, image, query, written, stopped: written("<script>") or "<script>x"
    )
    probe = wb.LiveProbe({"one": vlm}, few)
    ask(probe)
    assert (
        "&lt;script&gt;x" in probe.cards["one"].value and "<script" not in probe.cards["one"].value + probe.table.value
    )


@pytest.mark.parametrize(
    "query, word, says",
    [
        ("   ", "", "There is no query"),
        ("a" * 10_000, "", "10000 characters"),
        ("What?", "<b>", "no usable lead word"),
        ("What?", "", "lead word"),
    ],
)
def test_a_mistake_is_one_sentence(probe, query, word, says):
    probe.query.value = query
    if says.endswith("lead word"):
        probe.lead.value, probe.word.value = "other", word
    ask(probe)
    assert says in probe.message.value and "role='alert'" in probe.message.value and not len(probe.history)
    probe.query.value, probe.lead.value = "What is it?", "none"
    ask(probe)
    assert len(probe.history) == 2 and probe.message.value == ""


def upload(probe, name, content):
    """Upload a file, as ipywidgets does."""
    when = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    probe.upload.value = (
        Bunch(name=name, type="image/png", size=len(content), content=memoryview(content), last_modified=when),
    )


def test_a_picture_of_ones_own(probe):
    buffer = io.BytesIO()
    Image.new("RGBA", (90, 60), "red").save(buffer, "PNG")
    upload(probe, "mine.png", buffer.getvalue())
    assert "your own picture" in probe.picture.value
    ask(probe)
    assert set(probe.history.picture) == {"own"} and set(probe.history.outcome) <= {"answered", "refusal", "degenerate"}
    probe.next.click()
    upload(probe, "mine.png", buffer.getvalue())  # the same again
    assert "your own picture" in probe.picture.value


def test_what_is_no_picture_is_refused_by_name(probe):
    before = probe.picture.value
    upload(probe, "<i>notes</i>.png", b"no picture")
    assert "&lt;i&gt;notes&lt;/i&gt;.png cannot be read" in probe.message.value and probe.picture.value == before
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    upload(probe, "huge.png", buffer.getvalue())
    assert "huge.png has 10000 × 10000 pixels" in probe.message.value


def test_other_models_can_be_compared(probe, vlm):
    ask(probe)
    probe.compare({"three": vlm})
    ask(probe)
    assert list(probe.history.model) == ["one", "two", "three"] and probe.replies.children == (probe.cards["three"],)


def test_a_model_may_be_deleted_from_disk_meanwhile(tmp_path, few):
    folder = tmp_path / "base"
    shutil.copytree(data_dir() / "bases" / "miniguard", folder)
    probe = wb.LiveProbe({"one": load(folder)}, few)
    shutil.rmtree(folder)
    ask(probe)
    assert len(probe.history) == 1 and probe.message.value == ""


def test_a_picture_may_be_deleted_meanwhile(tmp_path, vlm, few):
    few[0].picture().save(tmp_path / "a.png")
    few[1].picture().save(tmp_path / "b.png")
    examples = [dataclasses.replace(e, image=tmp_path / f"{n}.png") for e, n in zip(few[:2], "ab", strict=True)]
    probe = wb.LiveProbe({"one": vlm}, examples)
    (tmp_path / "a.png").unlink()
    ask(probe)
    assert "a.png" in probe.message.value and len(probe.history) == 0
    probe.next.click()
    ask(probe)
    assert len(probe.history) == 1


def test_where_widgets_cannot_be_shown_what_was_asked_is(probe, vlm, few):
    ask(probe)
    bundle = probe._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert vlm.answer(few[0].picture(), few[0].query) in bundle["text/html"] and "<img" in bundle["text/html"]


def test_without_a_model_or_an_example_it_says_so(vlm):
    with pytest.raises(wb.UserError, match="needs a model"):
        wb.LiveProbe({})
    with pytest.raises(wb.UserError, match="needs examples"):
        wb.LiveProbe({"one": vlm}, [])
