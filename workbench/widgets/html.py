"""Figures, pictures and words as HTML; text of a model or a person is shown and never rendered."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from workbench.spreadsheets import as_csv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL import Image


def figure_html(figure: Figure, alt: str) -> str:
    """A figure as an image.

    The figure is closed, otherwise the notebook would show it a second time.

    Args:
        figure: The figure.
        alt: What it shows, in words.
    """
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    plt.close(figure)
    return _img(_data_url(buffer.getvalue()), alt, "max-width: 100%")


def picture_html(picture: Image.Image, alt: str, size: int = 240) -> str:
    """A picture whose longer side is `size` pixels; small pictures are enlarged without smoothing."""
    side = "width" if picture.width >= picture.height else "height"
    return _img(picture_url(picture, 2 * size), alt, f"{side}: {size}px; image-rendering: pixelated")


def picture_url(picture: Image.Image, size: int) -> str:
    """A picture as a data URL, scaled down so that neither side exceeds `size` pixels."""
    thumbnail = picture.copy()
    thumbnail.thumbnail((size, size))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "PNG")
    return _data_url(buffer.getvalue())


def table_html(table: pd.DataFrame) -> str:
    """A table, which JupyterLab styles like its own tables."""
    return f'<div class="jp-RenderedHTMLCommon">{table.to_html(index=False, escape=True, border=0)}</div>'


def csv_html(table: pd.DataFrame, name: str) -> str:
    """A link that saves a table under a file name."""
    data = base64.b64encode(as_csv(table).encode()).decode()
    link = f'href="data:text/csv;base64,{data}"'
    style = 'style="text-decoration: underline"'
    return f'<a {style} download="{escape(name)}" {link}>Export as CSV ({len(table)} rows)</a>'


def text_html(text: str) -> str:
    """Words of a model or a person; text from right to left does not disturb its surroundings."""
    return f"<bdi>{escape(text)}</bdi>"


def error_html(message: str) -> str:
    """An error in one sentence, which screen readers read aloud."""
    return f"<p role='alert'>⚠ {escape(message)}</p>"


def spoken_html(message: str) -> str:
    """A message for screen readers alone."""
    hidden = "position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)"
    return f'<span role="alert" style="{hidden}">{escape(message)}</span>' if message else ""


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _img(url: str, alt: str, style: str) -> str:
    return f'<img alt="{escape(alt)}" style="{style}" src="{url}">'
