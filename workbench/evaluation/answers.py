"""Answers on disk: a file that grows as they come, from which an interrupted evaluation resumes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from workbench.errors import UserError
from workbench.files import make_folder, write_text
from workbench.runs import read_settings, same_settings
from workbench.spreadsheets import as_text, from_text

if TYPE_CHECKING:
    from workbench.attacks.kinds import Attack
    from workbench.data.example import Example
    from workbench.models.vlm import VLM


_LONGEST = 2**31 - 1  # letters of a cell; by default Python's reader takes 131,072
SAMPLE_QUERY = "What is it?"  # whose prompt is noted, for the system prompt and the model's chat template


class Row(NamedTuple):
    """One answer.

    Attributes:
        id: The example's.
        model: Whose answer it is.
        attack: The attack's name.
        shot: Its number, from 1 on.
        queries: "harmful" or "harmless".
        query: What was asked.
        answer: What was answered.
        outcome: Empty until the answer is judged.
        picture: Hash of the picture's pixels.
        sample: Number of the answer among those drawn to the same shot, from 1 on.
        cut: 1 if the answer reached the limit of its length, else 0.
    """

    id: str
    model: str
    attack: str
    shot: int
    queries: str
    query: str
    answer: str
    outcome: str
    picture: str
    sample: int
    cut: int


ANSWER_COLUMNS = list(Row._fields)


class AnswerLog:
    """Answers in a CSV file that grows as they come.

    A .json file of the same name says whose answers they are, whether they are complete, and who judged
    them. A row that was being written when the run was killed is dropped. With several processes, each
    appends to its own file.

    Attributes:
        kept: Answers of an earlier, interrupted run, by (id, attack, shot, sample).
    """

    def __init__(
        self, file: Path | None, vlm: VLM, examples: Mapping[str, Example], attacks: Mapping[str, Attack]
    ) -> None:
        """Open the file and read what an earlier run has left.

        Args:
            file: Where to keep answers; None for nowhere.
            vlm: The model that is asked.
            examples: What it is asked, by id.
            attacks: The prepared attacks, by name.

        Raises:
            UserError: The file holds another model's answers, or answers to other queries.
        """
        from workbench.models.identity import fingerprint
        from workbench.models.vlm import processes, prompt

        self.file = file
        self.kept: dict[tuple[str, str, int, int], Row] = {}
        if not file:
            return
        make_folder(file.parent)
        settings = {"model": vlm.name, "weights": fingerprint(vlm), **vlm.generation.record(vlm.model)}
        settings["prompt"] = prompt(vlm, SAMPLE_QUERY)
        same_settings(file.with_suffix(".json"), settings, processes().is_main_process)
        for part in self._parts():
            for row in _whole_rows(part):
                _check_row(row, part, vlm.name, examples, attacks)
                self.kept.setdefault((row.id, row.attack, row.shot, row.sample), row)
        processes().wait_for_everyone()  # all have read before any writes
        rank = processes().process_index
        self.own_file = file.with_stem(f"{file.stem}.{rank}") if rank else file
        with processes().main_process_first():  # its file holds all earlier rows before the others start anew
            write_text(self.own_file, _csv([ANSWER_COLUMNS, *([] if rank else self.kept.values())]))

    def _parts(self) -> list[Path]:
        """The files of all processes of the last run."""
        assert self.file
        name = re.compile(rf"{re.escape(self.file.stem)}(\.\d+)?{re.escape(self.file.suffix)}")
        return sorted(part for part in self.file.parent.iterdir() if name.fullmatch(part.name))

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows to the file."""
        if self.file:
            with self.own_file.open("a", encoding="utf-8", newline="") as file:
                file.write(_csv(rows))

    def finish(self, answers: pd.DataFrame) -> None:
        """Replace what was written as it came by all answers, in order."""
        from workbench.models.vlm import processes

        if not self.file:
            return
        processes().wait_for_everyone()
        if processes().is_main_process:
            write_answers(self.file, answers)
            _note(self.file, {"complete": True})
            for part in self._parts():
                if part != self.file:
                    part.unlink()


