"""CSV files that a spreadsheet can open safely: no cell is a formula.

What a model or a person wrote may begin like one, and a spreadsheet would run it
(https://owasp.org/www-community/attacks/CSV_Injection).
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_RUN = "=+-@\t\r"  # what formulas begin with
_FORMULA = re.compile(f"'*[{re.escape(_RUN)}]")
_MADE_TEXT = re.compile(f"'+[{re.escape(_RUN)}]")


def as_text(cell: str) -> str:
    """A text that a spreadsheet shows and does not run: an apostrophe comes before it where it needs one."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def from_text(cell: str) -> str:
    """The text that `as_text` was given."""
    return cell[1:] if _MADE_TEXT.match(cell) else cell


def as_csv(table: pd.DataFrame) -> str:
    """A table as CSV, without its index, in which no cell is a formula."""
    safe = table.map(lambda cell: as_text(cell) if isinstance(cell, str) else cell)
    return safe.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)  # a carriage return without quotes would end a row
