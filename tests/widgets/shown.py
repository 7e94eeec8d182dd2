"""Reads what a widget shows."""

import base64
import io
import re

from PIL import Image


def png(widget) -> Image.Image:
    """The picture in a widget's HTML."""
    return Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", widget.value)[1])))
