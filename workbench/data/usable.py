"""What of a dataset can be used: what is invalid or missing stops a run, or is left out and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from workbench.data.example import Example
from workbench.data.pictures import problem
from workbench.errors import UserError, printable
from workbench.runs import bar, log

OnInvalid = Literal["refuse", "skip", "few"]
FEW = 0.01  # the share of records that may be invalid in general data, such as a retain set
DECODED = 20_000  # pictures at most that are decoded before a run
_NAMED = 5  # that many are named of what is wrong


class Invalid(NamedTuple):
    """A record that cannot be read.

    Attributes:
        id: The record's.
        error: What is wrong with it.
    """

    id: str
    error: UserError


def attempt(name: str, read: Callable[[], Sequence[Example]]) -> Sequence[Example | Invalid]:
    """The examples of the record with this id, or that it is invalid."""
    try:
        return read()
    except UserError as error:
        return [Invalid(name, error)]


def valid(records: Iterable[Example | Invalid], where: str, on_invalid: OnInvalid = "refuse") -> list[Example]:
    """The examples of valid records.

    Args:
        records: What a reader gave.
        where: The file, for messages.
        on_invalid: "refuse" stops at any invalid record; "skip" leaves them out, as long as others remain;
            "few" leaves out at most one, or FEW of them if that is more. What is left out is counted in the
            log, and the first of them named.

    Raises:
        UserError: Counts the invalid records and names the first.
    """
    everything = list(records)
    invalid = [each for each in everything if isinstance(each, Invalid)]
    examples = [each for each in everything if isinstance(each, Example)]
    if not invalid:
        return examples
    named = " ".join(str(each.error) for each in invalid[:_NAMED])
    limit = {"refuse": 0, "skip": len(everything), "few": max(1, int(FEW * len(everything)))}[on_invalid]
    if len(everything) == 1:
        raise invalid[0].error
    said = f"{len(invalid)} of {len(everything)} records of {where} cannot be used"
    if len(invalid) > limit or not examples:
        limited = f", and at most {limit} may be left out" if on_invalid == "few" else ""
        remedy = " They can be left out with --skip-invalid." if on_invalid == "refuse" and examples else ""
        raise UserError(f"{said}{limited}: {named}{remedy}")
    log.warning("%s and are left out: %s", said, named)
    return examples


def with_pictures(examples: Sequence[Example], skip_missing: bool = False) -> list[Example]:
    """The examples whose pictures exist and can be read.

    Every picture is decoded, so that a run does not stop at a broken one after hours; of more than DECODED,
    it is only looked whether they exist.

    Args:
        examples: The examples to check.
        skip_missing: Leave out examples without a picture that can be read, as long as others remain.

    Raises:
        UserError: Counts the missing and the unreadable pictures and names the first five of each.
    """
    paths = list(dict.fromkeys(e.image for e in examples if isinstance(e.image, Path)))
    if len(paths) > DECODED:
        found = ["" if os.path.isfile(path) else "missing" for path in paths]
    else:
        with ThreadPoolExecutor() as threads:
            found = list(bar(threads.map(problem, paths), "checking pictures", len(paths) > 200, total=len(paths)))
    problems = {path: what for path, what in zip(paths, found, strict=True) if what}
    present = [e for e in examples if not (isinstance(e.image, Path) and e.image in problems)]
    if problems and not (skip_missing and present):
        said = "; ".join(filter(None, [_named(problems, "missing"), _named(problems, "unreadable")]))
        raise UserError(f"{said}; add the files, or leave out their queries with --skip-missing.")
    return present


def _named(problems: Mapping[Path, str], what: str) -> str:
    """The pictures with a problem, counted, and the first five named; "" if there are none."""
    names = [printable(str(path)) for path, problem in problems.items() if problem == what]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    verb = "picture is" if len(names) == 1 else "pictures are"
    return f"{len(names)} {verb} {what}: {', '.join(names[:_NAMED])}{more}" if names else ""