def _check_row(
    row: Row, file: Path, model: str, examples: Mapping[str, Example], attacks: Mapping[str, Attack]
) -> None:
    """Raises UserError unless a row that an earlier run has left answers a query that is asked now."""
    example = examples.get(row.id)
    expected = attacks[row.attack].of(example, row.shot) if example and row.attack in attacks else None
    same = (
        example and expected and (row.query, row.queries, row.picture) == (expected.query, example.kind, example.digest)
    )
    if row.model != model or not same:
        raise UserError(
            f"{file} has an answer of {row.model!r} to {row.id!r} under {row.attack!r}, which is not asked now; "
            "choose another --out, or remove it."
        )


def write_answers(file: Path, answers: pd.DataFrame) -> None:
    """Write ANSWER_COLUMNS as a CSV file that `whole_answers` reads back unchanged."""
    write_text(file, _csv([ANSWER_COLUMNS, *answers[ANSWER_COLUMNS].itertuples(index=False)]))


def write_judged(file: Path, answers: pd.DataFrame, judge: str) -> None:
    """Write judged answers, and in the .json file of the same name who judged them: they are complete."""
    write_answers(file, answers)
    _note(file, {"complete": True, "judge": judge})


def _note(file: Path, facts: dict[str, object]) -> None:
    """Add facts to the .json file of a file of answers."""
    notes = file.with_suffix(".json")
    write_text(notes, json.dumps(read_settings(notes) | facts, indent=2) + "\n")


def is_complete(file: Path) -> bool:
    """Whether a file of answers holds all of them."""
    notes = read_settings(file.with_suffix(".json"))
    return file.is_file() and (notes.get("complete", False) or "judge" in notes)


def is_judged(file: Path) -> bool:
    """Whether a file of answers is complete and judged."""
    return file.is_file() and "judge" in read_settings(file.with_suffix(".json"))


def whole_answers(file: Path) -> pd.DataFrame:
    """The answers in a file, with texts exactly as they were written."""
    return pd.DataFrame(_whole_rows(file), columns=ANSWER_COLUMNS)


def read_answers(folder: Path) -> tuple[pd.DataFrame, str]:
    """What `evaluate` wrote to a folder: the answers, and who judged them.

    Raises:
        UserError: They are missing or not complete.
    """
    file = folder / "answers.csv"
    if not file.is_file():
        raise UserError(f"{file} not found; give a folder that `workbench evaluate --out` wrote.")
    if not is_judged(file):
        raise UserError(f"The evaluation in {folder} is not finished; run its command again to resume.")
    return whole_answers(file), read_settings(file.with_suffix(".json"))["judge"]


def redacted(answers: pd.DataFrame) -> pd.DataFrame:
    """The same answers to show to others: those to harmful queries are replaced by their number of words."""
    masked = [f"[{len(text.split())} words, masked]" for text in answers.answer]
    return answers.assign(answer=answers.answer.where(answers.queries != "harmful", masked))


def _csv(rows: Iterable[Sequence]) -> str:
    text = io.StringIO()
    safe = [[as_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    # all quoted, because a carriage return without quotes would end a row
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(safe)
    return text.getvalue()


def _whole_rows(file: Path) -> list[Row]:
    """The rows of an answers file; the last one only if it was written to its end."""
    csv.field_size_limit(_LONGEST)
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [list(map(from_text, row)) for row in csv.reader(lines)]
    if rows and rows[0] != ANSWER_COLUMNS:
        raise UserError(f"{file} holds no answers (it has other columns); choose another --out, or remove it.")
    if rows and not file.read_bytes().endswith(b"\n"):
        rows.pop()
    whole = [row for row in rows[1:] if len(row) == len(ANSWER_COLUMNS)]
    return [_row(dict(zip(ANSWER_COLUMNS, row, strict=True))) for row in whole]


def _row(fields: dict[str, Any]) -> Row:
    for name in ("shot", "sample", "cut"):
        fields[name] = int(fields[name])
    return Row(**fields)
