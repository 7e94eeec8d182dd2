"""An example: one picture with one query, what should be answered, and the harmful answer where it is known."""

from __future__ import annotations

import functools
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

from workbench.errors import UserError, first_line

MAX_PIXELS = 50_000_000  # a larger picture is refused by name, before it is decoded


@dataclass(frozen=True)
class Example:
    """One picture with one query.

    image: a picture (RGB) or the path of one. response: what should be answered, so a refusal where `harmful`.
    leak: the harmful answer, where it is known ("" elsewhere): what unlearning forgets and the exact judge looks for.
    request: the kind of question (MiniGuard's colour, name, …; VLGuard's category of harm, or SAFE_PICTURE), by which rates are kept apart.
    """

    id: str
    image: Image.Image | Path
    query: str
    harmful: bool
    response: str
    leak: str = ""
    request: str = ""

    @property
    def kind(self) -> str:
        """ "harmful" or "harmless", as tables and figures say it."""
        return "harmful" if self.harmful else "harmless"

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the picture's pixels, computed once."""
        return digest(self.picture())

    def picture(self) -> Image.Image:
        """The picture in RGB, read now if it is a path. Raises UserError that names the file."""
        return read_picture(self.image) if isinstance(self.image, Path) else self.image


def read_picture(path: Path | BinaryIO, name: str = "") -> Image.Image:
    """Read a picture as RGB, refusing what is missing, broken or larger than MAX_PIXELS. name: of an open file, for what is said of it."""
    name = name or str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours, and firm
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        f"{name} has {image.width} × {image.height} pixels; scale it below {MAX_PIXELS // 10**6} million."
                    )
                return ImageOps.exif_transpose(image).convert("RGB")  # phones note which side is up
    except FileNotFoundError:
        raise UserError(f"The picture {name} is missing; put it there, or take its record out.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"The picture {name} cannot be read ({first_line(error)}); replace it, or take its record out."
        ) from None


def digest(picture: Image.Image) -> str:
    """Tells one picture from another by its pixels, whatever its name."""
    pixels = f"{picture.mode} {picture.size}".encode() + picture.tobytes()
    return hashlib.blake2b(pixels, digest_size=8).hexdigest()
