"""Errors in one sentence: a user's mistake, or what the machine lacks; each says what to do."""

import errno
import os
import sys

_LINE = 500  # letters of another library's error
_QUOTED = 100  # letters of a text that is quoted within a sentence
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_MEMORY = ("out of memory", "allocate memory", "bad allocation", os.strerror(errno.ENOMEM).lower())


class UserError(Exception):
    """A user's mistake. The command line prints it as one sentence and exits with 2."""


def quoted(text: str) -> str:
    """A text from data within a sentence, in quotes; of a long one, both ends."""
    return repr(text if len(text) <= _QUOTED else f"{text[: _QUOTED // 2]} … {text[-_QUOTED // 2 :]}")


def printable(text: str) -> str:
    """A text from data for a terminal: control characters, which could move its cursor, are written out."""
    return "".join(each if each.isprintable() or each in "\t\n" else ascii(each)[1:-1] for each in text)


def first_line(error: BaseException) -> str:
    """Another library's error in one line, to quote within a sentence."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LINE else f"{line[:_LINE]} …"


def machine_error(error: BaseException) -> str:
    """What the machine lacks, if that is why something failed, and what to do; "" otherwise.

    Libraries turn the system's errors into their own, so their text counts as well.

    Args:
        error: Any error.
    """
    text = str(error).lower()
    where = getattr(error, "filename", None)

    def told(codes: tuple[int, ...]) -> bool:
        return getattr(error, "errno", None) in codes or any(os.strerror(code).lower() in text for code in codes)

    if getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return f"{quoted(str(where))} is too long for a file's name; choose a shorter one."
    if told(_NO_ROOM):
        what = where or "what is to be written"
        return f"There is no room on the disk for {what} ({first_line(error)}); free some, then run the command again."
    if told(_NO_ACCESS):
        return (
            f"{where or 'A file'} is closed to this user ({first_line(error)}); change its permissions or the folder."
        )
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        return "The memory is not enough; take smaller batches or a smaller model, or close other programs."
    return ""


def say(text: str) -> None:
    """Print a warning to standard error."""
    print(f"workbench: {printable(text)}", file=sys.stderr)
