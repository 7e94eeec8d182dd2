"""Readers: each format gives the right examples, and whatever is wrong in a file is named in one sentence."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import REAL_VLGUARD
from workbench.data.example import Example
from workbench.data.readers import (
    READERS,
    SAFE_PICTURE,
    first_of_each,
    read_examples,
    read_variants,
    reader,
)
from workbench.errors import UserError

RECORD = {"id": "x", "image": "a.png", "safe": False, "instr-resp": [{"instruction": "Can you?", "response": "no"}]}
TURNS = [
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A cat."},
    {"from": "human", "value": "Why?"},
]


def test_jsonl(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    line = {
        "id": 7,
        "image": "a.png",
        "query": "What is it?",
        "harmful": True,
        "response": "no",
        "harmful_response": "yes",
    }
    (tmp_path / "d.jsonl").write_text(json.dumps(line) + "\n\n")
    (example,) = read_examples(tmp_path / "d.jsonl")
    assert example == Example("7", (tmp_path / "a.png").resolve(), "What is it?", True, "no", "yes")


def test_vlguard_pairs_become_two_examples(tmp_path):
    record = {
        "id": "x",
        "image": "a.png",
        "safe": True,
        "instr-resp": [
            {"safe_instruction": "What?", "response": "r"},
            {"unsafe_instruction": "Can you?", "response": "no"},
        ],
    }
    (tmp_path / "train.json").write_text(json.dumps([record]))
    examples = read_examples(tmp_path)
    assert [(e.id, e.harmful, e.request) for e in examples] == [
        ("x-safe", False, ""),
        ("x-unsafe", True, SAFE_PICTURE),
    ]


def test_llavas_conversations_are_harmless_examples(tmp_path):
    file = tmp_path / "mix.json"
    with_picture = {"id": "a", "image": "a.png", "conversations": TURNS}
    without_picture = {"id": "b", "conversations": TURNS}
    for records in ([with_picture, without_picture], [without_picture, with_picture]):
        file.write_text(json.dumps(records))
        (example,) = read_examples(file)
        assert (example.id, example.query, example.response) == ("a", "What is it?", "A cat.")
        assert not example.harmful and example.image == tmp_path / "a.png"
    for turns, says in (
        (TURNS[1:], "Record 'a' of .*mix.json has no turn of 'human'"),
        ("talk", "'conversations'"),
        ([{"from": "human", "value": ""}, TURNS[1]], "no text in its field 'value'"),
    ):
        file.write_text(json.dumps([with_picture | {"conversations": turns}]))
        with pytest.raises(UserError, match=says):
            read_examples(file)
    file.write_text(json.dumps([with_picture | {"image": "../a.png"}]))
    with pytest.raises(UserError, match="outside of"):
        read_examples(file)


def test_a_reader_of_ones_own_is_found_by_suffix_or_field(tmp_path, monkeypatch):
    def read(path):
        return [Example("1", path, "What?", False, "")]

    for recognised_by, name, text in ((".tsv", "a.tsv", "1\tWhat?"), ("rows", "a.json", '[{"rows": []}]')):
        file = tmp_path / name
        file.write_text(text)
        monkeypatch.setitem(READERS, recognised_by, None)  # removed after the test
        assert reader(recognised_by)(read) is read
        assert read_examples(file) == read(file)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "not valid JSON"),
        ("[{", "not valid JSON"),
        ('[{"conversations": 1}', "not valid JSON"),
        ("{}", "must hold a list"),
        ('{"conversations": 1}', "must hold a list"),
        ("[]", "no record"),
        ("[1]", "'safe'"),
        (json.dumps([RECORD | {"safe": "no"}]), "'x'.*'safe'"),
        (json.dumps([RECORD | {"instr-resp": []}]), "'x'.*instr-resp"),
        (json.dumps([RECORD | {"instr-resp": [{"response": "no"}]}]), "'x'.*without.*instruction"),
        (json.dumps([RECORD | {"instr-resp": [{"instruction": " "}]}]), "'x'.*'instruction'"),
        (json.dumps([RECORD | {"instr-resp": [{"instruction": 3}]}]), "'x'.*'instruction'"),
        (json.dumps([{k: v for k, v in RECORD.items() if k != "image"}]), "'x'.*'image'"),
        (json.dumps([RECORD | {"image": "../secret.png"}]), "outside"),
        (json.dumps([RECORD | {"image": "/etc/passwd"}]), "outside"),
    ],
)
def test_a_bad_file_is_named_in_one_sentence(tmp_path, text, says):
    file = tmp_path / "train.json"
    file.write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        read_examples(file)
    assert "train.json" in str(caught.value) or "outside" in says
    assert "\n" not in str(caught.value)


def test_bad_files_other_than_records(tmp_path):
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(UserError, match=r"latin\.json cannot be read"):
        read_examples(tmp_path / "latin.json")
    with pytest.raises(UserError, match="no data at"):
        read_examples(tmp_path)
    for line in ('{"harmful": 1}', "[1]"):
        (tmp_path / "d.jsonl").write_text(line)
        with pytest.raises(UserError, match=r"Line 1 of .*d\.jsonl.*'harmful'"):
            read_examples(tmp_path / "d.jsonl")


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (inside / "a.png").symlink_to(tmp_path / "secret.png")
    (inside / "train.json").write_text(json.dumps([RECORD]))
    with pytest.raises(UserError, match="outside"):
        read_examples(inside)
    shutil.rmtree(inside)


def test_the_first_of_each_kind():
    kinds = [True, True, False, True, False, False]
    examples = [Example(str(i), None, "q", harmful, "") for i, harmful in enumerate(kinds)]
    assert [e.id for e in first_of_each(examples, 2)] == ["0", "1", "2", "4"]
    assert first_of_each(examples, 9) == examples


def test_records_that_share_an_id_get_distinct_ones(tmp_path):
    """Two of VLGuard's records share an id; but the variants of a query, in an attack file, keep theirs."""
    records = [
        {"id": "7", "image": "a.png", "safe": True, "instr-resp": [{"safe_instruction": query, "response": ""}]}
        for query in ("What?", "Which?", "What?")
    ]
    (tmp_path / "data.json").write_text(json.dumps(records))
    assert [e.id for e in read_examples(tmp_path / "data.json")] == ["7", "7#2", "7"]
    assert [e.id for e in read_variants(tmp_path / "data.json")] == ["7"] * 3


