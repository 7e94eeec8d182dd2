"""Ask a model under attack: answers, not yet judged."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from accelerate.utils import gather_object

from workbench.attacks.kinds import Attack, prepare_attack
from workbench.data.example import Example
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS, AnswerLog, Row
from workbench.models.vlm import VLM, processes
from workbench.runs import bar


def ask(
    vlm: VLM,
    examples: Sequence[Example],
    attacks: Sequence[str],
    batch_size: int = 100,
    progress: bool = True,
    file: Path | None = None,
) -> pd.DataFrame:
    """Ask every example's query under each attack.

    When run on several processes, each asks its share and all return the full table.

    Args:
        vlm: The model.
        examples: What is asked; ids must be unique.
        attacks: Names, e.g. "none" or "what:3".
        batch_size: Examples per batch.
        progress: Whether to show a bar.
        file: A CSV file to which each batch is added as it comes; what it holds already is not asked again.

    Returns:
        One row per shot: ANSWER_COLUMNS, with an empty outcome.

    Raises:
        UserError: No attack, two examples with one id, or a file with answers to other queries.
    """
    if not attacks:
        raise UserError("No attack given; pass 'none', or an attack such as 'what:3'.")
    prepared = {name: prepare_attack(name, examples) for name in attacks}
    answer_log = AnswerLog(file, vlm, _by_id(examples), prepared)
    rows = list(answer_log.kept.values()) if processes().is_main_process else []
    share = list(examples)[processes().process_index :: processes().num_processes]
    chunks = [share[start : start + batch_size] for start in range(0, len(share), batch_size)]
    shots = {(name, number): attack for name, attack in prepared.items() for number in range(1, attack.shots + 1)}
    with bar(desc=f"asking {vlm.name}", show=progress, total=len(chunks) * len(shots)) as progress_bar:
        for chunk in chunks:
            for new_rows in _asked(vlm, chunk, shots, answer_log.kept):
                answer_log.add(new_rows)
                rows += new_rows
                progress_bar.update()
    gathered: list[Row] = gather_object(rows)
    order = {(*shot, e.id): place for place, (shot, e) in enumerate(itertools.product(shots, examples))}
    answers = pd.DataFrame(sorted(gathered, key=lambda row: order[row[2], row[3], row[0]]), columns=ANSWER_COLUMNS)
    answer_log.finish(answers)
    return answers


def _asked(
    vlm: VLM, chunk: Sequence[Example], shots: Mapping[tuple[str, int], Attack], done: Container[tuple[str, str, int]]
) -> Iterator[list[Row]]:
    """The rows of each shot of each attack on a chunk of examples that fits in one batch.

    All shots of a chunk come one after the other: its pictures are decoded once, and the model keeps their
    features.
    """
    pictures = {e.id: e.picture() for e in chunk if any((e.id, *shot) not in done for shot in shots)}
    for (name, number), attack in shots.items():
        missing = [(e, attack.of(e, number)) for e in chunk if (e.id, name, number) not in done]
        asked = [(e, shot) for e, shot in missing if shot]  # an attack file may have fewer shots for one example
        if not asked:
            yield []
            continue
        shown = [shot.picture(pictures[e.id]) if shot.picture else pictures[e.id] for e, shot in asked]
        queries = [shot.query for _, shot in asked]
        texts = vlm.answers(shown, queries, batch_size=len(chunk), opening=asked[0][1].opening)
        yield [
            (e.id, vlm.name, name, number, e.kind, shot.query, text, "", e.digest)
            for (e, shot), text in zip(asked, texts, strict=True)
        ]


def _by_id(examples: Sequence[Example]) -> dict[str, Example]:
    """Raises UserError if two examples have one id."""
    known: dict[str, Example] = {}
    for example in examples:
        other = known.setdefault(example.id, example)
        if other is not example:
            twice = "the same query twice" if other.query == example.query else "different queries"
            raise UserError(f"The data have {twice} under the id {example.id!r}; ids must be unique.")
    return known
