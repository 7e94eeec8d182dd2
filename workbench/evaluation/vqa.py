"""Utility on real pictures: VQA accuracy, from questions that ten people each have answered.

The rule is that of the VQA evaluation (https://visualqa.org/evaluation.html): an answer is worth
min(1, people who gave it / 3), averaged over all sets of nine of the ten people, after both have been brought
to one form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from workbench.data.example import Example
from workbench.data.records import confined, read_json, text_field
from workbench.data.usable import Invalid, attempt, valid
from workbench.errors import UserError
from workbench.intervals import cluster_bootstrap, rate_interval

SHORT = "Answer the question using a single word or phrase."  # as LLaVA-1.5 is asked

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
# Each becomes a space, or nothing if there is a space next to it. Apostrophes and colons are not among them
# ("girl's", "2:50").
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
    they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've
    who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll
    y'all'd've you'd you'd've you'll you're you've
"""


def _misspelt(word: str) -> set[str]:
    """A word without one of its apostrophes, and without all: "he'd've" → "hed've", "he'dve", "hedve"."""
    places = [i for i, letter in enumerate(word) if letter == "'"]
    return {word[:i] + word[i + 1 :] for i in places} | {word.replace("'", "")}


_WITH_APOSTROPHES = {bare: word for word in _CONTRACTIONS.split() for bare in _misspelt(word)}


def normalised(text: str) -> str:
    """The form in which answers are compared: lower case, digits for numbers, no articles or punctuation."""
    original = re.sub(r"\s+", " ", text.replace("’", "'")).strip()
    has_long_number = re.search(r"\d,\d", original)
    text = original
    for mark in _MARKS:
        next_to_space = f"{mark} " in original or f" {mark}" in original
        text = text.replace(mark, "" if next_to_space or has_long_number else " ")
    text = re.sub(r"\.(?!\d)", "", text)  # full stops, not decimal points
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_WITH_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(answer: str, people: Sequence[str]) -> float:
    """What an answer is worth.

    Args:
        answer: The model's answer.
        people: The answer of each person.

    Returns:
        The mean, over all ways to leave out one person, of min(1, others who gave the answer / 3).
    """
    agreeing = [normalised(person) == normalised(answer) for person in people]
    others = [sum(agreeing) - left_out for left_out in agreeing]
    return sum(min(1.0, count / 3) for count in others) / len(people)


class Questions(NamedTuple):
    """Questions with what people answered.

    Attributes:
        examples: A harmless example per question; its `request` is the kind of answer, such as "yes/no".
        people: {id: what each person answered}.
    """

    examples: list[Example]
    people: dict[str, list[str]]


def read_questions(
    file: str | Path, images: str | Path, annotations: str | Path | None = None, suffix: str = SHORT
) -> Questions:
    """Read questions in VQAv2's format, or from a single file.

    VQAv2 has one file of questions and one of annotations. A single file is a JSON list of {"image" (a file
    name), "question", "answers" (ten texts), "question_id"?, "answer_type"?}.

    Args:
        file: The questions.
        images: The folder of pictures. VQAv2's are found by the number in their names.
        annotations: VQAv2's annotations, which hold the answers.
        suffix: What is added after each question.

    Raises:
        UserError: More questions are invalid than `usable.valid` admits in general data; names the first and
            what is wrong. Pictures outside of the folder are refused.
    """
    file, images = Path(file), Path(images)
    if not images.is_dir():
        raise UserError(f"There is no folder of pictures at {images}; give VQAv2's, e.g. val2014.")
    records = _records(read_json(file), file, read_json(Path(annotations)) if annotations else None)
    numbered = {_number(path): path for path in images.iterdir()} if annotations else None
    people: dict[str, list[str]] = {}

    def question(name: str, record: Mapping[str, object]) -> list[Example]:
        where = f"Question {name!r} of {file}"
        query = f"{text_field(record, 'question', where).strip()} {suffix}".strip()
        answers, image = _answers(record, where), _picture(record, images, numbered, where)
        if name in people:
            raise UserError(f"Question id {name} appears twice in {file}; ids must be unique.")
        people[name] = answers
        kind = record.get("answer_type")
        request = kind if isinstance(kind, str) else ""
        return [Example(name, image, query, harmful=False, response=answers[0], request=request)]

    read: list[Example | Invalid] = []
    for place, record in enumerate(records):
        name = str(record.get("question_id", place))
        read += attempt(name, partial(question, name, record))
    if not read:
        raise UserError(f"File {file} holds no question; give one with at least one.")
    return Questions(valid(read, str(file), "few"), people)


