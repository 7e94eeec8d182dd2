"""What is to be forgotten: harmful answers for the forget set, the base model's own that a judge called leaks, or those of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from workbench.data.readers import Example, read_examples
from workbench.errors import UserError
from workbench.evaluation.answers import read_answers
from workbench.judges.rules import RELEVANT


def with_leaks(examples: Sequence[Example], source: str | Path) -> list[Example]:
    """The examples with harmful answers to be forgotten as their `leak`, those of `source`, else their own; harmful ones that have none are
    left out.

    source: a folder that `workbench evaluate` wrote for these examples, whose answers to harmful queries as asked count where its judge
    called them relevant (arXiv 2503.11832 takes the base model's own so); or a VLGuard-format .json or a .jsonl file whose records share
    ids and queries with the examples and have a harmful_response.
    Raises UserError where an id stands for another query there, or no harmful answer is found.
    """
    found = _answered(Path(source)) if Path(source).is_dir() else _written(Path(source))
    kept = []
    for example in examples:
        if not example.harmful:
            kept.append(example)
        elif example.id in found:
            query, answer = found[example.id]
            if query != example.query:
                raise UserError(f"{source} has another query under the id {example.id!r}; give harmful answers to these data.")
            kept.append(dataclasses.replace(example, leak=answer))
        elif example.leak:
            kept.append(example)
    if not any(example.harmful for example in kept):
        raise UserError(f"{source} holds no harmful answer to any of these queries; give others (--harmful-answers), or another judge.")
    return kept


def _answered(folder: Path) -> dict[str, tuple[str, str]]:
    """{id: (query, answer)} of the leaks among a model's answers."""
    answers, _ = read_answers(folder)
    leaks = answers[(answers.queries == "harmful") & (answers.attack == "none") & (answers.outcome == RELEVANT)]
    return {row.id: (row.query, row.answer) for row in leaks.itertuples()}


def _written(file: Path) -> dict[str, tuple[str, str]]:
    return {e.id: (e.query, e.leak) for e in read_examples(file) if e.harmful and e.leak}
