"""Ask a model under attack: answers, not yet judged."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from accelerate.utils import gather_object
from PIL import Image

from workbench.attacks.kinds import Attack, Shot, prepare_attack
from workbench.data.example import Example
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS, AnswerLog, Row
from workbench.models.pictures import ReadPictures
from workbench.models.vlm import VLM, processes
from workbench.runs import bar


def ask(
    vlm: VLM,
    examples: Sequence[Example],
    attacks: Sequence[str],
    batch_size: int = 100,
    progress: bool = True,
    file: Path | None = None,
    left_out: Collection[str] = (),
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
        left_out: As for `prepare_attack`.

    Returns:
        One row per shot and sample (`vlm.generation`): ANSWER_COLUMNS, with an empty outcome.

    Raises:
        UserError: No attack, two examples with one id, or a file with answers to other queries.
    """
    if not attacks:
        raise UserError("No attack given; pass 'none', or an attack such as 'what:3'.")
    prepared = {name: prepare_attack(name, examples, left_out) for name in attacks}
    _check_words(vlm, examples, prepared)
    _check_pictures(examples, prepared)
    answer_log = AnswerLog(file, vlm, _by_id(examples), prepared)
    rows = list(answer_log.kept.values()) if processes().is_main_process else []
    share = list(examples)[processes().process_index :: processes().num_processes]
    sides = [[e for e in share if (e.image is None) == text_only] for text_only in (False, True)]
    chunks = [side[start : start + batch_size] for side in sides for start in range(0, len(side), batch_size)]
    asked = [
        Asked(name, shot, sample, attack)
        for name, attack in prepared.items()
        for shot in range(1, attack.shots + 1)
        for sample in range(1, vlm.generation.samples + 1)
    ]
    with bar(desc=f"asking {vlm.name}", show=progress, total=len(chunks) * len(asked)) as progress_bar:
        for chunk in chunks:
            for new_rows in _ask_chunk(vlm, chunk, asked, answer_log.kept):
                answer_log.add(new_rows)
                rows += new_rows
                progress_bar.update()
    gathered: list[Row] = gather_object(rows)
    places = itertools.product([each[:3] for each in asked], [e.id for e in examples])
    order = {place: number for number, place in enumerate(places)}
    gathered.sort(key=lambda row: order[(row.attack, row.shot, row.sample), row.id])
    answers = pd.DataFrame(gathered, columns=ANSWER_COLUMNS)
    answer_log.finish(answers)
    return answers


def _check_words(vlm: VLM, examples: Sequence[Example], attacks: Mapping[str, Attack]) -> None:
    """Raise UserError if an attack asks in words that the model cannot read, although it can read the query.

    MiniGuard's models know few words, and read all others as one and the same token.
    """
    unknown = vlm.tokenizer.unk_token_id
    if unknown is None:
        return

    def readable(queries: Sequence[str]) -> list[bool]:
        return [unknown not in ids for ids in vlm.tokenizer(list(queries))["input_ids"]] if queries else []

    known = [e for e, reads in zip(examples, readable([e.query for e in examples]), strict=True) if reads]
    for name, attack in attacks.items():
        shots = [attack.of(e, number) for e in known for number in range(1, attack.shots + 1)]
        queries = [shot.query for shot in shots if shot]
        if False in (reads := readable(queries)):
            raise UserError(
                f"Attack {name!r} asks in words that the model {vlm.name!r} does not know "
                f"({queries[reads.index(False)]!r}); choose another attack."
            )


def _check_pictures(examples: Sequence[Example], attacks: Mapping[str, Attack]) -> None:
    """Raise UserError if an attack changes pictures, and some queries have none."""
    without = [e for e in examples if e.image is None]
    for name, attack in attacks.items():
        shots = [attack.of(e, number) for e in without for number in range(1, attack.shots + 1)]
        if any(shot and shot.picture for shot in shots):
            raise UserError(
                f"Attack {name!r} changes pictures, and {len(without)} queries have none, {without[0].id!r} first; "
                "leave out one or the other."
            )


class Asked(NamedTuple):
    """One way in which every query is asked."""

    name: str
    shot: int
    sample: int
    attack: Attack


def _ask_chunk(
    vlm: VLM, chunk: Sequence[Example], ways: Sequence[Asked], done: Container[tuple[str, str, int, int]]
) -> Iterator[list[Row]]:
    """The rows of each way of asking a chunk of examples that fits in one batch.

    All have pictures, or none has. All ways come one after the other: the chunk's pictures are decoded once,
    and the model reads them once.
    """
    read = ReadPictures(vlm)
    left = [e for e in chunk if any((e.id, *way[:3]) not in done for way in ways)]
    pictures = {e.id: None if e.image is None else e.picture() for e in left}
    for way in ways:
        missing = [(e, way.attack.of(e, way.shot)) for e in chunk if (e.id, *way[:3]) not in done]
        asked = [(e, shot) for e, shot in missing if shot]  # an attack file may have fewer shots for one example
        if not asked:
            yield []
            continue
        shown = [_shown(pictures[e.id], shot) for e, shot in asked]
        queries = [shot.query for _, shot in asked]
        if vlm.generation.temperature:
            _seed(vlm.generation.seed, asked[0][0].id, *way[:3])
        # Where memory is short, what has been read is not kept; a single way has no use for it.
        write = read.written if len(ways) > 1 and shown[0] and not vlm.batch_limit else None
        written = vlm.written(shown, queries, batch_size=len(chunk), opening=asked[0][1].opening, write=write)
        yield [
            Row(e.id, vlm.name, way.name, way.shot, e.kind, shot.query, text, "", e.digest, way.sample, int(cut))
            for (e, shot), (text, cut) in zip(asked, written, strict=True)
        ]


def _shown(picture: Image.Image | None, shot: Shot) -> Image.Image | None:
    """The picture that goes with a shot."""
    return shot.picture(picture) if picture and shot.picture else picture


def _seed(*parts: str | int) -> None:
    """Seed the draws of a batch by what is asked, so that a resumed evaluation draws them alike."""
    torch.manual_seed(int(hashlib.sha256(repr(parts).encode()).hexdigest()[:15], 16))


def _by_id(examples: Sequence[Example]) -> dict[str, Example]:
    """Raises UserError if two examples have one id."""
    known: dict[str, Example] = {}
    for example in examples:
        other = known.setdefault(example.id, example)
        if other is not example:
            twice = "the same query twice" if other.query == example.query else "different queries"
            raise UserError(f"The data have {twice} under the id {example.id!r}; ids must be unique.")
    return known
