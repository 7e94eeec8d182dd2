"""A judge by its name, and answers with their outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.example import Example
from workbench.errors import UserError
from workbench.judges.outcomes import Judge
from workbench.judges.rules import RULES

if TYPE_CHECKING:
    import pandas as pd

JUDGES = tuple(RULES)


def check_judge(name: str, examples: Iterable[Example] = ()) -> None:
    """Raises UserError for an unknown judge, or where it cannot judge one of the examples; loads nothing."""
    if name not in RULES and "/" not in name and not Path(name).is_dir():
        raise UserError(f"There is no judge {name!r}; choose {', '.join(JUDGES)}, or a model's folder or hub id.")
    if name in RULES:
        for example in examples:
            RULES[name](example, "")  # raises UserError if the example lacks what the rule needs


def load_judge(name: str, examples: Iterable[Example] = ()) -> Judge:
    """A judge for these examples: one of JUDGES, or a model by folder or hub id (model.py).

    Raises UserError as `check_judge` does, and where a model cannot be loaded.
    """
    check_judge(name, examples)
    if name not in RULES:
        from workbench.judges.model import model_judge

        return model_judge(name)
    verdict = RULES[name]
    return lambda asked, answers: [verdict(example, answer) for example, answer in zip(asked, answers, strict=True)]


def judged(answers: pd.DataFrame, examples: Sequence[Example], judge: str) -> pd.DataFrame:
    """The same answers with outcomes. When run on several processes, each judges its share.

    Args:
        answers: answers.ANSWER_COLUMNS; outcomes that are there are replaced.
        examples: What was asked.
        judge: As for `load_judge`.

    Raises:
        UserError: An unknown judge, or an answer to none of these examples.
    """
    from accelerate.utils import gather_object

    from workbench.models.vlm import processes

    known = {e.id: e for e in examples if e.id in set(answers.id)}
    facts = {name: (e.kind, e.digest) for name, e in known.items()}
    for row in answers.itertuples():
        if facts.get(row.id) != (row.queries, row.picture):
            raise UserError(
                f"The answer to {row.id!r} belongs to none of these data; give those that were asked "
                "(--data, --split, --seed)."
            )
    numbered = list(enumerate(zip(answers.id, answers.answer, strict=True)))
    share = numbered[processes().process_index :: processes().num_processes]
    asked = [known[name] for _, (name, _) in share]
    outcomes = load_judge(judge, known.values())(asked, [text for _, (_, text) in share])
    pairs = gather_object([(place, outcome) for (place, _), outcome in zip(share, outcomes, strict=True)])
    return answers.assign(outcome=[outcome for _, outcome in sorted(pairs)])
