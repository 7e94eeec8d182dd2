"""The one error a user can mend: a sentence that names the file, field or option, and what to do."""

import sys


class UserError(Exception):
    """Raised for a user's mistake; the command line prints it in one sentence and exits with 2."""


def first_line(error: Exception) -> str:
    """Another library's error in one line, to stand within a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def say(text: str) -> None:
    """A word of caution that stops nothing, on standard error."""
    print(f"workbench: {text}", file=sys.stderr)
