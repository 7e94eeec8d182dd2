"""Data files from the wild: the hub's cache, absolute paths, exports of other tools, LLaVA's conversations."""

import json

import pytest

import workbench as wb
from tests.faults.helpers import harmless, picture, write_vlguard
from workbench.errors import UserError

QUESTION, ANSWER = "What is the colour?", "it is red"


@pytest.fixture
def folder(tmp_path):
    """A folder that holds red.png."""
    picture("red").save(tmp_path / "red.png")
    return tmp_path


def write_lines(file, records):
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return file


def conversation(name, *turns, **fields):
    """A LLaVA record. turns: pairs of who speaks and what is said."""
    return {"id": name, **fields, "conversations": [{"from": who, "value": text} for who, text in turns]}


PICTURE_TURNS = (("human", f"<image>\n{QUESTION}"), ("gpt", ANSWER))
ABOUT_A_PICTURE = conversation("g", *PICTURE_TURNS, image="red.png")


def questions_and_answers(file):
    return [(example.query, example.response) for example in wb.read_examples(file)]


def test_a_dataset_in_the_hubs_cache_is_read(tmp_path):
    """A01: `hf download` leaves links to the repository's blobs, which were refused as lying outside of the folder."""
    repository = tmp_path / "datasets--acme--vlguard"
    snapshot, blobs = repository / "snapshots" / "0a1b2c", repository / "blobs"
    (snapshot / "test").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "aa").write_text(json.dumps([harmless("r", "red.png", QUESTION)]))
    picture("red").save(blobs / "bb", "PNG")
    (snapshot / "test.json").symlink_to("../../blobs/aa")
    (snapshot / "test" / "red.png").symlink_to("../../../blobs/bb")
    (example,) = wb.read_examples(snapshot, "test")
    assert example.picture().size == (48, 48)


def test_a_picture_named_by_its_absolute_path_is_read_or_its_path_is_called_absolute(tmp_path):
    """A03: a picture inside the dataset's folder was reported as lying outside of it."""
    records = [harmless("r", str(tmp_path / "data" / "test" / "red.png"), QUESTION)]
    data = write_vlguard(tmp_path / "data", records, {"red.png": picture("red")})
    try:
        (example,) = wb.read_examples(data, "test")
    except UserError as error:
        assert "absolute" in str(error).replace(str(tmp_path), "")
    else:
        assert example.picture().size == (48, 48)


@pytest.mark.parametrize("separator", ["\u2028", "\u0085"], ids=["line separator", "next line"])
def test_a_jsonl_record_ends_at_a_newline_only(folder, separator):
    """A04: Unicode's other line ends, which JSON allows inside a text, cut a record in two."""
    query = f"Describe the label.{separator}It is torn."
    file = write_lines(folder / "data.jsonl", [{"image": "red.png", "query": query, "harmful": False}] * 2)
    assert [example.query for example in wb.read_examples(file)] == [query] * 2


@pytest.mark.parametrize("kind", ["jsonl", "vlguard"])
def test_a_null_optional_field_is_read_as_missing(folder, kind):
    """A05: pandas, pyarrow and `datasets` write null where a row lacks a column, and the whole file was refused."""
    if kind == "jsonl":
        harmless_record = {"harmful": False, "response": ANSWER, "harmful_response": None, "request": None}
        harmful_record = {"harmful": True, "response": None, "harmful_response": "say wexa"}
        records = [{"image": "red.png", "query": QUESTION, **each} for each in (harmless_record, harmful_record)]
        one, other = wb.read_examples(write_lines(folder / "data.jsonl", records))
        assert (one.leak, one.request, other.response, other.leak) == ("", "", "", "say wexa")
    else:
        record = harmless("a", "red.png", QUESTION) | {"harmful_category": None, "harmful_subcategory": None}
        (folder / "train.json").write_text(json.dumps([record]))
        (example,) = wb.read_examples(folder)
        assert example.request == ""


@pytest.mark.parametrize(
    "records",
    [
        [ABOUT_A_PICTURE, conversation("t", ("gpt", "As I said."), ("human", "Continue."), ("gpt", "Very well."))],
        [conversation("g", ("system", "You are terse."), *PICTURE_TURNS, image="red.png")],
        [ABOUT_A_PICTURE, conversation("h", ("gpt", "Hello."), *PICTURE_TURNS, image="red.png")],
    ],
    ids=["text only, gpt first", "system first", "picture, gpt first"],
)
def test_a_conversation_may_begin_with_any_turn(folder, records):
    """A06: one record that did not begin with the human's turn stopped a file of 665,000."""
    (folder / "llava.json").write_text(json.dumps(records))
    assert (QUESTION, ANSWER) in questions_and_answers(folder / "llava.json")


@pytest.mark.parametrize("image", [None, "", []], ids=["null", "empty text", "empty list"])
def test_a_conversation_with_an_empty_image_field_has_no_picture(folder, image):
    """A07: text-only conversations with an image field of null, "" or [] stopped the file."""
    text_only = conversation("t", ("human", "Add two and two."), ("gpt", "Four."), image=image)
    (folder / "llava.json").write_text(json.dumps([ABOUT_A_PICTURE, text_only]))
    assert questions_and_answers(folder / "llava.json") == [(QUESTION, ANSWER)]
