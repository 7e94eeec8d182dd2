"""Readers: every valid record comes back exactly as it was built, and every other one is counted and named."""

import contextlib
import json
import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import strategies as st

from tests.fuzz.cases import assert_found, assert_one_sentence, cases, right_or_one_sentence
from workbench.data.readers import SAFE_PICTURE, TEXT_ONLY, read_examples
from workbench.data.usable import with_pictures
from workbench.errors import UserError
from workbench.runs import log

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NONE = "None"  # the picture of queries of text alone
TEXT = WORDS.map(lambda text: f"W{text}?").filter(lambda text: "<image>" not in text)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NO_TEXT = st.sampled_from(
    [None, "", " \n\u2003", "a\ud83d", 3, 2.5, True, [], ["a"], {"a": "b"}, float("nan"), 10**400]
)
NO_OPTIONAL_TEXT = st.sampled_from(["a\ude00", 0, 2.5, False, [], ["a"], {}, float("inf")])
NO_FLAG = st.sampled_from([None, 0, 1, "true", "", [], [True], {}, 0.5])
NO_LIST = st.sampled_from([None, [], {}, "list", 3, True, [3], ["a"], [None]])
NO_ID = st.sampled_from([True, False, [], [1], {}, "a\ud800", float("nan"), float("-inf")])
NO_PICTURE = NO_TEXT | st.sampled_from(["a\0.png", "../a.png", "/etc/passwd", "b/../../a.png", "..", "loop/a.png"])
NO_RECORD = st.sampled_from([None, 3, "{", "text", [], [["instr-resp"]], True, float("nan"), {}])
PICTURES = st.sampled_from(
    ["a.png", "no.png", "b/c.png", "a" * 5000, "ä\u0308.png", "a b.png", ".", "\u202ea.png", "-"]
)
NAMES = st.sampled_from(["7", "a", 7, 0, -1, 1.5, 10**40, "x" * 3000, "a\nb", "\u200b", "7#2"]) | TEXT
FORMATS = ("data.jsonl", "vlguard.json", "llava.json")


class Known(NamedTuple):
    """An example as it was built: what a reader must give back."""

    id: str
    picture: str
    query: str
    harmful: bool
    response: str
    leak: str
    request: str


class Record(NamedTuple):
    """What is written, and the examples in it; None if it is invalid. name: what messages call it."""

    content: object
    examples: list[Known] | None
    name: str = ""


@st.composite
def queries(draw):
    """A query as it is written, and as it must be read: without the marker of the picture's place."""
    query = draw(TEXT)
    written = draw(st.sampled_from([query, f"<image>\n{query}", f"{query} <image>", f"<image>{query}<image>"]))
    return written, query if written == query else query.strip()


@st.composite
def jsonl_records(draw, number):
    (written, query), harmful, picture = draw(queries()), draw(st.booleans()), draw(PICTURES | st.none())
    content = {"query": written, "harmful": harmful}
    content |= {} if picture is None and draw(st.booleans()) else {"image": picture}
    name = draw(NAMES | st.none())
    content |= {} if name is None and draw(st.booleans()) else {"id": name}
    optional = {field: draw(TEXT | st.none()) for field in ("response", "harmful_response", "request")}
    content |= optional
    said = optional | {"request": optional["request"] or (TEXT_ONLY if picture is None else "")}
    name = str(number) if name is None else str(name)
    known = Known(name, str(picture), query, harmful, *(value or "" for value in said.values()))
    damages = {
        "image": NO_PICTURE.filter(lambda name: name is not None),
        "query": NO_TEXT,
        "harmful": NO_FLAG,
        "id": NO_ID,
    }
    damages |= dict.fromkeys(optional, NO_OPTIONAL_TEXT)
    return Record(*draw(damaged(content, [known], damages, ("query", "harmful"))), f"Line {number} ")


@st.composite
def vlguard_records(draw, number):
    name, picture, safe, category = draw(NAMES), draw(PICTURES), draw(st.booleans()), draw(TEXT)
    fields = draw(st.lists(st.sampled_from(["safe", "unsafe", ""]), min_size=1, max_size=3, unique=True))
    entries, known = [], []
    for kind in fields:
        field, (written, query), answer, leak = (
            f"{kind}_instruction".strip("_"),
            draw(queries()),
            draw(TEXT),
            draw(TEXT),
        )
        entries.append({field: written, "response": answer, "harmful_response": leak, "request": None})
        whole = str(name) if len(fields) == 1 else f"{name}-{kind or 'instruction'}"
        harmful = kind == "unsafe" or (not kind and not safe)
        request = SAFE_PICTURE if kind == "unsafe" else category
        known.append(Known(whole, picture, query, harmful, answer, leak, request))
    content = {"id": name, "image": picture, "safe": safe, "harmful_category": category, "instr-resp": entries}
    damages = {"image": NO_PICTURE, "safe": NO_FLAG, "instr-resp": NO_LIST, "id": NO_ID}
    content, known = draw(damaged(content, known, damages, ("image", "safe", "instr-resp")))
    if known and draw(st.integers(0, 5)) == 0:
        entry = content["instr-resp"][-1]
        field = next(field for field in entry if field.endswith("instruction"))
        entry[field], known = draw(NO_TEXT), None
    return Record(content, known, _record_name(content, number))


