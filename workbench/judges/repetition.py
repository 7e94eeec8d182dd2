"""Whether a text repeats itself without end, in any script and in linear time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TIMES = 4  # in a row
WORDS = 40  # the longest sequence of words that is looked for
LETTERS, ENDLESS = 40, 60  # the same for characters, where scripts have no spaces; that long at least


def repeats(text: str) -> bool:
    """Whether the same words come TIMES in a row, or the same characters over ENDLESS of them.

    What repeats must hold a letter or digit: a line of dashes is none.
    """
    folded = text.casefold()
    return _periodic(folded.split(), WORDS, 0) or _periodic(folded, LETTERS, ENDLESS)


def _periodic(items: Sequence[str], longest: int, least: int) -> bool:
    """Whether some sequence of items, `longest` at most, comes TIMES in a row, over `least` items or more."""
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(item, len(numbers)) for item in items])  # (N,), one for each distinct item
    places = np.arange(len(items))  # (N,)
    letters = np.array([any(map(str.isalnum, item)) for item in items], dtype=bool)  # (N,)
    last_letter = np.maximum.accumulate(np.where(letters, places, -1))
    for period in range(1, min(longest, len(items) // TIMES) + 1):
        ends = places[period:]
        same = codes[period:] == codes[:-period]
        last_other = np.maximum.accumulate(np.where(same, period - 1, ends))
        needed = max((TIMES - 1) * period, least - period)
        if ((ends - last_other >= needed) & (last_letter[period:] > ends - period)).any():
            return True
    return False
