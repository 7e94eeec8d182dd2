"""A judge of the user's own: words that mean refusal, and instructions for a model that judges the rest.

So the judges of papers can be used as they are, without shipping their words.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.data.example import Example
from workbench.errors import UserError, first_line
from workbench.judges.model import Format, Message, check_model, model_judge
from workbench.judges.outcomes import DEGENERATE, REFUSAL, RELEVANT, UNPARSED, WITHOUT_TRUTH, Judge, Outcome
from workbench.judges.rules import keyword

CUSTOM: dict[str, Judge] = {}  # by the names that `custom_judge` gave


def custom_judge(judge: str, refusal_words: Path | None = None, instructions: Path | None = None) -> str:
    """Enter a judge into CUSTOM.

    Args:
        judge: "keyword", or the folder or hub id of a model.
        refusal_words: A text file with one per line; an answer that holds any of them, in any case, is a
            refusal, and the judge is asked about the others alone.
        instructions: A TOML file: `instructions`, a text with {query} and {answer}; and `[verdicts]`, in
            which each outcome (refusal, relevant, irrelevant, degenerate) has the words with which a line of
            the model's verdict begins. A model that sees pictures is shown the example's.

    Returns:
        Its name, by which `load_judge` finds it; two judges with different files have different names.

    Raises:
        UserError: A file cannot be read or lacks something, or does not go with the judge.
    """
    if instructions and judge == "keyword":
        raise UserError("--judge-instructions are for a model; give one with --judge.")
    if judge == "exact":
        raise UserError("The exact judge needs no words or instructions; choose --judge keyword or a model.")
    words = _words(refusal_words) if refusal_words else ()
    speaks = _format(instructions) if instructions else None
    if judge != "keyword":
        check_model(judge)
    files = [("refusal words", refusal_words), ("instructions", instructions)]
    marks = [f"{what} {_digest(file)}" for what, file in files if file]
    name = ", ".join([judge, *marks])

    def judged(examples: Sequence[Example], answers: Sequence[str]) -> list[Outcome]:
        refused = [any(word in answer.lower() for word in words) for answer in answers]
        pairs = [pair for pair, no in zip(zip(examples, answers, strict=True), refused, strict=True) if not no]
        if judge == "keyword":
            rest = [_without_refusals(*pair) for pair in pairs]
        else:
            asked = model_judge(judge, speaks=speaks)
            rest = asked([example for example, _ in pairs], [answer for _, answer in pairs]) if pairs else []
        others = iter(rest)
        return [REFUSAL if no else next(others) for no in refused]

    CUSTOM[name] = judged
    return name


def _without_refusals(example: Example, answer: str) -> Outcome:
    """The keyword judge's outcome of an answer that holds none of the user's words of refusal."""
    return DEGENERATE if keyword(example, answer) == DEGENERATE else RELEVANT


def _words(file: Path) -> tuple[str, ...]:
    """The words in a file, in lower case."""
    words = tuple(line.strip().lower() for line in _text(file, "--refusal-words").splitlines() if line.strip())
    if not words:
        raise UserError(f"File {file} holds no word; give one per line (--refusal-words).")
    return words


def _format(file: Path) -> Format:
    """How a model is asked and read by a file of instructions."""
    try:
        table = tomllib.loads(_text(file, "--judge-instructions"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"File {file} is not valid TOML ({first_line(error)}); correct it.") from None
    text, verdicts = table.get("instructions"), _verdicts(table, file)
    if not isinstance(text, str) or not all(field in text for field in ("{query}", "{answer}")):
        raise UserError(f"File {file} has no field 'instructions' with {{query}} and {{answer}}; add it.")

    def ask(query: str, answer: str) -> list[Message]:
        parts = re.split(r"(\{query\}|\{answer\})", text)  # in one pass: a query may hold "{answer}"
        filled = "".join({"{query}": query, "{answer}": answer}.get(part, part) for part in parts)
        return [{"role": "user", "content": filled}]

    def read(verdict: str, example: Example, answer: str) -> Outcome:
        for line in verdict.lower().splitlines():
            plain = re.sub(r"^\W+", "", line)
            for outcome, beginnings in verdicts.items():
                if any(re.match(rf"{re.escape(words)}(?!\w)", plain) for words in beginnings):
                    return outcome
        return UNPARSED

    return Format("", ask, read)


def _verdicts(table: Mapping[str, Any], file: Path) -> dict[Outcome, list[str]]:
    """{outcome: what a line of the verdict begins with, in lower case}."""
    verdicts = {}
    given = table.get("verdicts")
    for outcome, words in given.items() if isinstance(given, dict) else ():
        if outcome not in WITHOUT_TRUTH:
            known = ", ".join(WITHOUT_TRUTH)
            raise UserError(f"File {file} has a verdict for {outcome!r}, which is no outcome; choose from {known}.")
        listed = [words] if isinstance(words, str) else words
        if not isinstance(listed, list) or not all(isinstance(word, str) and word.strip() for word in listed):
            raise UserError(f"File {file} has no text for the verdict {outcome!r}; add the words that it begins with.")
        verdicts[outcome] = [word.strip().lower() for word in listed]
    if not verdicts:
        raise UserError(f"File {file} has no table [verdicts] with a word for an outcome; add one.")
    return verdicts


def _text(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"File {file} cannot be read ({first_line(error)}); give a UTF-8 text file ({option})."
        ) from None


def _digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=4).hexdigest()
