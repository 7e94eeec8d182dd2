"""Examples, and where they come from: MiniGuard's splits, a VLGuard folder, a JSONL file.

An `Example` is one picture with one query, what should be answered, and, where known, the harmful answer to be forgotten.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from workbench.data.example import Example
from workbench.data.splits import miniguard_split
from workbench.errors import UserError

SAFE_PICTURE = "safe picture"  # the kind of VLGuard's harmful queries about pictures that are harmless themselves


def read_examples(data: str | Path, split: str = "train") -> list[Example]:
    """Examples from "miniguard", a VLGuard folder (its SPLIT.json), a VLGuard .json file, a .jsonl file, or a .json file of LLaVA's.

    Pictures are paths, opened only when needed. A JSONL line is {"id", "image", "query", "harmful", "response"?,
    "harmful_response"?, "request"?}. Of LLaVA's conversations each that is about a picture gives one harmless example, its first question
    with its answer. Where two records of VLGuard's have one id, as Ads_303871 has two, the second's is "Ads_303871#2".
    Raises UserError that names the file, and the record and field at fault.
    """
    found = read_variants(data, split)
    if Path(data).suffix == ".jsonl":
        return found
    queries: dict[str, list[str]] = {}  # of each id
    for place, example in enumerate(found):
        mine = queries.setdefault(example.id, [])
        if example.query not in mine:
            mine.append(example.query)
        if number := mine.index(example.query):
            found[place] = dataclasses.replace(example, id=f"{example.id}#{number + 1}")
    return found


def read_variants(data: str | Path, split: str = "train") -> list[Example]:
    """As `read_examples`, but that records may share an id: those of an attack file do, which are variants of one query."""
    if str(data) == "miniguard":
        return miniguard_split(split)
    path = Path(data)
    if path.is_dir():
        path = path / f"{split}.json"
    if not path.is_file():
        raise UserError(
            f"There is no data at {path}; give 'miniguard', a VLGuard folder with {split}.json, or a .json or .jsonl file."
        )
    examples = _read_jsonl(path) if path.suffix == ".jsonl" else _read_json(path)
    if not examples:
        raise UserError(f"The file {path} holds no record; give one with at least one query.")
    return examples


def with_pictures(examples: Sequence[Example], skip_missing: bool = False) -> list[Example]:
    """The examples whose pictures are there; pictures are not opened.

    Raises UserError that counts what is missing and names the first five, unless `skip_missing`; and where nothing is left.
    """
    there = [e for e in examples if not isinstance(e.image, Path) or e.image.is_file()]
    missing = list(dict.fromkeys(str(e.image) for e in examples if isinstance(e.image, Path) and not e.image.is_file()))
    if missing and not (skip_missing and there):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        listed = f"{', '.join(missing[:5])}{more}"
        pictures = "picture is" if len(missing) == 1 else "pictures are"
        raise UserError(
            f"{len(missing)} {pictures} missing: {listed}; put them there, or leave their queries out (--skip-missing)."
        )
    return there


def first_of_each(examples: Sequence[Example], n: int) -> list[Example]:
    """The first n harmful and the first n harmless examples, in their order."""
    left = {True: n, False: n}
    kept = []
    for example in examples:
        if left[example.harmful]:
            left[example.harmful] -= 1
            kept.append(example)
    return kept


def read_json(path: Path):
    """What a JSON file holds. Raises UserError that names it where it cannot be read."""
    return _parse_json(_read_text(path), f"The file {path}")


def _parse_json(text: str, where: str):
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}); mend it, or export it again.") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The file {path} cannot be read ({error}); give a UTF-8 text file.") from None


def _read_json(path: Path) -> list[Example]:
    records = read_json(path)
    if not isinstance(records, list):
        raise UserError(
            f"The file {path} must hold a list of VLGuard records or of conversations, not a {type(records).__name__}."
        )
    conversations = any(isinstance(record, dict) and "conversations" in record for record in records)
    return _conversations(records, path) if conversations else _vlguard(records, path)


def _conversations(records: list, path: Path) -> list[Example]:
    """LLaVA's format: {"id", "image"?, "conversations": [{"from": "human" or "gpt", "value"}]}; those without a picture are left out."""
    examples = []
    for number, record in enumerate(records):
        where = (
            f"Record {record.get('id', number)!r} of {path}"
            if isinstance(record, dict)
            else f"Record {number} of {path}"
        )
        turns = record.get("conversations") if isinstance(record, dict) else None
        said = [turn.get("from") for turn in turns[:2] if isinstance(turn, dict)] if isinstance(turns, list) else []
        if said != ["human", "gpt"]:
            raise UserError(
                f"{where} has no field 'conversations' that begins with a turn of the human and one of gpt; mend it."
            )
        if "image" not in record:
            continue
        question = _text(turns[0], "value", where).replace("<image>", "").strip()
        answer = _text(turns[1], "value", where).strip()
        examples.append(
            Example(str(record.get("id", number)), _picture_path(path, record, where), question, False, answer)
        )
    return examples


