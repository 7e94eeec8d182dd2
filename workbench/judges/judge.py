"""A judge by its name, and answers with their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.example import Example
from workbench.errors import UserError
from workbench.judges.outcomes import Judge, Outcome
from workbench.judges.rules import _truth, exact, keyword

if TYPE_CHECKING:
    import pandas as pd


_BY_NAME: dict[str, Callable[[Example, str], Outcome]] = {"exact": exact, "keyword": keyword}
JUDGES = tuple(_BY_NAME)


def check_judge(name: str, examples: Iterable[Example] = ()) -> None:
    """Raises UserError for an unknown judge, or where it cannot judge one of the examples; loads nothing."""
    if name not in _BY_NAME and "/" not in name and not Path(name).is_dir():
        raise UserError(f"There is no judge {name!r}; choose {', '.join(JUDGES)}, or a model's folder or hub id.")
    if name == "exact":
        for example in examples:
            _truth(example)


def load_judge(name: str, examples: Iterable[Example] = ()) -> Judge:
    """A judge for these examples: one of JUDGES, or a model by folder or hub id (model.py).

    Raises UserError as `check_judge` does, and where a model cannot be loaded.
    """
    check_judge(name, examples)
    if name not in _BY_NAME:
        from workbench.judges.model import model_judge

        return model_judge(name)
    verdict = _BY_NAME[name]
    return lambda asked, answers: [verdict(example, answer) for example, answer in zip(asked, answers, strict=True)]


def judged(answers: pd.DataFrame, examples: Sequence[Example], judge: str) -> pd.DataFrame:
    """The same answers with the outcomes of another judge (of judges.py).

    Raises UserError for an unknown judge, or where an answer is to none of these examples.
    """
    known = {e.id: e for e in examples if e.id in set(answers.id)}
    about = {name: (e.kind, e.digest) for name, e in known.items()}
    for row in answers.itertuples():
        if about.get(row.id) != (row.queries, row.picture):
            raise UserError(
                f"The answer to {row.id!r} is about none of these data; give those that were asked (--data, --split, --seed)."
            )
    asked = [known[name] for name in answers.id]
    return answers.assign(outcome=load_judge(judge, asked)(asked, list(answers.answer)))