@st.composite
def llava_records(draw, number):
    name, picture, (written, query) = draw(NAMES), draw(PICTURES), draw(queries())
    answer = draw(st.sampled_from(["", " ", "\n"])) + draw(TEXT) + draw(st.sampled_from(["", " \n"]))
    turns = [{"from": "human", "value": written}, {"from": "gpt", "value": answer}]
    before = draw(
        st.sampled_from([[], [{"from": "system", "value": "Be brief."}], [{"from": "gpt", "value": "Hello."}]])
    )
    after = draw(st.sampled_from([[], turns[::-1], [{"from": "human", "value": ""}]]))
    image = draw(st.sampled_from([picture, [picture], [picture, "other.png"], None, ""]))
    content = {"id": name, "image": image, "conversations": before + turns + after}
    known = [Known(str(name), picture, query, False, answer.strip(), "", "")] if image in (picture, [picture]) else []
    if not known:  # about no picture, or several: left out, whatever else it says
        return Record(content, known)
    damages = {"image": NO_PICTURE.filter(lambda name: name not in (None, "", [], ["a"])), "id": NO_ID}
    damages |= {"conversations": NO_LIST | st.just(turns[::-1]) | st.just([{"from": "human", "value": 3}, turns[1]])}
    content, known = draw(damaged(content, known, damages, ("conversations",)))
    return Record(content, known, _record_name(content, number))


def _record_name(content, number):
    name = content.get("id") if isinstance(content, dict) else None
    name = str(number if name is None else name)
    return f"Record {name!r} " if len(name) <= 100 else "Record "


@st.composite
def damaged(draw, content, known, damages, needed):
    """A record and its examples: as it is, with fields that mean nothing, or invalid in a way that is known."""
    how = draw(st.sampled_from(["whole"] * 4 + ["odd", "odd", "dropped", "replaced", "replaced", "no record"]))
    if how == "odd":
        content = content | {
            f"x{name}": value for name, value in draw(st.dictionaries(WORDS, JSON, max_size=2)).items()
        }
    if how == "dropped":
        dropped = draw(st.sampled_from(needed))
        content, known = {name: value for name, value in content.items() if name != dropped}, None
    if how == "replaced":
        name = draw(st.sampled_from(sorted(damages)))
        content, known = content | {name: draw(damages[name])}, None
    if how == "no record":
        content, known = draw(NO_RECORD), None
    return content, known


@st.composite
def files(draw):
    """A file's name, its records, and its bytes."""
    kind, count = draw(st.sampled_from(FORMATS)), draw(st.integers(1, 6))
    of = {"data.jsonl": jsonl_records, "vlguard.json": vlguard_records, "llava.json": llava_records}[kind]
    if kind != "data.jsonl":
        return kind, (records := [draw(of(number)) for number in range(count)]), as_bytes(draw, kind, records)
    lines = draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))  # blank lines between records
    numbers = [sum(lines[: place + 1]) for place in range(count)]
    records = [draw(of(number)) for number in numbers]
    return kind, records, as_bytes(draw, kind, records, lines)


def as_bytes(draw, kind, records, lines=()):
    ascii_only, bom = draw(st.booleans()), draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    texts = [json.dumps(record.content, ensure_ascii=True) for record in records]
    if not ascii_only and not any("\\ud" in text for text in texts):
        texts = [json.dumps(record.content, ensure_ascii=False) for record in records]
    if kind == "data.jsonl":
        end = draw(st.sampled_from(["\n", "\r\n", " \n"]))
        text = "".join(end * before + each for before, each in zip([lines[0] - 1, *lines[1:]], texts, strict=True))
    else:
        text = "[" + draw(st.sampled_from([",", ", ", "\n,\n"])).join(texts) + "]\n"
    return bom + text.encode()


def read_right(read, case):
    """The property: reads what was built, counts the rest and names the first of it."""
    kind, records, content = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / kind).write_bytes(content)
        (folder / "loop").symlink_to("loop")
        valid = [example for record in records for example in record.examples or ()]
        invalid = [record for record in records if record.examples is None]
        assert_read(read, folder / kind, _distinct(valid) if kind != "data.jsonl" else valid, len(invalid))
        if invalid:
            with pytest.raises(UserError) as refused:
                read(folder / kind)
            assert_one_sentence(str(refused.value).replace("\n", ""))
            assert invalid[0].name in str(refused.value)


