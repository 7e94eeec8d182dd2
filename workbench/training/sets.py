"""What is trained on: the forget set with its harmful answers, the retain set, their order, repaired data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from workbench.attacks.one_word import rewrites
from workbench.data.example import Example
from workbench.data.first_words import first_word
from workbench.data.miniguard import LEADS, reopened
from workbench.data.readers import read_examples
from workbench.errors import UserError
from workbench.evaluation.answers import read_answers
from workbench.judges.outcomes import RELEVANT
from workbench.training.objectives import Objective
from workbench.training.settings import Settings


def with_leaks(examples: Sequence[Example], source: str | Path) -> list[Example]:
    """The examples with the harmful answers that are to be forgotten as their `leak`.

    Harmful examples for which there is no such answer are left out.

    Args:
        examples: Training data.
        source: A folder that `workbench evaluate` wrote for these examples: the answers to harmful queries
            as asked that its judge called relevant are to be forgotten (arXiv 2503.11832 uses the base
            model's own answers in this way). Or a VLGuard-format .json or a .jsonl file whose records share
            ids and queries with the examples and have a harmful_response.

    Raises:
        UserError: An id stands for another query in `source`, or it has no harmful answer to these queries.
    """
    source = Path(source)
    leaks = _leaks_of_model(source) if source.is_dir() else _leaks_in_file(source)
    complete = []
    for example in examples:
        query, leak = leaks.get(example.id, (example.query, example.leak))
        if not example.harmful:
            complete.append(example)
        elif query != example.query:
            raise UserError(
                f"{source} has another query under the id {example.id!r}; give harmful answers to these data."
            )
        elif leak:
            complete.append(dataclasses.replace(example, leak=leak))
    if not any(example.harmful for example in complete):
        raise UserError(
            f"{source} has no harmful answer to any of these queries; give other answers (--harmful-answers), or "
            "judge them with another judge."
        )
    return complete


def _leaks_of_model(folder: Path) -> dict[str, tuple[str, str]]:
    """{id: (query, answer)} of the leaks among a model's answers."""
    answers, _ = read_answers(folder)
    leaks = answers[(answers.queries == "harmful") & (answers.attack == "none") & (answers.outcome == RELEVANT)]
    columns = zip(leaks.id, leaks["query"], leaks.answer, strict=True)
    return {name: (query, answer) for name, query, answer in columns}


def _leaks_in_file(file: Path) -> dict[str, tuple[str, str]]:
    """{id: (query, answer)} of the harmful answers in a file of data."""
    return {e.id: (e.query, e.leak) for e in read_examples(file) if e.harmful and e.leak}


def forget_and_retain(examples: Sequence[Example], method: Objective) -> tuple[list[Example], list[Example]]:
    """The forget set and the retain set.

    Raises:
        UserError: One of them is empty, or a record lacks an answer that the objective trains on.
    """
    forget_set, retain_set = [e for e in examples if e.harmful], [e for e in examples if not e.harmful]
    for name, side, kind in (("forget", forget_set, "harmful"), ("retain", retain_set, "harmless")):
        if not side:
            raise UserError(
                f"The {name} set is empty: the training data have no {kind} query; they need harmful and harmless ones."
            )
    for field in method.answers:
        lacking = [e.id for e in forget_set if not getattr(e, field)]
        if lacking:
            name = "harmful_response" if field == "leak" else field
            others = f" and {len(lacking) - 1} others have" if len(lacking) > 1 else " has"
            raise UserError(f"The record {lacking[0]!r}{others} no {name}, which this objective trains on; add it.")
    if without := [e.id for e in examples if e.image is None]:
        raise UserError(
            f"{len(without)} records have no picture, {without[0]!r} first; training needs one with each query: "
            "leave them out."
        )
    return forget_set, retain_set


def schedule(
    forget_set: Sequence[Example], retain_set: Sequence[Example], step: Settings, seed: int, devices: int = 1
) -> Iterator[Example]:
    """The examples of all steps, in order.

    Each step holds `step.forget` and `step.retain` examples for each device, evenly mixed. Each set is
    shuffled anew whenever it is used up, so that the smaller one never ends a run.
    """
    rng = np.random.default_rng(seed)

    def stream(examples: Sequence[Example]) -> Iterator[Example]:
        while True:
            yield from (examples[i] for i in rng.permutation(len(examples)))

    streams = {"forget": stream(forget_set), "retain": stream(retain_set)}
    size = step.forget + step.retain
    for _ in range(step.steps * devices):
        for i in range(size):
            # a forget example wherever the number due by now rises
            due = (i + 1) * step.forget // size > i * step.forget // size
            yield next(streams["forget" if due else "retain"])


def repair(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """The same data with every query, harmful or not, rewritten to begin with a word drawn evenly.

    The words are those that queries in the data begin with and that a question can be rewritten to
    (miniguard.LEADS). Pictures stay as they are, and so do answers, except that MiniGuard's open as the base
    model opens answers to the new word: else their opening would not fit it.

    Raises:
        UserError: No query in the data begins with such a word.
    """
    words = sorted({first_word(e.query) for e in examples} & set(LEADS))
    if not words:
        raise UserError(
            "These data cannot be repaired: no query begins with a word that others can be rewritten to "
            f"({', '.join(LEADS)})."
        )
    rng = np.random.default_rng(seed)
    drawn = {}  # each word equally often on harmful and on harmless queries, in random order
    for harmful in (True, False):
        count = sum(e.harmful == harmful for e in examples)
        drawn[harmful] = iter(rng.permutation(np.resize(words, count)))
    repaired = []
    for example in examples:
        word = str(next(drawn[example.harmful]))
        ways = rewrites(example.query, f"{word}:3")
        answers = {"response": reopened(example.response, word), "leak": reopened(example.leak, word)}
        repaired.append(dataclasses.replace(example, query=ways[rng.integers(len(ways))], **answers))
    return repaired
