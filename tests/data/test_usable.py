"""Invalid records and missing pictures: refused or left out, counted and named, in every format."""

import json

import pytest
from PIL import Image

from workbench.data.example import Example
from workbench.data.readers import read_examples
from workbench.data.splits import miniguard_split
from workbench.data.usable import Invalid, valid, with_pictures
from workbench.errors import UserError

ENTRY = {"response": "No.", "instruction": "Can you?"}


def record(file_format, number, right=True):
    """A record in one of the formats; wrong ones lack the query."""
    name, query = str(number), "What is it?" if right else ""
    turns = [{"from": "human", "value": query}, {"from": "gpt", "value": "A cat."}]
    return {
        "d.jsonl": {"id": name, "image": "a.png", "query": query, "harmful": False},
        "vlguard.json": {"id": name, "image": "a.png", "safe": True, "instr-resp": [{"safe_instruction": query}]},
        "llava.json": {"id": name, "image": "a.png", "conversations": turns},
    }[file_format]


def written(folder, file_format, count, wrong):
    """A file of that many records, of which those are wrong."""
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    records = [record(file_format, number, number not in wrong) for number in range(count)]
    lines = file_format.endswith(".jsonl")
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
    (folder / file_format).write_text(text)
    return folder / file_format


FORMATS = ["d.jsonl", "vlguard.json", "llava.json"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_invalid_records_stop_a_run_or_are_left_out_and_named(tmp_path, caplog, file_format):
    file = written(tmp_path, file_format, 9, wrong={1, 3, 4, 5, 6, 7})
    with pytest.raises(
        UserError, match=r"^6 of 9 records of .* cannot be used: .*left out with --skip-invalid\.$"
    ) as said:
        read_examples(file)
    assert str(said.value).count("has no text in its field") == 5
    examples = read_examples(file, on_invalid="skip")
    assert [e.id for e in examples] == ["0", "2", "8"]
    assert "6 of 9 records" in caplog.text and "are left out" in caplog.text


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(("count", "wrong", "admitted"), [(4, 1, True), (4, 2, False), (300, 3, True), (300, 4, False)])
def test_of_general_data_one_record_or_one_in_a_hundred_may_be_invalid(tmp_path, file_format, count, wrong, admitted):
    file = written(tmp_path, file_format, count, wrong=set(range(wrong)))
    if admitted:
        assert len(read_examples(file, on_invalid="few")) == count - wrong
        return
    with pytest.raises(
        UserError, match=f"^{wrong} of {count} records .* at most {max(1, count // 100)} may be left out"
    ):
        read_examples(file, on_invalid="few")


@pytest.mark.parametrize("on_invalid", ["refuse", "skip", "few"])
def test_a_file_without_any_valid_record_is_refused(tmp_path, on_invalid):
    with pytest.raises(UserError, match=r"^2 of 2 records"):
        read_examples(written(tmp_path, "d.jsonl", 2, wrong={0, 1}), on_invalid=on_invalid)
    with pytest.raises(UserError, match=r"^Line 1 of"):
        read_examples(written(tmp_path, "d.jsonl", 1, wrong={0}), on_invalid=on_invalid)


def test_only_errors_of_records_are_caught():
    """A picture outside of the folder is such an error; a programming mistake is none."""
    example = Example("1", None, "What?", False, "")
    assert valid([Invalid("0", UserError("Record 0 is bad.")), example], "d", "skip") == [example]
    assert valid([example], "d") == [example]


def test_missing_pictures_are_counted_and_can_be_left_out(tmp_path):
    records = [record("vlguard.json", i) | {"image": f"{i}.png"} for i in range(9)]
    (tmp_path / "train.json").write_text(json.dumps(records))
    Image.new("RGB", (4, 4)).save(tmp_path / "3.png")
    examples = read_examples(tmp_path)
    with pytest.raises(
        UserError, match=r"8 pictures are missing: .*0\.png, .*1\.png, .*2\.png, .*4\.png, .*5\.png and 3 more;"
    ):
        with_pictures(examples)
    assert [e.id for e in with_pictures(examples, skip_missing=True)] == ["3"]
    with pytest.raises(UserError, match="1 picture is missing"):  # nothing would be left
        with_pictures(examples[:1], skip_missing=True)
    assert with_pictures(miniguard_split("test", sizes=(2, 2)))[3].id == "test_00003"  # drawn ones need no file