def assert_read(read, file, valid, invalid):
    """Whatever can be read comes back as it was built, and the log says how many records cannot."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda line: said.append(line.getMessage())
    log.addHandler(handler)
    try:
        examples = read(file, on_invalid="skip")
    except UserError as error:
        assert not valid and (invalid or kind_is_empty(error)), error
        return
    finally:
        log.removeHandler(handler)
    as_known = [Known(e.id, str(e.image), e.query, e.harmful, e.response, e.leak, e.request) for e in examples]
    pictures = {each.picture: str(file.parent / each.picture) for each in valid} | {NONE: NONE}
    assert as_known == [each._replace(picture=pictures[each.picture]) for each in valid]
    counted = [line for line in said if "cannot be used and are left out" in line]
    assert bool(counted) == bool(invalid) and (not invalid or counted[0].startswith(f"{invalid} of ")), said


def kind_is_empty(error):
    """A file of conversations of which none is about one picture holds no records."""
    return "holds no records" in str(error)


def _distinct(examples):
    """Different queries under one id are numbered from the second on."""
    queries, distinct = {}, []
    for example in examples:
        known = queries.setdefault(example.id, [])
        if example.query not in known:
            known.append(example.query)
        number = known.index(example.query) + 1
        distinct.append(example if number == 1 else example._replace(id=f"{example.id}#{number}"))
    return distinct


@cases(files(), share=1.5)
def test_valid_records_are_read_as_built_and_others_are_counted_and_named(case):
    read_right(read_examples, case)


PLANTED = {
    "drops the last record": lambda file, **options: read_examples(file, **options)[:-1],
    "turns the flag of an odd one": lambda file, **options: [
        e if i != 1 else type(e)(e.id, e.image, e.query, not e.harmful, e.response, e.leak, e.request)
        for i, e in enumerate(read_examples(file, **options))
    ],
    "changes the order": lambda file, **options: sorted(read_examples(file, **options), key=lambda e: e.query),
    "strips answers": lambda file, **options: [
        type(e)(e.id, e.image, e.query, e.harmful, e.response.rstrip("?"), e.leak, e.request)
        for e in read_examples(file, **options)
    ],
    "leaves invalid records out without a word": lambda file, **options: read_examples(file, on_invalid="skip"),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_an_error_planted_in_a_reader_is_found(planted):
    assert_found(partial(read_right, planted), files())


DEEP = 100_000
SNIPPETS = [
    b"[" * DEEP,
    b'{"a":' * DEEP,
    b"9" * 5000,
    b'"harmful": true, "harmful": false,',
    b"\0",
    b"\xff\xfe",
    b"NaN,",
    b"\\ud800",
]


@st.composite
def broken_files(draw):
    """A file as before, with bytes cut off, changed or put in; or any bytes at all."""
    kind, records, content = draw(files())
    place = draw(st.integers(0, len(content)))
    how = draw(st.sampled_from(["cut", "changed", "put in", "other encoding", "any bytes"]))
    if how == "cut":
        content = content[:place]
    elif how == "changed":
        content = content[:place] + draw(st.binary(min_size=1, max_size=3)) + content[place + 1 :]
    elif how == "put in":
        content = content[:place] + draw(st.sampled_from(SNIPPETS)) + content[place:]
    elif how == "other encoding":
        content = content.decode().encode(draw(st.sampled_from(["utf-16", "utf-32", "utf-7"])))
    else:
        content = draw(st.binary(max_size=200))
    return how, kind, records, content


def survives(read, case):
    """The property: a sentence, or examples; of a file that was cut only those that were whole."""
    how, kind, records, content = case
    with tempfile.TemporaryDirectory() as name, right_or_one_sentence():
        file = Path(name).resolve() / kind
        file.write_bytes(content)
        examples = read(file, on_invalid="skip")
        if how == "cut":
            built = [(each.query, each.harmful) for record in records for each in record.examples or ()]
            assert [(e.query, e.harmful) for e in examples] == built[: len(examples)]
            assert kind == "data.jsonl" or len(examples) == len(built)  # a list without its end is refused
        with_pictures(examples, skip_missing=True)


@cases(broken_files(), share=1.5)
def test_a_broken_file_is_a_sentence_or_examples(case):
    survives(read_examples, case)


def test_an_error_planted_for_broken_files_is_found():
    def closes_the_list(file, **options):
        text = file.read_bytes()
        for place in reversed([place for place, byte in enumerate(text) if byte == ord("}")]):
            with contextlib.suppress(ValueError, RecursionError):
                json.loads(text[: place + 1] + b"]")
                file.write_bytes(text[: place + 1] + b"]")
                break
        return read_examples(file, **options)

    assert_found(partial(survives, closes_the_list), broken_files())
