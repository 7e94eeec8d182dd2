"""Figures, pictures and words as HTML; whatever a model says or a person types is shown and never rendered."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


def figure_html(figure: Figure, alt: str) -> str:
    """A figure as HTML, with what it shows in words; it is closed, else the notebook would show it again."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    plt.close(figure)
    return _img(buffer.getvalue(), alt, "max-width: 100%")


def picture_html(picture: Image.Image, alt: str, size: int = 240) -> str:
    """A picture, its longer side `size` pixels; small ones are enlarged with their pixels seen."""
    shown = picture.copy()
    shown.thumbnail((2 * size, 2 * size))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    side = "width" if shown.width >= shown.height else "height"
    return _img(buffer.getvalue(), alt, f"{side}: {size}px; image-rendering: pixelated")


def said(text: str) -> str:
    """Words of a model or a person, in their own direction of writing."""
    return f"<bdi>{escape(text)}</bdi>"


def error_html(message: str) -> str:
    """One sentence that says what was wrong, read aloud by screen readers."""
    return f"<p role='alert'>⚠ {escape(message)}</p>"


def _img(png: bytes, alt: str, style: str) -> str:
    return f'<img alt="{escape(alt)}" style="{style}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
