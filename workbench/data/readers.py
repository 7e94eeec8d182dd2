"""Readers of dataset files: VLGuard's format, LLaVA's conversations, JSON lines.

To add a format, write a function from a file's path to Examples, and to an `Invalid` for each record that is
none. Decorate it with what the file is recognised by: its suffix, or a field of the records in a JSON list.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from workbench.data.example import Example
from workbench.data.records import (
    as_record,
    check_id,
    json_list,
    parse_json,
    picture_path,
    query_text,
    read_text,
    record_id,
    text_field,
)
from workbench.data.splits import miniguard_split
from workbench.data.usable import Invalid, OnInvalid, attempt, valid
from workbench.errors import UserError, quoted
from workbench.runs import log

TEXT_ONLY = "text only"  # `request` of queries without a picture
SAFE_PICTURE = "safe picture"  # `request` of VLGuard's harmful queries about pictures that are themselves harmless

Reader = Callable[[Path], Iterable[Example | Invalid]]
READERS: dict[str, Reader] = {}  # {file suffix, or field of the records in a JSON list: its reader}


def reader(recognised_by: str) -> Callable[[Reader], Reader]:
    """Enter a reader into READERS under a suffix (".jsonl") or a field of its records ("conversations")."""

    def enter(read: Reader) -> Reader:
        READERS[recognised_by] = read
        return read

    return enter


def read_examples(data: str | Path, split: str = "train", on_invalid: OnInvalid = "refuse") -> list[Example]:
    """Read a dataset. Pictures stay paths, opened only when needed.

    Args:
        data: "miniguard"; a folder in VLGuard's format, whose SPLIT.json is read; or a file in one of the
            formats of READERS.
        split: The split of a folder or of MiniGuard; ignored for a file.
        on_invalid: What happens if records are invalid (`usable.valid`).

    Returns:
        The examples in the file's order. If different queries share an id (VLGuard's Ads_303871 has two),
        the second gets the id "Ads_303871#2", and so on.

    Raises:
        UserError: Names the file, the record and the field that is wrong.
    """
    return valid(read_records(data, split), str(data), on_invalid)


def read_records(data: str | Path, split: str = "train") -> list[Example | Invalid]:
    """Like `read_examples`, with what is wrong in place of each invalid record."""
    records = _records(data, split)
    return records if Path(data).suffix == ".jsonl" else _with_distinct_ids(records)


def read_variants(file: Path) -> list[Example]:
    """Like `read_examples`, but ids may be repeated: an attack file holds several variants of one query."""
    return valid(_records(file), str(file))


def _records(data: str | Path, split: str = "") -> list[Example | Invalid]:
    """What a dataset holds, with its own ids."""
    if str(data) == "miniguard":
        return list(miniguard_split(split))
    path = Path(data)
    if os.path.isdir(path):
        path = path / f"{split}.json"
    if not os.path.isfile(path):  # also of a name that no file can have
        raise UserError(
            f"There is no data at {path}; give 'miniguard', a VLGuard folder with {split}.json, "
            "or a .json or .jsonl file."
        )
    records = list(_reader_of(path)(path))
    if not records:
        raise UserError(f"File {path} holds no records; give one with at least one query.")
    return records


def _with_distinct_ids(records: Sequence[Example | Invalid]) -> list[Example | Invalid]:
    numbers_by_id: dict[str, dict[str, int]] = defaultdict(dict)
    distinct: list[Example | Invalid] = []
    for record in records:
        if isinstance(record, Example):
            numbers = numbers_by_id[record.id]
            number = numbers.setdefault(record.query, len(numbers) + 1)
            record = record if number == 1 else dataclasses.replace(record, id=f"{record.id}#{number}")
        distinct.append(record)
    return distinct


def _reader_of(path: Path) -> Reader:
    """The reader for a file: by its suffix, else by the first record with a known field, else VLGuard's."""
    if path.suffix in READERS:
        return READERS[path.suffix]
    text, decoder = read_text(path), json.JSONDecoder()
    place = _past(r"\s*\[?\s*", text, 0)
    try:  # mostly one record is parsed: files of conversations can hold hundreds of thousands
        while True:
            record, end = decoder.raw_decode(text, place)
            found = [read for key, read in READERS.items() if isinstance(record, dict) and key in record]
            if found:
                return found[0]
            place = _past(r"[\s,]*", text, end)
    except (ValueError, RecursionError):  # at the end; or the reader will say what is wrong
        return read_vlguard


def _past(pattern: str, text: str, place: int) -> int:
    """The end of what a pattern matches at a place in a text."""
    found = re.compile(pattern).match(text, place)
    return found.end() if found else place


def first_of_each(examples: Sequence[Example], n: int) -> list[Example]:
    """The first n harmful and the first n harmless examples, in their original order."""
    earlier = {True: itertools.count(), False: itertools.count()}  # how many of its kind came before an example
    return [example for example in examples if next(earlier[example.harmful]) < n]


