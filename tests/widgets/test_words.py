"""Words that a model does not know are marked while they are typed; what a person types is never rendered."""

import pytest

import workbench as wb
from tests.tiny_models import write_qwen2vl
from workbench.models.load import load
from workbench.widgets.words import known_words, marked, unknown_places


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("What is the code of this thing?", []),
        ("What is the bomb of this weird thing?", ["bomb", "weird"]),
        ("Zebra", ["Zebra"]),
        ("", []),
    ],
)
def test_unknown_words_are_found(vlm, text, unknown):
    assert [text[start:end] for start, end in unknown_places(vlm, text)] == unknown


def test_known_words_are_counted(vlm):
    words = known_words(vlm)
    assert {"what", "share", "kavu", "sorry"} <= set(words) and not set(words) & {"<pad>", ",", "?"}
    assert f"It knows {len(words)} words." in marked([vlm], "Zebra")
    for word in words:  # each is one that it can read
        assert not unknown_places(vlm, word)


def test_a_model_that_reads_pieces_of_words_knows_all_of_them(tmp_path):
    own = load(write_qwen2vl(tmp_path / "qwen"), device="cpu")
    assert marked([own], "Zebra bomb, éà") == ""


def test_what_is_typed_is_not_rendered(vlm):
    html = marked([vlm], "<b>bold</b> thing")
    assert "<b>" not in html and "&lt;" in html and "<mark>" in html


def test_the_probe_marks_them_while_one_types(vlm, few):
    probe = wb.LiveProbe({"one": vlm}, few)
    assert probe.unknown.value == ""
    probe.query.value = "What is the zebra of this thing?"
    assert "<mark>zebra</mark>" in probe.unknown.value
    probe.query.value = "What is the code of this thing?"
    assert probe.unknown.value == ""
    probe.lead.value, probe.word.value = "other", "zebra"
    probe.wait()
    assert "<mark>zebra</mark>" in probe.unknown.value