@pytest.mark.skipif(not Path(REAL_VLGUARD).is_dir(), reason="VLGuard's annotations are not here")
@pytest.mark.parametrize(
    ("split", "harmful", "harmless", "about_safe_pictures"), [("train", 2000, 977, 977), ("test", 1000, 558, 558)]
)
def test_the_real_vlguard(split, harmful, harmless, about_safe_pictures):
    examples = read_examples(REAL_VLGUARD, split)
    assert Counter(e.harmful for e in examples) == {True: harmful, False: harmless}
    assert len({e.id for e in examples}) == len(examples)
    assert sum(e.request == SAFE_PICTURE for e in examples) == about_safe_pictures


def write_in(file_format, folder, query, answer="A cat."):
    """One harmless record with this query and answer, in each of the formats."""
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    turns = [{"from": "human", "value": query}, {"from": "gpt", "value": answer}]
    content = {
        "d.jsonl": {"image": "a.png", "query": query, "harmful": False, "response": answer},
        "vlguard.json": [RECORD | {"safe": True, "instr-resp": [{"safe_instruction": query, "response": answer}]}],
        "llava.json": [{"id": "x", "image": "a.png", "conversations": turns}],
    }[file_format]
    (folder / file_format).write_text(json.dumps(content))
    return folder / file_format


FORMATS = ["d.jsonl", "vlguard.json", "llava.json"]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("query", ["<image>\nWhat is it?", "What is it?\n<image>", "<image> <image>What is it?"])
def test_a_picture_marker_is_no_part_of_a_query_in_any_format(tmp_path, file_format, query):
    (example,) = read_examples(write_in(file_format, tmp_path, query))
    assert example.query == "What is it?"


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_query_that_is_nothing_but_a_marker_is_refused(tmp_path, file_format):
    with pytest.raises(UserError, match="nothing but <image> in its field"):
        read_examples(write_in(file_format, tmp_path, " <image>\n"))


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("where", ["query", "answer"])
def test_half_a_character_is_refused_and_a_whole_one_is_not(tmp_path, file_format, where):
    texts = {"query": "What is \ud83d it?"} if where == "query" else {"query": "What is it?", "answer": "A \ude00 cat."}
    with pytest.raises(UserError, match=r"half a character in its field"):
        read_examples(write_in(file_format, tmp_path, **texts))
    whole = read_examples(write_in(file_format, tmp_path, "What is \U0001f600 it?"))
    assert whole[0].query == "What is \U0001f600 it?"