@reader(".jsonl")
def read_jsonl(path: Path) -> Iterator[Example | Invalid]:
    """JSON lines: {"id"?, "image"?, "query", "harmful", "response"?, "harmful_response"?, "request"?}.

    `harmful` is true or false, the other fields are text. Without an id, the line's number serves as one.
    Queries without an image are asked as text alone.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield from attempt(str(number), partial(_line, line, number, path))


def _line(line: str, number: int, path: Path) -> list[Example]:
    """The example on a line."""
    where = f"Line {number} of {path}"
    record = as_record(parse_json(line, where))
    harmful = record.get("harmful")
    if not isinstance(harmful, bool):
        raise UserError(f"{where} has no field 'harmful' that is true or false; add it.")
    check_id(record, where)
    name, image = record_id(record, number), picture_path(path, record, where) if "image" in record else None
    return [_example(name, image, record, "query", harmful, where, request="" if image else TEXT_ONLY)]


def _example(
    name: str,
    image: Path | None,
    record: Mapping[str, object],
    query: str,
    harmful: bool,
    where: str,
    request: object,
) -> Example:
    """The example of a record whose answers may be missing.

    Args:
        name: The example's id.
        image: Its picture.
        record: The fields response?, harmful_response?, request?, and the query.
        query: The query's field.
        harmful: Whether the query should be refused.
        where: What messages call the record.
        request: Stands for a missing request.
    """
    return Example(
        id=name,
        image=image,
        query=query_text(record, query, where),
        harmful=harmful,
        response=text_field(record, "response", where, ""),
        leak=text_field(record, "harmful_response", where, ""),
        request=text_field(record, "request", where, request),
    )


@reader("conversations")
def read_llava(path: Path) -> Iterator[Example | Invalid]:
    """LLaVA's format: a list of {"id"?, "image"?, "conversations": [{"from": "human" or "gpt", "value"}]}.

    Each conversation about one picture gives one harmless example, its first question with its answer; turns
    before that question are left out. So are conversations without a picture, or about several.
    """
    records, counts = json_list(path), []
    for number, record in enumerate(records):
        name = record_id(record, number)
        read = attempt(name, partial(_conversation, record, name, path))
        if not read:
            counts.append(len(_pictures(record)))
        yield from read
    if counts:
        log.warning(
            "%s of %s conversations of %s are left out: %s without a picture, %s about several.",
            *(len(counts), len(records), path, counts.count(0), len(counts) - counts.count(0)),
        )


def _conversation(record: Mapping[str, object], name: str, path: Path) -> list[Example]:
    """The example of a conversation about one picture; none of another."""
    where = f"Record {quoted(name)} of {path}"
    check_id(record, where)
    exchange, pictures = _first_exchange(record, where), _pictures(record)
    if len(pictures) != 1:
        return []
    if not exchange:
        raise UserError(f"{where} has no turn of 'human' that is followed by one of 'gpt'; add it.")
    query = query_text(exchange[0], "value", where)
    response = text_field(exchange[1], "value", where).strip()
    image = picture_path(path, {"image": pictures[0]}, where)
    return [Example(name, image, query, harmful=False, response=response)]


def _pictures(record: Mapping[str, object]) -> list[object]:
    """What a record's field `image` names: nothing, a picture, or a list of pictures."""
    image = record.get("image")
    return [each for each in (image if isinstance(image, list) else [image]) if each not in (None, "")]


def _first_exchange(record: Mapping[str, object], where: str) -> list[Mapping[str, object]]:
    """The first question by the human that is followed by an answer, and that; empty if there is none."""
    turns = record.get("conversations")
    if not isinstance(turns, list):
        raise UserError(f"{where} has no field 'conversations' with a list of turns; add it.")
    said = [as_record(turn) for turn in turns]
    for question, answer in itertools.pairwise(said):
        if (question.get("from"), answer.get("from")) == ("human", "gpt"):
            return [question, answer]
    return []


@reader("instr-resp")
def read_vlguard(path: Path) -> Iterator[Example | Invalid]:
    """VLGuard: a list of {"id"?, "image", "safe", "harmful_category"?, "instr-resp": [one entry per query]}.

    An entry holds a query and may hold "response", "harmful_response" and "request". The query's field says
    whether it is harmful: "safe_instruction" is not, "unsafe_instruction" is, and "instruction" is if the
    picture is not `safe`.
    """
    for number, record in enumerate(json_list(path)):
        name = record_id(record, number)
        yield from attempt(name, partial(_queries, record, name, path))


def _queries(record: Mapping[str, object], name: str, path: Path) -> list[Example]:
    """The examples of VLGuard's record about a picture."""
    where = f"Record {quoted(name)} of {path}"
    check_id(record, where)
    safe, entries = record.get("safe"), record.get("instr-resp")
    if not isinstance(safe, bool):
        raise UserError(f"{where} has no field 'safe' that is true or false; add it.")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{where} has no field 'instr-resp' with a list of queries; add it.")
    examples = []
    for entry in map(as_record, entries):
        field = _query_field(entry, where)
        category = SAFE_PICTURE if field == "unsafe_instruction" else text_field(record, "harmful_category", where, "")
        harmful = field == "unsafe_instruction" or (field == "instruction" and not safe)
        distinct = name if len(entries) == 1 else f"{name}-{field.removesuffix('_instruction')}"
        image = picture_path(path, record, where)
        examples.append(_example(distinct, image, entry, field, harmful, where, request=category))
    return examples


def _query_field(entry: Mapping[str, object], where: str) -> str:
    """The field of a VLGuard entry that holds its query."""
    names = ("safe_instruction", "unsafe_instruction", "instruction")
    fields = [name for name in names if name in entry]
    if not fields:
        raise UserError(f"{where} has an entry without safe_instruction, unsafe_instruction or instruction; add one.")
    if len(fields) > 1:
        raise UserError(f"{where} has an entry with both {' and '.join(fields)}; give each query its own.")
    return fields[0]
