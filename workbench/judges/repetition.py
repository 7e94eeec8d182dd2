"""Whether a text repeats itself without end, in any script and in linear time."""

from __future__ import annotations

from collections.abc import Sequence

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
    for period in range(1, min(longest, len(items) // TIMES) + 1):
        run, needed = 0, max((TIMES - 1) * period, least - period)
        for place in range(period, len(items)):
            run = run + 1 if items[place] == items[place - period] else 0
            if run >= needed and any(map(str.isalnum, "".join(items[place - period + 1 : place + 1]))):
                return True
    return False
