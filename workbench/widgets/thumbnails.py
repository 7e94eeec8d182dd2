"""A row of small pictures to choose one from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anywidget
import traitlets

from workbench.data.example import Example
from workbench.errors import UserError
from workbench.widgets.html import picture_url

PAGE = 8  # pictures in a row
SIZE = 48  # pixels


class Thumbnails(anywidget.AnyWidget):
    """One row of PAGE pictures out of many examples. Pictures are read when their row is shown.

    Attributes:
        pictures: The row, each with src (a data URL, empty if the picture cannot be read) and alt.
        first: The place of the row's first picture among the examples, from 0.
        place: The place of the chosen picture among the examples, or −1.
    """

    _esm = Path(__file__).with_name("thumbnails.js")
    _css = Path(__file__).with_name("thumbnails.css")
    pictures = traitlets.List(traitlets.Dict()).tag(sync=True)
    first = traitlets.Int(0).tag(sync=True)
    place = traitlets.Int(-1).tag(sync=True)

    def __init__(self, examples: Sequence[Example]) -> None:
        super().__init__()
        self._examples = examples

    def show(self, place: int, chosen: bool = True) -> None:
        """Show the row that holds a place, and mark that picture if it is chosen."""
        first = place // PAGE * PAGE
        with self.hold_sync():
            if not self.pictures or first != self.first:
                self.pictures = [self._picture(i) for i in range(first, min(first + PAGE, len(self._examples)))]
                self.first = first
            self.place = place if chosen else -1

    def _picture(self, place: int) -> dict[str, str]:
        """The picture of the example at a place, as src and alt."""
        label = f"picture {place + 1}: {self._examples[place].query[:80]}"
        try:
            return {"src": picture_url(self._examples[place].picture(), 2 * SIZE), "alt": label}
        except UserError:
            return {"src": "", "alt": f"{label} (cannot be read)"}
