"""Python's regular expressions for JavaScript: the page rewrites and judges by the project's own."""

from __future__ import annotations

import re

# What these stand for in Python, where \w and \b know all letters; JavaScript's know English ones alone.
_WORD = r"[\p{L}\p{N}_]"
_NOT_WORD = r"[^\p{L}\p{N}_]"
_EDGE = f"(?:(?<={_WORD})(?!{_WORD})|(?<!{_WORD})(?={_WORD}))"
_TRANSLATED = {r"\w": _WORD, r"\W": _NOT_WORD, r"\b": _EDGE}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NEEDLESS = r" '#&~-/!\"%,:;<=>@`"  # re.escape escapes these, which JavaScript forbids in Unicode mode


def as_javascript(pattern: re.Pattern[str]) -> dict[str, str]:
    """A compiled pattern as {source, flags} of a JavaScript RegExp that finds the same.

    It knows what the project's patterns use: no named groups, and no flags within a pattern.
    """

    def translated(escape: re.Match[str]) -> str:
        if escape[1] in _NEEDLESS:
            return escape[1]
        return _TRANSLATED.get(escape[0], escape[0])

    flags = "iu" if pattern.flags & re.IGNORECASE else "u"
    return {"source": _ESCAPE.sub(translated, pattern.pattern), "flags": flags}
