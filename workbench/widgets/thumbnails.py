"""A row of small pictures to choose one from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anywidget
import traitlets

from workbench.errors import UserError
from workbench.widgets.html import picture_url

if TYPE_CHECKING:
    from workbench.data.example import Example

PAGE = 8  # pictures in a row
SIZE = 48  # pixels


class Thumbnails(anywidget.AnyWidget):
    """Those PAGE of the examples among which one is; `place` (from 0) is the one that a person chose last, or −1.

    Pictures are read when their row is shown.
    """

    _esm = Path(__file__).with_name("thumbnails.js")
    _css = Path(__file__).with_name("thumbnails.css")
    pictures = traitlets.List(traitlets.Dict()).tag(sync=True)  # src (a data URL, or empty), alt
    first = traitlets.Int(0).tag(sync=True)  # place of the first picture in the row
    place = traitlets.Int(-1).tag(sync=True)

    def __init__(self, examples: Sequence[Example]):
        super().__init__()
        self._examples = examples

    def show(self, place: int, chosen: bool = True) -> None:
        """Show the row that holds a place, and mark it, or none."""
        first = place // PAGE * PAGE
        with self.hold_sync():
            if not self.pictures or first != self.first:
                self.pictures = [self._picture(i) for i in range(first, min(first + PAGE, len(self._examples)))]
                self.first = first
            self.place = place if chosen else -1

    def _picture(self, place: int) -> dict[str, str]:
        label = f"picture {place + 1}: {self._examples[place].query[:80]}"
        try:
            return {"src": picture_url(self._examples[place].picture(), 2 * SIZE), "alt": label}
        except UserError:
            return {"src": "", "alt": f"{label} (cannot be read)"}
