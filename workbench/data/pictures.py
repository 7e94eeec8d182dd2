"""Picture files as a person sees them: upright, in sRGB, on white, of animations the first frame."""

from __future__ import annotations

import functools
import io
import os
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from workbench.errors import UserError, first_line
from workbench.runs import log

MAX_PIXELS = 50_000_000  # larger pictures are refused before they are decoded, which could exhaust the memory
_BROKEN = (
    *(OSError, ValueError, SyntaxError, struct.error, EOFError, RuntimeError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def read_picture(path: Path | BinaryIO, name: str = "") -> Image.Image:
    """Read a picture as RGB, as a person sees it.

    Args:
        path: A file's path, or an open file.
        name: What messages call the picture; by default its path.

    Raises:
        UserError: It is missing, broken, has more than MAX_PIXELS pixels, or its pixels are no colours.
    """
    name = name or str(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures and refuses only huge ones; MAX_PIXELS replaces both limits.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _check(image, name)
                if getattr(image, "is_animated", False):
                    _say_animated()
                # An icon can hold a picture that is larger than it says.
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image.load()
                _check(image, name)
                return as_seen(image, name)
    except FileNotFoundError:
        raise UserError(f"Picture {name} not found; add the file or remove its record.") from None
    except _BROKEN as error:
        raise UserError(
            f"Picture {name} cannot be read ({first_line(error)}); replace the file or remove its record."
        ) from None


def _check(image: Image.Image, name: str) -> None:
    """Raise UserError if a picture is too large, or a program."""
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{name} has {image.width} × {image.height} pixels; scale it below {MAX_PIXELS // 10**6} million."
        )
    if image.format == "EPS":  # Pillow would run Ghostscript
        raise UserError(f"Picture {name} is PostScript, which is a program and is not run; save it as PNG.")


def problem(path: Path) -> str:
    """What is wrong with a picture file: "missing", "unreadable", or "" if nothing is."""
    try:
        read_picture(path)
    except UserError:
        return "unreadable" if os.path.isfile(path) else "missing"
    return ""


def as_seen(image: Image.Image, name: str = "the picture") -> Image.Image:
    """A picture of any mode in RGB, as viewers show it.

    Args:
        image: The picture.
        name: What messages call it.

    Raises:
        UserError: Its pixels are floating-point numbers, which have no colours.
    """
    if image.mode == "F":
        raise UserError(f"Picture {name} holds floating-point numbers, not colours; save it with 8 bits a channel.")
    image = _in_srgb(_in_eight_bits(_upright(image)))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its Exif data say: phones store pixels as the sensor has them. Damaged data say nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except (*_BROKEN, KeyError, TypeError, ZeroDivisionError):
        return image


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """The same if its pixels have 8 bits; of 16 bits the upper ones."""
    if image.mode not in _SIXTEEN_BITS:
        return image
    values = np.asarray(image).astype(np.int64)  # (height, width)
    if values.max(initial=0) > 255:
        values = values * 255 // 65_535
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _in_srgb(image: Image.Image) -> Image.Image:
    """The colours that a picture's profile means, as sRGB; as they are if it has none, or a broken one."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("RGB", "RGBA", "CMYK", "L", "LAB") or not (profile or image.mode == "LAB"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        if profile and "sRGB" in ImageCms.getProfileDescription(own):
            return image
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        plain = image.convert("RGB") if alpha else image
        seen = ImageCms.profileToProfile(plain, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if seen and alpha:
        seen.putalpha(alpha)
    return seen or image


@functools.cache  # said once, however many there are
def _say_animated() -> None:
    log.warning("Some pictures are animated; of each, the first frame is used.")
