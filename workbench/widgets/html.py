"""Figures, pictures and words as HTML; whatever a model says or a person types is shown and never rendered."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL import Image


def figure_html(figure: Figure, alt: str) -> str:
    """A figure as HTML, with what it shows in words; it is closed, else the notebook would show it again."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    plt.close(figure)
    return _img(_data_url(buffer.getvalue()), alt, "max-width: 100%")


def picture_html(picture: Image.Image, alt: str, size: int = 240) -> str:
    """A picture, its longer side `size` pixels; small ones are enlarged with their pixels seen."""
    side = "width" if picture.width >= picture.height else "height"
    return _img(picture_url(picture, 2 * size), alt, f"{side}: {size}px; image-rendering: pixelated")


def picture_url(picture: Image.Image, size: int) -> str:
    """A picture of at most `size` pixels either way, as a data URL."""
    shown = picture.copy()
    shown.thumbnail((size, size))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return _data_url(buffer.getvalue())


def table_html(table: pd.DataFrame) -> str:
    """A table, in JupyterLab with the look of its own tables."""
    return f'<div class="jp-RenderedHTMLCommon">{table.to_html(index=False, escape=True, border=0)}</div>'


def csv_html(table: pd.DataFrame, name: str) -> str:
    """A link that saves a table."""
    data = base64.b64encode(table.to_csv(index=False).encode()).decode()
    link = f"data:text/csv;base64,{data}"
    return f'<a style="text-decoration: underline" download="{escape(name)}" href="{link}">Export as CSV ({len(table)} rows)</a>'


def said(text: str) -> str:
    """Words of a model or a person, in their own direction of writing."""
    return f"<bdi>{escape(text)}</bdi>"


def error_html(message: str) -> str:
    """One sentence that says what was wrong, read aloud by screen readers."""
    return f"<p role='alert'>⚠ {escape(message)}</p>"


def spoken_html(message: str) -> str:
    """What screen readers are to say and nobody needs to see."""
    hidden = "position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)"
    return f'<span role="alert" style="{hidden}">{escape(message)}</span>' if message else ""


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _img(url: str, alt: str, style: str) -> str:
    return f'<img alt="{escape(alt)}" style="{style}" src="{url}">'
