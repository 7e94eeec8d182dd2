"""An example: a picture with a query, the answer it should get, and the harmful answer if it is known."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from workbench.data.pictures import read_picture
from workbench.errors import UserError


@dataclass(frozen=True)
class Example:
    """One picture with one query.

    Attributes:
        id: Identifies the example within its dataset.
        image: A picture (RGB), or the path of one; None if the query is text alone.
        query: The text that is asked about the picture.
        harmful: Whether the query should be refused.
        response: The answer it should get; a refusal if `harmful`.
        leak: The harmful answer if it is known, else "". Unlearning forgets it; the exact judge looks for it.
        request: The kind of question, by which rates are reported: colour, name, … in MiniGuard; in VLGuard
            the category of harm, or `readers.SAFE_PICTURE`.
    """

    id: str
    image: Image.Image | Path | None
    query: str
    harmful: bool
    response: str
    leak: str = ""
    request: str = ""

    @property
    def kind(self) -> str:
        """The word for it in tables and figures, "harmful" or "harmless"."""
        return "harmful" if self.harmful else "harmless"

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the picture's pixels, computed once; without one, the example's own id."""
        return f"text {self.id}" if self.image is None else digest(self.picture())

    def picture(self) -> Image.Image:
        """The picture in RGB; a path is read at each call.

        Raises:
            UserError: The file is missing, broken or too large, or there is no picture.
        """
        if self.image is None:
            raise UserError(f"The query {self.id!r} has no picture, which is needed here; leave it out, or add one.")
        picture = read_picture(self.image) if isinstance(self.image, Path) else self.image
        if "digest" not in vars(self):  # taken now, so that an evaluation decodes a picture once
            vars(self)["digest"] = digest(picture)
        return picture


def digest(picture: Image.Image) -> str:
    """Hash of the pixels, independent of the file name."""
    pixels = f"{picture.mode} {picture.size}".encode() + picture.tobytes()
    return hashlib.blake2b(pixels, digest_size=8).hexdigest()


def content(examples: Iterable[Example]) -> str:
    """Hash of all that examples hold: texts and pictures, in order. A file's bytes stand for its picture."""
    known: dict[int, bytes] = {}
    whole = hashlib.blake2b(digest_size=8)
    for example in examples:
        if id(example) not in known:
            texts = [example.id, example.kind, example.query, example.response, example.leak]
            known[id(example)] = json.dumps(texts).encode() + _picture_bytes(example)
        whole.update(hashlib.blake2b(known[id(example)]).digest())
    return whole.hexdigest()


def _picture_bytes(example: Example) -> bytes:
    """What identifies an example's picture."""
    if not isinstance(example.image, Path):
        return example.digest.encode() if example.image else b""
    try:
        return hashlib.blake2b(example.image.read_bytes(), digest_size=8).digest()
    except OSError:
        example.picture()  # raises the error that names the file
        raise
