"""What is claimed, the number that is to bear it out, the limit it must keep, and whether it does."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import pandas as pd

from workbench.errors import UserError

_COMPARISONS = {"≤": operator.le, "≥": operator.ge}
Claim = tuple[str, float, str, float]  # what is claimed, the number, "≤" or "≥", the limit


def claims(rows: Iterable[Claim]) -> pd.DataFrame:
    """Claims beside their numbers, as a table to be read.

    A limit is a choice. It is to be made before the number is seen, with its reason beside the table.

    Args:
        rows: The claims.

    Returns:
        claim, value, limit (as text), holds ("yes" or "no"; "no" too if the value is missing).

    Raises:
        UserError: A comparison is neither "≤" nor "≥".
    """
    table = []
    for claim, value, comparison, limit in rows:
        if comparison not in _COMPARISONS:
            raise UserError(f"The claim {claim!r} compares by {comparison!r}; choose ≤ or ≥.")
        holds = _COMPARISONS[comparison](value, limit)
        table.append((claim, value, f"{comparison} {limit:g}", "yes" if holds else "no"))
    return pd.DataFrame(table, columns=["claim", "value", "limit", "holds"])
