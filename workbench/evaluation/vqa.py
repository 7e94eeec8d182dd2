"""Utility on real pictures: VQA accuracy (VQAv2's), from questions with ten people's answers each.

The rule is that of the VQA evaluation (https://visualqa.org/evaluation.html): an answer is worth min(1, people who gave it / 3), averaged
over all sets of nine of the ten people, after both have been brought to one form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from workbench.data.example import Example
from workbench.data.readers import confined, read_json
from workbench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SHORT = "Answer the question using a single word or phrase."  # as LLaVA-1.5 is asked

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
# punctuation becomes a space, or nothing where a space stands beside it; apostrophes and colons stay ("girl's", "2:50")
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_SHORTENED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll "
    "how's i'd've i'm i've isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't "
    "shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's "
    "something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas "
    "wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll "
    "why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)


def _without_one(word: str) -> set[str]:
    """A word without one of its apostrophes, and without all: "he'd've" → "hed've", "he'dve", "hedve"."""
    places = [i for i, letter in enumerate(word) if letter == "'"]
    return {word[:i] + word[i + 1 :] for i in places} | {word.replace("'", "")}


_WITH_APOSTROPHES = {bare: word for word in _SHORTENED.split() for bare in _without_one(word)}


def normalised(text: str) -> str:
    """An answer in the form in which answers are compared: lower case, no articles, digits for numbers, one way of writing."""
    text = whole = re.sub(r"\s+", " ", text.replace("’", "'")).strip()
    in_number = re.search(r"\d,\d", whole)
    for mark in _MARKS:
        beside_a_space = f"{mark} " in whole or f" {mark}" in whole
        text = text.replace(mark, "" if beside_a_space or in_number else " ")
    text = re.sub(r"\.(?!\d)", "", text)  # but for a decimal point
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_WITH_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(answer: str, people: Sequence[str]) -> float:
    """What an answer is worth, in [0, 1]: the mean, over all ways of leaving one person out, of min(1, others who gave it / 3)."""
    mine = normalised(answer)
    gave = [normalised(person) == mine for person in people]
    return sum(min(1.0, (sum(gave) - one) / 3) for one in gave) / len(gave)


class Questions(NamedTuple):
    """examples: a harmless one each question; people: by its id, what each person answered; its `request` is the kind of answer."""

    examples: list[Example]
    people: dict[str, list[str]]


def read_questions(
    file: str | Path, images: str | Path, annotations: str | Path | None = None, suffix: str = SHORT
) -> Questions:
    """Questions in VQAv2's format, a file of questions and one of annotations, or in one file: a JSON list of {"image" (a file's name),
    "question", "answers" (ten texts), "question_id"?, "answer_type"?}.

    images: their folder; VQAv2's are found by their number. suffix: what is said behind each question.
    Raises UserError that names the file, and the question and field at fault; pictures outside of the folder are refused.
    """
    file, images = Path(file), Path(images)
    if not images.is_dir():
        raise UserError(f"There is no folder of pictures at {images}; give VQAv2's, such as val2014.")
    records = _records(read_json(file), file, read_json(Path(annotations)) if annotations else None)
    numbered = {_number(path): path for path in images.iterdir()} if annotations else {}
    examples, people = [], {}
    for place, record in enumerate(records):
        where = f"Question {record.get('question_id', place)!r} of {file}"
        name = str(record.get("question_id", place))
        question, answers = record.get("question"), record.get("answers")
        answers = (
            [a.get("answer") if isinstance(a, Mapping) else a for a in answers] if isinstance(answers, list) else []
        )
        if not isinstance(question, str) or not question.strip():
            raise UserError(f"{where} has no text in its field 'question'; add it.")
        if not answers or not all(isinstance(answer, str) for answer in answers):
            raise UserError(
                f"{where} has no list of texts in its field 'answers'; add what people answered, or give VQAv2's annotations."
            )
        if name in people:
            raise UserError(f"{where} is there twice; give each question an id of its own.")
        people[name] = answers
        kind = record.get("answer_type")
        query = f"{question.strip()} {suffix}".strip()
        path = _picture(record, images, numbered if annotations else None, where)
        examples.append(Example(name, path, query, False, answers[0], request=kind if isinstance(kind, str) else ""))
    if not examples:
        raise UserError(f"The file {file} holds no question; give one with at least one.")
    return Questions(examples, people)


def vqa_table(answers: pd.DataFrame, questions: Questions) -> pd.DataFrame:
    """VQA accuracy of `evaluate`'s answers: model, answers (all, and each kind of them), accuracy in [0, 1], ci_low, ci_high, n.

    The 95% intervals are bootstrapped over pictures.
    """
    import pandas as pd

    from workbench.intervals import cluster_bootstrap, rate_interval

    kinds = {example.id: example.request for example in questions.examples}
    each = answers.assign(
        kind=answers.id.map(kinds),
        accuracy=[
            accuracy(text, questions.people[name]) for name, text in zip(answers.id, answers.answer, strict=True)
        ],
    )
    rows = []
    for model, mine in each.groupby("model", sort=False):
        apart = [(kind, some) for kind, some in mine.groupby("kind") if kind]
        for kind, some in [("all", mine), *apart]:
            certain = some.accuracy.nunique() == 1 and some.accuracy.iloc[0] in (
                0,
                1,
            )  # of that a bootstrap knows no spread
            interval = (
                rate_interval(some.accuracy == 1, some.picture)
                if certain
                else cluster_bootstrap(some.accuracy, some.picture)
            )
            rows.append((model, kind, some.accuracy.mean(), *interval, len(some)))
    return pd.DataFrame(rows, columns=["model", "answers", "accuracy", "ci_low", "ci_high", "n"])


def _records(questions, file: Path, annotations) -> list[dict]:
    """One record each question, with its answers."""
    records = questions.get("questions") if isinstance(questions, Mapping) else questions
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise UserError(f"The file {file} must hold a list of questions.")
    if annotations is None:
        return records
    known = annotations.get("annotations") if isinstance(annotations, Mapping) else annotations
    known = {str(a.get("question_id")): a for a in known if isinstance(a, Mapping)} if isinstance(known, list) else {}
    return [{**known.get(str(record.get("question_id")), {}), **record} for record in records]


def _number(file: Path) -> str:
    """COCO's, behind a picture's name: "COCO_val2014_000000000042.jpg" → "42"."""
    digits = re.search(r"\d+$", file.stem)
    return str(int(digits[0])) if digits else ""


def _picture(record: Mapping, images: Path, numbered: Mapping[str, Path] | None, where: str) -> Path:
    """Where a question's picture lies: by its number among those that are there, or by its file's name."""
    name, number = record.get("image"), str(record.get("image_id"))
    if numbered is not None and number not in numbered:
        raise UserError(f"{where} is about the picture {number}, which is not in {images}; add it.")
    if numbered is None and not (isinstance(name, str) and name):
        raise UserError(
            f"{where} has no text in its field 'image'; add the picture's file name, or give VQAv2's annotations."
        )
    path = images / name if numbered is None else numbered[number]
    return confined(path, name if numbered is None else path.name, images, where)
