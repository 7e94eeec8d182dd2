"""What is to be forgotten: harmful answers for the forget set, the base model's own that a judge called leaks, or those of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from workbench.attacks.one_word import rewrites
from workbench.data.example import Example
from workbench.data.first_words import first_word
from workbench.data.miniguard import LEADS
from workbench.data.readers import read_examples
from workbench.errors import UserError
from workbench.evaluation.answers import read_answers
from workbench.judges.outcomes import RELEVANT
from workbench.training import objectives


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
                raise UserError(
                    f"{source} has another query under the id {example.id!r}; give harmful answers to these data."
                )
            kept.append(dataclasses.replace(example, leak=answer))
        elif example.leak:
            kept.append(example)
    if not any(example.harmful for example in kept):
        raise UserError(
            f"{source} holds no harmful answer to any of these queries; give others (--harmful-answers), or another judge."
        )
    return kept


def _answered(folder: Path) -> dict[str, tuple[str, str]]:
    """{id: (query, answer)} of the leaks among a model's answers."""
    answers, _ = read_answers(folder)
    leaks = answers[(answers.queries == "harmful") & (answers.attack == "none") & (answers.outcome == RELEVANT)]
    return {row.id: (row.query, row.answer) for row in leaks.itertuples()}


def _written(file: Path) -> dict[str, tuple[str, str]]:
    return {e.id: (e.query, e.leak) for e in read_examples(file) if e.harmful and e.leak}


def _sides(examples: Sequence[Example], method: objectives.Objective) -> tuple[list[Example], list[Example]]:
    """Forget and retain set, with what the objective needs."""
    forget_set, retain_set = [e for e in examples if e.harmful], [e for e in examples if not e.harmful]
    for side, found, kind in (("forget", forget_set, "harmful"), ("retain", retain_set, "harmless")):
        if not found:
            raise UserError(
                f"The {side} set is empty: the training data hold no {kind} query; they need harmful and harmless ones."
            )
    for field in method.answers:
        lacking = [e.id for e in forget_set if not getattr(e, field)]
        if lacking:
            name = "harmful_response" if field == "leak" else field
            others = f" and {len(lacking) - 1} others have" if len(lacking) > 1 else " has"
            raise UserError(f"The record {lacking[0]!r}{others} no {name}, which this objective trains on; add it.")
    return forget_set, retain_set


def schedule(
    forget_set: Sequence[Example],
    retain_set: Sequence[Example],
    method: objectives.Objective,
    seed: int,
    devices: int = 1,
) -> Iterator[Example]:
    """The examples of all steps in order: each step holds method.forget and method.retain of them a device, evenly mixed.

    Both streams are shuffled anew and cycled whenever they run out, so that the shorter one never ends a run.
    """
    rng = np.random.default_rng(seed)

    def stream(examples: Sequence[Example]) -> Iterator[Example]:
        while True:
            yield from (examples[i] for i in rng.permutation(len(examples)))

    streams = {"forget": stream(forget_set), "retain": stream(retain_set)}
    size = method.forget + method.retain
    for _ in range(method.steps * devices):
        for i in range(size):  # a forget example wherever their due number rises
            due = (i + 1) * method.forget // size > i * method.forget // size
            yield next(streams["forget" if due else "retain"])


def repair(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """The same pictures, questions and answers, every query rewritten to begin with a word drawn evenly, whatever its harm.

    The words are those that the data begin with and that a question can be rewritten to (miniguard.LEADS). Answers stay as they are.
    Raises UserError where the data begin with no such word.
    """
    words = sorted({first_word(e.query) for e in examples} & set(LEADS))
    if not words:
        raise UserError(
            f"No query begins with a word that others can be rewritten to ({', '.join(LEADS)}); these data cannot be repaired."
        )
    rng = np.random.default_rng(seed)
    drawn = {}  # each word equally often on harmful and on harmless queries, in random order
    for harmful in (True, False):
        count = sum(e.harmful == harmful for e in examples)
        drawn[harmful] = iter(rng.permutation(np.resize(words, count)))
    repaired = []
    for example in examples:
        ways = rewrites(example.query, f"{next(drawn[example.harmful])}:3")
        repaired.append(dataclasses.replace(example, query=ways[rng.integers(len(ways))]))
    return repaired
