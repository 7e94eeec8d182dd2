"""Readers of dataset files: VLGuard's format, LLaVA's conversations, JSON lines.

To add a format, write a function from a file's path to Examples and decorate it with what the file is
recognised by: its suffix, or a field of the records in a JSON list.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from workbench.data.example import Example
from workbench.data.pictures import problem
from workbench.data.splits import miniguard_split
from workbench.errors import UserError
from workbench.runs import bar

PICTURE_MARKER = "<image>"
SAFE_PICTURE = "safe picture"  # `request` of VLGuard's harmful queries about pictures that are themselves harmless

DECODED = 20_000  # pictures at most that are decoded before a run
Reader = Callable[[Path], list[Example]]
READERS: dict[str, Reader] = {}  # {file suffix, or field of the first record in a JSON list: its reader}


def reader(recognised_by: str) -> Callable[[Reader], Reader]:
    """Enter a reader into READERS under a suffix (".jsonl") or a field of its records ("conversations")."""

    def enter(read: Reader) -> Reader:
        READERS[recognised_by] = read
        return read

    return enter


def read_examples(data: str | Path, split: str = "train") -> list[Example]:
    """Read a dataset. Pictures stay paths, opened only when needed.

    Args:
        data: "miniguard"; a folder in VLGuard's format, whose SPLIT.json is read; or a file in one of the
            formats of READERS.
        split: The split of a folder or of MiniGuard; ignored for a file.

    Returns:
        The examples in the file's order. If different queries share an id (VLGuard's Ads_303871 has two),
        the second gets the id "Ads_303871#2", and so on.

    Raises:
        UserError: Names the file, the record and the field that is wrong.
    """
    examples = read_variants(data, split)
    return examples if Path(data).suffix == ".jsonl" else _with_distinct_ids(examples)


def read_variants(data: str | Path, split: str = "train") -> list[Example]:
    """Like `read_examples`, but allows repeated ids: an attack file holds several variants of one query."""
    if str(data) == "miniguard":
        return miniguard_split(split)
    path = Path(data)
    if path.is_dir():
        path = path / f"{split}.json"
    if not path.is_file():
        raise UserError(
            f"There is no data at {path}; give 'miniguard', a VLGuard folder with {split}.json, "
            "or a .json or .jsonl file."
        )
    examples = _reader_of(path)(path)
    if not examples:
        raise UserError(f"File {path} holds no records; give one with at least one query.")
    return examples


def _with_distinct_ids(examples: Sequence[Example]) -> list[Example]:
    numbers_by_id: dict[str, dict[str, int]] = defaultdict(dict)
    distinct = []
    for example in examples:
        numbers = numbers_by_id[example.id]
        number = numbers.setdefault(example.query, len(numbers) + 1)
        distinct.append(example if number == 1 else dataclasses.replace(example, id=f"{example.id}#{number}"))
    return distinct


def _reader_of(path: Path) -> Reader:
    """The reader for a file: by its suffix, else by the fields of its first record, else VLGuard's."""
    if path.suffix in READERS:
        return READERS[path.suffix]
    text = _read_text(path)
    try:  # only that record is parsed: files of conversations can hold hundreds of thousands
        fields, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
    except ValueError:  # the reader will say what is wrong
        fields = {}
    return next((read for key, read in READERS.items() if key in fields), read_vlguard)


def with_pictures(examples: Sequence[Example], skip_missing: bool = False) -> list[Example]:
    """The examples whose pictures exist and can be read.

    Every picture is decoded, so that a run does not stop at a broken one after hours; of more than DECODED,
    it is only looked whether they exist.

    Args:
        examples: The examples to check.
        skip_missing: Leave out examples without a picture that can be read, as long as others remain.

    Raises:
        UserError: Counts the missing and the unreadable pictures and names the first five of each.
    """
    paths = list(dict.fromkeys(e.image for e in examples if isinstance(e.image, Path)))
    if len(paths) > DECODED:
        found = ["" if path.is_file() else "missing" for path in paths]
    else:
        with ThreadPoolExecutor() as threads:
            found = list(bar(threads.map(problem, paths), "checking pictures", len(paths) > 200, total=len(paths)))
    problems = {path: what for path, what in zip(paths, found, strict=True) if what}
    present = [e for e in examples if not (isinstance(e.image, Path) and e.image in problems)]
    if problems and not (skip_missing and present):
        said = "; ".join(filter(None, [_named(problems, "missing"), _named(problems, "unreadable")]))
        raise UserError(f"{said}; add the files, or leave out their queries with --skip-missing.")
    return present


