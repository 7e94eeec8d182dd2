"""A judge by its name, and answers with their outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from accelerate.utils import gather_object

from workbench.data.example import Example
from workbench.errors import UserError
from workbench.judges.custom import CUSTOM
from workbench.judges.model import check_model, model_judge
from workbench.judges.outcomes import Judge, Outcome
from workbench.judges.rules import RULES
from workbench.models.vlm import processes


def check_judge(name: str, examples: Iterable[Example] = ()) -> None:
    """Raises UserError for an unknown judge, or one that cannot judge an example; loads no weights."""
    if name in CUSTOM:
        return
    if name in RULES:
        for example in examples:
            RULES[name](example, "")  # raises UserError if the example lacks what the rule needs
        return
    if "/" not in name and not Path(name).is_dir():
        raise UserError(f"There is no judge {name!r}; choose {', '.join(RULES)}, or a model's folder or hub id.")
    check_model(name)


def load_judge(name: str, examples: Iterable[Example] = ()) -> Judge:
    """A judge for these examples.

    Args:
        name: A name in RULES, the folder or hub id of a model, or what `custom_judge` returned.
        examples: What it will judge.

    Raises:
        UserError: As `check_judge`, and if a model cannot be loaded.
    """
    check_judge(name, examples)
    if name in CUSTOM:
        return CUSTOM[name]
    if name not in RULES:
        return model_judge(name)
    rule = RULES[name]

    def judge(queries: Sequence[Example], answers: Sequence[str]) -> list[Outcome]:
        return [rule(example, answer) for example, answer in zip(queries, answers, strict=True)]

    return judge


def judged(answers: pd.DataFrame, examples: Sequence[Example], judge: str) -> pd.DataFrame:
    """The same answers with outcomes. When run on several processes, each judges its share.

    Args:
        answers: answers.ANSWER_COLUMNS; outcomes that are there are replaced.
        examples: What was asked.
        judge: As for `load_judge`.

    Raises:
        UserError: An unknown judge, or an answer to none of these examples.
    """
    asked = set(answers.id)
    known = {e.id: e for e in examples if e.id in asked}
    for name, kind, picture in zip(answers.id, answers.queries, answers.picture, strict=True):
        if name not in known or (known[name].kind, known[name].digest) != (kind, picture):
            raise UserError(
                f"The answer to {name!r} belongs to none of these data; give those that were asked "
                "(--data, --split, --seed)."
            )
    places = list(range(processes().process_index, len(answers), processes().num_processes))
    share = answers.iloc[places]
    outcomes = load_judge(judge, known.values())([known[name] for name in share.id], list(share.answer))
    pairs = gather_object(list(zip(places, outcomes, strict=True)))
    return answers.assign(outcome=[outcome for _, outcome in sorted(pairs)])