def vqa_table(answers: pd.DataFrame, questions: Questions) -> pd.DataFrame:
    """VQA accuracy of answers that `ask` or `evaluate` returned.

    Args:
        answers: answers.ANSWER_COLUMNS; outcomes do not matter.
        questions: What was asked.

    Returns:
        model, answers ("all", and each kind of answer), accuracy (in [0, 1]), ci_low, ci_high (95%,
        bootstrapped over pictures), n.
    """
    kinds = {example.id: example.request for example in questions.examples}
    pairs = zip(answers["id"], answers["answer"], strict=True)
    each = answers.assign(
        kind=answers["id"].map(kinds), accuracy=[accuracy(text, questions.people[name]) for name, text in pairs]
    )
    rows = []
    for model, of_model in each.groupby("model", sort=False):
        by_kind = [(kind, group) for kind, group in of_model.groupby("kind") if kind]
        for kind, group in [("all", of_model), *by_kind]:
            interval = _interval(group["accuracy"], group["picture"])
            rows.append((model, kind, group["accuracy"].mean(), *interval, len(group)))
    return pd.DataFrame(rows, columns=["model", "answers", "accuracy", "ci_low", "ci_high", "n"])


def _interval(accuracies: pd.Series, pictures: pd.Series) -> tuple[float, float]:
    """95% interval of a mean accuracy. If all are 0 or all are 1, a bootstrap would see no spread."""
    if set(accuracies) in ({0.0}, {1.0}):
        return rate_interval(accuracies == 1, pictures)
    return cluster_bootstrap(accuracies, pictures)


def _records(questions: object, file: Path, annotations: object) -> list[Mapping[str, object]]:
    """One record per question, with its answers.

    Args:
        questions: What the file of questions holds.
        file: That file, for messages.
        annotations: What the file of annotations holds, or None if there is none.
    """
    records = questions.get("questions") if isinstance(questions, Mapping) else questions
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise UserError(f"File {file} must hold a list of questions; give VQAv2's or one like it.")
    listed = annotations.get("annotations") if isinstance(annotations, Mapping) else annotations
    if not isinstance(listed, list):
        return records
    by_id = {str(each.get("question_id")): each for each in listed if isinstance(each, Mapping)}
    return [{**by_id.get(str(record.get("question_id")), {}), **record} for record in records]


def _answers(record: Mapping[str, object], where: str) -> list[str]:
    """What people answered to a record's question: texts, or VQAv2's objects with a text each."""
    listed = record.get("answers")
    answers = []
    for each in listed if isinstance(listed, list) else []:
        answers.append(each.get("answer") if isinstance(each, Mapping) else each)
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(
            f"{where} has no list of texts in its field 'answers'; add what people answered, or give VQAv2's "
            "annotations."
        )
    return answers


def _number(file: Path) -> str:
    """COCO's number at the end of a picture's name: "COCO_val2014_000000000042.jpg" → "42"; "" if none."""
    digits = re.search(r"\d+$", file.stem)
    return str(int(digits[0])) if digits else ""


def _picture(record: Mapping[str, object], images: Path, numbered: Mapping[str, Path] | None, where: str) -> Path:
    """The path of a record's picture.

    Args:
        record: The question.
        images: The folder of pictures.
        numbered: {number: picture}, to find it by its number; None to find it by its file name.
        where: What messages call the record.
    """
    if numbered is not None:
        number = str(record.get("image_id"))
        if number not in numbered:
            raise UserError(f"{where} is about the picture {number}, which is not in {images}; add it.")
        return confined(numbered[number], numbered[number].name, images, where)
    remedy = "add the picture's file name, or give VQAv2's annotations"
    name = text_field(record, "image", where, remedy=remedy)
    return confined(images / name, name, images, where)
