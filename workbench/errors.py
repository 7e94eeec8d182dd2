"""The one error that a user can correct: a sentence that names the file, field or option, and what to do."""

import sys


class UserError(Exception):
    """A user's mistake. The command line prints it as one sentence and exits with 2."""


def first_line(error: Exception) -> str:
    """Another library's error in one line, to quote within a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def say(text: str) -> None:
    """Print a warning to standard error."""
    print(f"workbench: {text}", file=sys.stderr)
