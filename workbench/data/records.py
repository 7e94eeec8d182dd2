"""Records of JSON files: their fields, and the pictures that they name, checked."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import UserError, first_line, quoted

PICTURE_MARKER = "<image>"


def read_json(path: Path) -> Any:  # whatever JSON can hold; callers check it
    """Parse a JSON file.

    Raises:
        UserError: The file cannot be read or is not valid JSON.
    """
    return parse_json(read_text(path), f"File {path}")


def parse_json(text: str, where: str) -> Any:
    """Parse JSON; `where` is what messages call the text.

    Raises:
        UserError: It is not valid, is nested too deeply, or gives a field of an object twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise UserError(f"{where} is nested too deeply to be data; fix it or export it again.") from None
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({first_line(error)}); fix it or export it again.") from None


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """A JSON object. Raises ValueError if it gives a field twice, of which Python would take the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the field {quoted(twice)} is there twice in one object")
    return fields


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"File {path} cannot be read ({error}); give a UTF-8 text file.") from None


def json_list(path: Path) -> list[Mapping[str, object]]:
    """The records of a file that holds a JSON list."""
    records = read_json(path)
    if not isinstance(records, list):
        raise UserError(
            f"File {path} must hold a list of VLGuard records or of conversations, not a {type(records).__name__}."
        )
    return [as_record(record) for record in records]


def as_record(value: object) -> Mapping[str, object]:
    """A JSON object without fields that are null; anything else as an empty one, whose fields are reported.

    Tables that are exported as JSON have null where a row lacks a column.
    """
    return {name: each for name, each in value.items() if each is not None} if isinstance(value, dict) else {}


def record_id(record: Mapping[str, object], number: int, field: str = "id") -> str:
    """What a record is called: its id, or its number if it has none."""
    return str(record.get(field, number))


def check_id(record: Mapping[str, object], where: str, field: str = "id") -> None:
    """Raises UserError unless a record's id, if it has one, is text or a number."""
    value = record.get(field, 0)
    if isinstance(value, str):
        text_field(record, field, where, "")
    elif type(value) is not int and not (isinstance(value, float) and math.isfinite(value)):
        raise UserError(f"{where} has a field {field!r} that is neither text nor a number; correct it.")


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


def picture_path(file: Path, record: Mapping[str, object], where: str) -> Path:
    """Path of a record's picture, which must lie in the file's own folder."""
    name, root = text_field(record, "image", where), file.parent.resolve()
    candidates = [root / file.stem / name, root / "images" / name, root / name]
    path = next((candidate for candidate in candidates if os.path.isfile(candidate)), candidates[-1])
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
        UserError: The picture lies outside of the folder, or no file can have such a name.
    """
    try:
        inside = path.resolve().is_relative_to(root.resolve()) or _in_the_hubs_cache(path, root.resolve())
    except (OSError, ValueError, RuntimeError):  # a null byte, or links in a circle
        raise UserError(f"{where} names the image {quoted(name)}, which can be no file; correct it.") from None
    if not inside or ".." in Path(name).parts:
        raise UserError(f"{where} names the image {quoted(name)} outside of {root}; move it inside.")
    return path


def _in_the_hubs_cache(path: Path, root: Path) -> bool:
    """Whether a link leads to a blob of the very repository in the hub's cache in which the folder lies."""
    for parent in (root, *root.parents):
        if parent.parent.name == "snapshots":
            return path.resolve().parent == (parent.parent.parent / "blobs").resolve()
    return False


def query_text(record: Mapping[str, object], field: str, where: str) -> str:
    """A record's query, without the marker by which LLaVA's data and others show where the picture goes."""
    text = text_field(record, field, where)
    if PICTURE_MARKER in text:
        text = text.replace(PICTURE_MARKER, "").strip()
    if not text:
        raise UserError(f"{where} has nothing but {PICTURE_MARKER} in its field {field!r}; add the query.")
    return text