def _vlguard(records: list, path: Path) -> list[Example]:
    examples = []
    for number, record in enumerate(records):
        where = (
            f"Record {record.get('id', number)!r} of {path}"
            if isinstance(record, dict)
            else f"Record {number} of {path}"
        )
        if not isinstance(record, dict) or not isinstance(record.get("safe"), bool):
            raise UserError(f"{where} has no field 'safe' that is true or false; add it.")
        entries = record.get("instr-resp")
        if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
            raise UserError(f"{where} has no field 'instr-resp' with a list of queries; add it.")
        for entry in entries:
            kind = next((k for k in ("safe_instruction", "unsafe_instruction", "instruction") if k in entry), None)
            if kind is None:
                raise UserError(
                    f"{where} has an entry without safe_instruction, unsafe_instruction or instruction; add one."
                )
            harmful = kind == "unsafe_instruction" or (kind == "instruction" and not record["safe"])
            category = SAFE_PICTURE if kind == "unsafe_instruction" else record.get("harmful_category", "")
            name = str(record.get("id", number))
            examples.append(
                Example(
                    id=name if len(entries) == 1 else f"{name}-{kind.removesuffix('_instruction')}",
                    image=_picture_path(path, record, where),
                    query=_text(entry, kind, where),
                    harmful=harmful,
                    response=_text(entry, "response", where, ""),
                    leak=_text(entry, "harmful_response", where, ""),
                    request=_text(entry, "request", where, category),
                )
            )
    return examples


def _read_jsonl(path: Path) -> list[Example]:
    examples = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"Line {number} of {path}"
        record = _parse_json(line, where)
        if not isinstance(record, dict) or not isinstance(record.get("harmful"), bool):
            raise UserError(f"{where} has no field 'harmful' that is true or false; add it.")
        examples.append(
            Example(
                id=str(record.get("id", number)),
                image=_picture_path(path, record, where),
                query=_text(record, "query", where),
                harmful=record["harmful"],
                response=_text(record, "response", where, ""),
                leak=_text(record, "harmful_response", where, ""),
                request=_text(record, "request", where, ""),
            )
        )
    return examples


def _text(entry: dict, field: str, where: str, default: str | None = None) -> str:
    value = entry.get(field, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise UserError(f"{where} has no text in its field {field!r}; add it.")
    return value


def _picture_path(file: Path, record: dict, where: str) -> Path:
    """Where a record's picture lies, in the folder of the file and nowhere else."""
    name, root = _text(record, "image", where), file.parent.resolve()
    found = [root / file.stem / name, root / "images" / name, root / name]  # the last where it is yet to come
    path = next((p for p in found if p.is_file()), found[-1])
    return confined(path, name, root, where)


def confined(path: Path, name: str, root: Path, where: str) -> Path:
    """A picture's path, if its `name` is no absolute one and it lies within `root`, links followed. Raises UserError elsewhere."""
    if Path(name).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{where} names the image {name!r} outside of {root}; move it inside.")
    return path
