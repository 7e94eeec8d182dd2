"""Ask a model, judge what it answers, count: answers and rates with intervals, as DataFrames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.attacks.kinds import prepare_attack
from workbench.data.example import Example, digest
from workbench.errors import UserError
from workbench.evaluation.answers import ANSWER_COLUMNS, AnswerLog
from workbench.judges.judge import load_judge

if TYPE_CHECKING:
    import pandas as pd

    from workbench.models.vlm import VLM


def ask(
    vlm: VLM,
    examples: Sequence[Example],
    names: Sequence[str],
    judge: str,
    batch_size: int = 100,
    progress: bool = True,
    file: Path | None = None,
) -> pd.DataFrame:
    """Every answer with its outcome under each of the attacks, one row a shot: ANSWER_COLUMNS.

    Of several processes every one asks its share, and each returns the whole. file: what it holds already is not asked again, only judged;
    each batch is added to it as it comes. Raises UserError where two examples have one id, or the file holds answers to other queries.
    """
    import pandas as pd
    from accelerate.utils import gather_object

    from workbench.models.vlm import processes
    from workbench.runs import bar

    if not names:
        raise UserError("There is no attack to ask under; give none, or one such as what:3.")
    verdict = load_judge(judge, examples)  # before anything is asked
    known = _by_id(examples)
    tried = {name: prepare_attack(name, examples) for name in names}
    kept = AnswerLog(file, vlm, known, tried)
    rows = []
    if kept.rows and processes().is_main_process:  # another judge may have been asked then
        outcomes = verdict([known[row[0]] for row in kept.rows], [row[6] for row in kept.rows])
        rows = [(*row[:7], outcome, row[8]) for row, outcome in zip(kept.rows, outcomes, strict=True)]
    with processes().split_between_processes(list(examples)) as mine:
        # the same pictures come for every shot of every attack, one after the other: the model then knows them already
        chunks = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
        work = [(name, shot, chunk) for chunk in chunks for name in tried for shot in range(1, tried[name].shots + 1)]
        for name, shot, chunk in bar(work, f"asking {vlm.name}", progress):
            asked = [(e, tried[name].of(e, shot)) for e in chunk if (e.id, name, shot) not in kept.done]
            asked = [(e, s) for e, s in asked if s]  # a prepared file may have fewer for one
            if not asked:
                continue
            pictures = [e.picture() for e, _ in asked]
            shown = [
                s.picture(picture) if s.picture else picture for (_, s), picture in zip(asked, pictures, strict=True)
            ]
            texts = vlm.answers(shown, [s.query for _, s in asked], batch_size=batch_size, opening=asked[0][1].opening)
            outcomes = verdict([e for e, _ in asked], texts)
            rows += kept.add(
                (e.id, vlm.name, name, shot, e.kind, s.query, text, outcome, digest(picture))
                for (e, s), picture, text, outcome in zip(asked, pictures, texts, outcomes, strict=True)
            )
    rows = gather_object(rows)
    order = {
        key: place
        for place, key in enumerate((n, s, e.id) for n in tried for s in range(1, tried[n].shots + 1) for e in examples)
    }
    table = pd.DataFrame(sorted(rows, key=lambda row: order[row[2], row[3], row[0]]), columns=ANSWER_COLUMNS)
    kept.finish(table, judge)
    return table


def _by_id(examples: Sequence[Example]) -> dict[str, Example]:
    """Raises UserError where two have one id."""
    known: dict[str, Example] = {}
    for example in examples:
        other = known.setdefault(example.id, example)
        if other is not example:
            twice = "the same query twice" if other.query == example.query else "different queries"
            raise UserError(f"The data have {twice} under the id {example.id!r}; give each query an id of its own.")
    return known
