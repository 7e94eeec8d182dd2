"""Ask a model under attack: answers, not yet judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from accelerate.utils import gather_object

from workbench.attacks.kinds import Attack, Shot, prepare_attack
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
    rows = list(answer_log.rows) if processes().is_main_process else []
    share = list(examples)[processes().process_index :: processes().num_processes]
    chunks = [share[start : start + batch_size] for start in range(0, len(share), batch_size)]
    shots_each = sum(attack.shots for attack in prepared.values())
    with bar(desc=f"asking {vlm.name}", show=progress, total=len(chunks) * shots_each) as progress_bar:
        for chunk in chunks:
            for new_rows in _asked(vlm, chunk, prepared, answer_log.done):
                answer_log.add(new_rows)
                rows += new_rows
                progress_bar.update()
    gathered: list[Row] = gather_object(rows)
    keys = ((name, shot, e.id) for name in prepared for shot in range(1, prepared[name].shots + 1) for e in examples)
    order = {key: place for place, key in enumerate(keys)}
    answers = pd.DataFrame(sorted(gathered, key=lambda row: order[row[2], row[3], row[0]]), columns=ANSWER_COLUMNS)
    answer_log.finish(answers)
    return answers


def _asked(
    vlm: VLM, chunk: Sequence[Example], attacks: Mapping[str, Attack], done: set[tuple[str, str, int]]
) -> Iterator[list[Row]]:
    """The rows of each shot of each attack on a chunk of examples that fits in one batch.

    All shots of a chunk come one after the other: its pictures are decoded once, and the model keeps their
    features.
    """
    pictures = {e.id: e.picture() for e in chunk if not _all_done(e, attacks, done)}
    for name, attack in attacks.items():
        for number in range(1, attack.shots + 1):
            asked: list[tuple[Example, Shot]] = []
            for example in chunk:
                shot = None if (example.id, name, number) in done else attack.of(example, number)
                if shot:  # a file of prepared queries may have fewer shots for one example
                    asked.append((example, shot))
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


def _all_done(example: Example, attacks: Mapping[str, Attack], done: set[tuple[str, str, int]]) -> bool:
    return all((example.id, name, number) in done for name in attacks for number in range(1, attacks[name].shots + 1))


def _by_id(examples: Sequence[Example]) -> dict[str, Example]:
    """Raises UserError if two examples have one id."""
    known: dict[str, Example] = {}
    for example in examples:
        other = known.setdefault(example.id, example)
        if other is not example:
            twice = "the same query twice" if other.query == example.query else "different queries"
            raise UserError(f"The data have {twice} under the id {example.id!r}; ids must be unique.")
    return known