def _named(problems: Mapping[Path, str], what: str) -> str:
    """The pictures with a problem, counted, and the first five named; "" if there are none."""
    names = [str(path) for path, problem in problems.items() if problem == what]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    verb = "picture is" if len(names) == 1 else "pictures are"
    return f"{len(names)} {verb} {what}: {', '.join(names[:5])}{more}" if names else ""


def first_of_each(examples: Sequence[Example], n: int) -> list[Example]:
    """The first n harmful and the first n harmless examples, in their original order."""
    earlier = {True: itertools.count(), False: itertools.count()}  # how many of its kind came before an example
    return [example for example in examples if next(earlier[example.harmful]) < n]


@reader(".jsonl")
def read_jsonl(path: Path) -> list[Example]:
    """JSON lines: {"id"?, "image", "query", "harmful", "response"?, "harmful_response"?, "request"?}.

    `harmful` is true or false, the other fields are text. Without an id, the line's number serves as one.
    """
    examples = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"Line {number} of {path}"
        record = _as_record(_parse_json(line, where))
        harmful = record.get("harmful")
        if not isinstance(harmful, bool):
            raise UserError(f"{where} has no field 'harmful' that is true or false; add it.")
        examples.append(_example(str(record.get("id", number)), path, record, "query", harmful, where))
    return examples


def _example(
    name: str, path: Path, record: Mapping[str, object], query: str, harmful: bool, where: str, request: object = ""
) -> Example:
    """The example of a record whose answers may be missing.

    Args:
        name: The example's id.
        path: The file.
        record: The fields image, response?, harmful_response?, request?, and the query.
        query: The query's field.
        harmful: Whether the query should be refused.
        where: What messages call the record.
        request: Stands for a missing request.
    """
    return Example(
        id=name,
        image=_picture_path(path, record, where),
        query=_query_text(record, query, where),
        harmful=harmful,
        response=text_field(record, "response", where, ""),
        leak=text_field(record, "harmful_response", where, ""),
        request=text_field(record, "request", where, request),
    )


@reader("conversations")
def read_llava(path: Path) -> list[Example]:
    """LLaVA's format: a list of {"id"?, "image"?, "conversations": [{"from": "human" or "gpt", "value"}]}.

    Each conversation about one picture gives one harmless example, its first question with its answer; turns
    before that question are left out. So are conversations without a picture, or about several.
    """
    examples = []
    for number, record in enumerate(_json_list(path)):
        name = record.get("id", number)
        where = f"Record {name!r} of {path}"
        exchange, pictures = _first_exchange(record, where), _pictures(record)
        if pictures and not exchange:
            raise UserError(f"{where} has no turn of 'human' that is followed by one of 'gpt'; add it.")
        if len(pictures) == 1:
            image = _picture_path(path, {"image": pictures[0]}, where)
            query = _query_text(exchange[0], "value", where)
            response = text_field(exchange[1], "value", where).strip()
            examples.append(Example(str(name), image, query, harmful=False, response=response))
    return examples


def _pictures(record: Mapping[str, object]) -> list[object]:
    """What a record's field `image` names: nothing, a picture, or a list of pictures."""
    image = record.get("image")
    return [each for each in (image if isinstance(image, list) else [image]) if each not in (None, "")]


def _query_text(record: Mapping[str, object], field: str, where: str) -> str:
    """A record's query, without the marker by which LLaVA's data and others show where the picture goes."""
    text = text_field(record, field, where)
    if PICTURE_MARKER in text:
        text = text.replace(PICTURE_MARKER, "").strip()
    if not text:
        raise UserError(f"{where} has nothing but {PICTURE_MARKER} in its field {field!r}; add the query.")
    return text


def _first_exchange(record: Mapping[str, object], where: str) -> list[Mapping[str, object]]:
    """The first question by the human that is followed by an answer, and that; empty if there is none."""
    turns = record.get("conversations")
    if not isinstance(turns, list):
        raise UserError(f"{where} has no field 'conversations' with a list of turns; add it.")
    said = [_as_record(turn) for turn in turns]
    for question, answer in itertools.pairwise(said):
        if (question.get("from"), answer.get("from")) == ("human", "gpt"):
            return [question, answer]
    return []


