"""Answers on disk: a file that grows as they come, from which an interrupted evaluation goes on."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import UserError
from workbench.files import make_folder, write_text
from workbench.runs import read_settings, same_settings

if TYPE_CHECKING:
    import pandas as pd

    from workbench.attacks.kinds import Attack
    from workbench.data.example import Example
    from workbench.models.vlm import VLM

ANSWER_COLUMNS = [
    "id",
    "model",
    "attack",
    "shot",
    "queries",
    "query",
    "answer",
    "outcome",
    "picture",
]  # picture: its hash


class AnswerLog:
    """Answers in a CSV file that grows as they come; `rows` and `done` (id, attack, shot) are those of an earlier, interrupted run.

    Beside it stands a .json file: whose answers they are, and once all are there, who judged them. A row that was being written when the
    run was killed is dropped. Of several processes each adds to a file of its own.
    Raises UserError where the file does not go with what is asked now.
    """

    def __init__(self, file: Path | None, vlm: VLM, examples: dict[str, Example], tried: dict[str, Attack]):
        from workbench.models.load import fingerprint
        from workbench.models.vlm import processes

        self.file, self.rows, self.done = file, [], set()
        if not file:
            return
        make_folder(file.parent)
        pictures: dict[str, str] = {}
        self.settings = {"model": vlm.name, "weights": fingerprint(vlm)}
        same_settings(file.with_suffix(".json"), self.settings, processes().is_main_process)
        for part in self._parts():
            for row in _whole_rows(part):
                name, model, attack, shot, kind, query, _, _, picture = row
                asked = tried[attack].of(examples[name], shot) if attack in tried and name in examples else None
                if name in examples and name not in pictures:
                    pictures[name] = examples[name].digest
                if (
                    model != vlm.name
                    or asked is None
                    or (query, kind, picture) != (asked.query, examples[name].kind, pictures[name])
                ):
                    what = f"an answer of {model!r} to {name!r} under {attack!r}"
                    raise UserError(f"{part} has {what} that is not asked now; choose another --out, or remove it.")
                if (name, attack, shot) not in self.done:
                    self.rows.append(row)
                    self.done.add((name, attack, shot))
        processes().wait_for_everyone()  # all have read before any writes
        rank = processes().process_index
        self.mine = file.with_stem(f"{file.stem}.{rank}") if rank else file
        if not rank:
            write_text(file, _csv([ANSWER_COLUMNS, *self.rows]))
        processes().wait_for_everyone()  # what the others have kept stands in the first one's file before they begin anew
        if rank:
            write_text(self.mine, _csv([ANSWER_COLUMNS]))

    def _parts(self) -> list[Path]:
        """The files of all processes of the last run."""
        name = re.compile(rf"{re.escape(self.file.stem)}(\.\d+)?{re.escape(self.file.suffix)}")
        return sorted(part for part in self.file.parent.iterdir() if name.fullmatch(part.name))

    def add(self, rows: Iterable[tuple]) -> list[tuple]:
        """Write rows to the end of the file, and return them."""
        rows = list(rows)
        if self.file:
            with self.mine.open("a", encoding="utf-8", newline="") as file:
                file.write(_csv(rows))
        return rows

    def finish(self, table: pd.DataFrame, judge: str) -> None:
        """Put the whole table, in order, in place of what was written as it came."""
        from workbench.models.vlm import processes

        if not self.file:
            return
        processes().wait_for_everyone()
        if processes().is_main_process:
            write_answers(self.file, table)
            write_text(self.file.with_suffix(".json"), json.dumps(self.settings | {"judge": judge}, indent=2) + "\n")
            for part in self._parts():
                if part != self.file:
                    part.unlink()


def write_answers(file: Path, table: pd.DataFrame) -> None:
    """ANSWER_COLUMNS as a CSV file, for `whole_answers`."""
    write_text(file, _csv([ANSWER_COLUMNS, *table.itertuples(index=False)]))


def whole_answers(file: Path) -> pd.DataFrame:
    """The answers in a file, texts as they were written, whatever is in them."""
    import pandas as pd

    return pd.DataFrame(_whole_rows(file), columns=ANSWER_COLUMNS)


def read_answers(folder: Path) -> tuple[pd.DataFrame, str]:
    """The answers that `evaluate` wrote to a folder, and who judged them. Raises UserError where they are missing or not complete."""
    file = folder / "answers.csv"
    if not file.is_file():
        raise UserError(f"There are no answers at {file}; give a folder that `workbench evaluate --out` wrote.")
    judge = read_settings(file.with_suffix(".json")).get("judge")
    if not judge:
        raise UserError(f"The evaluation in {folder} is not finished; give its command again, it goes on.")
    return whole_answers(file), judge


def redacted(answers: pd.DataFrame) -> pd.DataFrame:
    """The same answers, but to harmful queries only how many words they have: to be shown to others."""
    masked = [f"[{len(text.split())} words, masked]" for text in answers.answer]
    return answers.assign(answer=answers.answer.where(answers.queries != "harmful", masked))


def _csv(rows: Iterable[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        rows
    )  # else a lone carriage return ends a row
    return text.getvalue()


def _whole_rows(file: Path) -> list[tuple]:
    """The rows of an answers file; the last one only if it was written to its end."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    if rows and rows[0] != ANSWER_COLUMNS:
        raise UserError(f"{file} holds no answers (its columns are others); choose another --out, or remove it.")
    if rows and not file.read_bytes().endswith(b"\n"):
        rows.pop()
    return [(*row[:3], int(row[3]), *row[4:]) for row in rows[1:] if len(row) == len(ANSWER_COLUMNS)]