@reader("instr-resp")
def read_vlguard(path: Path) -> list[Example]:
    """VLGuard: a list of {"id"?, "image", "safe", "harmful_category"?, "instr-resp": [one entry per query]}.

    An entry holds a query and may hold "response", "harmful_response" and "request". The query's field says
    whether it is harmful: "safe_instruction" is not, "unsafe_instruction" is, and "instruction" is if the
    picture is not `safe`.
    """
    examples = []
    for number, record in enumerate(_json_list(path)):
        name = record.get("id", number)
        where = f"Record {name!r} of {path}"
        safe, entries = record.get("safe"), record.get("instr-resp")
        if not isinstance(safe, bool):
            raise UserError(f"{where} has no field 'safe' that is true or false; add it.")
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{where} has no field 'instr-resp' with a list of queries; add it.")
        for entry in entries:
            field = _query_field(entry, where)
            category = SAFE_PICTURE if field == "unsafe_instruction" else record.get("harmful_category", "")
            harmful = field == "unsafe_instruction" or (field == "instruction" and not safe)
            distinct = str(name) if len(entries) == 1 else f"{name}-{field.removesuffix('_instruction')}"
            whole = entry | {"image": record.get("image")}
            examples.append(_example(distinct, path, whole, field, harmful, where, request=category))
    return examples


def _query_field(entry: Mapping[str, object], where: str) -> str:
    """The field of a VLGuard entry that holds its query."""
    for field in ("safe_instruction", "unsafe_instruction", "instruction"):
        if field in entry:
            return field
    raise UserError(f"{where} has an entry without safe_instruction, unsafe_instruction or instruction; add one.")


def read_json(path: Path) -> Any:  # whatever JSON can hold; callers check it
    """Parse a JSON file.

    Raises:
        UserError: The file cannot be read or is not valid JSON.
    """
    return _parse_json(_read_text(path), f"File {path}")


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}); fix it or export it again.") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"File {path} cannot be read ({error}); give a UTF-8 text file.") from None


def _json_list(path: Path) -> list[Mapping[str, object]]:
    """The records of a file that holds a JSON list."""
    records = read_json(path)
    if not isinstance(records, list):
        raise UserError(
            f"File {path} must hold a list of VLGuard records or of conversations, not a {type(records).__name__}."
        )
    return [_as_record(record) for record in records]


def _as_record(value: object) -> Mapping[str, object]:
    """A JSON object without fields that are null; anything else as an empty one, whose fields are reported.

    Tables that are exported as JSON have null where a row lacks a column.
    """
    return {name: each for name, each in value.items() if each is not None} if isinstance(value, dict) else {}


def text_field(
    record: Mapping[str, object], field: str, where: str, default: object = None, remedy: str = "add it"
) -> str:
    """A record's text.

    Args:
        record: The record.
        field: The field's name.
        where: What messages call the record.
        default: Stands for a missing field; if None, the field must be there and not be blank.
        remedy: What to do if it is not.

    Raises:
        UserError: There is no text.
    """
    value = record.get(field, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise UserError(f"{where} has no text in its field {field!r}; {remedy}.")
    if not value.isascii() and value.encode("utf-8", "ignore").decode() != value:
        raise UserError(f"{where} has half a character in its field {field!r} (a lone surrogate); correct it.")
    return value


def _picture_path(file: Path, record: Mapping[str, object], where: str) -> Path:
    """Path of a record's picture, which must lie in the file's own folder."""
    name, root = text_field(record, "image", where), file.parent.resolve()
    candidates = [root / file.stem / name, root / "images" / name, root / name]
    path = next((candidate for candidate in candidates if candidate.is_file()), candidates[-1])
    return confined(path, name, root, where)


def confined(path: Path, name: str, root: Path, where: str) -> Path:
    """Check that a picture lies within a folder.

    Args:
        path: The picture's path.
        name: The picture's name in the dataset.
        root: The folder. Links are followed, so a link inside it must not lead outside; but files in the
            hub's cache are links to their repository's blobs.
        where: What messages call the record.

    Returns:
        `path` itself.

    Raises:
        UserError: The picture lies outside of the folder.
    """
    inside = path.resolve().is_relative_to(root.resolve()) or _in_the_hubs_cache(path, root.resolve())
    if not inside or ".." in Path(name).parts:
        raise UserError(f"{where} names the image {name!r} outside of {root}; move it inside.")
    return path


def _in_the_hubs_cache(path: Path, root: Path) -> bool:
    """Whether a link leads to a blob of the very repository in the hub's cache in which the folder lies."""
    for parent in (root, *root.parents):
        if parent.parent.name == "snapshots":
            return path.resolve().parent == (parent.parent.parent / "blobs").resolve()
    return False
